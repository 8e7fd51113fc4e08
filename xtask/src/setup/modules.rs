//! In which order kernel modules must be loaded.

use std::collections::{BTreeMap, HashMap, HashSet};

/// What depmod found out about a tree of modules.
#[derive(Debug, Default)]
pub(super) struct Modules {
    /// By path below the folder of the release: the paths of those that must be loaded before.
    needs: BTreeMap<String, Vec<String>>,
    /// By name, as in `dm_mod`: those that should be loaded before, by name as well.
    wishes: HashMap<String, Vec<String>>,
}

impl Modules {
    /// From the texts of `modules.dep` and `modules.softdep`.
    pub(super) fn parse(dependencies: &str, soft: &str) -> Self {
        let needs = dependencies
            .lines()
            .filter_map(|line| {
                let (path, needed) = line.split_once(':')?;
                Some((
                    path.to_owned(),
                    needed.split_whitespace().map(str::to_owned).collect(),
                ))
            })
            .collect();
        let wishes = soft
            .lines()
            .filter_map(|line| {
                let mut words = line.strip_prefix("softdep ")?.split_whitespace();
                let name = normal(words.next()?);
                let before = words.skip_while(|word| *word != "pre:").skip(1);
                Some((
                    name,
                    before.take_while(|word| *word != "post:").map(normal).collect(),
                ))
            })
            .collect();
        Self { needs, wishes }
    }

    /// The path of every module.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.needs.keys().map(String::as_str)
    }

    /// The path of a module by its name; none if the kernel has it built in or not at all.
    pub(super) fn path_of(&self, name: &str) -> Option<&str> {
        let name = normal(name);
        self.paths().find(|path| name_of(path) == name)
    }

    /// The modules at `paths` and all that they need, each after those that it needs.
    pub(super) fn load_order(&self, paths: &[String]) -> Vec<String> {
        let (mut order, mut seen) = (Vec::new(), HashSet::new());
        for path in paths {
            self.visit(path, &mut seen, &mut order);
        }
        order
    }

    fn visit(&self, path: &str, seen: &mut HashSet<String>, order: &mut Vec<String>) {
        if !seen.insert(path.to_owned()) {
            return;
        }
        let wishes = self.wishes.get(&name_of(path)).into_iter().flatten();
        for wish in wishes.filter_map(|name| self.path_of(name)) {
            self.visit(wish, seen, order);
        }
        for needed in self.needs.get(path).into_iter().flatten() {
            self.visit(needed, seen, order);
        }
        order.push(path.to_owned());
    }
}

/// The name that a module at `path` has in the kernel.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    normal(file.split(".ko").next().unwrap_or(file))
}

fn normal(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "kernel/md/dm-thin-pool.ko: kernel/md/dm-persistent-data.ko kernel/lib/libcrc32c.ko kernel/md/dm-mod.ko\n\
        kernel/md/dm-persistent-data.ko: kernel/lib/libcrc32c.ko kernel/md/dm-mod.ko\n\
        kernel/lib/libcrc32c.ko:\nkernel/md/dm-mod.ko:\nkernel/crypto/crc32c-intel.ko.xz:\n";
    const SOFT: &str = "# Soft dependencies\nsoftdep libcrc32c pre: crc32c_intel\n";

    #[test]
    fn each_module_comes_after_what_it_needs_or_wishes_for() {
        let modules = Modules::parse(DEPENDENCIES, SOFT);
        let thin = modules.path_of("dm_thin_pool").unwrap().to_owned();
        let order = modules.load_order(&[thin]);
        let at = |part: &str| order.iter().position(|path| path.contains(part)).unwrap();
        assert_eq!(order.len(), 5);
        assert!(at("crc32c-intel") < at("libcrc32c"));
        assert!(at("libcrc32c") < at("dm-persistent-data"));
        assert!(at("dm-mod") < at("dm-thin-pool"));
    }

    #[test]
    fn a_circle_of_modules_ends() {
        let modules = Modules::parse("a.ko: b.ko\nb.ko: a.ko\n", "");
        assert_eq!(modules.load_order(&["a.ko".into()]), ["b.ko", "a.ko"]);
    }

    #[test]
    fn a_built_in_module_has_no_path() {
        assert_eq!(Modules::parse(DEPENDENCIES, SOFT).path_of("ext4"), None);
    }
}
