//! The tables. Times are text in RFC 3339 with nanoseconds, values JSON, traces W3C `traceparent`s: the file can be
//! read with any SQLite tool.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, TransactionBehavior};

use super::{LedgerError, seal};

/// Raised with every change of the tables; each step of [`MIGRATIONS`] brings a file one version on.
const MIGRATIONS: [&str; 5] = [
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
    // `sum` seals a row (see `seal`). `about` has the version a second time: a header that lost a bit is told from a newer
    // suture's. `devices` says who made each thin device, as long as it may be in its pool. `engine` has one row.
    "CREATE TABLE about (
        one     INTEGER PRIMARY KEY CHECK (one = 1),
        version INTEGER NOT NULL
    ) STRICT;
    ALTER TABLE operations ADD COLUMN sum INTEGER;
    ALTER TABLE findings ADD COLUMN sum INTEGER;
    ALTER TABLE remedies ADD COLUMN sum INTEGER;
    ALTER TABLE watching ADD COLUMN sum INTEGER;
    ALTER TABLE repairs ADD COLUMN sum INTEGER;
    CREATE TABLE devices (
        operation TEXT PRIMARY KEY,
        pool      TEXT NOT NULL,
        thin_id   INTEGER NOT NULL,
        made      TEXT NOT NULL,
        maker     TEXT NOT NULL,
        origin    INTEGER,
        name      TEXT,
        snapshot  INTEGER,
        mark      TEXT,
        state     TEXT NOT NULL,
        gone      TEXT,
        sum       INTEGER
    ) STRICT;
    CREATE INDEX devices_thin ON devices (pool, thin_id);
    CREATE INDEX devices_there ON devices (pool) WHERE gone IS NULL;
    CREATE TABLE observations (
        id     INTEGER PRIMARY KEY,
        at     TEXT NOT NULL,
        source TEXT NOT NULL,
        kind   TEXT NOT NULL,
        text   TEXT NOT NULL,
        detail TEXT,
        sum    INTEGER
    ) STRICT;
    CREATE TABLE plans (
        id       TEXT PRIMARY KEY,
        finding  TEXT NOT NULL,
        plan     TEXT NOT NULL,
        proposed TEXT NOT NULL,
        state    TEXT NOT NULL,
        who      TEXT,
        why      TEXT,
        decided  TEXT,
        sum      INTEGER
    ) STRICT;
    CREATE INDEX plans_finding ON plans (finding);
    CREATE TABLE engine (
        one   INTEGER PRIMARY KEY CHECK (one = 1),
        at    TEXT NOT NULL,
        state TEXT NOT NULL,
        sum   INTEGER
    ) STRICT;",
];

/// The tables of this version with their columns, `sum` apart.
pub(super) const TABLES: [(&str, &str); 9] = [
    ("operations", "id, began, open, operation, traceparent"),
    (
        "findings",
        "id, first_seen, last_seen, resolved, finding, decision, traceparent",
    ),
    ("remedies", "id, finding, plan, guards, intended, outcome, ended"),
    ("watching", "one, until"),
    (
        "repairs",
        "id, finding, intent, intended, outcome, ended, unfinished",
    ),
    (
        "devices",
        "operation, pool, thin_id, made, maker, origin, name, snapshot, mark, state, gone",
    ),
    ("observations", "id, at, source, kind, text, detail"),
    ("plans", "id, finding, plan, proposed, state, who, why, decided"),
    ("engine", "one, at, state"),
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

/// Brings the tables to the version this suture knows. `alone` keeps an older suture out, which would go on writing as its
/// version does, and every row that it wrote would look damaged.
pub(super) fn migrate<T>(
    connection: &mut Connection,
    path: &Path,
    alone: impl FnOnce() -> Result<T, LedgerError>,
) -> Result<(), LedgerError> {
    let failed = LedgerError::sql("making the tables");
    let version = found(connection, path)?;
    if version == known() {
        return expect_tables(connection);
    }
    let _alone = (version > 0).then(alone).transpose()?;
    // The version is read again with the write lock: a repair and a sidecar may open an old ledger at the same time.
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(&failed)?;
    let version = found(&transaction, path)?;
    if let Some(why) = contradiction(&transaction, version).map_err(&failed)? {
        return Err(LedgerError::damaged(why));
    }
    if version > known() {
        return Err(LedgerError::Version {
            path: path.to_owned(),
            found: version,
            known: known(),
        });
    }
    let done = usize::try_from(version).unwrap_or_default();
    for step in MIGRATIONS.iter().skip(done) {
        transaction
            .execute_batch(step)
            .map_err(|error| match error.sqlite_error_code() {
                // Nothing is wrong with the steps: the file is not of the version that it says.
                Some(ErrorCode::Unknown) => LedgerError::damaged(format!(
                    "its tables are not those of version {version}, which its header names: {error}"
                )),
                _ => failed(error),
            })?;
    }
    transaction
        .execute("INSERT INTO about (one, version) VALUES (1, ?1)", [known()])
        .map_err(&failed)?;
    seal::all(&transaction).map_err(&failed)?;
    transaction
        .pragma_update(None, "user_version", known())
        .map_err(&failed)?;
    transaction.commit().map_err(&failed)
}

/// Refuses a file of another version: whoever only reads does not migrate.
pub(super) fn expect_current(connection: &Connection, path: &Path) -> Result<(), LedgerError> {
    match found(connection, path)? {
        version if version == known() => expect_tables(connection),
        version => Err(LedgerError::Version {
            path: path.to_owned(),
            found: version,
            known: known(),
        }),
    }
}

/// Why the version in the file's header can not be true; nothing where it can.
fn contradiction(connection: &Connection, header: i64) -> rusqlite::Result<Option<String>> {
    let has_about: bool = connection.query_row(
        "SELECT count(*) > 0 FROM sqlite_schema WHERE name = 'about'",
        [],
        |row| row.get(0),
    )?;
    if !has_about {
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        let lost = (header == 0) != (tables == 0) && header <= known();
        return Ok(
            lost.then(|| format!("its header says version {header}, and it has {tables} tables and indexes"))
        );
    }
    let told: Option<i64> = connection
        .query_row("SELECT version FROM about", [], |row| row.get(0))
        .optional()?;
    Ok((told != Some(header))
        .then(|| format!("its header says version {header}, its table `about` another one")))
}

/// Refuses a file of this version without its tables.
fn expect_tables(connection: &Connection) -> Result<(), LedgerError> {
    let failed = LedgerError::sql("looking for the tables");
    if let Some(why) = contradiction(connection, known()).map_err(&failed)? {
        return Err(LedgerError::damaged(why));
    }
    for (table, columns) in TABLES {
        let look = format!("SELECT {columns}, sum FROM {table} LIMIT 0");
        connection.prepare(&look).map_err(|error| {
            LedgerError::damaged(format!("its table `{table}` is not as it was made: {error}"))
        })?;
    }
    Ok(())
}
