//! Where a process lives: the path of its control group (v2), by the id that the probes carry.

use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use procfs::process::Process;

use crate::model::Untrusted;

/// Where the v2 hierarchy is mounted, alone or beside v1.
const PLACES: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
/// Paths remembered; when there are more, all are forgotten and asked for anew.
const MAX_KNOWN: usize = 1024;
/// How often an id that nobody can tell is asked for.
const MAX_TRIES: u8 = 3;

/// Answers ids with paths, and remembers the answers.
#[derive(Debug)]
pub struct Cgroups {
    mount: Option<PathBuf>,
    known: BTreeMap<u64, Known>,
}

#[derive(Debug, Clone)]
enum Known {
    Path(Untrusted),
    Unknown { tries: u8 },
}

impl Default for Cgroups {
    fn default() -> Self {
        let is_v2 = |place: &Path| place.join("cgroup.controllers").exists();
        Self {
            mount: PLACES.map(PathBuf::from).into_iter().find(|place| is_v2(place)),
            known: BTreeMap::new(),
        }
    }
}

impl Cgroups {
    /// The path of a control group. The processes are those that may tell it: the caller, which may be gone, and those
    /// that forked it, which mostly live in the same.
    pub fn path(&mut self, id: u64, processes: impl Iterator<Item = u32>) -> Option<Untrusted> {
        match self.known.get(&id) {
            Some(Known::Path(path)) => return Some(path.clone()),
            Some(Known::Unknown { tries: MAX_TRIES }) => return None,
            _ => {}
        }
        let mount = self.mount.as_ref()?;
        let found = processes.take(8).find_map(|pid| {
            let process = Process::new(i32::try_from(pid).ok()?).ok()?;
            let path = process
                .cgroups()
                .ok()?
                .0
                .into_iter()
                .find(|one| one.hierarchy == 0)?
                .pathname;
            // A group's id is its folder's inode (kernfs): a process of another group does not speak for this one.
            let folder = std::fs::metadata(mount.join(path.trim_start_matches('/'))).ok()?;
            (folder.ino() == id).then(|| Untrusted::from_bytes(path.as_bytes()))
        });
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        let tries = match self.known.get(&id) {
            Some(Known::Unknown { tries }) => tries.saturating_add(1),
            _ => 1,
        };
        let known = found.clone().map_or(Known::Unknown { tries }, Known::Path);
        self.known.insert(id, known);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_group_is_found_by_its_id_and_only_by_it() {
        let mut cgroups = Cgroups::default();
        let Some(mount) = cgroups.mount.clone() else {
            return;
        };
        let own = std::process::id();
        let path = Process::myself()
            .unwrap()
            .cgroups()
            .unwrap()
            .0
            .into_iter()
            .find(|one| one.hierarchy == 0)
            .unwrap()
            .pathname;
        let id = std::fs::metadata(mount.join(path.trim_start_matches('/')))
            .unwrap()
            .ino();
        let found = cgroups.path(id, [own].into_iter());
        assert_eq!(found.unwrap().as_str(), path);
        assert!(cgroups.path(id, std::iter::empty()).is_some(), "it is remembered");
        assert_eq!(cgroups.path(id + 1_000_000, [own].into_iter()), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut cgroups = Cgroups::default();
        for id in 0..5000 {
            cgroups.path(id, std::iter::empty());
        }
        assert!(cgroups.known.len() <= MAX_KNOWN);
    }
}
