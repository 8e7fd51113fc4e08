//! Who uses a snapshot: the containers on it or on a descendant of it, and the images that it is a layer of.

use std::collections::BTreeSet;

use super::index::Sorted;
use crate::model::{
    CoreDb, Users,
    survey::{Container, CoreSnapshot, Image},
};

/// Snapshots that are looked through for the users of one. A base layer may have more descendants; then some are not
/// named.
const MOST_DESCENDANTS: usize = 10_000;
/// Containers and images that are named, each.
const MOST_NAMED: usize = 100;

/// A snapshot by its namespace and its client's key.
type Client<'a> = (&'a str, &'a str);

/// containerd's database by the keys that users are found by.
pub(super) struct UserIndex<'a> {
    core: &'a CoreDb,
    children: Sorted<Client<'a>, &'a CoreSnapshot>,
    containers: Sorted<Client<'a>, &'a Container>,
    images: Sorted<Client<'a>, &'a Image>,
}

impl<'a> UserIndex<'a> {
    pub(super) fn new(core: &'a CoreDb) -> Self {
        let child = |one: &'a CoreSnapshot| {
            let parent = one.parent.as_deref().filter(|parent| !parent.is_empty())?;
            Some(((one.namespace.as_str(), parent), one))
        };
        let tops = |image: &'a Image| {
            let keys = image.top_snapshots.iter();
            keys.map(move |key| ((image.namespace.as_str(), key.as_str()), image))
        };
        Self {
            core,
            children: Sorted::new(core.snapshots.values().filter_map(child)),
            containers: Sorted::new(
                core.containers
                    .iter()
                    .map(|one| ((one.namespace.as_str(), one.snapshot_key.as_str()), one)),
            ),
            images: Sorted::new(core.images.iter().flat_map(tops)),
        }
    }

    /// The users of the snapshot with a backend key.
    pub(super) fn of(&self, key: &str) -> Users {
        let Some(snapshot) = self.core.snapshots.get(key) else {
            return Users::default();
        };
        let mut users = Users {
            snapshot: Some(snapshot.clone()),
            ..Users::default()
        };
        let mut seen = BTreeSet::new();
        let mut images = BTreeSet::new();
        let mut ahead = vec![(snapshot.namespace.as_str(), snapshot.key.as_str())];
        while let Some(client) = ahead.pop() {
            if seen.len() >= MOST_DESCENDANTS || !seen.insert(client) {
                continue;
            }
            for (_, container) in self.containers.of(&client) {
                if users.containers.len() < MOST_NAMED {
                    users.containers.push((*container).clone());
                }
            }
            for (_, image) in self.images.of(&client) {
                if images.len() < MOST_NAMED {
                    images.insert(image.name.clone());
                }
            }
            let children = self.children.of(&client).iter();
            ahead.extend(children.map(|(_, child)| (child.namespace.as_str(), child.key.as_str())));
        }
        users.images = images.into_iter().collect();
        users
    }
}
