//! The kernel's part: a thin pool with what of it is on disk, and dm devices, which answer as dm-thin.c and dm-ioctl.c do.

use std::collections::BTreeMap;

use suture::model::PoolMode;

/// Answers of the kernel's that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Errno {
    /// There is no such dm device.
    NoDevice,
    /// Its name is taken, or somebody has it open.
    Busy,
    /// The pool has such a thin device.
    Exists,
    /// The pool has no such thin device.
    NoData,
    /// The pool takes no messages.
    NotSupported,
}

/// A thin device, with a word for what is on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Thin {
    pub(crate) content: String,
    /// Where its mappings begin: never the same twice.
    pub(crate) root: u64,
    pub(crate) blocks: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    Thin(u32),
    Error,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DmNode {
    pub(crate) minor: u32,
    pub(crate) live: Option<Table>,
    pub(crate) loaded: Option<Table>,
    pub(crate) suspended: bool,
    /// Who has it open: mounts by their path, others by a word.
    pub(crate) open: Vec<String>,
    pub(crate) deferred: bool,
}

impl DmNode {
    pub(crate) fn maps(&self, id: u32) -> bool {
        [self.live, self.loaded].contains(&Some(Table::Thin(id)))
    }
}

/// One step in the kernel: an ioctl, or what a program does to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    CreateThin(u32),
    CreateSnap(u32, u32),
    Delete(u32),
    Create(String),
    Load(String, Table),
    Resume(String),
    Suspend(String),
    Remove(String),
    RemoveDeferred(String),
    MakeFileSystem(String),
    Mount(String),
    Unmount(String),
}

/// Where containerd mounts a device for a moment to empty it.
const TEMPORARY: &str = "/var/lib/containerd/tmpmounts/containerd-mount1";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kernel {
    pub(crate) boot: u32,
    pub(crate) mode: PoolMode,
    pub(crate) thin: BTreeMap<u32, Thin>,
    /// What of it is on disk.
    committed: BTreeMap<u32, Thin>,
    pub(crate) nodes: BTreeMap<String, DmNode>,
    /// Snapshots that were made of a device that was live and not suspended: nobody knows what they hold.
    pub(crate) torn: Vec<u32>,
    next_root: u64,
    contents: u32,
}

impl Kernel {
    pub(crate) fn new() -> Self {
        Self {
            boot: 1,
            mode: PoolMode::ReadWrite,
            thin: BTreeMap::new(),
            committed: BTreeMap::new(),
            nodes: BTreeMap::new(),
            torn: Vec::new(),
            next_root: 100,
            contents: 0,
        }
    }

    /// The power is cut, and the machine boots again: what was not on disk is gone, and every dm device.
    pub(crate) fn power_cut(&mut self) {
        self.thin = self.committed.clone();
        self.nodes.clear();
        self.boot += 1;
    }

    fn commit(&mut self) {
        self.committed = self.thin.clone();
    }

    fn add(&mut self, id: u32, content: String) {
        self.next_root += 1;
        let root = self.next_root;
        let blocks = u64::from(!content.is_empty());
        self.thin.insert(
            id,
            Thin {
                content,
                root,
                blocks,
            },
        );
    }

    /// Something new is written to a thin device; it is on disk with the next commit of the pool.
    pub(crate) fn write(&mut self, id: u32, what: &str) {
        self.contents += 1;
        let number = self.contents;
        if let Some(thin) = self.thin.get_mut(&id) {
            thin.content = format!("{}{what}{number};", thin.content);
            thin.blocks += 1;
        }
    }

    pub(crate) fn is_live(&self, name: &str) -> bool {
        self.nodes.get(name).is_some_and(|node| node.live.is_some())
    }

    /// `IsLoaded` of containerd's: whether it can read what `dmsetup info` says. It takes a dm device without a live table for none,
    /// also where one is loaded, as the windows B6'1 and B6'2 of a real one show.
    pub(crate) fn is_loaded(&self, name: &str) -> bool {
        self.is_live(name)
    }

    fn takes_messages(&self) -> Result<(), Errno> {
        match self.mode {
            PoolMode::ReadWrite | PoolMode::OutOfDataSpace => Ok(()),
            _ => Err(Errno::NotSupported),
        }
    }

    fn node(&mut self, name: &str) -> Result<&mut DmNode, Errno> {
        self.nodes.get_mut(name).ok_or(Errno::NoDevice)
    }

    /// Closes a device once. The last close completes a removal that was put off.
    pub(crate) fn close(&mut self, name: &str, who: &str) {
        let Ok(node) = self.node(name) else { return };
        if let Some(at) = node.open.iter().position(|one| one == who) {
            node.open.remove(at);
        }
        if node.open.is_empty() && node.deferred {
            self.nodes.remove(name);
        }
    }

    pub(crate) fn call(&mut self, call: &Call) -> Result<(), Errno> {
        match call {
            Call::CreateThin(id) => {
                self.takes_messages()?;
                if self.thin.contains_key(id) {
                    return Err(Errno::Exists);
                }
                self.add(*id, String::new());
                self.commit();
            }
            Call::CreateSnap(id, origin) => {
                self.takes_messages()?;
                if self.thin.contains_key(id) {
                    return Err(Errno::Exists);
                }
                let content = self.thin.get(origin).ok_or(Errno::NoData)?.content.clone();
                self.add(*id, content);
                let live = |node: &DmNode| node.live == Some(Table::Thin(*origin)) && !node.suspended;
                if self.nodes.values().any(live) {
                    self.torn.push(*id);
                }
                self.commit();
            }
            Call::Delete(id) => {
                self.takes_messages()?;
                if !self.thin.contains_key(id) {
                    return Err(Errno::NoData);
                }
                if self.nodes.values().any(|node| node.maps(*id)) {
                    return Err(Errno::Busy);
                }
                self.thin.remove(id);
                self.commit();
            }
            Call::Create(name) => {
                if self.nodes.contains_key(name) {
                    return Err(Errno::Busy);
                }
                let taken = |minor: &u32| self.nodes.values().any(|node| node.minor == *minor);
                let minor = (1..1 << 20).find(|minor| !taken(minor)).unwrap_or_default();
                let node = DmNode {
                    minor,
                    live: None,
                    loaded: None,
                    suspended: false,
                    open: Vec::new(),
                    deferred: false,
                };
                self.nodes.insert(name.clone(), node);
            }
            Call::Load(name, table) => {
                if let Table::Thin(id) = table
                    && !self.thin.contains_key(id)
                {
                    return Err(Errno::NoData);
                }
                self.node(name)?.loaded = Some(*table);
            }
            Call::Resume(name) => {
                let node = self.node(name)?;
                node.live = node.loaded.take().or(node.live);
                node.suspended = false;
            }
            Call::Suspend(name) => {
                self.node(name)?.suspended = true;
                self.commit();
            }
            Call::Remove(name) => {
                if !self.node(name)?.open.is_empty() {
                    return Err(Errno::Busy);
                }
                self.nodes.remove(name);
            }
            Call::RemoveDeferred(name) => {
                let node = self.node(name)?;
                node.deferred = true;
                if node.open.is_empty() {
                    self.nodes.remove(name);
                }
            }
            Call::MakeFileSystem(name) => {
                if let Some(Table::Thin(id)) = self.node(name)?.live {
                    self.write(id, "fs");
                    self.commit();
                }
            }
            Call::Mount(name) => self.node(name)?.open.push(TEMPORARY.to_owned()),
            Call::Unmount(name) => {
                self.node(name)?;
                self.close(name, TEMPORARY);
            }
        }
        Ok(())
    }
}
