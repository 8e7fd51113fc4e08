//! The tables. Times are text in RFC 3339 with nanoseconds, values JSON, traces W3C `traceparent`s: the file can be
//! read with any SQLite tool.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::LedgerError;

/// Raised with every change of the tables; each step of [`MIGRATIONS`] brings a file one version on.
const MIGRATIONS: [&str; 4] = [
    "
    CREATE TABLE operations (
        id          TEXT PRIMARY KEY,
        began       TEXT NOT NULL,
        open        INTEGER NOT NULL,
        operation   TEXT NOT NULL,
        traceparent TEXT
    ) STRICT;
    CREATE INDEX operations_open ON operations (open) WHERE open;
    CREATE TABLE findings (
        id          TEXT PRIMARY KEY,
        first_seen  TEXT NOT NULL,
        last_seen   TEXT NOT NULL,
        resolved    TEXT,
        finding     TEXT NOT NULL,
        decision    TEXT NOT NULL,
        traceparent TEXT
    ) STRICT;
    CREATE INDEX findings_open ON findings (first_seen) WHERE resolved IS NULL;
    CREATE TABLE remedies (
        id          INTEGER PRIMARY KEY,
        finding     TEXT NOT NULL,
        plan        TEXT NOT NULL,
        guards      TEXT NOT NULL,
        intended    TEXT NOT NULL,
        outcome     TEXT,
        ended       TEXT
    ) STRICT;
    CREATE INDEX remedies_open ON remedies (id) WHERE outcome IS NULL;
",
    // A finding says what it is about since version 2; until then it was always a thin device.
    "UPDATE findings SET finding = json_set(finding, '$.subject', 'thin_device')
     WHERE json_extract(finding, '$.subject') IS NULL;",
    // Until when somebody was watching.
    "CREATE TABLE watching (
        one   INTEGER PRIMARY KEY CHECK (one = 1),
        until TEXT NOT NULL
    ) STRICT;",
    // What `suture repair` set out to do. Not in `remedies`: the sidecar settles those, and a repair may be under way beside
    // it. `unfinished` is set while something of it may be left that only this row can tell the maker of.
    "CREATE TABLE repairs (
        id         INTEGER PRIMARY KEY,
        finding    TEXT NOT NULL,
        intent     TEXT NOT NULL,
        intended   TEXT NOT NULL,
        outcome    TEXT,
        ended      TEXT,
        unfinished INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX repairs_unfinished ON repairs (id) WHERE unfinished;
    CREATE INDEX repairs_finding ON repairs (finding);",
];

fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// The first look into the file: what is no database fails here.
fn found(connection: &Connection, path: &Path) -> Result<i64, LedgerError> {
    let version = connection.pragma_query_value(None, "user_version", |row| row.get(0));
    version.map_err(|source| LedgerError::Open {
        path: path.to_owned(),
        source,
    })
}

/// Brings the tables to the version this suture knows.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), LedgerError> {
    let failed = LedgerError::sql("making the tables");
    if found(connection, path)? == known() {
        return Ok(());
    }
    // The version is read again with the write lock: a repair and a sidecar may open an old ledger at the same time.
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(&failed)?;
    let version = found(&transaction, path)?;
    if version > known() {
        return Err(LedgerError::Version {
            path: path.to_owned(),
            found: version,
            known: known(),
        });
    }
    let done = usize::try_from(version).unwrap_or_default();
    for step in MIGRATIONS.iter().skip(done) {
        transaction.execute_batch(step).map_err(&failed)?;
    }
    transaction
        .pragma_update(None, "user_version", known())
        .map_err(&failed)?;
    transaction.commit().map_err(&failed)
}

/// Refuses a file of another version: whoever only reads does not migrate.
pub(super) fn expect_current(connection: &Connection, path: &Path) -> Result<(), LedgerError> {
    match found(connection, path)? {
        version if version == known() => Ok(()),
        version => Err(LedgerError::Version {
            path: path.to_owned(),
            found: version,
            known: known(),
        }),
    }
}
