//! Changes bbolt files in place and copy-on-write, as bbolt does: killed or with the power cut at any byte, a file holds
//! either the old or the new contents.
//!
//! A commit writes new pages only where the newest transaction T has none, makes them durable, and only then writes the
//! meta page of T + 1, over that of T - 1, and makes it durable. A meta page has a checksum and lies within one sector:
//! there is T + 1, or there is T, whose pages are all as they were.
//!
//! That leaves T whole after T + 1, which is what [`Editor::undo`] goes back to: it writes T's meta once more, as T + 2.
//! Nothing else has to be written, for T's list of free pages is right again too.
//!
//! Only with containerd stopped: the file is locked, without waiting, and stays locked until the editor is dropped. To be
//! held for milliseconds: a containerd that starts meanwhile waits for it without a word.

mod backup;
mod edit;
mod error;
mod examine;
mod free;
mod node;
mod storage;
mod transaction;

use std::io;
use std::path::Path;

pub use edit::Edit;
pub use error::EditError;
pub use storage::{LockedFile, Storage};

use crate::model::TxId;
use crate::observe::bbolt::page::Meta;
use crate::observe::bbolt::{BboltError, Database, Snapshot};
use edit::BucketChanges;
use examine::{Examined, examine};
use node::encode_meta;
use transaction::{Prepared, Transaction};

/// Most bytes that are gathered into one write.
const LARGEST_WRITE: usize = 1 << 20;

/// A bbolt file that was found sound and is locked for writing.
#[derive(Debug)]
pub struct Editor<S = LockedFile> {
    database: Database<S>,
    meta: Meta,
    examined: Examined,
    /// Whether the last write left the file in one of two states that only a new look can tell apart.
    stale: bool,
}

impl Editor<LockedFile> {
    /// Locks the file and reads all of it. Refuses at once when somebody else has it locked, and when anything in it is
    /// damaged.
    pub fn open(path: &Path) -> Result<Self, EditError> {
        Self::on(LockedFile::open(path)?)
    }
}

impl<S: Storage> Editor<S> {
    /// An editor on any storage that nobody else writes to.
    pub fn on(storage: S) -> Result<Self, EditError> {
        let database = Database::new(storage);
        let (meta, examined) = look(&database)?;
        // The lock is on the file that was opened; another one may have taken its name before it was locked.
        database.ensure_current()?;
        Ok(Self {
            database,
            meta,
            examined,
            stale: false,
        })
    }

    /// The newest transaction.
    #[must_use]
    pub fn txid(&self) -> TxId {
        TxId(self.meta.txid)
    }

    /// Makes all of `edits`, in their order, one transaction, and gives its id once it is durable. Edits that change
    /// nothing make no transaction; then the id is the present one.
    pub fn commit(&mut self, edits: &[Edit]) -> Result<TxId, EditError> {
        self.ensure_known()?;
        let file = self.name();
        let changes = BucketChanges::gather(&file, edits)?;
        let snapshot = snapshot(&self.database, self.meta)?;
        let Some(prepared) = Transaction::prepare(&snapshot, &self.examined, &changes)? else {
            return Ok(self.txid());
        };
        self.write(&prepared)?;
        self.write_meta(&prepared.meta)?;
        self.meta = prepared.meta;
        self.examined = prepared.after;
        Ok(self.txid())
    }

    /// Takes the newest transaction back, which has to be `expected`: the contents of the one before become a new
    /// transaction. Those are looked through before.
    ///
    /// No later commit was completed, but one may have been cut off half-way and have overwritten pages that only the
    /// old contents use: whoever has a backup from before asks [`Editor::holds_before`] first.
    pub fn undo(&mut self, expected: TxId) -> Result<TxId, EditError> {
        let (before, _) = self.before(expected)?;
        let nothing = || EditError::NothingBefore {
            file: self.name(),
            txid: expected,
        };
        let txid = expected.0.checked_add(1).ok_or_else(nothing)?;
        self.write_meta(&Meta { txid, ..before })?;
        self.stale = true;
        (self.meta, self.examined) = look(&self.database)?;
        self.stale = false;
        Ok(self.txid())
    }

