//! Reads one consistent world: databases, pool metadata and dm devices, accepted only if no transaction of containerd's
//! came in between.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, SystemTime},
};

use super::{
    bbolt::{BboltError, Database},
    device_mapper::{DeviceMapper, DeviceMapperError},
    pages::DatabasePages,
    pool_db::PoolDbError,
    snapshot_db::SnapshotDbError,
    thin_metadata::{self, ThinMetadataError},
};
use crate::model::{Pool, PoolDb, PoolName, SnapshotDb, ThinId, TxId, World};

/// Tries before a busy node is given up on until later.
const TRIES: u32 = 8;
/// Pause after the first failed try; doubled with each.
const PAUSE: Duration = Duration::from_millis(5);

/// Where the snapshotter keeps its things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The thin pool.
    pub pool: PoolName,
    /// containerd's `root_path` of the devmapper snapshotter.
    pub root: PathBuf,
}

impl Places {
    /// The pool database: devices and thin ids.
    #[must_use]
    pub fn pool_db(&self) -> PathBuf {
        self.root.join(format!("{}.db", self.pool))
    }

    /// The snapshot storage.
    #[must_use]
    pub fn snapshot_db(&self) -> PathBuf {
        self.root.join("metadata.db")
    }
}

/// Why the world could not be read.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// The pool database.
    #[error("reading containerd's pool database")]
    PoolDb(#[from] PoolDbError),
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
    /// containerd wrote each time.
    #[error("containerd changed its databases during each of {TRIES} reads; they will be read again later")]
    Busy,
}

/// Reads everything, of the thin devices in `with_roots` also where their mappings begin. Takes no lock and writes
/// nothing.
pub fn read(places: &Places, with_roots: &BTreeSet<ThinId>) -> Result<World, WorldError> {
    read_with_pages(places, with_roots, false, &mut None).map(|(world, _)| world)
}

/// The same and, where `keep_pages` asks for them, the pages that the databases were read from. What the pool says of
/// itself is left in `known` as soon as it is known, also where everything else can not be read.
pub fn read_with_pages(
    places: &Places,
    with_roots: &BTreeSet<ThinId>,
    keep_pages: bool,
    known: &mut Option<Pool>,
) -> Result<(World, Option<DatabasePages>), WorldError> {
    let dm = DeviceMapper::open()?;
    let mut pause = PAUSE;
    for _ in 0..TRIES {
        let begun = SystemTime::now().into();
        let pool = dm.pool(&places.pool)?;
        *known = Some(pool.clone());
        let (pool_db, snapshots, pages) = databases(places, keep_pages)?;
        let metadata = thin_metadata::read_device(pool.metadata_device, with_roots)?;
        let nodes = dm.nodes(&pool)?;
        let world = World {
            begun,
            pool,
            pool_db,
            snapshots,
            thin: metadata.devices,
            mapping_roots: metadata.mapping_roots,
            nodes,
        };
        // containerd brackets each of its pool messages between two transactions: with both databases where they were,
        // what was read in between belongs to them.
        if transactions(places)? == world.transactions() {
            return Ok((world, pages));
        }
        sleep(pause);
        pause = pause.saturating_mul(2);
    }
    Err(WorldError::Busy)
}

fn databases(
    places: &Places,
    keep_pages: bool,
) -> Result<(PoolDb, SnapshotDb, Option<DatabasePages>), WorldError> {
    if !keep_pages {
        let pool_db = PoolDb::read(places.pool_db())?;
        return Ok((pool_db, SnapshotDb::read(places.snapshot_db())?, None));
    }
    let (pool_db, pool_pages) = PoolDb::read_with_pages(places.pool_db())?;
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
