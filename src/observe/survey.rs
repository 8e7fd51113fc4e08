//! Reads one [`Survey`]: what a world holds, and who uses it, also where a world can not be read: with the pool taken
//! down, or from its metadata device alone.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    thread::sleep,
    time::{Duration, SystemTime},
};

use super::{
    containerd::holder_of,
    device_mapper::{DeviceMapper, DeviceMapperError},
    pool_db::PoolDb,
    snapshot_db::SnapshotDb,
    thin_metadata::{self, ThinMetadata, ThinMetadataError},
    world::{self, Places, WorldError},
};
use crate::{
    model::{
        ContainerdState, Pool, Survey, ThinId,
        survey::{Mounts, Unread},
    },
    words::explain,
};

/// Tries before a busy node is given up on until later.
const TRIES: u32 = 8;
/// Pause after the first failed try; doubled with each.
const PAUSE: Duration = Duration::from_millis(5);

/// Where everything is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SurveyPlaces {
    /// The pool and the snapshotter's databases.
    pub places: Places,
    /// containerd's own database, where it is known.
    pub core_db: Option<PathBuf>,
    /// containerd's `async_remove`, where its configuration was read.
    pub async_remove: Option<bool>,
    /// The pool's metadata device, or a copy of it, instead of the one under the live pool.
    pub metadata_device: Option<PathBuf>,
}

/// Reads everything; of the thin devices in `roots` also where their mappings begin. Takes no lock, and writes nothing.
pub fn read(places: &SurveyPlaces, roots: &BTreeSet<ThinId>) -> Result<Survey, WorldError> {
    let mut pause = PAUSE;
    for _ in 0..TRIES {
        let survey = once(places, roots)?;
        if world::transactions(&places.places)? == survey.transactions() {
            return Ok(survey);
        }
        sleep(pause);
        pause = pause.saturating_mul(2);
    }
    Err(WorldError::Busy)
}

fn once(places: &SurveyPlaces, roots: &BTreeSet<ThinId>) -> Result<Survey, WorldError> {
    let begun = SystemTime::now().into();
    let mut unread = Vec::new();
    let mut lacks = |what: &str, why: String| {
        unread.push(Unread {
            what: what.to_owned(),
            why,
            matters: true,
        });
    };
    let (pool, nodes) = match kernel(&places.places) {
        Ok((pool, nodes)) => (pool, nodes),
        Err(error) => {
            lacks("device-mapper", explain(&error));
            (None, Vec::new())
        }
    };
    let pool_db = PoolDb::read(places.places.pool_db())?;
    let snapshots = SnapshotDb::read(places.places.snapshot_db())?;
    let metadata = match metadata(places, pool.as_ref(), roots) {
        Ok(metadata) => Some(metadata),
        Err(why) => {
            lacks("the pool's metadata", why);
            None
        }
    };
    let containerd = match holder_of(&places.places.pool_db()) {
        Ok(Some(who)) => ContainerdState::Running {
            who,
            at_work: Vec::new(),
        },
        Ok(None) => ContainerdState::Stopped { at_work: Vec::new() },
        Err(error) => ContainerdState::Unknown { why: explain(&error) },
    };
    let (thin, mapping_roots) = metadata
        .map(|metadata| (metadata.devices, metadata.mapping_roots))
        .unzip();
    Ok(Survey {
        begun,
        pool_name: places.places.pool.clone(),
        pool,
        usage: None,
        pool_db,
        snapshots,
        thin,
        mapping_roots: mapping_roots.unwrap_or_default(),
        nodes,
        core: None,
        mounts: Mounts::default(),
        containerd,
        async_remove: places.async_remove,
        unread,
    })
}

fn kernel(places: &Places) -> Result<(Option<Pool>, Vec<crate::model::Node>), DeviceMapperError> {
    let dm = DeviceMapper::open()?;
    match dm.pool(&places.pool) {
        Ok(pool) => {
            let nodes = dm.nodes(&pool)?;
            Ok((Some(pool), nodes))
        }
        Err(DeviceMapperError::NoPool(_)) => Ok((None, Vec::new())),
        Err(error) => Err(error),
    }
}

fn metadata(
    places: &SurveyPlaces,
    pool: Option<&Pool>,
    roots: &BTreeSet<ThinId>,
) -> Result<ThinMetadata, String> {
    let read = |number| thin_metadata::read_device(number, roots);
    match (pool, &places.metadata_device) {
        (Some(pool), None) => read(pool.metadata_device).map_err(|error: ThinMetadataError| explain(&error)),
        (None, None) => Err(format!(
            "the pool {} is not set up; name its metadata device with --metadata-device",
            places.places.pool
        )),
        (_, Some(path)) => Err(format!("{} can not be read yet", path.display())),
    }
}
