//! Reads one [`Survey`]: what a world holds, and who uses it, also where a world can not be read: with the pool taken
//! down, or from its metadata device alone.
//!
//! The databases are read by threads of their own while device-mapper and the metadata are. containerd brackets each of its
//! pool messages between two transactions: with both databases at the same transactions before and after all of it, what
//! was read in between belongs to them. A database that is proven to be unchanged since the survey before is not read again
//! (`kept`).

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    panic::resume_unwind,
    path::{Path, PathBuf},
    thread::{Builder, Scope, ScopedJoinHandle, scope, sleep},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

pub use super::privileges::{lacking, was_denied};
use super::{
    bbolt::{BboltError, Database},
    containerd::{at_work, holder_of},
    core_db::CoreDbError,
    device_mapper::{DeviceMapper, DeviceMapperError},
    kept::Kept,
    lost, mounts,
    outline::{pool_outline, rows_outline},
    privileges::{Privilege, explain_denied},
    thin_metadata::{self, DeviceSource, From as Walked, Reserve, Reserving, ThinMetadataError},
    world::{self, Places, WorldError},
};
use crate::model::{
    ContainerdState, CoreDb, Node, Pool, PoolDb, PoolUsage, Reclaimable, Shared, SnapshotDb, Space, Survey,
    ThinDetails, ThinId, TxId, databases::Presence, outline::Outline, survey::Unread,
};

/// Tries before a busy node is given up on until later.
const TRIES: u32 = 8;
/// So many rows are read as quickly as their index is: fewer need no glance.
const WORTH_A_GLANCE: usize = 4096;
/// Pause after the first failed try; doubled with each.
const PAUSE: Duration = Duration::from_millis(5);

/// Where everything is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    Surveys::new(places.clone()).read(roots, None)
}

/// Reads surveys of one node, one after the other. A database that is proven to be the one that was read for the survey before
/// is not read anew, and both have it in common.
#[derive(Debug)]
pub struct Surveys {
    places: SurveyPlaces,
    kept: Kept,
    /// What is read of containerd's own database where all of it is asked for.
    names: Names,
}

impl Surveys {
    /// Surveys of what is at these places.
    #[must_use]
    pub fn new(places: SurveyPlaces) -> Self {
        Self {
            places,
            kept: Kept::default(),
            names: Names::Read,
        }
    }

    /// For who tells nobody who uses a snapshot: of containerd's own database only the snapshots are read. They are what it takes
    /// to judge.
    #[must_use]
    pub fn without_users(self) -> Self {
        Self {
            names: Names::OfSnapshots,
            ..self
        }
    }

    /// Where everything is.
    #[must_use]
    pub fn places(&self) -> &SurveyPlaces {
        &self.places
    }

    /// Reads everything, as [`read`] does. Where the pool commits too often to be read as it is, a snapshot of its metadata is
    /// reserved for it, by that hand.
    pub fn read(
        &self,
        roots: &BTreeSet<ThinId>,
        reserving: Option<Reserving<'_>>,
    ) -> Result<Survey, WorldError> {
        self.consistent(roots, reserving, self.names)
    }

    /// The same without the names of users: of containerd's own database only its newest transaction is looked at. No finding
    /// comes or goes for want of names, only what is told of one; [`Surveys::add_names`] reads them.
    pub fn read_without_names(
        &self,
        roots: &BTreeSet<ThinId>,
        reserving: Option<Reserving<'_>>,
    ) -> Result<Survey, WorldError> {
        self.consistent(roots, reserving, Names::LookedAt)
    }

    /// The numbers of everything, for who asks no more than whether there is anything to find. Nothing where that can not be told
    /// without reading more, and where there is so little that reading all of it takes no longer.
    pub fn read_outline(
        &self,
        roots: &BTreeSet<ThinId>,
        reserving: Option<Reserving<'_>>,
    ) -> Result<Option<Outline>, WorldError> {
        self.settled(
            || outline(&self.places, &self.kept, roots, reserving),
            |outline| {
                let outline = outline.as_ref()?;
                Some((outline.pool_db.txid, Some(outline.rows.txid)))
            },
        )
    }

