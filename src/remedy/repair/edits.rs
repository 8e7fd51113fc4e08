//! Editing the pool database: one transaction under a lock that is never waited for, after a backup.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    Item, Repairer,
    backup::{self, Backup, Manifest},
    book::Book,
};
use crate::{
    model::{Act, Condition, Survey, TxId},
    remedy::bbolt_editor::{EditError, Editor},
    words::explain,
};

/// Why nothing was committed.
#[derive(Debug)]
pub(super) struct NotCommitted {
    pub(super) why: String,
    /// Set where something that was seen speaks against it.
    pub(super) refused: bool,
}

/// What the edits of one repair share.
pub(super) struct Edits {
    /// Where the backup goes.
    pub(super) folder: PathBuf,
    /// Made with the first transaction.
    pub(super) backup: Option<Backup>,
    /// How long the lock was held, once for each transaction.
    pub(super) lock_held: Vec<Duration>,
}

impl Edits {
    pub(super) fn new(backups: &Path, at: crate::model::Timestamp, txid: TxId) -> Self {
        Self {
            folder: backups.join(backup::folder_name(at, txid)),
            backup: None,
            lock_held: Vec::new(),
        }
    }
}

impl Repairer<'_> {
    /// Makes one transaction of the edits that `part` takes from each of the items that `which` names. An item whose edits
    /// do not fit what is there ends; the others go on. Gives the transaction that the database is at afterwards.
    pub(super) fn edit(
        &mut self,
        items: &mut [Item],
        which: &[usize],
        part: for<'p> fn(&'p Item) -> &'p [Act],
        survey: &Survey,
        edits: &mut Edits,
    ) -> Result<TxId, NotCommitted> {
        let refused = |condition: Condition, why: String| NotCommitted {
            why: format!("{condition}: {why}"),
            refused: true,
        };
        (self.tell)("reading the pool database's records");
        let mut book = Book::read(&self.places.pool_db()).map_err(|error| NotCommitted {
            why: explain(&error),
            refused: false,
        })?;
        if book.txid() != survey.pool_db.txid {
            return Err(refused(
                Condition::SameTransaction,
                "somebody wrote to the pool database since".to_owned(),
            ));
        }
        let mut taken = Vec::new();
        for at in which {
            let Some(item) = items.get_mut(*at) else { continue };
            match book.apply(part(item)) {
                Ok(()) => taken.push(*at),
                Err(why) => item.end(format!("{}: {why}", Condition::StillFound), true),
            }
        }
        let changes = book.edits();
        let mut written = survey.pool_db.txid;
        if !changes.is_empty() {
            self.begin_backup(items, survey, edits)
                .map_err(|why| refused(Condition::BackedUp, why))?;
            written = self.commit(&changes, survey, edits)?;
        }
        for at in taken {
            if let Some(item) = items.get_mut(at) {
                item.done += part(item).len();
            }
        }
        Ok(written)
    }

    /// Makes the backup's folder and all of it that needs no lock.
    fn begin_backup(&self, items: &[Item], survey: &Survey, edits: &mut Edits) -> Result<(), String> {
        let before = survey.pool_db.txid;
        let edit = TxId(before.0.saturating_add(1));
        if let Some(backup) = &mut edits.backup {
            backup.manifest.edits.push(edit);
            return backup.store().map_err(|error| explain(&error));
        }
        (self.tell)("making a backup");
        let begun = items.iter().filter(|item| item.outcome.is_none());
        let manifest = Manifest {
            version: 1,
            pool: self.places.pool.clone(),
            pool_db: self.places.pool_db(),
            made: self.sight.now(),
            txid_before: before,
            edits: vec![edit],
            snapshot_txid: survey.snapshots.txid,
            crc32c: None,
            deletes: items
                .iter()
                .flat_map(|item| item.plan.deletes().collect::<Vec<_>>())
                .collect(),
            acts: begun
                .flat_map(|item| item.plan.acts.iter().map(ToString::to_string))
                .collect(),
        };
        let backup = Backup::begin(&edits.folder, manifest, self.places);
        edits.backup = Some(backup.map_err(|error| explain(&error))?);
        Ok(())
    }

    /// Takes the lock, looks at the transactions once more, completes the backup, commits, and lets the lock go. Only files
    /// are touched meanwhile: a process in an ioctl could not be killed.
    fn commit(
        &self,
        changes: &[crate::remedy::bbolt_editor::Edit],
        survey: &Survey,
        edits: &mut Edits,
    ) -> Result<TxId, NotCommitted> {
        let failed = |error: EditError| NotCommitted {
            refused: matches!(error, EditError::Locked { .. } | EditError::Moved { .. }),
            why: match &error {
                EditError::Locked { .. } => format!("{}: {}", Condition::ContainerdStopped, explain(&error)),
                error => explain(error),
            },
        };
        let moved = |what: &str| NotCommitted {
            why: format!("{}: somebody wrote to {what} since", Condition::SameTransaction),
            refused: true,
        };
        let backup = edits.backup.as_mut().map(|backup| (backup.pool_db(), backup));
        let Some((copy, backup)) = backup else {
            return Err(NotCommitted {
                why: format!("{}: there is no backup", Condition::BackedUp),
                refused: true,
            });
        };
        (self.tell)("taking the lock on the pool database");
        let locked = Instant::now();
        let mut editor = Editor::open(&self.places.pool_db()).map_err(failed)?;
        if editor.txid() != survey.pool_db.txid {
            return Err(moved("the pool database"));
        }
        match self.sight.transactions() {
            Ok((_, snapshots)) if snapshots == survey.snapshots.txid => {}
            Ok(_) => return Err(moved("the snapshot database")),
            Err(error) => {
                return Err(NotCommitted {
                    why: explain(&error),
                    refused: false,
                });
            }
        }
        if !copy.exists() {
            (self.tell)("copying the pool database, with its lock held");
            editor.backup(&copy).map_err(failed)?;
        }
        (self.tell)("committing to the pool database, with its lock held");
        let committed = editor.commit(changes);
        drop(editor);
        edits.lock_held.push(locked.elapsed());
        let written = match committed {
            Ok(written) => written,
            // The last step failed, and a new look tells whether it took effect.
            Err(error @ EditError::Unknown { txid, .. }) => match self.sight.transactions() {
                Ok((now, _)) if now == txid => now,
                _ => return Err(failed(error)),
            },
            Err(error) => return Err(failed(error)),
        };
        (self.tell)("noting the backup's checksum");
        // The repair is made; a backup without its checksum is one that can not be checked, and no reason to stop.
        drop(backup.seal());
        drop(backup::prune(self.backups));
        Ok(written)
    }
}
