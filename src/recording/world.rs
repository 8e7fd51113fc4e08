//! A world as what changed since the one before it. Both sides keep the last world's parts; what one leaves out, the other
//! has.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    MOST_PAGES,
    error::{Damage, WriteError},
};
use crate::{
    model::{DataOwners, Node, Pool, ThinDetails, ThinId, Timestamp, Topology, World, databases::Presence},
    observe::{bbolt::Pages, pages::DatabasePages},
};

/// Which database pages belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Database {
    /// The pool database.
    Pool,
    /// The snapshot storage.
    Snapshots,
}

impl Database {
    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Pool => 0,
            Self::Snapshots => 1,
        }
    }

    pub(super) fn of(byte: u8) -> Option<Self> {
        [Self::Pool, Self::Snapshots]
            .into_iter()
            .find(|one| one.byte() == byte)
    }
}

/// A run of pages that is new or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) database: Database,
    pub(super) page: u64,
    pub(super) bytes: Vec<u8>,
}

/// Everything of a world that is not pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WorldRecord {
    begun: Timestamp,
    pool: Pool,
    /// Bytes per page of the pool database.
    pool_db: u32,
    /// Bytes per page of the snapshot storage; nothing where it has no page.
    snapshots: Option<u32>,
    /// How much of a snapshot storage there is.
    presence: Presence,
    thin: Delta<ThinDetails>,
    mapping_roots: Delta<u64>,
    /// The dm devices; nothing where they are as before.
    nodes: Option<Vec<Node>>,
    /// What lies on what; nothing where it is as before.
    topology: Option<Topology>,
    /// Whose data are in failed sectors, where that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_owners: Option<DataOwners>,
}

/// What changed in a map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Delta<V> {
    /// Whether `set` is all there is, whatever was before.
    whole: bool,
    set: BTreeMap<ThinId, V>,
    gone: BTreeSet<ThinId>,
}

impl<V: Clone + PartialEq> Delta<V> {
    fn between(before: &BTreeMap<ThinId, V>, now: &BTreeMap<ThinId, V>) -> Self {
        let set: BTreeMap<ThinId, V> = now
            .iter()
            .filter(|(id, value)| before.get(id) != Some(value))
            .map(|(id, value)| (*id, value.clone()))
            .collect();
        let gone: BTreeSet<ThinId> = before
            .keys()
            .filter(|id| !now.contains_key(id))
            .copied()
            .collect();
        if set.len().saturating_add(gone.len()) >= now.len() {
            return Self {
                whole: true,
                set: now.clone(),
                gone: BTreeSet::new(),
            };
        }
        Self {
            whole: false,
            set,
            gone,
        }
    }

    fn apply(self, before: &mut BTreeMap<ThinId, V>) {
        if self.whole {
            *before = self.set;
            return;
        }
        before.retain(|id, _| !self.gone.contains(id));
        before.extend(self.set);
    }
}

/// What both sides know of the last world.
#[derive(Debug, Default)]
pub(super) struct Known {
    pages: DatabasePages,
    thin: BTreeMap<ThinId, ThinDetails>,
    mapping_roots: BTreeMap<ThinId, u64>,
    nodes: Vec<Node>,
    topology: Topology,
    /// Pages that were read for the next world, on the reader's side.
    staged: Vec<Run>,
    staged_bytes: usize,
}

