//! Until when a suture was watching: what a later one has to say about the time in between.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    Ledger, LedgerError,
    findings::{parse, text},
    late::Late,
};
use crate::model::Timestamp;

impl Ledger {
    /// When the last suture said that it was watching; nothing where none ever did.
    pub fn watched_until(&self) -> Result<Option<Timestamp>, LedgerError> {
        const WHAT: &str = "reading until when suture was watching";
        let stored = self
            .connection
            .query_row("SELECT until FROM watching", [], |row| row.get::<_, String>(0))
            .optional()
            .map_err(LedgerError::sql(WHAT))?;
        stored.map(parse).transpose().map_err(LedgerError::value(WHAT))
    }

    /// Says that suture is watching.
    pub fn is_watching(&self, at: Timestamp) -> Result<(), LedgerError> {
        self.write_or_keep("storing that suture is watching", vec![Late::Watching(at)])
    }
}

/// Stores it in the transaction of the caller.
pub(super) fn store(connection: &Connection, at: Timestamp) -> Result<(), LedgerError> {
    connection
        .execute(
            "INSERT INTO watching (one, until) VALUES (1, ?1) ON CONFLICT (one) DO UPDATE SET until = ?1",
            params![text(at)],
        )
        .map_err(LedgerError::sql("storing that suture is watching"))?;
    Ok(())
}
