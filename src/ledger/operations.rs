//! Operations that may still matter: the provenance of thin devices outlives suture here.

use rusqlite::{Connection, params};

use super::{Ledger, LedgerError, findings::text, late::Late};
use crate::model::{Operation, OperationId};

/// A stored operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationRow {
    /// The operation.
    pub operation: Operation,
    /// The span that tells its story, once there is one.
    pub traceparent: Option<String>,
}

impl Ledger {
    /// Stores an operation, or what became of it, and with it who made its thin device.
    pub fn save_operation(&self, row: &OperationRow) -> Result<(), LedgerError> {
        self.save_operations(std::slice::from_ref(row))
    }

    /// Stores several at once, in one transaction.
    pub fn save_operations(&self, rows: &[OperationRow]) -> Result<(), LedgerError> {
        let late = rows.iter().map(|row| Late::Operation(Box::new(row.clone())));
        self.write_or_keep("storing operations", late.collect())
    }

    /// Drops an operation that ended well: nobody will ask. Who made its thin device stays known.
    pub fn forget_operation(&self, id: &OperationId) -> Result<(), LedgerError> {
        self.write_or_keep("forgetting an operation", vec![Late::ForgetOperation(id.clone())])
    }

    /// Operations that were not closed when they were stored, oldest first.
    pub fn open_operations(&self) -> Result<Vec<OperationRow>, LedgerError> {
        const WHAT: &str = "reading the open operations";
        let mut sql = self
            .connection
            .prepare("SELECT operation, traceparent FROM operations WHERE open ORDER BY began")
            .map_err(LedgerError::sql(WHAT))?;
        let rows = sql
            .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))
            .map_err(LedgerError::sql(WHAT))?;
        rows.map(|row| {
            let (json, traceparent) = row.map_err(LedgerError::sql(WHAT))?;
            let operation = serde_json::from_str(&json).map_err(LedgerError::value(WHAT))?;
            Ok(OperationRow {
                operation,
                traceparent,
            })
        })
        .collect()
    }
}

/// Stores an operation in the transaction of the caller.
pub(super) fn store(connection: &Connection, row: &OperationRow) -> Result<(), LedgerError> {
    const WHAT: &str = "storing an operation";
    let OperationRow {
        operation,
        traceparent,
    } = row;
    let json = serde_json::to_string(operation).map_err(LedgerError::value(WHAT))?;
    connection
        .prepare_cached(
            "INSERT INTO operations (id, began, open, operation, traceparent) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (id) DO UPDATE SET open = ?3, operation = ?4, traceparent = coalesce(?5, traceparent)",
        )
        .and_then(|mut sql| {
            let (began, open) = (text(operation.began()), !operation.state.is_closed());
            sql.execute(params![operation.id.as_str(), began, open, json, traceparent])
        })
        .map_err(LedgerError::sql(WHAT))?;
    Ok(())
}

/// Drops an operation in the transaction of the caller.
pub(super) fn forget(connection: &Connection, id: &OperationId) -> Result<(), LedgerError> {
    connection
        .execute("DELETE FROM operations WHERE id = ?1", params![id.as_str()])
        .map_err(LedgerError::sql("forgetting an operation"))?;
    Ok(())
}
