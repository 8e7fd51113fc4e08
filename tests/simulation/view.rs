//! What suture sees of a machine.

use std::collections::BTreeSet;

use suture::model::{
    Bytes, ContainerdState, DeviceMark, DeviceNumber, Diagnoses, Incarnation, Knowledge, Node, OperationId,
    Pool, PoolActivation, PoolName, PoolUsage, Survey, ThinDetails, ThinId, Timestamp, Untrusted,
    survey::{Claim, Mount, Mounts},
};

use crate::{
    kernel::{DmNode, Table, Thin},
    machine::{Machine, POOL, State},
};

/// dm devices have this major number.
const MAJOR: u32 = 253;

pub(crate) fn time(milliseconds: u64) -> Timestamp {
    Timestamp::from_nanoseconds(milliseconds * 1_000_000)
}

impl State {
    pub(crate) fn now(&self) -> Timestamp {
        time(self.clock)
    }

    pub(crate) fn who(&self) -> Option<Incarnation> {
        self.containerd.map(|number| Incarnation {
            pid: 500 + number,
            start_ticks: u64::from(number),
            boot: self.boot(),
        })
    }

    /// Which life of the kernel it is.
    pub(crate) fn boot(&self) -> String {
        format!("boot {}", self.kernel.boot)
    }

    fn activation(&self) -> PoolActivation {
        PoolActivation {
            boot: self.boot(),
            disk_sequence: Some(3),
            metadata_device: DeviceNumber { major: 7, minor: 0 },
        }
    }

    pub(crate) fn survey(&self, roots: &BTreeSet<ThinId>) -> Survey {
        let device = |minor| DeviceNumber { major: MAJOR, minor };
        let node = |(name, node): (&String, &DmNode)| Node {
            name: Untrusted::from_bytes(name.as_bytes()),
            device: device(node.minor),
            thin_ids: thin_ids(node),
            suspended: node.suspended,
            open_count: u32::try_from(node.open.len()).unwrap(),
            unreadable: false,
            live: node.live.is_some(),
            deferred_remove: node.deferred,
            error_table: node.live == Some(Table::Error),
        };
        let mounts = self.kernel.nodes.values().filter_map(|node| {
            let paths = node.open.iter().filter(|path| path.starts_with('/'));
            let mounts: Vec<_> = paths.map(|path| mount(path)).collect();
            (!mounts.is_empty()).then_some((device(node.minor), mounts))
        });
        let at_work = self.children.iter().map(|child| child.what.clone()).collect();
        Survey {
            begun: self.now(),
            pool_name: PoolName::new(POOL),
            pool: Some(Pool {
                name: PoolName::new(POOL),
                device: device(0),
                metadata_device: DeviceNumber { major: 7, minor: 0 },
                activation: self.activation(),
                table: "7:0 7:1 128 0".to_owned(),
                mode: self.kernel.mode,
                needs_check: false,
            }),
            usage: Some(PoolUsage {
                metadata_used: 100,
                metadata_total: 10_000,
                data_used: 100,
                data_total: 100_000,
                block_size: Bytes(64 << 10),
                held_root: None,
            }),
            pool_db: self.pool.clone().into(),
            snapshots: self.rows.clone().into(),
            thin: Some(
                self.kernel
                    .thin
                    .iter()
                    .map(|(id, thin)| (ThinId(*id), details(thin)))
                    .collect(),
            ),
            mapping_roots: roots
                .iter()
                .filter_map(|id| Some((*id, self.kernel.thin.get(&id.0)?.root)))
                .collect(),
            nodes: self.kernel.nodes.iter().map(node).collect(),
            core: Some(self.core.clone().into()),
            mounts: Mounts {
                by_device: mounts.collect(),
                incomplete: None,
            },
            containerd: match self.who() {
                Some(who) => ContainerdState::Running { who, at_work },
                None => ContainerdState::Stopped { at_work },
            },
            async_remove: Some(self.async_remove),
            unread: Vec::new(),
        }
    }

    /// What a sidecar knows beside: which thin devices a containerd that is gone has left unfinished, and which one that
    /// lives is at work on.
    pub(crate) fn knowledge(&self) -> Knowledge {
        let mut knowledge = Knowledge::default();
        if !self.watched {
            return knowledge;
        }
        for (id, seen) in &self.seen {
            let Some(thin) = self.kernel.thin.get(id).filter(|thin| thin.root == seen.root) else {
                continue;
            };
            let operation = OperationId::new(time(1), ThinId(*id));
            if self.containerd == Some(seen.by) {
                knowledge.at_work.insert(ThinId(*id), operation);
            } else if !seen.asleep {
                let mark = DeviceMark {
                    activation: self.activation(),
                    mapping_root: thin.root,
                    details: details(thin),
                };
                knowledge.claims.insert(ThinId(*id), Claim { operation, mark });
            }
        }
        knowledge
    }

    /// A sidecar that starts after a reboot goes on with what it saw before, where containerd's own record names it still.
    pub(crate) fn sidecar_starts(&mut self) {
        let named: Vec<u32> = self.pool.devices.values().map(|one| one.device_id.0).collect();
        self.seen.retain(|id, seen| !seen.asleep || named.contains(id));
        for seen in self.seen.values_mut() {
            seen.asleep = false;
        }
    }

    pub(crate) fn diagnoses(&self) -> Diagnoses {
        let knowledge = self.knowledge();
        let roots = knowledge.claims.keys().copied().collect();
        suture::diagnose::survey(&self.survey(&roots), &knowledge)
    }
}

fn thin_ids(node: &DmNode) -> Vec<ThinId> {
    let tables = [node.live, node.loaded].into_iter().flatten();
    let mut ids: Vec<_> = tables
        .filter_map(|table| match table {
            Table::Thin(id) => Some(ThinId(id)),
            Table::Error => None,
        })
        .collect();
    ids.dedup();
    ids
}

fn mount(path: &str) -> Mount {
    Mount {
        namespace: 1,
        pid: 9,
        process: "somebody".to_owned(),
        path: path.to_owned(),
    }
}

fn details(thin: &Thin) -> ThinDetails {
    ThinDetails {
        mapped_blocks: thin.blocks,
        transaction_id: 0,
        creation_time: 0,
        snapshotted_time: 0,
    }
}

impl Machine {
    pub(crate) fn diagnoses(&self) -> Diagnoses {
        self.get(State::diagnoses)
    }
}