    /// The meta of the transaction before the newest one, which has to be `expected`, and all pages that it uses.
    fn before(&self, expected: TxId) -> Result<(Meta, Vec<u64>), EditError> {
        self.ensure_known()?;
        if self.txid() != expected {
            return Err(EditError::Moved {
                file: self.name(),
                expected,
                found: self.txid(),
            });
        }
        let newest = self.database.newest_meta()?;
        let before = newest
            .older
            .filter(|older| older.txid.checked_add(1) == Some(expected.0))
            .ok_or_else(|| EditError::NothingBefore {
                file: self.name(),
                txid: expected,
            })?;
        let snapshot = snapshot(&self.database, before)?;
        examine(&snapshot)?;
        Ok((before, snapshot.loaded()))
    }

    /// Nobody else writes while the lock is held, unless he does not know about locks: then nothing is done.
    fn ensure_known(&self) -> Result<(), EditError> {
        if self.stale {
            return Err(EditError::Stale { file: self.name() });
        }
        self.database.ensure_current()?;
        let found = self.database.newest_meta()?.meta;
        if found != self.meta {
            return Err(EditError::Moved {
                file: self.name(),
                expected: self.txid(),
                found: TxId(found.txid),
            });
        }
        Ok(())
    }

    /// Writes the pages of a transaction, and returns when they are durable. Until its meta page is written too they are
    /// free pages to everybody.
    fn write(&self, prepared: &Prepared) -> Result<(), EditError> {
        let storage = self.database.source();
        let failed = |doing: String, source| EditError::Io {
            doing,
            file: self.name(),
            source,
        };
        let page_size = u64::from(self.meta.page_size);
        let offset = |page: u64| page.checked_mul(page_size).ok_or(io::ErrorKind::FileTooLarge);
        let grow = || {
            let end = offset(prepared.meta.high_water)?;
            if end > storage.size()? {
                storage.grow(end)
            } else {
                Ok(())
            }
        };
        grow().map_err(|source| failed("make room in".to_owned(), source))?;
        let mut pages = prepared.pages.iter().peekable();
        while let Some((first, bytes)) = pages.next() {
            let begin = offset(*first).map_err(|source| failed("write to".to_owned(), source.into()))?;
            let mut bytes = std::borrow::Cow::Borrowed(bytes);
            let end = |bytes: &[u8]| begin.checked_add(u64::try_from(bytes.len()).ok()?);
            while bytes.len() < LARGEST_WRITE
                && let Some((_, more)) = pages.next_if(|(page, _)| offset(**page).ok() == end(&bytes))
            {
                bytes.to_mut().extend(more);
            }
            storage.write_at(begin, &bytes).map_err(|source| {
                failed(
                    format!("write {} bytes at offset {begin} of", bytes.len()),
                    source,
                )
            })?;
        }
        storage
            .sync()
            .map_err(|source| failed("bring to the disk what was written to".to_owned(), source))
    }

    /// Writes a meta page: this is the commit. When it fails nobody knows whether it happened.
    fn write_meta(&mut self, meta: &Meta) -> Result<(), EditError> {
        let storage = self.database.source();
        let offset = (meta.txid % 2) * u64::from(meta.page_size);
        let done = storage
            .write_at(offset, &encode_meta(meta))
            .and_then(|()| storage.sync());
        done.map_err(|source| {
            self.stale = true;
            EditError::Unknown {
                file: self.name(),
                txid: TxId(meta.txid),
                source,
            }
        })
    }

    fn name(&self) -> String {
        self.database.source().name()
    }
}

/// The newest transaction, and what a look through all of it says.
fn look<S: Storage>(database: &Database<S>) -> Result<(Meta, Examined), BboltError> {
    let newest = database.newest_meta()?;
    let meta = newest.meta;
    let snapshot = snapshot(database, meta)?;
    // The next meta goes to page (T + 1) % 2. bbolt puts T's on T % 2; what a person restored by hand may lie elsewhere,
    // and would be written over.
    let page = newest.own / u64::from(meta.page_size);
    if page != meta.txid % 2 && newest.older != Some(meta) {
        return Err(snapshot.damaged(
            page,
            "the meta page",
            format!("transaction {} belongs on the other one", meta.txid),
        ));
    }
    let examined = examine(&snapshot)?;
    Ok((meta, examined))
}

fn snapshot<S: Storage>(database: &Database<S>, meta: Meta) -> Result<Snapshot<'_, S>, BboltError> {
    let size = database.size()?;
    Ok(Snapshot::new(database.source(), size, meta, None, false))
}