impl Known {
    /// What to write of a world; from then on it is the last one.
    pub(super) fn delta(
        &mut self,
        world: &World,
        pages: DatabasePages,
    ) -> Result<(Vec<Run>, WorldRecord), WriteError> {
        if size_of(&pages) > MOST_PAGES {
            return Err(WriteError::TooLarge {
                what: "what is in use of containerd's databases",
                most: MOST_PAGES,
            });
        }
        let mut runs = Vec::new();
        let none = Pages::default();
        let both = [
            (Database::Pool, &self.pages.pool_db, &pages.pool_db),
            (
                Database::Snapshots,
                self.pages.snapshots.as_ref().unwrap_or(&none),
                pages.snapshots.as_ref().unwrap_or(&none),
            ),
        ];
        for (database, before, now) in both {
            let same_shape = before.page_size() == now.page_size();
            let changed = now
                .runs()
                .iter()
                .filter(|(page, bytes)| !same_shape || before.runs().get(page) != Some(bytes));
            runs.extend(changed.map(|(page, bytes)| Run {
                database,
                page: *page,
                bytes: bytes.clone(),
            }));
        }
        let record = WorldRecord {
            begun: world.begun,
            pool: world.pool.clone(),
            pool_db: pages.pool_db.page_size(),
            snapshots: pages.snapshots.as_ref().map(Pages::page_size),
            presence: world.snapshots.presence,
            thin: Delta::between(&self.thin, &world.thin),
            mapping_roots: Delta::between(&self.mapping_roots, &world.mapping_roots),
            nodes: (self.nodes != world.nodes).then(|| world.nodes.clone()),
            topology: (self.topology != world.topology).then(|| world.topology.clone()),
            data_owners: world.data_owners.clone(),
        };
        self.pages = pages;
        self.thin.clone_from(&world.thin);
        self.mapping_roots.clone_from(&world.mapping_roots);
        self.nodes.clone_from(&world.nodes);
        self.topology.clone_from(&world.topology);
        Ok((runs, record))
    }

    /// Takes in pages of the next world.
    pub(super) fn stage(&mut self, run: Run) -> Result<(), Damage> {
        self.staged_bytes = self.staged_bytes.saturating_add(run.bytes.len());
        if self.staged_bytes > MOST_PAGES {
            return Err(Damage::Record {
                problem: "holds more pages than a world can have",
            });
        }
        self.staged.push(run);
        Ok(())
    }

    /// The next world.
    pub(super) fn apply(&mut self, record: WorldRecord) -> Result<World, Damage> {
        let before = std::mem::take(&mut self.pages);
        self.staged_bytes = 0;
        let (pool_runs, snapshot_runs) = std::mem::take(&mut self.staged)
            .into_iter()
            .partition(|run| run.database == Database::Pool);
        let pages = DatabasePages {
            pool_db: patch(before.pool_db, record.pool_db, pool_runs),
            snapshots: record
                .snapshots
                .map(|page_size| patch(before.snapshots.unwrap_or_default(), page_size, snapshot_runs)),
        };
        let (pool_db, snapshots, reached) = pages.read(record.presence)?;
        self.pages = reached;
        record.thin.apply(&mut self.thin);
        record.mapping_roots.apply(&mut self.mapping_roots);
        if let Some(nodes) = record.nodes {
            self.nodes = nodes;
        }
        if let Some(topology) = record.topology {
            self.topology = topology;
        }
        Ok(World {
            begun: record.begun,
            pool: record.pool,
            pool_db,
            snapshots,
            thin: self.thin.clone(),
            mapping_roots: self.mapping_roots.clone(),
            nodes: self.nodes.clone(),
            topology: self.topology.clone(),
            data_owners: record.data_owners,
        })
    }
}

fn size_of(pages: &DatabasePages) -> usize {
    let one = |pages: &Pages| pages.runs().values().map(Vec::len).sum::<usize>();
    one(&pages.pool_db).saturating_add(pages.snapshots.as_ref().map_or(0, one))
}

/// Pages with some of them replaced. What a new run covers of older ones is gone, and so is the older meta page.
fn patch(before: Pages, page_size: u32, new: Vec<Run>) -> Pages {
    let mut runs = if before.page_size() == page_size {
        before.into_runs()
    } else {
        BTreeMap::new()
    };
    if new.iter().any(|run| run.page < 2) {
        runs.retain(|page, _| *page >= 2);
    }
    let pages_of = |bytes: &Vec<u8>| {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        length.div_ceil(u64::from(page_size.max(1)))
    };
    for Run { page, bytes, .. } in new {
        let end = page.saturating_add(pages_of(&bytes).max(1));
        let covered: Vec<u64> = runs.range(page..end).map(|(page, _)| *page).collect();
        for page in covered {
            runs.remove(&page);
        }
        runs.insert(page, bytes);
    }
    Pages::new(page_size, runs)
}
