//! Each row carries a checksum of its cells. SQLite finds a damaged page, not a damaged letter in a text; and a letter may
//! be the number of a thin device. The checksums are written by triggers of the connection, so that the file itself holds
//! nothing that other SQLite tools do not understand.

use rusqlite::{Connection, functions::FunctionFlags, types::ValueRef};

use super::schema::TABLES;

/// Rows that suture would act on, or believe, by the tables that have such.
const OPEN: [(&str, &str); 6] = [
    ("operations", "open"),
    ("findings", "resolved IS NULL"),
    ("remedies", "outcome IS NULL"),
    ("repairs", "unfinished"),
    ("plans", "state IN ('proposed', 'approved')"),
    ("engine", "true"),
];

/// Makes the checksum's function known to a connection. Readers need it too.
pub(super) fn function(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("suture_sum", -1, flags, |cells| {
        let mut sum = 0;
        for cell in 0..cells.len() {
            sum = match cells.get_raw(cell) {
                ValueRef::Null => crc32c::crc32c_append(sum, b"n"),
                ValueRef::Integer(number) => add(sum, b'i', &number.to_be_bytes()),
                ValueRef::Real(number) => add(sum, b'r', &number.to_bits().to_be_bytes()),
                ValueRef::Text(text) => add(sum, b't', text),
                ValueRef::Blob(bytes) => add(sum, b'b', bytes),
            };
        }
        Ok(i64::from(sum))
    })
}

fn add(sum: u32, kind: u8, bytes: &[u8]) -> u32 {
    let length = bytes.len().to_be_bytes();
    let sum = crc32c::crc32c_append(sum, &[kind]);
    crc32c::crc32c_append(crc32c::crc32c_append(sum, &length), bytes)
}

/// Seals every row that this connection writes from now on.
pub(super) fn every_write(connection: &Connection) -> rusqlite::Result<()> {
    for (table, columns) in TABLES {
        let seal =
            format!("BEGIN UPDATE {table} SET sum = suture_sum({columns}) WHERE rowid = NEW.rowid; END;");
        connection.execute_batch(&format!(
            "CREATE TEMP TRIGGER seal_new_{table} AFTER INSERT ON main.{table} {seal}
             CREATE TEMP TRIGGER seal_changed_{table} AFTER UPDATE OF {columns} ON main.{table} {seal}"
        ))?;
    }
    Ok(())
}

/// Seals all rows that there are.
pub(super) fn all(connection: &Connection) -> rusqlite::Result<()> {
    for (table, columns) in TABLES {
        connection.execute(&format!("UPDATE {table} SET sum = suture_sum({columns})"), [])?;
    }
    Ok(())
}

/// What is the matter with the rows that count; nothing where their seals are whole. Rows that are over are not read.
pub(super) fn broken_open(connection: &Connection) -> rusqlite::Result<Option<String>> {
    for (table, open) in OPEN {
        if let Some(why) = broken(connection, table, open)? {
            return Ok(Some(why));
        }
    }
    Ok(None)
}

/// What is the matter with any row; nothing where all seals are whole.
pub(super) fn broken_any(connection: &Connection) -> rusqlite::Result<Option<String>> {
    for (table, _) in TABLES {
        if let Some(why) = broken(connection, table, "true")? {
            return Ok(Some(why));
        }
    }
    Ok(None)
}

fn broken(connection: &Connection, table: &str, which: &str) -> rusqlite::Result<Option<String>> {
    let Some((_, columns)) = TABLES.into_iter().find(|(name, _)| *name == table) else {
        return Ok(None);
    };
    let count = format!("SELECT count(*) FROM {table} WHERE ({which}) AND sum IS NOT suture_sum({columns})");
    let count: i64 = connection.query_row(&count, [], |row| row.get(0))?;
    Ok((count > 0).then(|| {
        let rows = if count == 1 { "row is" } else { "rows are" };
        format!("{count} {rows} not as written in its table `{table}`")
    }))
}