    /// Reads the names of users into a survey that was read without them. False when containerd has changed the snapshotter's
    /// databases since: then the names are of another state, nothing was added, and everything is to be read again.
    pub fn add_names(&self, survey: &mut Survey) -> Result<bool, WorldError> {
        let mut unread = Vec::new();
        let core = self
            .names
            .of(self.places.core_db.as_deref(), &self.kept, &mut unread);
        if world::transactions(&self.places.places)? != survey.transactions() {
            return Ok(false);
        }
        // What the look at it had to say is said by its reader now.
        survey.unread.retain(|one| one.what != CORE_DB);
        survey.unread.extend(unread);
        survey.core = core;
        Ok(true)
    }

    fn consistent(
        &self,
        roots: &BTreeSet<ThinId>,
        reserving: Option<Reserving<'_>>,
        names: Names,
    ) -> Result<Survey, WorldError> {
        self.settled(
            || once(&self.places, &self.kept, roots, reserving, names),
            |survey| Some(survey.transactions()),
        )
    }

    /// Reads until nothing was committed meanwhile. What is of no transactions is not read again.
    fn settled<T>(
        &self,
        read: impl Fn() -> Result<T, WorldError>,
        transactions: impl Fn(&T) -> Option<(TxId, Option<TxId>)>,
    ) -> Result<T, WorldError> {
        let places = &self.places.places;
        let mut pause = PAUSE;
        for _ in 0..TRIES {
            // What can not be read is told by its own reader, in better words.
            let before = world::transactions(places).ok();
            let survey = read().map_err(with_privilege)?;
            let now = transactions(&survey);
            if now.is_none() || (before == now && Some(world::transactions(places)?) == now) {
                return Ok(survey);
            }
            sleep(pause);
            pause = pause.saturating_mul(2);
        }
        Err(WorldError::Busy)
    }
}

/// The space of every thin device, and why something is left behind where it is. `pool` is the survey's.
pub fn space(
    places: &SurveyPlaces,
    pool: Option<&Pool>,
    reserving: Option<Reserving<'_>>,
) -> Result<(Space, Option<String>), String> {
    match (&places.metadata_device, pool) {
        (None, Some(pool)) => thin_metadata::space_of_pool(pool, reserving)
            .map(|(space, left)| (space, left.map(|left| left.in_words()))),
        _ => open(places, pool)?
            .and_then(|mut source| thin_metadata::space(&mut source, Walked::Committed))
            .map(|space| (space, None)),
    }
    .map_err(|error| explain_denied(&error, Privilege::Files))
}

/// What deleting all of these thin devices would free. `pool` is the survey's.
pub fn reclaimable(
    places: &SurveyPlaces,
    pool: Option<&Pool>,
    ids: &BTreeSet<ThinId>,
) -> Result<Reclaimable, String> {
    open(places, pool)?
        .and_then(|mut source| thin_metadata::space_of_set(&mut source, Walked::Committed, ids))
        .map_err(|error| explain_denied(&error, Privilege::Files))
}

fn open(
    places: &SurveyPlaces,
    pool: Option<&Pool>,
) -> Result<Result<DeviceSource, ThinMetadataError>, String> {
    match (&places.metadata_device, pool) {
        (Some(path), _) => Ok(DeviceSource::open(path)),
        (None, Some(pool)) => Ok(DeviceSource::open_device(pool.metadata_device)),
        (None, None) => Err(not_set_up(places)),
    }
}

fn not_set_up(places: &SurveyPlaces) -> String {
    format!(
        "the pool {} is not set up; name its metadata device with --metadata-device",
        places.places.pool
    )
}

fn once(
    places: &SurveyPlaces,
    kept: &Kept,
    roots: &BTreeSet<ThinId>,
    reserving: Option<Reserving<'_>>,
    names: Names,
) -> Result<Survey, WorldError> {
    let (rest, pool_db, snapshots) = beside(
        places,
        kept,
        roots,
        reserving,
        names,
        |path| kept.pool_db(path),
        |path| kept.snapshots(path),
    )?;
    Ok(Survey {
        pool_db: pool_db.map_err(|error| lost::understood(error, &places.places))?,
        snapshots: snapshots?,
        ..rest
    })
}

/// The same by its numbers.
fn outline(
    places: &SurveyPlaces,
    kept: &Kept,
    roots: &BTreeSet<ThinId>,
    reserving: Option<Reserving<'_>>,
) -> Result<Option<Outline>, WorldError> {
    let pool = &places.places.pool;
    let (rest, pool_db, rows) = beside(
        places,
        kept,
        roots,
        reserving,
        Names::LookedAt,
        |path| pool_outline(&Database::open(path)?.with_free_list(), pool, path),
        |path| rows_outline(|| Database::open(path), WORTH_A_GLANCE, path),
    )?;
    let pool_db = pool_db.map_err(|error| lost::understood(error, &places.places))?;
    Ok(pool_db
        .zip(rows?)
        .map(|(pool_db, rows)| Outline { pool_db, rows, rest }))
}

