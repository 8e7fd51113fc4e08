//! Looks at one database and says what became of it since the look before.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{notify::Notify, now};
use crate::{
    model::{
        Observation, Timestamp, TxId,
        commit::{Commit, DatabaseKind, EntryChange},
        observation::LossKind,
    },
    observe::{
        bbolt::{
            BboltError, Database, FileSource,
            fold::{Fold, Folded, Look},
        },
        core_db::{CoreDbError, CoreTables},
        pool_db::{PoolDbError, PoolTables},
        snapshot_db::{SnapshotDbError, SnapshotTables},
    },
    words::explain,
};

/// How often in a row a file that is replaced is opened again before that is left to the next look.
const OPENS: usize = 3;
/// How long a transaction that could not be read is left alone.
const TRY_AGAIN: Duration = Duration::from_secs(30);

/// Why a look gave no answer.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Pool(#[from] PoolDbError),
    #[error(transparent)]
    Snapshots(#[from] SnapshotDbError),
    #[error(transparent)]
    Core(#[from] CoreDbError),
}

impl FollowError {
    fn of_file(&self) -> Option<&BboltError> {
        match self {
            Self::Pool(PoolDbError::Database(error))
            | Self::Snapshots(SnapshotDbError::Database(error))
            | Self::Core(CoreDbError::Database(error)) => Some(error),
            _ => None,
        }
    }
}

/// A transaction that could not be read.
#[derive(Debug)]
struct Unread {
    why: String,
    /// Which one, where at least that could be told.
    transaction: Option<TxId>,
    tried: Instant,
    /// Whether it was only written to too often.
    busy: bool,
}

/// One database.
#[derive(Debug)]
pub(super) struct Follower {
    kind: DatabaseKind,
    path: PathBuf,
    open: Option<Database<FileSource>>,
    fold: Fold,
    /// When it was looked at last and understood.
    since: Timestamp,
    /// Whether there was nothing at that look: what comes then is all new.
    absent: bool,
    unread: Option<Unread>,
}

impl Follower {
    pub(super) fn new(kind: DatabaseKind, path: PathBuf) -> Self {
        Self {
            kind,
            path,
            open: None,
            fold: Fold::default(),
            since: now(),
            absent: false,
            unread: None,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn folder(&self) -> Option<PathBuf> {
        self.path.parent().map(Path::to_owned)
    }

    /// Why commits can not be read at the moment.
    pub(super) fn trouble(&self) -> Option<String> {
        self.unread.as_ref().map(|unread| unread.why.clone())
    }

    /// Looks once, and again where the file was replaced meanwhile.
    pub(super) fn look(&mut self, notify: &mut Notify) -> Vec<Observation> {
        let mut told = Vec::new();
        for _ in 0..OPENS {
            let begun = now();
            let opened = self.open.take().map_or_else(|| self.open(notify), Ok);
            let database = match opened {
                Ok(database) => database,
                Err(BboltError::Missing { .. }) => {
                    self.nothing_there(begun, &mut told);
                    return told;
                }
                Err(error) => {
                    self.not_read(explain(&error), None, false, &mut told);
                    return told;
                }
            };
            if self.is_hopeless(&database) {
                self.open = Some(database);
                return told;
            }
            match self.fold_in(&database) {
                Ok(Look::Unchanged) => {
                    self.understood(begun);
                    self.open = Some(database);
                    return told;
                }
                Ok(Look::Folded(folded)) => {
                    told.extend(self.commit(folded));
                    self.understood(begun);
                    self.open = Some(database);
                    return told;
                }
                Ok(Look::Replaced) => {
                    told.push(self.lost(self.replaced()));
                    self.understood(begun);
                    self.open = Some(database);
                }
                Err(error) => match error.of_file() {
                    Some(BboltError::Replaced { .. }) => self.forget(begun, &mut told),
                    Some(BboltError::Empty { .. }) => {
                        self.nothing_there(begun, &mut told);
                        self.open = Some(database);
                        return told;
                    }
                    of_file => {
                        let busy = matches!(of_file, Some(BboltError::Busy { .. }));
                        if self.was_cut() {
                            self.forget(begun, &mut told);
                        }
                        let transaction = database.newest_txid().ok();
                        self.not_read(explain(&error), transaction, busy, &mut told);
                        self.open = Some(database);
                        return told;
                    }
                },
            }
        }
        told
    }

    /// Opens the file that has the name now, watched before it is read.
    fn open(&self, notify: &mut Notify) -> Result<Database<FileSource>, BboltError> {
        notify.watch(&self.path);
        Database::open(&self.path)
    }

    fn fold_in(&mut self, database: &Database<FileSource>) -> Result<Look<EntryChange>, FollowError> {
        let (path, limit) = (&self.path, Commit::MAX_CHANGES);
        Ok(match self.kind {
            DatabaseKind::Pool => self.fold.look(database, &PoolTables { path }, limit)?,
            DatabaseKind::Snapshots => self.fold.look(database, &SnapshotTables { path }, limit)?,
            DatabaseKind::Core => self.fold.look(database, &CoreTables { path }, limit)?,
        })
    }

    /// What there is to tell of a step. The first look is where the story begins; only where there was nothing before
    /// it is a commit.
    fn commit(&self, folded: Folded<EntryChange>) -> Option<Observation> {
        if folded.from.is_none() && !self.absent {
            return None;
        }
        let commit = Commit {
            at: now(),
            since: self.since,
            database: self.kind,
            from: folded.from,
            to: folded.to,
            changes: folded.changes,
            more: folded.more,
        };
        // meta.db has many commits that are none of suture's business; elsewhere what was skipped may have been.
        let silent = self.kind == DatabaseKind::Core || commit.skipped() == 0;
        if commit.changes.is_empty() && commit.from.is_some() && silent {
            return None;
        }
        Some(Observation::Commit(Box::new(commit)))
    }

    fn understood(&mut self, begun: Timestamp) {
        self.since = begun;
        self.absent = false;
        self.unread = None;
    }

    fn nothing_there(&mut self, begun: Timestamp, told: &mut Vec<Observation>) {
        self.forget(begun, told);
        self.understood(begun);
        self.absent = true;
    }

    /// What was known is of the past.
    fn forget(&mut self, begun: Timestamp, told: &mut Vec<Observation>) {
        if self.fold.txid().is_some() {
            told.push(self.lost(self.replaced()));
            self.fold.forget();
            self.understood(begun);
        }
    }

    fn replaced(&self) -> LossKind {
        LossKind::DatabaseReplaced { database: self.kind }
    }

    fn lost(&self, what: LossKind) -> Observation {
        Observation::Lost {
            since: self.since,
            at: now(),
            what,
            count: 0,
        }
    }

    /// Told once until it can be read again.
    fn not_read(&mut self, why: String, transaction: Option<TxId>, busy: bool, told: &mut Vec<Observation>) {
        if self.unread.is_none() {
            told.push(self.lost(LossKind::DatabaseUnread { database: self.kind }));
        }
        self.unread = Some(Unread {
            why,
            transaction,
            tried: Instant::now(),
            busy,
        });
    }

    /// Whether another try at once would only read the same damage.
    fn is_hopeless(&self, database: &Database<FileSource>) -> bool {
        let Some(unread) = self.unread.as_ref().filter(|unread| !unread.busy) else {
            return false;
        };
        let newest = match database.newest_txid() {
            Err(BboltError::Replaced { .. } | BboltError::Empty { .. }) => return false,
            newest => newest.ok(),
        };
        newest == unread.transaction && unread.tried.elapsed() < TRY_AGAIN
    }

    /// Whether the file is shorter than it was; bbolt never does that.
    fn was_cut(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|file| file.len() < self.fold.size())
    }
}
