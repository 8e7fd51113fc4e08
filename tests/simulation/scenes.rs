//! The operations that are crashed, each on a node that is at work already.

use suture::model::databases::SnapshotKind;

use crate::{
    containerd::Failure,
    kernel::Table,
    machine::{Crash, Machine, Program, device_name, poll, run},
};

/// One operation, where it is made, and what the facts say of each of its windows.
pub(crate) struct Scene {
    pub(crate) name: &'static str,
    pub(crate) async_remove: bool,
    /// Makes the node what the operation needs.
    pub(crate) set: fn(&Machine),
    pub(crate) operation: for<'m> fn(&'m Machine) -> Program<'m, Result<(), Failure>>,
}

/// A layer, a layer on it, and a running container on that: snapshots 1, 2 and 3.
pub(crate) fn node(async_remove: bool, watched: bool) -> Machine {
    let machine = Machine::new(async_remove, watched);
    run(machine.start()).unwrap();
    prepare(&machine, "unpack-1", None);
    write(&machine, "unpack-1");
    commit(&machine, "unpack-1", "layer-1");
    prepare(&machine, "unpack-2", Some("layer-1"));
    write(&machine, "unpack-2");
    commit(&machine, "unpack-2", "layer-2");
    prepare(&machine, "container", Some("layer-2"));
    open(&machine, "container", "/run/container");
    write(&machine, "container");
    machine.trace.borrow_mut().clear();
    machine
}

pub(crate) fn prepare(machine: &Machine, key: &str, parent: Option<&str>) {
    let parent = parent.map(str::to_owned);
    run(machine.prepare(key.to_owned(), parent, SnapshotKind::Active)).unwrap();
}

pub(crate) fn commit(machine: &Machine, key: &str, name: &str) {
    run(machine.commit(key.to_owned(), name.to_owned())).unwrap();
}

fn snapshot(machine: &Machine, key: &str) -> Option<u64> {
    machine.get(|state| {
        let backend = state.backend_key(key)?;
        Some(state.rows.snapshots.get(&backend)?.id.0)
    })
}

/// A container writes to its file system, where that is there to be written to.
pub(crate) fn write(machine: &Machine, key: &str) {
    let Some(id) = snapshot(machine, key) else { return };
    machine.set(|state| {
        let node = state.kernel.nodes.get(&device_name(id));
        let Some(Table::Thin(thin)) = node.filter(|node| !node.suspended).and_then(|node| node.live) else {
            return;
        };
        state.kernel.write(thin, "w");
        let content = state.content_of(id).unwrap();
        state.handed_out.insert(id, content);
    });
}

/// Somebody mounts a snapshot's device.
pub(crate) fn open(machine: &Machine, key: &str, path: &str) {
    let Some(id) = snapshot(machine, key) else { return };
    machine.set(|state| {
        if let Some(node) = state.kernel.nodes.get_mut(&device_name(id)) {
            node.open.push(path.to_owned());
        }
    });
}

fn unpacked(machine: &Machine) {
    prepare(machine, "fresh", Some("layer-2"));
    write(machine, "fresh");
}

fn removed(machine: &Machine) {
    unpacked(machine);
    run(machine.remove("fresh".to_owned())).unwrap();
}

fn loaded_parent(machine: &Machine) {
    unpacked(machine);
    open(machine, "fresh", "/run/unpacker");
    commit(machine, "fresh", "layer-3");
}

fn new<'m>(
    machine: &'m Machine,
    parent: Option<&str>,
    kind: SnapshotKind,
) -> Program<'m, Result<(), Failure>> {
    Box::pin(machine.prepare("new".to_owned(), parent.map(str::to_owned), kind))
}

/// Lets an operation make so many durable steps. Gives whether it made them and is not over yet.
pub(crate) fn advance(
    machine: &Machine,
    program: &mut Program<'_, Result<(), Failure>>,
    steps: usize,
) -> bool {
    machine.trace.borrow_mut().clear();
    loop {
        if poll(program).is_some() {
            return false;
        }
        if machine.trace.borrow().len() >= steps {
            return true;
        }
    }
}

pub(crate) const SCENES: [Scene; 12] = [
    Scene {
        name: "prepare without a parent",
        async_remove: false,
        set: |_| {},
        operation: |machine| new(machine, None, SnapshotKind::Active),
    },
    Scene {
        name: "prepare on a layer that is not loaded",
        async_remove: false,
        set: |_| {},
        operation: |machine| new(machine, Some("layer-2"), SnapshotKind::Active),
    },
    Scene {
        name: "prepare on a layer that is loaded",
        async_remove: false,
        set: loaded_parent,
        operation: |machine| new(machine, Some("layer-3"), SnapshotKind::Active),
    },
    Scene {
        name: "view",
        async_remove: false,
        set: |_| {},
        operation: |machine| new(machine, Some("layer-2"), SnapshotKind::View),
    },
    Scene {
        name: "commit",
        async_remove: false,
        set: unpacked,
        operation: |machine| Box::pin(machine.commit("fresh".to_owned(), "layer-3".to_owned())),
    },
    Scene {
        name: "commit of a device that is mounted",
        async_remove: false,
        set: |machine| {
            unpacked(machine);
            open(machine, "fresh", "/run/unpacker");
        },
        operation: |machine| Box::pin(machine.commit("fresh".to_owned(), "layer-3".to_owned())),
    },
    Scene {
        name: "remove",
        async_remove: false,
        set: removed,
        operation: |machine| Box::pin(machine.collect()),
    },
    Scene {
        name: "remove of a layer",
        async_remove: false,
        set: |machine| {
            unpacked(machine);
            commit(machine, "fresh", "layer-3");
            run(machine.remove("layer-3".to_owned())).unwrap();
        },
        operation: |machine| Box::pin(machine.collect()),
    },
    Scene {
        name: "remove of a device that is mounted",
        async_remove: false,
        set: |machine| {
            removed(machine);
            let name = device_name(4);
            machine.set(|state| {
                let node = state.kernel.nodes.get_mut(&name).unwrap();
                node.open.push("/run/left over".to_owned());
            });
        },
        operation: |machine| Box::pin(machine.collect()),
    },
    Scene {
        name: "remove with async_remove, and its clean-up",
        async_remove: true,
        set: removed,
        operation: |machine| Box::pin(machine.collect()),
    },
    Scene {
        name: "start after a kill",
        async_remove: false,
        set: |machine| {
            loaded_parent(machine);
            let mut program = new(machine, Some("layer-3"), SnapshotKind::Active);
            assert!(advance(machine, &mut program, 7));
            drop(program);
            machine.crash(Crash::Kill);
        },
        operation: |machine| Box::pin(machine.start()),
    },
    Scene {
        name: "start after a power cut",
        async_remove: false,
        set: |machine| machine.crash(Crash::Power),
        operation: |machine| Box::pin(machine.start()),
    },
];
