//! Editing the pool database: one transaction under a lock that is never waited for, after a backup. All that takes long is
//! done before there is a lock, and holds only if the transaction is still the newest one under it.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
    thread::{Builder, JoinHandle, sleep},
    time::{Duration, Instant},
};

use super::{
    Item, Repairer,
    backup::{self, Backup, BackupError, Manifest},
    book::Book,
};
use crate::{
    model::{Act, Condition, Survey, TxId},
    observe::world::Places,
    remedy::bbolt_editor::{Copied, EditError, Editor, OpenFile, Prepared},
    words::explain,
};

/// Between two looks whether a copy is complete.
const A_MOMENT: Duration = Duration::from_millis(1);

/// Why nothing was committed.
#[derive(Debug)]
pub(super) struct NotCommitted {
    pub(super) why: String,
    /// Set where something that was seen speaks against it.
    pub(super) refused: bool,
}

impl NotCommitted {
    fn refused(condition: Condition, why: impl Display) -> Self {
        Self {
            why: format!("{condition}: {why}"),
            refused: true,
        }
    }

    fn moved(what: &str) -> Self {
        Self::refused(
            Condition::SameTransaction,
            format_args!("somebody wrote to {what} since"),
        )
    }
}

impl From<EditError> for NotCommitted {
    fn from(error: EditError) -> Self {
        let why = explain(&error);
        match error {
            EditError::Locked { .. } => Self::refused(Condition::ContainerdStopped, why),
            EditError::Moved { .. } => Self::refused(Condition::SameTransaction, why),
            _ => Self { why, refused: false },
        }
    }
}

/// What the edits of one repair share.
pub(super) struct Edits {
    /// Where the backup goes.
    pub(super) folder: PathBuf,
    /// Made with the first transaction.
    pub(super) backup: Option<Backup>,
    /// How long the lock was held, once for each transaction.
    pub(super) lock_held: Vec<Duration>,
    /// Copies the snapshot database meanwhile.
    copying: Option<JoinHandle<Result<(), BackupError>>>,
}

impl Edits {
    pub(super) fn new(backups: &Path, at: crate::model::Timestamp, txid: TxId) -> Self {
        Self {
            folder: backups.join(backup::folder_name(at, txid)),
            backup: None,
            lock_held: Vec::new(),
            copying: None,
        }
    }

    /// Begins to copy the snapshot database, beside what is left to do.
    fn begin_copying(&mut self, places: &Places, survey: &Survey) {
        let Some(txid) = survey.snapshots.txid else { return };
        let (places, folder) = (places.clone(), self.folder.clone());
        let copying = Builder::new().name("backup".to_owned());
        self.copying = copying
            .spawn(move || backup::copy_snapshots(&places, &folder, txid))
            .ok();
    }

    /// Waits until that is copied, but not beyond `until`. The repair is made, and that database was not written to: where it
    /// could not be copied the backup is without it.
    pub(super) fn end_copying(&mut self, until: Option<Instant>, tell: &dyn Fn(&str)) {
        let Some(copying) = self.copying.take() else {
            return;
        };
        tell("copying the snapshot database into the backup");
        while !copying.is_finished() {
            if until.is_some_and(|until| Instant::now() >= until) {
                return;
            }
            sleep(A_MOMENT);
        }
        drop(copying.join());
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
        let path = self.places.pool_db();
        (self.tell)("reading the pool database's records");
        let acts = which.iter().filter_map(|at| items.get(*at)).flat_map(part);
        let mut book = Book::read(&path, &survey.pool_db, acts).map_err(|error| NotCommitted {
            why: explain(&error),
            refused: false,
        })?;
        if book.txid() != survey.pool_db.txid {
            return Err(NotCommitted::moved("the pool database"));
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
            (self.tell)("looking at every page of the pool database");
            let editor = Editor::look(&path)?;
            if editor.txid() != survey.pool_db.txid {
                return Err(NotCommitted::moved("the pool database"));
            }
            // None where the file is already as it is to be.
            if let Some(prepared) = editor.prepare(&changes)? {
                let copied = self.back_up(items, survey, edits, &editor)?;
                written = self.commit(editor, prepared, copied, survey, edits)?;
            }
        }
        for at in taken {
            if let Some(item) = items.get_mut(at) {
                item.done += part(item).len();
            }
        }
        Ok(written)
    }

    /// Makes the backup, but for giving the pool database's copy its name: that is done under the lock, for only then is it
    /// certain that nothing was written meanwhile. Nothing where an earlier transaction of this repair has made it.
    fn back_up(
        &self,
        items: &[Item],
        survey: &Survey,
        edits: &mut Edits,
        editor: &Editor<OpenFile>,
    ) -> Result<Option<Copied>, NotCommitted> {
        let refused = |error: BackupError| NotCommitted::refused(Condition::BackedUp, explain(&error));
        let before = survey.pool_db.txid;
        let edit = TxId(before.0.saturating_add(1));
        if let Some(backup) = &mut edits.backup {
            backup.manifest.edits.push(edit);
            backup.store().map_err(refused)?;
            return Ok(None);
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
        let mut backup = Backup::begin(&edits.folder, manifest).map_err(refused)?;
        let copied = editor.copy(&backup.pool_db()).map_err(|error| match error {
            error @ EditError::Moved { .. } => error.into(),
            error => NotCommitted::refused(Condition::BackedUp, explain(&error)),
        })?;
        backup.manifest.crc32c = Some(copied.crc32c());
        backup.store().map_err(refused)?;
        edits.backup = Some(backup);
        Ok(Some(copied))
    }

    /// Takes the lock, looks at the transactions once more, completes the backup, commits, and lets the lock go. Only files
    /// are touched meanwhile: a process in an ioctl could not be killed.
    fn commit(
        &self,
        editor: Editor<OpenFile>,
        prepared: Prepared,
        copied: Option<Copied>,
        survey: &Survey,
        edits: &mut Edits,
    ) -> Result<TxId, NotCommitted> {
        (self.tell)("taking the lock on the pool database");
        let locked = Instant::now();
        let mut editor = editor.lock()?;
        match self.sight.transactions() {
            Ok((_, snapshots)) if snapshots == survey.snapshots.txid => {}
            Ok(_) => return Err(NotCommitted::moved("the snapshot database")),
            Err(error) => {
                return Err(NotCommitted {
                    why: explain(&error),
                    refused: false,
                });
            }
        }
        let first = copied.is_some();
        if let Some(copied) = copied {
            editor.keep(copied)?;
        }
        (self.tell)("committing to the pool database, with its lock held");
        let committed = editor.commit_prepared(prepared);
        drop(editor);
        edits.lock_held.push(locked.elapsed());
        let written = match committed {
            Ok(written) => written,
            // The last step failed, and a new look tells whether it took effect.
            Err(error @ EditError::Unknown { txid, .. }) => match self.sight.transactions() {
                Ok((now, _)) if now == txid => now,
                _ => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        };
        if first {
            edits.begin_copying(self.places, survey);
        }
        (self.tell)("dropping old backups");
        // The repair is made; a backup too many is no reason to stop.
        drop(backup::prune(self.backups));
        Ok(written)
    }
}
