//! Who made each thin device: kept as long as it may be in its pool, also when its operation ended well and is forgotten.
//! It answers "who made this"; what may be deleted is decided by operations that are open, never by this.

use std::collections::BTreeSet;

use rusqlite::{Connection, Row, params};
use serde::Serialize;

use super::{
    Ledger, LedgerError,
    findings::{parse, text},
    late::Late,
};
use crate::model::{
    DeviceMark, Operation, OperationId, OperationState, PoolName, SnapshotId, ThinId, Timestamp, World,
};

/// How the making of a thin device ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Making {
    /// It goes on, or suture has not seen its end.
    UnderWay,
    /// Its maker died before it was finished.
    Abandoned,
    /// Its maker finished it, or took it back itself; then it is gone, too.
    Ended,
}

impl Making {
    const fn name(self) -> &'static str {
        match self {
            Self::UnderWay => "under_way",
            Self::Abandoned => "abandoned",
            Self::Ended => "ended",
        }
    }
}

/// A thin device that suture saw being made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceRow {
    /// The operation that made it.
    pub operation: OperationId,
    /// In which pool.
    pub pool: PoolName,
    /// Its id.
    pub thin_id: ThinId,
    /// When.
    pub made: Timestamp,
    /// By whom, as people read it.
    pub maker: String,
    /// What it was a snapshot of; none for an empty device.
    pub origin: Option<ThinId>,
    /// Its dm name, once it was activated.
    pub name: Option<String>,
    /// containerd's snapshot, by that name.
    pub snapshot: Option<SnapshotId>,
    /// As it was first seen in the pool, and in which life of the pool that was. The block of its mappings changes when it
    /// is written to, its times do not.
    pub mark: Option<DeviceMark>,
    /// How its making ended.
    pub making: Making,
    /// When it was seen that it is gone.
    pub gone: Option<Timestamp>,
}

/// What a world shows of the devices that were there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    at: Timestamp,
    gone: Vec<OperationId>,
    marks: Vec<(OperationId, DeviceMark)>,
}

const COLUMNS: &str =
    "SELECT operation, pool, thin_id, made, maker, origin, name, snapshot, mark, state, gone FROM devices";

impl Ledger {
    /// Who made the thin device that bears this id now; nothing where suture did not see it.
    pub fn maker_of(&self, pool: &PoolName, id: ThinId) -> Result<Option<DeviceRow>, LedgerError> {
        let mut newest_first = self.devices_of(pool, id)?.into_iter().rev();
        Ok(newest_first.find(|row| row.gone.is_none()))
    }

    /// All devices that suture saw being made under an id, oldest first.
    pub fn devices_of(&self, pool: &PoolName, id: ThinId) -> Result<Vec<DeviceRow>, LedgerError> {
        let query = format!("{COLUMNS} WHERE pool = ?1 AND thin_id = ?2 ORDER BY rowid");
        self.devices(&query, params![pool.as_str(), id.0])
    }

    /// Takes up what a world shows: which devices are gone, and how those look that were made since. Only changes are
    /// written.
    pub fn see_devices(&self, world: &World) -> Result<(), LedgerError> {
        let query = format!("{COLUMNS} WHERE pool = ?1 AND gone IS NULL");
        let mut change = Change {
            at: world.begun,
            gone: Vec::new(),
            marks: Vec::new(),
        };
        for row in self.devices(&query, params![world.pool.name.as_str()])? {
            // One that was made while the world was read may not be in it yet.
            if row.made >= world.begun {
                continue;
            }
            let details = world.thin.get(&row.thin_id);
            let times = row.mark.as_ref().map(|mark| mark.details.creation_time);
            match (details, times) {
                (None, _) => change.gone.push(row.operation),
                (Some(now), Some(then)) if now.creation_time != then => change.gone.push(row.operation),
                (Some(details), None) => {
                    let root = world.mapping_roots.get(&row.thin_id);
                    change.marks.extend(root.map(|root| {
                        let mark = DeviceMark {
                            activation: world.pool.activation.clone(),
                            mapping_root: *root,
                            details: *details,
                        };
                        (row.operation, mark)
                    }));
                }
                (Some(_), Some(_)) => {}
            }
        }
        if change.gone.is_empty() && change.marks.is_empty() {
            return Ok(());
        }
        self.write_or_keep(
            "storing which devices there are",
            vec![Late::Devices(Box::new(change))],
        )
    }

    /// Ids of a pool's devices that suture saw being made and not yet gone.
    pub fn devices_there(&self, pool: &PoolName) -> Result<BTreeSet<ThinId>, LedgerError> {
        let query = format!("{COLUMNS} WHERE pool = ?1 AND gone IS NULL");
        let rows = self.devices(&query, params![pool.as_str()])?;
        Ok(rows.into_iter().map(|row| row.thin_id).collect())
    }

    fn devices(&self, query: &str, arguments: impl rusqlite::Params) -> Result<Vec<DeviceRow>, LedgerError> {
        const WHAT: &str = "reading who made a device";
        let mut sql = self.connection.prepare(query).map_err(LedgerError::sql(WHAT))?;
        let rows = sql
            .query_map(arguments, Cells::read)
            .map_err(LedgerError::sql(WHAT))?;
        rows.map(|cells| cells.map_err(LedgerError::sql(WHAT))?.understood(WHAT))
            .collect()
    }
}

struct Cells {
    row: DeviceRow,
    made: String,
    mark: Option<String>,
    making: String,
    gone: Option<String>,
}

