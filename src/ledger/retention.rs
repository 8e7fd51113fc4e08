//! How much the ledger keeps. What is open is never dropped, whatever its age and the size: operations, findings, intents,
//! live plans, and who made the thin devices that may still be in their pool.

use std::time::Duration;

use rusqlite::{Connection, params};

use super::{Ledger, LedgerError, findings::text};
use crate::model::Timestamp;

/// How long, and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// What is over for longer is dropped.
    pub age: Duration,
    /// What the tables may take in the file; beyond it the oldest goes. SQLite's log beside the file takes up to about
    /// 4 MiB more.
    pub bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            age: Duration::from_hours(30 * 24),
            bytes: 64 << 20,
        }
    }
}

/// What one call dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Rows.
    pub rows: usize,
    /// Whether there is more to be done: then call again, soon.
    pub more: bool,
    /// How much more than allowed is in use by what may not be dropped; 0 where it fits.
    pub over: u64,
}

/// At most so many rows of one table go in one call: a transaction of some milliseconds.
const STEP: u32 = 1000;
/// So many pages are given back in one call.
const SHRINK: u32 = 256;
/// What giving pages back may need on the disk for a moment: the pages that move, twice.
const ROOM: u64 = 2 << 20;

/// What may be dropped, the least important first: the table, when a row of it is over, since when.
const OVER: [(&str, &str, &str); 7] = [
    ("observations", "true", "at"),
    ("devices", "gone IS NOT NULL", "gone"),
    ("operations", "NOT open", "began"),
    (
        "plans",
        "state NOT IN ('proposed', 'approved')",
        "coalesce(decided, proposed)",
    ),
    (
        "remedies",
        "outcome IS NOT NULL AND finding NOT IN (SELECT id FROM findings WHERE resolved IS NULL)",
        "ended",
    ),
    (
        "repairs",
        "NOT unfinished AND finding NOT IN (SELECT id FROM findings WHERE resolved IS NULL)",
        "ended",
    ),
    ("findings", "resolved IS NOT NULL", "resolved"),
];

impl Ledger {
    /// Drops what is too old and, while the ledger is too large, what is oldest; gives free pages back to the file system.
    /// The work of one call is bounded.
    pub fn prune(&self, retention: &Retention, now: Timestamp) -> Result<Pruned, LedgerError> {
        const WHAT: &str = "dropping what is old";
        let kept_since = Timestamp::from_nanoseconds(
            now.nanoseconds()
                .saturating_sub(u64::try_from(retention.age.as_nanos()).unwrap_or(u64::MAX)),
        );
        let mut pruned = Pruned::default();
        // A look first: where there is nothing to be dropped nothing is written.
        for (table, over, since) in OVER {
            let old = format!("{over} AND {since} < '{}'", text(kept_since));
            if exists(&self.connection, table, &old).map_err(LedgerError::sql(WHAT))? {
                let rows = self.write(WHAT, |connection| drop_oldest(connection, table, &old, since))?;
                pruned.rows += rows;
                pruned.more |= rows >= STEP as usize;
            }
        }
        if self.in_use()? > retention.bytes {
            match self.drop_something()? {
                0 => pruned.over = self.in_use()?.saturating_sub(retention.bytes),
                rows => {
                    pruned.rows += rows;
                    pruned.more |= self.in_use()? > retention.bytes;
                }
            }
        }
        pruned.more |= self.shrink(retention)?;
        Ok(pruned)
    }

    fn drop_something(&self) -> Result<usize, LedgerError> {
        const WHAT: &str = "dropping the oldest";
        for (table, over, since) in OVER {
            if exists(&self.connection, table, over).map_err(LedgerError::sql(WHAT))? {
                return self.write(WHAT, |connection| drop_oldest(connection, table, over, since));
            }
        }
        Ok(0)
    }

    /// Bytes that the tables take.
    pub fn in_use(&self) -> Result<u64, LedgerError> {
        let pages = self
            .number("page_count")?
            .saturating_sub(self.number("freelist_count")?);
        Ok(pages.saturating_mul(self.number("page_size")?))
    }

    /// Gives some free pages back, where the file is too large or a good part of it is free. Says whether there are more.
    fn shrink(&self, retention: &Retention) -> Result<bool, LedgerError> {
        let (free, pages) = (self.number("freelist_count")?, self.number("page_count")?);
        let too_large = pages.saturating_mul(self.number("page_size")?) > retention.bytes;
        let much = free > pages / 4 && free > u64::from(SHRINK);
        // A ledger that was made without it goes on without it: its free pages are used again.
        let incremental = self.number("auto_vacuum")? == 2;
        if !incremental || free == 0 || !(too_large || much) || self.room().is_some_and(|room| room < ROOM) {
            return Ok(false);
        }
        let what = "giving pages of the ledger back";
        let step = format!("PRAGMA incremental_vacuum({SHRINK})");
        // It gives one row for each page, and works only as far as the rows are asked for.
        let mut sql = self.connection.prepare(&step).map_err(LedgerError::sql(what))?;
        let mut rows = sql.query([]).map_err(LedgerError::sql(what))?;
        while rows.next().map_err(LedgerError::sql(what))?.is_some() {}
        drop(rows);
        // The file gets smaller when the log is taken over into it. A reader in between is no error.
        self.connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(LedgerError::sql(what))?;
        Ok(self.number("freelist_count")? > 0)
    }

    /// Bytes that are free on its disk; nothing where that can not be told.
    fn room(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(self.connection.path()?).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn number(&self, pragma: &str) -> Result<u64, LedgerError> {
        let number: i64 = self
            .connection
            .pragma_query_value(None, pragma, |row| row.get(0))
            .map_err(LedgerError::sql("reading its size"))?;
        Ok(u64::try_from(number).unwrap_or_default())
    }
}

fn exists(connection: &Connection, table: &str, which: &str) -> rusqlite::Result<bool> {
    let look = format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE {which})");
    connection.query_row(&look, [], |row| row.get(0))
}

fn drop_oldest(connection: &Connection, table: &str, which: &str, since: &str) -> Result<usize, LedgerError> {
    let oldest = format!(
        "DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE {which} ORDER BY {since}, rowid LIMIT ?1)"
    );
    connection
        .execute(&oldest, params![STEP])
        .map_err(LedgerError::sql("dropping what is old"))
}
