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
//! held for milliseconds: a containerd that starts meanwhile waits for it without a word. So all that takes long is done
//! before: [`Editor::look`] takes no lock, and whoever was looked at so is the same still if its meta page is once it is
//! locked ([`Editor::lock`]), for no commit writes to a page of the transaction before it.

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

pub use backup::Copied;
pub use edit::Edit;
pub use error::EditError;
pub use storage::{LockedFile, OpenFile, Storage};
pub use transaction::Prepared;

use crate::model::TxId;
use crate::observe::bbolt::page::Meta;
use crate::observe::bbolt::{BboltError, Database, PageSource, Snapshot};
use edit::BucketChanges;
use examine::{Examined, examine};
use node::encode_meta;
use transaction::Transaction;

/// Most bytes that are gathered into one write.
const LARGEST_WRITE: usize = 1 << 20;

/// A bbolt file that was found sound; locked for writing, or ([`OpenFile`]) to be locked.
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

impl Editor<OpenFile> {
    /// Reads all of the file without a lock, as a program that writes to it may do meanwhile: then this says so at once, or
    /// [`Editor::lock`] does. Refuses when anything in it is damaged.
    pub fn look(path: &Path) -> Result<Self, EditError> {
        let file = OpenFile::open(path)?;
        let database = Database::new(file.clone());
        let before = database.newest_txid()?;
        let editor = Self::on(file).map_err(|error| match database.newest_txid() {
            // What is read while somebody commits looks damaged.
            Ok(found) if found != before => EditError::Moved {
                file: path.display().to_string(),
                expected: before,
                found,
            },
            _ => error,
        })?;
        editor.ensure_unmoved()?;
        Ok(editor)
    }

    /// Takes the lock, or says at once that somebody has it. Refuses when somebody has committed since the look.
    pub fn lock(self) -> Result<Editor<LockedFile>, EditError> {
        let editor = Editor {
            database: Database::new(self.database.source().lock()?),
            meta: self.meta,
            examined: self.examined,
            stale: self.stale,
        };
        editor.ensure_known()?;
        Ok(editor)
    }

    /// That the transaction which was read is the newest one still: what was read until now belongs to it.
    fn ensure_unmoved(&self) -> Result<(), EditError> {
        self.ensure_known()?;
        match self.database.newest_txid()? {
            found if found == self.txid() => Ok(()),
            found => Err(self.moved(found)),
        }
    }
}

impl<S: PageSource> Editor<S> {
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

    /// Makes all of `edits`, in their order, one transaction, of which nothing is written yet. None when they change
    /// nothing.
    pub fn prepare(&self, edits: &[Edit]) -> Result<Option<Prepared>, EditError> {
        self.ensure_known()?;
        let changes = BucketChanges::gather(&self.name(), edits)?;
        let snapshot = snapshot(&self.database, self.meta)?;
        Transaction::prepare(&snapshot, &self.examined, &changes)
    }

    /// Nobody else writes while the lock is held, unless he does not know about locks: then nothing is done.
    fn ensure_known(&self) -> Result<(), EditError> {
        if self.stale {
            return Err(EditError::Stale { file: self.name() });
        }
        self.database.ensure_current()?;
        match self.database.newest_meta()?.meta {
            found if found == self.meta => Ok(()),
            found => Err(self.moved(TxId(found.txid))),
        }
    }

    fn moved(&self, found: TxId) -> EditError {
        EditError::Moved {
            file: self.name(),
            expected: self.txid(),
            found,
        }
    }

    fn name(&self) -> String {
        self.database.source().name()
    }
}

impl<S: Storage> Editor<S> {
    /// Makes all of `edits`, in their order, one transaction, and gives its id once it is durable. Edits that change
    /// nothing make no transaction; then the id is the present one.
    pub fn commit(&mut self, edits: &[Edit]) -> Result<TxId, EditError> {
        match self.prepare(edits)? {
            Some(prepared) => self.write_prepared(prepared),
            None => Ok(self.txid()),
        }
    }

    /// Commits what was prepared on the present transaction, and gives its id once it is durable.
    pub fn commit_prepared(&mut self, prepared: Prepared) -> Result<TxId, EditError> {
        self.ensure_known()?;
        if prepared.before != self.meta {
            return Err(EditError::Moved {
                file: self.name(),
                expected: TxId(prepared.before.txid),
                found: self.txid(),
            });
        }
        self.write_prepared(prepared)
    }

    fn write_prepared(&mut self, prepared: Prepared) -> Result<TxId, EditError> {
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
}

/// The newest transaction, and what a look through all of it says.
fn look<S: PageSource>(database: &Database<S>) -> Result<(Meta, Examined), BboltError> {
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

fn snapshot<S: PageSource>(database: &Database<S>, meta: Meta) -> Result<Snapshot<'_, S>, BboltError> {
    let size = database.size()?;
    Ok(Snapshot::new(database.source(), size, meta, None, false))
}
