//! Operations that may still matter: the provenance of thin devices outlives suture here.

use rusqlite::params;

use super::{Ledger, LedgerError};
use crate::model::{Operation, OperationId};

/// Closed operations kept for the history.
const KEEP_CLOSED: u32 = 10_000;

/// A stored operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationRow {
    /// The operation.
    pub operation: Operation,
    /// The span that tells its story, once there is one.
    pub traceparent: Option<String>,
}

impl Ledger {
    /// Stores an operation, or what became of it.
    pub fn save_operation(&self, row: &OperationRow) -> Result<(), LedgerError> {
        const WHAT: &str = "storing an operation";
        let OperationRow {
            operation,
            traceparent,
        } = row;
        let json = serde_json::to_string(operation).map_err(LedgerError::value(WHAT))?;
        let began = jiff::Timestamp::from(operation.began()).to_string();
        self.connection
            .prepare_cached(
                "INSERT INTO operations (id, began, open, operation, traceparent) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (id) DO UPDATE SET open = ?3, operation = ?4, traceparent = coalesce(?5, traceparent)",
            )
            .and_then(|mut sql| {
                sql.execute(params![operation.id.as_str(), began, !operation.state.is_closed(), json, traceparent])
            })
            .map_err(LedgerError::sql(WHAT))?;
        Ok(())
    }

    /// Stores several at once, in one transaction.
    pub fn save_operations(&mut self, rows: &[OperationRow]) -> Result<(), LedgerError> {
        const WHAT: &str = "storing operations";
        if rows.is_empty() {
            return Ok(());
        }
        self.connection
            .execute_batch("BEGIN")
            .map_err(LedgerError::sql(WHAT))?;
        let stored = rows.iter().try_for_each(|row| self.save_operation(row));
        let end = if stored.is_ok() { "COMMIT" } else { "ROLLBACK" };
        self.connection
            .execute_batch(end)
            .map_err(LedgerError::sql(WHAT))?;
        stored
    }

    /// Drops an operation that ended well: nobody will ask.
    pub fn forget_operation(&self, id: &OperationId) -> Result<(), LedgerError> {
        self.connection
            .execute("DELETE FROM operations WHERE id = ?1", params![id.as_str()])
            .map_err(LedgerError::sql("forgetting an operation"))?;
        Ok(())
    }

    /// Operations that were not closed when they were stored, oldest first.
    pub fn open_operations(&self) -> Result<Vec<OperationRow>, LedgerError> {
        let query = "SELECT operation, traceparent FROM operations WHERE open ORDER BY began";
        let decode = |(json, traceparent): (String, Option<String>)| {
            Ok(OperationRow {
                operation: serde_json::from_str(&json)?,
                traceparent,
            })
        };
        self.rows("reading the open operations", query, None, decode)
    }

    /// Drops the oldest closed operations beyond those that are kept.
    pub fn prune(&self) -> Result<(), LedgerError> {
        self.connection
            .execute(
                "DELETE FROM operations WHERE NOT open AND id NOT IN
                 (SELECT id FROM operations WHERE NOT open ORDER BY began DESC LIMIT ?1)",
                params![KEEP_CLOSED],
            )
            .map_err(LedgerError::sql("dropping old operations"))?;
        Ok(())
    }
}
