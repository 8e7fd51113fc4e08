//! Follows a database from commit to commit: what each one added, changed and removed.
//!
//! bbolt is copy-on-write: transaction T + 1 writes only to pages that T does not use. So after T + 1 a page that T used
//! holds what it held, and a subtree whose page number is still the same needs no second look: one commit costs as many
//! reads as its changed paths are long, however large the database is. With T + 2 and later that ends: a page of T may
//! have been freed and used again under its old number. Then every page is read again and compared by its bytes.
//!
//! `cache` is what is remembered of a transaction, `step` reads the way to another one, `diff` puts two side by side.

mod cache;
mod diff;
mod step;

use super::{BboltError, Bucket, Database, PageSource, Snapshot};
use crate::model::TxId;
use cache::State;
use step::Seen;

/// What the entries of a followed bucket are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Plain values.
    Values,
    /// A bucket each, of which these plain values are wanted. Nothing else of it is kept.
    Parts(&'static [&'static str]),
}

/// One entry of a followed bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry<'e> {
    /// The value, for [`Shape::Values`].
    Bytes(&'e [u8]),
    /// The wanted values in the order asked for, for [`Shape::Parts`]; none for one that is not there.
    Parts(Vec<Option<&'e [u8]>>),
    /// A bucket where a value belongs, or a value where a bucket belongs.
    Misfit,
}

/// A bucket to follow, as found in one transaction.
#[derive(Debug)]
pub struct Found<'s, S> {
    /// What tells it from others of this database, the same in each transaction.
    pub name: Vec<u8>,
    /// The bucket.
    pub bucket: Bucket<'s, S>,
    /// What is in it.
    pub shape: Shape,
}

/// Which buckets of a database are followed, and what their entries mean.
pub trait Tables {
    /// One entry that changed.
    type Change;
    /// Why there is no answer.
    type Error: From<BboltError>;

    /// The buckets that are there, in the order in which their changes are told. It is called with each commit, so its
    /// cost is to depend on nothing but the depth of the tree.
    fn find<'s, S: PageSource>(
        &self,
        snapshot: &'s Snapshot<'s, S>,
    ) -> Result<Vec<Found<'s, S>>, Self::Error>;

    /// What it means that an entry is `to` where it was `from`. Each entry comes by here once before it is believed.
    fn change(
        &self,
        table: &[u8],
        key: &[u8],
        from: Option<Entry<'_>>,
        to: Option<Entry<'_>>,
    ) -> Result<Self::Change, Self::Error>;
}

/// What a look at a database showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look<C> {
    /// The transaction is the one of the look before.
    Unchanged,
    /// These bytes do not continue what was there before: they went back, or were replaced in place. Everything
    /// remembered is forgotten.
    Replaced,
    /// There is another transaction; or this is the first look.
    Folded(Folded<C>),
}

/// The way from one transaction to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folded<C> {
    /// The transaction before; none at the first look.
    pub from: Option<TxId>,
    /// The transaction now.
    pub to: TxId,
    /// The changes, table by table in the order of keys; at most as many as asked for.
    pub changes: Vec<C>,
    /// How many more there are.
    pub more: u64,
}

/// What is remembered of a database. Some bytes more than its followed entries take in the file.
#[derive(Debug, Default)]
pub struct Fold {
    state: Option<State>,
}

impl Fold {
    /// The transaction that is remembered.
    #[must_use]
    pub fn txid(&self) -> Option<TxId> {
        self.state.as_ref().map(|state| TxId(state.meta.txid))
    }

    /// The size that the file had then, in bytes; 0 where nothing is remembered.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.size)
    }

    /// Forgets everything: the next look is a first one.
    pub fn forget(&mut self) {
        self.state = None;
    }

    /// Looks for a newer transaction and takes it in. After an error, what was remembered still is: a later look tells
    /// everything since. At most `limit` changes are given.
    pub fn look<S: PageSource, T: Tables>(
        &mut self,
        database: &Database<S>,
        tables: &T,
        limit: usize,
    ) -> Result<Look<T::Change>, T::Error> {
        let mut trust = true;
        loop {
            let state = self.state.as_ref();
            let (seen, _) = database.snapshot(|snapshot| step::see(snapshot, tables, state, trust))?;
            match seen {
                Seen::Same => return Ok(Look::Unchanged),
                Seen::Foreign => {
                    self.state = None;
                    return Ok(Look::Replaced);
                }
                // The file held still and does not fit to what is remembered: whether that is damage, a look at every
                // page will say.
                Seen::Odd => trust = false,
                Seen::Step(step) => {
                    let folded = diff::changes(state, &step, tables, limit)?;
                    self.state = Some(step.apply(self.state.take()));
                    return Ok(Look::Folded(folded));
                }
            }
        }
    }
}
