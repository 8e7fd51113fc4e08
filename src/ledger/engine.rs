//! What the engine remembers over a restart: budgets, back-offs, breakers, whether it is paused. One value, as the engine
//! writes it.

use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Serialize, de::DeserializeOwned};

use super::{Ledger, LedgerError, findings::text, late::Late};
use crate::model::Timestamp;

impl Ledger {
    /// Stores the engine's state in the place of the one before. Where that does not work now it is stored as soon as it
    /// does; the error says so to whoever just paused it.
    pub fn save_engine_state<T: Serialize>(&self, state: &T, at: Timestamp) -> Result<(), LedgerError> {
        const WHAT: &str = "storing the engine's state";
        let json = serde_json::to_string(state).map_err(LedgerError::value(WHAT))?;
        self.write_or_keep(WHAT, vec![Late::Engine(json, at)])
    }

    /// The engine's state as it was stored last; nothing where it never was.
    pub fn load_engine_state<T: DeserializeOwned>(&self) -> Result<Option<T>, LedgerError> {
        const WHAT: &str = "reading the engine's state";
        let json = self
            .connection
            .query_row("SELECT state FROM engine", [], |row| row.get::<_, String>(0))
            .optional()
            .map_err(LedgerError::sql(WHAT))?;
        json.map(|json| serde_json::from_str(&json).map_err(LedgerError::value(WHAT)))
            .transpose()
    }
}

/// Stores it in the transaction of the caller.
pub(super) fn store(connection: &Connection, state: &str, at: Timestamp) -> Result<(), LedgerError> {
    connection
        .execute(
            "INSERT INTO engine (one, at, state) VALUES (1, ?1, ?2) ON CONFLICT (one) DO UPDATE SET at = ?1, state = ?2",
            params![text(at), state],
        )
        .map_err(LedgerError::sql("storing the engine's state"))?;
    Ok(())
}
