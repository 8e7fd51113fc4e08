//! Taking the last repair's edit back, while nothing has happened since.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{Backup, RepairError, Repairer, settle::same_contents};
use crate::{
    model::{FindingId, PoolDb, RepairIntent, RepairMode, RepairOutcome, Subject, TxId},
    observe::world::WorldError,
    remedy::bbolt_editor::Editor,
};

/// What was undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undone {
    /// With which backup.
    pub backup: PathBuf,
    /// The transaction that was taken back.
    pub took_back: TxId,
    /// The transaction that the database is at now.
    pub txid: TxId,
    /// How long the lock was held.
    pub lock_held: Duration,
}

impl Repairer<'_> {
    /// Takes back the edit that a backup was made before; of the newest backup where none is named.
    pub fn undo(&mut self, backup: Option<&Path>) -> Result<Undone, RepairError> {
        self.ensure_stopped()?;
        let backup = match backup {
            Some(folder) => Backup::open(folder)?,
            None => Backup::newest(self.backups)?,
        };
        let expected = self.undoable(&backup)?;
        let copy = PoolDb::read(backup.pool_db()).map_err(|error| RepairError::Look(error.into()))?;
        let survey = self
            .look(&std::collections::BTreeSet::new())
            .map_err(RepairError::Look)?;
        for id in &backup.manifest.deletes {
            let named = copy.devices.values().find(|record| record.device_id == *id);
            if let Some(record) = named.filter(|_| survey.has_thin(*id) != Some(true)) {
                return Err(RepairError::NotUndone(format!(
                    "the repair deleted thin device {id}, and the backup's record {} is of it: it would be a record of nothing",
                    record.name.escape_debug()
                )));
            }
        }
        let intent = RepairIntent {
            pool: self.places.pool.clone(),
            mode: RepairMode::Offline,
            finding: FindingId(format!("undo/{}/{expected}", self.places.pool)),
            class: None,
            subject: Subject::Pool,
            action: None,
            acts: Vec::new(),
            undoes: Some(expected),
            pool_txid: expected,
            snapshot_txid: survey.snapshots.txid,
            backup: Some(backup.folder.display().to_string()),
            marks: std::collections::BTreeMap::new(),
        };
        (self.tell)("storing what is to be undone in the ledger");
        let ids = self.ledger.intend_repairs(&[intent], self.sight.now());
        let id = ids.map_err(RepairError::Intent)?;
        let undone = self.take_back(&backup, expected, &copy);
        let outcome = match &undone {
            Ok(_) => RepairOutcome::Done,
            Err(error) => RepairOutcome::Failed {
                why: crate::words::explain(error),
            },
        };
        (self.tell)("storing what was undone in the ledger");
        let outcomes: Vec<_> = id.into_iter().map(|id| (id, outcome.clone(), false)).collect();
        self.ledger
            .conclude_repairs(&outcomes, self.sight.now())
            .map_err(RepairError::Outcome)?;
        undone
    }

    /// The transaction that can be taken back; or why none can.
    fn undoable(&self, backup: &Backup) -> Result<TxId, RepairError> {
        let no = |why: String| Err(RepairError::NotUndone(why));
        let manifest = &backup.manifest;
        if manifest.version != 1 {
            return no(format!(
                "the backup has version {}, and this suture knows 1",
                manifest.version
            ));
        }
        if manifest.pool != self.places.pool || manifest.pool_db != self.places.pool_db() {
            return no(format!(
                "the backup is of {}, pool {}",
                manifest.pool_db.display(),
                manifest.pool
            ));
        }
        let [edit] = manifest.edits.as_slice() else {
            return no(format!(
                "the repair made {} transactions with kernel acts between them; only a repair of one is undone",
                manifest.edits.len()
            ));
        };
        let (now, snapshots) = self.sight.transactions().map_err(RepairError::Look)?;
        if now == manifest.txid_before {
            return no("the database is at the transaction of the backup: nothing was changed".to_owned());
        }
        if now != *edit || snapshots != manifest.snapshot_txid {
            return no(format!(
                "something has happened since: the pool database is at transaction {now}, and the repair made {edit}"
            ));
        }
        if !backup.is_whole()? {
            return no("the backup's checksum is another one: it was changed, or is damaged".to_owned());
        }
        Ok(*edit)
    }

    fn take_back(&self, backup: &Backup, expected: TxId, copy: &PoolDb) -> Result<Undone, RepairError> {
        (self.tell)("taking the lock on the pool database");
        let locked = Instant::now();
        let mut editor = Editor::open(&self.places.pool_db())?;
        if !editor.holds_before(expected, &backup.pool_db())? {
            return Err(RepairError::NotUndone(
                "the database does not hold the backup's contents any more; put the backup back by hand, with containerd stopped"
                    .to_owned(),
            ));
        }
        (self.tell)("committing to the pool database, with its lock held");
        let txid = editor.undo(expected)?;
        drop(editor);
        let lock_held = locked.elapsed();
        (self.tell)("reading the pool database again");
        let now = PoolDb::read(self.places.pool_db())
            .map_err(|error| RepairError::Look(WorldError::from(error)))?;
        if !same_contents(&now, copy) {
            return Err(RepairError::NotUndone(
                "the database does not hold what the backup holds; it is as it was before the repair in bbolt's own terms, so look at both"
                    .to_owned(),
            ));
        }
        Ok(Undone {
            backup: backup.folder.clone(),
            took_back: expected,
            txid,
            lock_held,
        })
    }
}