/// Everything, both databases by these readers and not in the survey.
fn beside<P: Send, R: Send>(
    places: &SurveyPlaces,
    kept: &Kept,
    roots: &BTreeSet<ThinId>,
    reserving: Option<Reserving<'_>>,
    names: Names,
    pool_db: impl FnOnce(&Path) -> P + Send,
    rows: impl FnOnce(&Path) -> R + Send,
) -> Result<(Survey, P, R), WorldError> {
    let begun = SystemTime::now().into();
    scope(|scope| {
        let (pool_path, snapshot_path) = (places.places.pool_db(), places.places.snapshot_db());
        let pool_db = spawn(scope, "pool database", move || pool_db(&pool_path))?;
        let rows = spawn(scope, "snapshot storage", move || rows(&snapshot_path))?;
        let core = places.core_db.as_deref();
        let core = spawn(scope, "meta.db", move || {
            let mut unread = Vec::new();
            (names.of(core, kept, &mut unread), unread)
        })?;

        let mut live = Live::default();
        live.read(places, roots, reserving);
        let containerd = containerd(&places.places, &live.nodes);
        let devices = live.nodes.iter().map(|node| node.device).collect();
        let mounts = mounts::read(&devices);

        let (core, unread) = join(core);
        live.unread.extend(unread);
        let rest = Survey {
            begun,
            pool_name: places.places.pool.clone(),
            pool: live.pool,
            usage: live.usage,
            pool_db: PoolDb::default().into(),
            snapshots: SnapshotDb::nothing(Presence::NoFile).into(),
            thin: live.thin,
            mapping_roots: live.mapping_roots,
            nodes: live.nodes,
            core,
            mounts,
            containerd,
            async_remove: places.async_remove,
            unread: live.unread,
        };
        Ok((rest, join(pool_db), join(rows)))
    })
}

fn spawn<'s, T: Send + 's>(
    scope: &'s Scope<'s, '_>,
    name: &str,
    read: impl FnOnce() -> T + Send + 's,
) -> Result<ScopedJoinHandle<'s, T>, WorldError> {
    let thread = Builder::new().name(name.to_owned()).spawn_scoped(scope, read);
    thread.map_err(WorldError::Threads)
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// What the kernel has of the pool.
#[derive(Default)]
struct Live {
    pool: Option<Pool>,
    usage: Option<PoolUsage>,
    nodes: Vec<Node>,
    thin: Option<BTreeMap<ThinId, ThinDetails>>,
    mapping_roots: BTreeMap<ThinId, u64>,
    unread: Vec<Unread>,
}

impl Live {
    fn read(&mut self, places: &SurveyPlaces, roots: &BTreeSet<ThinId>, reserving: Option<Reserving<'_>>) {
        let mut told = self.kernel(&places.places);
        if told.is_ok() && self.clean_up(reserving) {
            // It may have been all that filled the metadata.
            told = self.kernel(&places.places);
        }
        if let Err(error) = told {
            self.lacks(
                "device-mapper",
                explain_denied(&error, Privilege::DeviceMapper),
                true,
            );
        }
        match self.metadata(places, roots, reserving) {
            Ok((metadata, left)) => {
                self.thin = Some(metadata.devices);
                self.mapping_roots = metadata.mapping_roots;
                if let Some(left) = left {
                    self.lacks("the end of the reserved metadata snapshot", left, false);
                }
            }
            Err(why) => self.lacks("the pool's metadata", why, true),
        }
        // Roots in a copy say nothing of the devices in the pool that runs.
        if let (Some(path), Some(pool)) = (&places.metadata_device, &self.pool)
            && !is_device(path, pool)
        {
            let why = format!(
                "thin devices are told as {} has them, which is not the metadata device ({}) of the pool that is set up",
                path.display(),
                pool.metadata_device
            );
            self.mapping_roots.clear();
            self.lacks("the live pool's metadata", why, true);
        }
    }

