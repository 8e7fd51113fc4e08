//! The snapshotter, each operation inside one transaction of metadata.db that commits last (snapshotter.go), and core around
//! it: clients' keys, the garbage collection, and who waits for whom.

use suture::model::{
    DeviceState, SnapshotDb, SnapshotId,
    databases::{SnapshotKind, SnapshotRow},
    survey::CoreSnapshot,
};

use super::Failure;
use crate::{
    kernel::Call,
    machine::{Lock, Machine, device_name, moment},
};

/// The namespace of everything here.
const NAMESPACE: &str = "default";

fn backend_key(number: u64, key: &str) -> String {
    format!("{NAMESPACE}/{number}/{key}")
}

impl Machine {
    fn ensure_loaded(&self) -> Result<(), Failure> {
        if self.memory().loaded.get() {
            Ok(())
        } else {
            Err(Failure::NotLoaded)
        }
    }

    /// The commit of metadata.db.
    async fn rows_commit(&self, mut rows: SnapshotDb, what: &str) {
        moment().await;
        rows.txid = rows.txid.map(|txid| suture::model::TxId(txid.0 + 1));
        self.set(|state| {
            state.rows = rows;
            // Who was removed need not be kept any more, and what was made is known to be complete.
            let left = state.snapshots();
            state.handed_out.retain(|id, _| left.contains(id));
            let used: Vec<u32> = left
                .iter()
                .filter_map(|id| state.pool.devices.get(&device_name(*id)))
                .map(|record| record.device_id.0)
                .collect();
            state.seen.retain(|id, _| !used.contains(id));
            for id in left {
                if let Some(content) = state.content_of(id) {
                    state.handed_out.entry(id).or_insert(content);
                }
            }
        });
        self.did(format!("metadata.db {what}"));
    }

    async fn core_commit(&self, what: &str, change: impl FnOnce(&mut crate::machine::State)) {
        moment().await;
        self.set(|state| {
            change(state);
            state.core.txid.0 += 1;
        });
        self.did(format!("meta.db {what}"));
    }

    /// A client's Prepare, or View.
    pub(crate) async fn prepare(
        &self,
        key: String,
        parent: Option<String>,
        kind: SnapshotKind,
    ) -> Result<(), Failure> {
        self.ensure_loaded()?;
        let _share = self.lock(Lock::Share).await;
        let backend = self.set(|state| {
            state.keys += 1;
            backend_key(state.keys, &key)
        });
        let above = match &parent {
            None => None,
            Some(parent) => Some(
                self.get(|state| state.backend_key(parent))
                    .ok_or(Failure::NotFound)?,
            ),
        };
        self.backend_prepare(&backend, above, kind).await?;
        self.core_commit("the client's row", |state| {
            let snapshot = CoreSnapshot {
                namespace: NAMESPACE.to_owned(),
                key,
                parent,
                leases: Vec::new(),
            };
            state.core.snapshots.insert(backend, snapshot);
        })
        .await;
        Ok(())
    }

    /// `createSnapshot`.
    async fn backend_prepare(
        &self,
        backend: &str,
        parent: Option<String>,
        kind: SnapshotKind,
    ) -> Result<(), Failure> {
        let _write = self.lock(Lock::Write).await;
        let mut rows = self.get(|state| state.rows.clone());
        let above = match &parent {
            None => None,
            Some(key) => Some(rows.snapshots.get(key).ok_or(Failure::NotFound)?.id),
        };
        rows.sequence += 1;
        let id = rows.sequence;
        let row = SnapshotRow {
            id: SnapshotId(id),
            kind,
            parent,
        };
        rows.snapshots.insert(backend.to_owned(), row);
        let name = device_name(id);
        let parent_name = above.map(|above| device_name(above.0));
        self.create_device(&name, parent_name.as_deref()).await?;
        if above.is_none() {
            let make = vec![Call::MakeFileSystem(name.clone())];
            let what = format!("mkfs.ext4 /dev/mapper/{name}");
            if let Err(errno) = self.child(what, make).await {
                self.remove_device(&name).await?;
                return Err(errno.into());
            }
        }
        // What comes of emptying it is not looked at.
        for call in [Call::Mount(name.clone()), Call::Unmount(name.clone())] {
            moment().await;
            if self.set(|state| state.kernel.call(&call)).is_ok() {
                self.did(format!("{call:?}"));
            }
        }
        self.rows_commit(rows, "the snapshot's row").await;
        Ok(())
    }

