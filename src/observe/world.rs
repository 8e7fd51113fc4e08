//! Reads one consistent world: databases, pool metadata and dm devices, accepted only if no transaction of containerd's
//! came in between.

use std::{
    io,
    path::Path,
    thread::sleep,
    time::{Duration, SystemTime},
};

pub use super::places::Places;
use super::{
    bbolt::{BboltError, Database},
    device_mapper::{DeviceMapper, DeviceMapperError},
    lost::{self, LostPoolDb},
    pages::DatabasePages,
    pool_db::PoolDbError,
    snapshot_db::SnapshotDbError,
    thin_metadata::{self, ThinMetadataError},
    topology,
};
use crate::model::{
    DataOwners, Pool, PoolDb, PoolView, Questions, SnapshotDb, Topology, TxId, World, ranges::Ranges,
    topology::Placed,
};

/// Tries before a busy node is given up on until later.
const TRIES: u32 = 8;
/// Pause after the first failed try; doubled with each.
const PAUSE: Duration = Duration::from_millis(5);

/// Why the world could not be read.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// The pool database.
    #[error("reading containerd's pool database")]
    PoolDb(#[from] PoolDbError),
    /// The pool database is lost, and the snapshots whose devices it had are not.
    #[error("{0}")]
    PoolDbLost(LostPoolDb),
    /// The snapshot storage.
    #[error("reading containerd's snapshot database")]
    SnapshotDb(#[from] SnapshotDbError),
    /// A transaction id could not be read again.
    #[error("reading a transaction id again")]
    Again(#[from] BboltError),
    /// The pool's metadata.
    #[error("reading the thin pool's metadata")]
    Metadata(#[from] ThinMetadataError),
    /// Device-mapper.
    #[error(transparent)]
    DeviceMapper(#[from] DeviceMapperError),
    /// Something may not be read.
    #[error("{lacks}")]
    Denied {
        /// Which privilege is missing.
        lacks: String,
        /// What was being done.
        source: Box<WorldError>,
    },
    /// A thread to read with could not be started.
    #[error("starting a thread to read with")]
    Threads(#[source] io::Error),
    /// containerd wrote each time.
    #[error("containerd changed its databases during each of {TRIES} reads; they will be read again later")]
    Busy,
}

/// Reads everything, and what is asked beside. Takes no lock and writes
/// nothing.
pub fn read(places: &Places, questions: &Questions) -> Result<World, WorldError> {
    read_with_pages(places, questions, false).map(|(world, _)| world)
}

/// The same and, where `keep_pages` asks for them, the pages that the databases were read from.
pub fn read_with_pages(
    places: &Places,
    questions: &Questions,
    keep_pages: bool,
) -> Result<(World, Option<DatabasePages>), WorldError> {
    let dm = DeviceMapper::open()?;
    let mut pause = PAUSE;
    for _ in 0..TRIES {
        let begun = SystemTime::now().into();
        let pool = dm.pool(&places.pool)?;
        let (pool_db, snapshots, pages) = databases(places, keep_pages)?;
        let metadata = thin_metadata::read_device(pool.metadata_device, &questions.roots)?;
        let nodes = dm.nodes(&pool)?;
        let topology = topology::read(&dm, &pool, &nodes);
        let mut world = World {
            begun,
            pool,
            pool_db,
            snapshots,
            thin: metadata.devices,
            mapping_roots: metadata.mapping_roots,
            nodes,
            topology,
            data_owners: None,
        };
        // containerd brackets each of its pool messages between two transactions: with both databases where they were,
        // what was read in between belongs to them.
        if transactions(places)? == world.transactions() {
            // It takes longer than all the rest, and proves nothing: it needs no transaction of its own.
            world.data_owners = data_owners(&world.pool, &world.topology, questions);
            return Ok((world, pages));
        }
        sleep(pause);
        pause = pause.saturating_mul(2);
    }
    Err(WorldError::Busy)
}

/// Reads what device-mapper and sysfs tell of the pool: what is left when databases or metadata can not be read.
pub fn read_pool(places: &Places) -> Result<PoolView, WorldError> {
    let begun = SystemTime::now().into();
    let dm = DeviceMapper::open()?;
    let pool = dm.pool(&places.pool)?;
    let nodes = dm.nodes(&pool)?;
    let topology = topology::read(&dm, &pool, &nodes);
    Ok(PoolView {
        begun,
        pool,
        nodes,
        topology,
    })
}

/// Whose data are in the failed sectors that were asked for. That they can not be told fails no read of the world.
fn data_owners(pool: &Pool, topology: &Topology, questions: &Questions) -> Option<DataOwners> {
    let mut blocks = Ranges::default();
    let size = pool.data_block_sectors()?;
    for (device, failed) in &questions.data_ranges {
        if let Placed::At(sectors) = topology.place(*device, failed, pool.device) {
            blocks.extend(&sectors.in_units_of(size));
        }
    }
    (!blocks.is_empty()).then(|| thin_metadata::owners_of(pool.metadata_device, &blocks))
}

fn databases(
    places: &Places,
    keep_pages: bool,
) -> Result<(PoolDb, SnapshotDb, Option<DatabasePages>), WorldError> {
    let lost = |error| lost::understood(error, places);
    if !keep_pages {
        let pool_db = PoolDb::read(places.pool_db()).map_err(lost)?;
        return Ok((pool_db, SnapshotDb::read_rows(&places.snapshot_db())?, None));
    }
    let (pool_db, pool_pages) = PoolDb::read_with_pages(places.pool_db()).map_err(lost)?;
    let (snapshots, snapshot_pages) = SnapshotDb::read_with_pages(places.snapshot_db())?;
    let pages = DatabasePages {
        pool_db: pool_pages,
        snapshots: snapshot_pages,
    };
    Ok((pool_db, snapshots, Some(pages)))
}

/// The transaction ids that the databases are at.
pub fn transactions(places: &Places) -> Result<(TxId, Option<TxId>), WorldError> {
    let newest = |path: &Path| Database::open(path)?.newest_txid();
    let snapshots = match newest(&places.snapshot_db()) {
        Ok(txid) => Some(txid),
        Err(BboltError::Missing { .. } | BboltError::Empty { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    Ok((newest(&places.pool_db())?, snapshots))
}
