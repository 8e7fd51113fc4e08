//! Who uses a snapshot, for any number of snapshots: one pass over containerd's database, then a look-up for each.

use std::collections::{BTreeSet, HashMap};

use super::{CoreDb, Users};

/// Containers and images that are named for one snapshot. A base layer may have thousands; how many more there are is
/// counted ([`Users::more_containers`], [`Users::more_images`]).
pub const MOST_NAMED: usize = 16;

/// Answers who uses a snapshot: itself or through a descendant.
#[derive(Debug)]
pub struct UserIndex<'c> {
    core: &'c CoreDb,
    /// Backend keys, in their order.
    keys: Vec<&'c str>,
    totals: Vec<Total>,
}

/// The users of one snapshot and of all that is built on it.
#[derive(Debug, Clone, Default)]
struct Total {
    containers: Named,
    images: Named,
}

/// Places in a list of [`CoreDb`], the first few of them, and how many there are.
#[derive(Debug, Clone, Default)]
struct Named {
    named: Vec<usize>,
    count: usize,
}

impl Named {
    fn add(&mut self, one: usize) {
        if self.named.contains(&one) {
            return;
        }
        self.count = self.count.saturating_add(1);
        if self.named.len() < MOST_NAMED {
            self.named.push(one);
        }
    }

    /// Takes over another list. What is on both is counted once as long as the lists are whole.
    fn join(&mut self, other: &Self) {
        let before = self.named.len();
        let mut known = 0_usize;
        for one in &other.named {
            if self.named.iter().take(before).any(|mine| mine == one) {
                known += 1;
            } else if self.named.len() < MOST_NAMED {
                self.named.push(*one);
            }
        }
        self.count = self.count.saturating_add(other.count.saturating_sub(known));
    }

    fn more(&self) -> usize {
        self.count.saturating_sub(self.named.len())
    }
}

impl<'c> UserIndex<'c> {
    /// Goes once over all snapshots, containers and images.
    #[must_use]
    pub fn new(core: &'c CoreDb) -> Self {
        let keys = core.snapshots.keys().map(String::as_str).collect();
        let mut by_client: HashMap<(&str, &str), usize> = HashMap::with_capacity(core.snapshots.len());
        for (place, snapshot) in core.snapshots.values().enumerate() {
            by_client.insert((&snapshot.namespace, &snapshot.key), place);
        }
        let parents: Vec<Option<usize>> = core
            .snapshots
            .values()
            .map(|snapshot| {
                let parent = snapshot.parent.as_deref()?;
                by_client.get(&(snapshot.namespace.as_str(), parent)).copied()
            })
            .collect();
        let mut totals = vec![Total::default(); parents.len()];
        for (place, container) in core.containers.iter().enumerate() {
            let key = (container.namespace.as_str(), container.snapshot_key.as_str());
            if let Some(total) = by_client.get(&key).and_then(|at| totals.get_mut(*at)) {
                total.containers.add(place);
            }
        }
        for (place, image) in core.images.iter().enumerate() {
            for top in &image.top_snapshots {
                let key = (image.namespace.as_str(), top.as_str());
                if let Some(total) = by_client.get(&key).and_then(|at| totals.get_mut(*at)) {
                    total.images.add(place);
                }
            }
        }
        hand_down(&parents, &mut totals);
        Self { core, keys, totals }
    }

    /// Who uses the snapshot of this backend key; nobody where containerd's database does not know it.
    #[must_use]
    pub fn users_of(&self, backend_key: &str) -> Users {
        let place = self.keys.binary_search(&backend_key);
        let total = place.ok().and_then(|place| self.totals.get(place));
        let Some(total) = total else {
            return Users::default();
        };
        let container = |place: &usize| self.core.containers.get(*place).cloned();
        let image = |place: &usize| self.core.images.get(*place).map(|image| image.name.clone());
        Users {
            snapshot: self.core.snapshots.get(backend_key).cloned(),
            containers: total.containers.named.iter().filter_map(container).collect(),
            more_containers: total.containers.more(),
            // The same name may be unpacked for several platforms.
            images: total
                .images
                .named
                .iter()
                .filter_map(image)
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            more_images: total.images.more(),
        }
    }
}

