//! What is taken over from a damaged ledger: open intents, which are then settled by looking, rejections, and the engine's
//! state. Only rows whose seals are whole, and of a repair's intent not the marks: no claim comes from a damaged file.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, params_from_iter, types::Value};

use super::{
    Ledger, LedgerError,
    opening::{has_log, unchanging},
    schema::TABLES,
    seal,
};
use crate::{
    model::{GuardReading, Plan, RepairIntent, RepairPlan},
    words::explain,
};

/// What of a damaged ledger could be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Salvaged {
    /// Intents without an outcome, the sidecar's and those of repairs: they are settled by looking.
    pub intents: usize,
    /// Plans that somebody rejected.
    pub rejections: usize,
    /// Whether the engine's state was taken over.
    pub engine: bool,
    /// What could not be read, in sentences. Then an intent may be lost, or that suture was paused.
    pub unreadable: Vec<String>,
}

/// A table, what of it is taken over, the columns that are, and whether a row's values are what suture writes.
struct Part {
    table: &'static str,
    what: &'static str,
    which: &'static str,
    columns: &'static [&'static str],
    understood: fn(&mut [Value]) -> Option<()>,
}

const PARTS: [Part; 4] = [
    Part {
        table: "remedies",
        what: "suture's own open intents",
        which: "outcome IS NULL",
        columns: &["finding", "plan", "guards", "intended"],
        understood: |row| {
            is::<Plan>(row.get(1)?)?;
            is::<Vec<GuardReading>>(row.get(2)?)
        },
    },
    Part {
        table: "repairs",
        what: "open intents of repairs",
        which: "unfinished AND outcome IS NULL",
        columns: &["finding", "intent", "intended", "unfinished"],
        understood: |row| {
            let cell = row.get_mut(1)?;
            let Value::Text(json) = &*cell else { return None };
            let mut intent: RepairIntent = serde_json::from_str(json).ok()?;
            intent.marks.clear();
            *cell = Value::Text(serde_json::to_string(&intent).ok()?);
            Some(())
        },
    },
    Part {
        table: "plans",
        what: "which plans were rejected",
        which: "state = 'rejected'",
        columns: &[
            "id", "finding", "plan", "proposed", "state", "who", "why", "decided",
        ],
        understood: |row| is::<RepairPlan>(row.get(2)?),
    },
    Part {
        table: "engine",
        what: "the engine's state",
        which: "true",
        columns: &["one", "at", "state"],
        understood: |row| is::<serde_json::Value>(row.get(2)?),
    },
];

fn is<T: serde::de::DeserializeOwned>(cell: &Value) -> Option<()> {
    match cell {
        Value::Text(json) => serde_json::from_str::<T>(json).ok().map(drop),
        _ => None,
    }
}

/// Takes over what can be read whole. Fails only where the new ledger can not be written.
pub(super) fn salvage(from: &Path, to: &Ledger) -> Result<Salvaged, LedgerError> {
    let mut salvaged = Salvaged::default();
    let connection = match open(from) {
        Ok(connection) => connection,
        Err(error) => {
            salvaged
                .unreadable
                .push(format!("nothing in it can be read: {}", explain(&error)));
            return Ok(salvaged);
        }
    };
    for part in &PARTS {
        let (rows, unreadable) = read(&connection, part);
        let count = rows.len();
        to.write("taking over what a damaged ledger had", |new| {
            let marks: Vec<_> = (1..=part.columns.len())
                .map(|number| format!("?{number}"))
                .collect();
            let insert = format!(
                "INSERT OR IGNORE INTO {} ({}) VALUES ({})",
                part.table,
                part.columns.join(", "),
                marks.join(", ")
            );
            let failed = LedgerError::sql("taking over what a damaged ledger had");
            let mut sql = new.prepare(&insert).map_err(&failed)?;
            rows.into_iter()
                .try_for_each(|row| sql.execute(params_from_iter(row)).map(drop))
                .map_err(&failed)
        })?;
        match part.table {
            "plans" => salvaged.rejections = count,
            "engine" => salvaged.engine = count > 0,
            _ => salvaged.intents += count,
        }
        if let Some(why) = unreadable {
            salvaged
                .unreadable
                .push(format!("{} could not all be read: {why}", part.what));
        }
    }
    Ok(salvaged)
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let looked_at = |connection: Connection| {
        seal::function(&connection)?;
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    };
    // With the log first, where there is one; without it where that is what is damaged.
    let with_log = Connection::open_with_flags(path, flags).and_then(looked_at);
    match with_log {
        Err(_) if has_log(path) => {
            let flags = flags | OpenFlags::SQLITE_OPEN_URI;
            Connection::open_with_flags(unchanging(path), flags).and_then(looked_at)
        }
        other => other,
    }
}

/// The rows of a part that can be read whole, and why not all.
fn read(connection: &Connection, part: &Part) -> (Vec<Vec<Value>>, Option<String>) {
    let Some((_, sealed)) = TABLES.into_iter().find(|(table, _)| *table == part.table) else {
        return (Vec::new(), None);
    };
    // Ledgers of before version 5 have no seals, and no tables for plans and the engine.
    let count = |table: &str, column: &str| {
        connection.query_row(
            "SELECT count(*) FROM pragma_table_info(?1) WHERE ?2 = '' OR name = ?2",
            [table, column],
            |row| row.get::<_, i64>(0),
        )
    };
    let sealed = match (
        count(part.table, ""),
        count(part.table, "sum"),
        count("about", ""),
    ) {
        (Ok(0), _, Ok(0)) => return (Vec::new(), None),
        (Ok(_), Ok(0), Ok(0)) => "1".to_owned(),
        _ => format!("sum IS suture_sum({sealed})"),
    };
    // Not by an index: a damaged one takes a row that is over for one that is open, and SQLite believes it.
    let query = |order: &str| {
        format!(
            "SELECT {}, {sealed}, rowid FROM {} NOT INDEXED WHERE {} ORDER BY rowid {order}",
            part.columns.join(", "),
            part.table,
            part.which
        )
    };
    let mut rows = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    let mut unreadable = None;
    // Backwards too where a page in the middle can not be read.
    for order in ["ASC", "DESC"] {
        let read = each(connection, &query(order), part, |rowid, row| {
            if seen.insert(rowid) {
                match row {
                    Some(row) => rows.push(row),
                    None => unreadable = Some("a row is not as it was written".to_owned()),
                }
            }
        });
        match read {
            Ok(()) => break,
            Err(error) => unreadable = Some(error.to_string()),
        }
    }
    (rows, unreadable)
}

fn each(
    connection: &Connection,
    query: &str,
    part: &Part,
    mut take: impl FnMut(i64, Option<Vec<Value>>),
) -> rusqlite::Result<()> {
    let mut sql = connection.prepare(query)?;
    let mut rows = sql.query([])?;
    while let Some(row) = rows.next()? {
        let width = part.columns.len();
        let mut values = (0..width)
            .map(|column| row.get(column))
            .collect::<Result<Vec<Value>, _>>()?;
        let whole = row.get(width)? && (part.understood)(&mut values).is_some();
        take(row.get(width + 1)?, whole.then_some(values));
    }
    Ok(())
}