impl Cells {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            row: DeviceRow {
                operation: OperationId::stored(row.get(0)?),
                pool: PoolName::new(row.get::<_, String>(1)?),
                thin_id: ThinId(row.get(2)?),
                made: Timestamp::default(),
                maker: row.get(4)?,
                origin: row.get::<_, Option<u32>>(5)?.map(ThinId),
                name: row.get(6)?,
                snapshot: row
                    .get::<_, Option<i64>>(7)?
                    .map(|id| SnapshotId(id.cast_unsigned())),
                mark: None,
                making: Making::UnderWay,
                gone: None,
            },
            made: row.get(3)?,
            mark: row.get(8)?,
            making: row.get(9)?,
            gone: row.get(10)?,
        })
    }

    fn understood(self, what: &'static str) -> Result<DeviceRow, LedgerError> {
        let value = LedgerError::value(what);
        let mut all = [Making::UnderWay, Making::Abandoned, Making::Ended].into_iter();
        let making = all.find(|one| one.name() == self.making).ok_or_else(|| {
            LedgerError::damaged(format!("a device has the state `{}`", self.making.escape_debug()))
        })?;
        let mark = self.mark.map(|json| serde_json::from_str(&json));
        Ok(DeviceRow {
            made: parse(self.made).map_err(&value)?,
            mark: mark.transpose().map_err(&value)?,
            gone: self.gone.map(parse).transpose().map_err(&value)?,
            making,
            ..self.row
        })
    }
}

/// Stores who made a device, by its operation as it stands now.
pub(super) fn of_operation(connection: &Connection, operation: &Operation) -> Result<(), LedgerError> {
    const WHAT: &str = "storing who made a device";
    let (making, mark, gone) = match &operation.state {
        // Nothing was made.
        OperationState::Failed { .. } => {
            connection
                .execute(
                    "DELETE FROM devices WHERE operation = ?1",
                    params![operation.id.as_str()],
                )
                .map_err(LedgerError::sql(WHAT))?;
            return Ok(());
        }
        OperationState::InFlight => (Making::UnderWay, None, None),
        OperationState::Orphaned { .. } => (Making::Abandoned, None, None),
        OperationState::Abandoned { mark, .. } => (Making::Abandoned, Some(mark), None),
        OperationState::Completed { .. } => (Making::Ended, None, None),
        OperationState::Deleted { at } | OperationState::Superseded { at } => {
            (Making::Ended, None, Some(*at))
        }
    };
    let json = mark
        .map(serde_json::to_string)
        .transpose()
        .map_err(LedgerError::value(WHAT))?;
    let maker = format!("{} under {}", operation.caller.process, operation.actor);
    let name = operation.device_name.as_deref();
    let snapshot = name.and_then(|name| operation.pool.snapshot_of(name));
    let snapshot = snapshot.map(|id| id.0.cast_signed());
    let made = text(operation.began());
    connection
        .prepare_cached(
            "INSERT INTO devices (operation, pool, thin_id, made, maker, origin, name, snapshot, mark, state, gone)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT (operation) DO UPDATE SET name = coalesce(?7, name), snapshot = coalesce(?8, snapshot),
             mark = coalesce(?9, mark), state = ?10, gone = coalesce(gone, ?11)",
        )
        .and_then(|mut sql| {
            sql.execute(params![
                operation.id.as_str(),
                operation.pool.as_str(),
                operation.thin_id.0,
                made,
                maker,
                operation.origin.map(|id| id.0),
                operation.device_name,
                snapshot,
                json,
                making.name(),
                gone.map(text)
            ])
        })
        .map_err(LedgerError::sql(WHAT))?;
    // A pool has one device of an id at a time.
    connection
        .prepare_cached(
            "UPDATE devices SET gone = ?4 WHERE pool = ?1 AND thin_id = ?2 AND operation <> ?3 AND gone IS NULL
             AND rowid < (SELECT rowid FROM devices WHERE operation = ?3)",
        )
        .and_then(|mut sql| {
            let (pool, id) = (operation.pool.as_str(), operation.thin_id.0);
            sql.execute(params![pool, id, operation.id.as_str(), made])
        })
        .map_err(LedgerError::sql(WHAT))?;
    Ok(())
}

/// Stores that the operation which made a device ended well.
pub(super) fn ended_well(connection: &Connection, id: &OperationId) -> Result<(), LedgerError> {
    connection
        .execute(
            "UPDATE devices SET state = ?2 WHERE operation = ?1",
            params![id.as_str(), Making::Ended.name()],
        )
        .map_err(LedgerError::sql("storing who made a device"))?;
    Ok(())
}

/// Stores what a world showed.
pub(super) fn change(connection: &Connection, change: &Change) -> Result<(), LedgerError> {
    const WHAT: &str = "storing which devices there are";
    for operation in &change.gone {
        connection
            .prepare_cached("UPDATE devices SET gone = ?2 WHERE operation = ?1 AND gone IS NULL")
            .and_then(|mut sql| sql.execute(params![operation.as_str(), text(change.at)]))
            .map_err(LedgerError::sql(WHAT))?;
    }
    for (operation, mark) in &change.marks {
        let json = serde_json::to_string(mark).map_err(LedgerError::value(WHAT))?;
        connection
            .prepare_cached("UPDATE devices SET mark = ?2 WHERE operation = ?1 AND mark IS NULL")
            .and_then(|mut sql| sql.execute(params![operation.as_str(), json]))
            .map_err(LedgerError::sql(WHAT))?;
    }
    Ok(())
}