/// Adds each snapshot's users to its parent's, children first. Snapshots in a circle, which containerd never writes, keep
/// only what comes from outside of it.
fn hand_down(parents: &[Option<usize>], totals: &mut [Total]) {
    let mut waiting = vec![0_usize; parents.len()];
    for parent in parents.iter().flatten() {
        if let Some(children) = waiting.get_mut(*parent) {
            *children += 1;
        }
    }
    let mut ready: Vec<usize> = (0..parents.len())
        .filter(|place| waiting.get(*place) == Some(&0))
        .collect();
    while let Some(place) = ready.pop() {
        let Some(parent) = parents.get(place).copied().flatten() else {
            continue;
        };
        let Some(child) = totals.get_mut(place).map(std::mem::take) else {
            continue;
        };
        if let Some(total) = totals.get_mut(parent) {
            total.containers.join(&child.containers);
            total.images.join(&child.images);
        }
        if let Some(taken) = totals.get_mut(place) {
            *taken = child;
        }
        if let Some(children) = waiting.get_mut(parent) {
            *children = children.saturating_sub(1);
            if *children == 0 {
                ready.push(parent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::survey::{Container, CoreSnapshot, Image};

    fn snapshot(key: &str, parent: Option<&str>) -> (String, CoreSnapshot) {
        let snapshot = CoreSnapshot {
            namespace: "k8s.io".to_owned(),
            key: key.to_owned(),
            parent: parent.map(str::to_owned),
            leases: Vec::new(),
        };
        (format!("k8s.io/1/{key}"), snapshot)
    }

    fn container(id: &str, on: &str) -> Container {
        Container {
            namespace: "k8s.io".to_owned(),
            id: id.to_owned(),
            image: None,
            snapshot_key: on.to_owned(),
            pod: None,
        }
    }

    fn image(name: &str, tops: &[&str]) -> Image {
        Image {
            namespace: "k8s.io".to_owned(),
            name: name.to_owned(),
            top_snapshots: tops.iter().map(|top| (*top).to_owned()).collect(),
        }
    }

    #[test]
    fn users_are_those_of_a_snapshot_and_of_what_is_built_on_it() {
        let core = CoreDb {
            snapshots: [
                snapshot("base", None),
                snapshot("top", Some("base")),
                snapshot("other", Some("base")),
                snapshot("c1", Some("top")),
            ]
            .into(),
            containers: vec![
                container("c1", "c1"),
                Container {
                    namespace: "default".to_owned(),
                    ..container("foreign", "c1")
                },
            ],
            images: vec![image("web", &["top"]), image("both", &["top", "other"])],
            ..CoreDb::default()
        };
        let index = UserIndex::new(&core);
        let ids = |key: &str| -> Vec<String> {
            let users = index.users_of(key);
            users.containers.into_iter().map(|one| one.id).collect()
        };
        assert_eq!(ids("k8s.io/1/base"), ["c1"]);
        assert_eq!(ids("k8s.io/1/top"), ["c1"]);
        assert_eq!(ids("k8s.io/1/other"), [""; 0]);
        let base = index.users_of("k8s.io/1/base");
        assert_eq!(base.images.len(), 2, "an image for two platforms is one image");
        assert_eq!((base.more_images, base.more_containers), (0, 0));
        assert_eq!(index.users_of("k8s.io/1/c1").images, [""; 0]);
        assert_eq!(index.users_of("k8s.io/1/c1").snapshot.unwrap().key, "c1");
        assert_eq!(index.users_of("k8s.io/9/none"), Users::default());
    }

    #[test]
    fn a_crowd_is_counted_and_a_circle_ends() {
        let names: Vec<String> = (0..100).map(|number| format!("c{number}")).collect();
        let mut core = CoreDb {
            snapshots: [snapshot("base", None)].into(),
            ..CoreDb::default()
        };
        for name in &names {
            core.snapshots.extend([snapshot(name, Some("base"))]);
            core.containers.push(container(name, name));
        }
        core.snapshots.extend([
            snapshot("a", Some("b")),
            snapshot("b", Some("a")),
            snapshot("self", Some("self")),
        ]);
        core.containers.push(container("round", "a"));
        let index = UserIndex::new(&core);
        let base = index.users_of("k8s.io/1/base");
        assert_eq!(
            (base.containers.len(), base.more_containers),
            (MOST_NAMED, 100 - MOST_NAMED)
        );
        assert_eq!(index.users_of("k8s.io/1/a").containers.len(), 1);
        assert_eq!(index.users_of("k8s.io/1/b").containers.len(), 0);
    }

    proptest! {
        /// Any forest: the index says what going up from every container says.
        #[test]
        fn the_index_agrees_with_going_up(parents in proptest::collection::vec(any::<u8>(), 1..40), on in proptest::collection::vec(any::<u8>(), 0..40)) {
            let key = |place: usize| format!("s{place}");
            let parent = |place: usize| -> Option<usize> {
                let pick = usize::from(parents[place]) % (place + 1);
                (pick < place).then_some(pick)
            };
            let mut core = CoreDb::default();
            for place in 0..parents.len() {
                core.snapshots.extend([snapshot(&key(place), parent(place).map(key).as_deref())]);
            }
            let mut expected = vec![0; parents.len()];
            for (number, pick) in on.iter().enumerate() {
                let mut at = Some(usize::from(*pick) % parents.len());
                core.containers.push(container(&format!("c{number}"), &key(at.unwrap())));
                while let Some(place) = at {
                    expected[place] += 1;
                    at = parent(place);
                }
            }
            let index = UserIndex::new(&core);
            for (place, expected) in expected.iter().enumerate() {
                let users = index.users_of(&format!("k8s.io/1/{}", key(place)));
                prop_assert_eq!(users.containers.len(), (*expected).min(MOST_NAMED));
                prop_assert_eq!(users.containers.len() + users.more_containers, *expected);
            }
        }
    }
}