    fn kernel(&mut self, places: &Places) -> Result<(), DeviceMapperError> {
        let dm = DeviceMapper::open()?;
        match dm.pool(&places.pool) {
            Ok(pool) => {
                self.nodes = dm.nodes(&pool)?;
                self.usage = dm.usage(&pool)?;
                self.pool = Some(pool);
            }
            Err(DeviceMapperError::NoPool(_)) => self.nodes = dm.nodes_named(&places.pool)?,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Releases what a suture that was killed left reserved. Tells whether there was something.
    fn clean_up(&mut self, reserving: Option<Reserving<'_>>) -> bool {
        let held = self.usage.is_some_and(|usage| usage.held_root.is_some());
        let reserving = reserving.filter(|reserving| held && reserving.when != Reserve::Never);
        let (Some(reserving), Some(pool)) = (reserving, &self.pool) else {
            return false;
        };
        reserving.hand.clean_up(pool).unwrap_or_else(|error| {
            self.lacks("an earlier suture's metadata snapshot", error.in_words(), false);
            false
        })
    }

    fn metadata(
        &self,
        places: &SurveyPlaces,
        roots: &BTreeSet<ThinId>,
        reserving: Option<Reserving<'_>>,
    ) -> Result<(thin_metadata::ThinMetadata, Option<String>), String> {
        match (&places.metadata_device, &self.pool) {
            (Some(path), _) => thin_metadata::read_path(path, roots).map(|metadata| (metadata, None)),
            (None, Some(pool)) => thin_metadata::read_pool(pool, roots, reserving)
                .map(|(metadata, left)| (metadata, left.map(|left| left.in_words()))),
            (None, None) => return Err(not_set_up(places)),
        }
        .map_err(|error| explain_denied(&error, Privilege::Files))
    }

    fn lacks(&mut self, what: &str, why: String, matters: bool) {
        self.unread.push(Unread {
            what: what.to_owned(),
            why,
            matters,
        });
    }
}

fn is_device(path: &Path, pool: &Pool) -> bool {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    std::fs::metadata(path).is_ok_and(|found| {
        found.file_type().is_block_device()
            && crate::model::DeviceNumber::from_huge(found.rdev()) == pool.metadata_device
    })
}

/// How a survey calls containerd's own database where it says what it lacks.
const CORE_DB: &str = "containerd's own database, meta.db";

/// What is done about containerd's own database, which names the users of snapshots and nothing else.
#[derive(Debug, Clone, Copy)]
enum Names {
    /// All of it is read.
    Read,
    /// The snapshots that it knows.
    OfSnapshots,
    /// Only whether it can be read is looked at: it is as large as all else together.
    LookedAt,
}

impl Names {
    /// containerd's own database; nothing where it is not read. Without it only names of users are missing.
    fn of(self, path: Option<&Path>, kept: &Kept, unread: &mut Vec<Unread>) -> Option<Shared<CoreDb>> {
        let read = path.map(|path| match self {
            Self::Read => kept.core(path).map(Some),
            Self::OfSnapshots => kept.core_snapshots(path).map(Some),
            Self::LookedAt => {
                let looked = Database::open(path).and_then(|database| database.newest_txid());
                looked.map(|_| None).map_err(CoreDbError::from)
            }
        });
        let why = match read {
            Some(Ok(core)) => return core,
            // containerd makes it at its first start.
            Some(Err(CoreDbError::Database(BboltError::Missing { .. } | BboltError::Empty { .. }))) => {
                format!(
                    "{} is not there, or empty: who uses a snapshot is not told",
                    path.unwrap_or(Path::new("meta.db")).display()
                )
            }
            Some(Err(error)) => explain_denied(&error, Privilege::Files),
            None => "where it is, containerd's configuration would tell: who uses a snapshot is not told"
                .to_owned(),
        };
        unread.push(Unread {
            what: CORE_DB.to_owned(),
            why,
            matters: false,
        });
        None
    }
}

fn containerd(places: &Places, nodes: &[Node]) -> ContainerdState {
    let at_work = |pid| at_work(pid, &places.pool, nodes);
    match holder_of(&places.pool_db()) {
        Ok(Some(who)) => ContainerdState::Running {
            at_work: at_work(Some(who.pid)),
            who,
        },
        Ok(None) => ContainerdState::Stopped {
            at_work: at_work(None),
        },
        Err(error) => ContainerdState::Unknown {
            why: explain_denied(&error, Privilege::Files),
        },
    }
}

/// An error that is for want of a privilege, said so.
fn with_privilege(error: WorldError) -> WorldError {
    let denied: &(dyn Error + 'static) = &error;
    if was_denied(denied) {
        return WorldError::Denied {
            lacks: Privilege::Files.sentence(),
            source: Box::new(error),
        };
    }
    error
}