    /// A client's Commit of an active snapshot.
    pub(crate) async fn commit(&self, key: String, name: String) -> Result<(), Failure> {
        self.ensure_loaded()?;
        let _share = self.lock(Lock::Share).await;
        let (before, number) = self.set(|state| {
            state.keys += 1;
            (state.backend_key(&key), state.keys)
        });
        let before = before.ok_or(Failure::NotFound)?;
        let after = backend_key(number, &name);
        self.backend_commit(&before, &after).await?;
        self.core_commit("the client's row", |state| {
            if let Some(row) = state.core.snapshots.remove(&before) {
                state
                    .core
                    .snapshots
                    .insert(after, CoreSnapshot { key: name, ..row });
            }
        })
        .await;
        Ok(())
    }

    async fn backend_commit(&self, before: &str, after: &str) -> Result<(), Failure> {
        let _write = self.lock(Lock::Write).await;
        let mut rows = self.get(|state| state.rows.clone());
        let row = rows.snapshots.remove(before).ok_or(Failure::NotFound)?;
        let name = device_name(row.id.0);
        // `dmsetup status`, for the usage.
        if !self.get(|state| state.kernel.nodes.contains_key(&name)) {
            return Err(Failure::Kernel(crate::kernel::Errno::NoDevice));
        }
        let kind = SnapshotKind::Committed;
        rows.snapshots
            .insert(after.to_owned(), SnapshotRow { kind, ..row });
        self.suspend(&name).await?;
        self.resume(&name).await?;
        self.deactivate(&name, true).await?;
        self.rows_commit(rows, "the snapshot's new key").await;
        Ok(())
    }

    /// A client's Remove: only core's row goes.
    pub(crate) async fn remove(&self, key: String) -> Result<(), Failure> {
        self.ensure_loaded()?;
        let backend = self
            .get(|state| state.backend_key(&key))
            .ok_or(Failure::NotFound)?;
        self.core_commit("the client's row goes", |state| {
            state.core.snapshots.remove(&backend);
        })
        .await;
        Ok(())
    }

    /// The garbage collection: what core does not know any more, the children first; then the clean-up.
    pub(crate) async fn collect(&self) -> Result<(), Failure> {
        self.ensure_loaded()?;
        let collect = self.lock(Lock::Collect).await;
        let mut passed = Vec::new();
        loop {
            let next = self.get(|state| {
                let rows = &state.rows.snapshots;
                let mut keys = rows.keys().filter(|key| {
                    !state.core.snapshots.contains_key(*key)
                        && !passed.contains(*key)
                        && !rows.values().any(|row| row.parent.as_ref() == Some(*key))
                });
                keys.next().cloned()
            });
            let Some(key) = next else { break };
            match self.backend_remove(&key).await {
                Ok(()) | Err(Failure::Precondition | Failure::HasChild) => passed.push(key),
                Err(failure) => return Err(failure),
            }
        }
        drop(collect);
        self.clean_up().await
    }

    async fn backend_remove(&self, key: &str) -> Result<(), Failure> {
        let _write = self.lock(Lock::Write).await;
        let mut rows = self.get(|state| state.rows.clone());
        let row = rows.snapshots.remove(key).ok_or(Failure::NotFound)?;
        if rows
            .snapshots
            .values()
            .any(|one| one.parent.as_deref() == Some(key))
        {
            return Err(Failure::HasChild);
        }
        let name = device_name(row.id.0);
        if self.get(|state| state.async_remove) {
            self.set_state(&name, DeviceState::Removed, String::new()).await?;
        } else if self.remove_device(&name).await.is_err() {
            return Err(Failure::Precondition);
        }
        self.rows_commit(rows, "the snapshot's row goes").await;
        Ok(())
    }

    /// `Cleanup`: with `async_remove` the removed devices go.
    async fn clean_up(&self) -> Result<(), Failure> {
        if !self.get(|state| state.async_remove) {
            return Ok(());
        }
        let removed: Vec<String> = self.get(|state| {
            let records = state.pool.devices.values();
            let removed = records.filter(|record| record.state == DeviceState::Removed);
            removed.map(|record| record.name.clone()).collect()
        });
        let mut went = Ok(());
        for name in removed {
            went = went.and(self.remove_device(&name).await);
        }
        went
    }
}
