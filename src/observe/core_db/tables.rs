//! Follows what clients call the snapshots from commit to commit. Only `name` of `v1/<namespace>/snapshots/devmapper/<key>`
//! is read for that: the backend key.

use std::path::Path;

use super::{CoreDbError, SNAPSHOTS, SNAPSHOTTER, VERSION, nothing_in};
use crate::{
    model::{Untrusted, commit::EntryChange},
    observe::bbolt::{
        BboltError, PageSource, Snapshot, Value,
        fold::{Entry, Found, Shape, Tables},
    },
};

/// Follows each namespace's snapshots from commit to commit.
#[derive(Debug)]
pub struct CoreTables<'p> {
    /// The database, for messages.
    pub path: &'p Path,
}

impl Tables for CoreTables<'_> {
    type Change = EntryChange;
    type Error = CoreDbError;

    /// One bucket for each namespace that uses the snapshotter, by the namespace's name.
    fn find<'s, S: PageSource>(
        &self,
        snapshot: &'s Snapshot<'s, S>,
    ) -> Result<Vec<Found<'s, S>>, CoreDbError> {
        let Some(version) = snapshot.bucket(&[VERSION])? else {
            nothing_in(snapshot, self.path)?;
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        version.for_each(|namespace, value| {
            if let Value::Bucket(inner) = value
                && let Some(snapshots) = inner.bucket(SNAPSHOTS)?
                && let Some(bucket) = snapshots.bucket(SNAPSHOTTER)?
            {
                found.push(Found {
                    name: namespace.to_vec(),
                    bucket,
                    shape: Shape::Parts(&["name"]),
                });
            }
            Ok::<_, BboltError>(())
        })?;
        Ok(found)
    }

    fn change(
        &self,
        table: &[u8],
        key: &[u8],
        from: Option<Entry<'_>>,
        to: Option<Entry<'_>>,
    ) -> Result<EntryChange, CoreDbError> {
        let bad = || CoreDbError::BadEntry {
            path: self.path.display().to_string(),
            namespace: table.escape_ascii().to_string(),
            key: key.escape_ascii().to_string(),
            problem: "it has no `name` that is a plain value".to_owned(),
        };
        let name = |entry: Option<Entry<'_>>| match entry {
            None => Ok(None),
            Some(Entry::Parts(parts)) => match parts.as_slice() {
                [Some(name)] => Ok(Some(Untrusted::from_bytes(name))),
                _ => Err(bad()),
            },
            Some(Entry::Bytes(_) | Entry::Misfit) => Err(bad()),
        };
        Ok(EntryChange::Core {
            namespace: Untrusted::from_bytes(table),
            key: Untrusted::from_bytes(key),
            from: name(from)?,
            to: name(to)?,
        })
    }
}
