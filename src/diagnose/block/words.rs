//! The evidence of failed reads and writes, a sentence each.

use super::{Failing, Part, Scene};
use crate::{
    correlate::{BlockErrors, Kind, Tally},
    model::{
        DataOwners, Node, PoolMode, ThinId, World,
        databases::SnapshotKind,
        dm::describe_error,
        observation::{BlockSource, Direction},
        topology::Placed,
    },
    words::{counted, one_or},
};

/// More thin devices, or devices above, are counted.
const NAMED: usize = 16;
/// Characters of a snapshot's key that are shown.
const KEY: usize = 120;

/// What is known of a failing device. `shared` says that other devices with data of the pool fail on their own.
pub(super) fn evidence(
    scene: &Scene<'_>,
    errors: &BlockErrors,
    one: &Failing<'_>,
    above: &[&Failing<'_>],
    shared: bool,
) -> Vec<String> {
    let name = scene.topology.call(one.device);
    let mut evidence: Vec<String> = one.kinds.iter().map(|kind| failed(kind, &name)).collect();
    if let Some(lost) = errors.losses() {
        let how_many = match lost.count {
            0 => "block events were".to_owned(),
            1 => "1 block event was".to_owned(),
            count => format!("{count} block events were"),
        };
        evidence.push(format!(
            "these are least numbers: {how_many} lost, the last at {}",
            lost.last
        ));
    }
    if let Some(others) = errors.others() {
        evidence.push(format!(
            "{} of further devices and kinds {} only counted: {} may be this device's too",
            counted(others.count, "error"),
            one_or(others.count, "was", "were"),
            one_or(others.count, "it", "they")
        ));
    }
    match &one.part {
        Part::Below { data, metadata } => {
            if scene.topology.is_error_table(one.device) {
                evidence.push(format!(
                    "the live table of {name} is `error`: somebody put that in the place of its real one"
                ));
            }
            below(scene, errors, one, (data, metadata), shared, &mut evidence);
        }
        Part::Node(node) => of_node(scene, node, &mut evidence),
    }
    for other in above.iter().take(NAMED) {
        let name = scene.topology.call(other.device);
        let name = scene
            .nodes
            .iter()
            .find(|node| node.device == other.device)
            .map_or(name, ToString::to_string);
        let count = other
            .kinds
            .iter()
            .fold(0_u64, |sum, (_, tally)| sum.saturating_add(tally.count));
        evidence.push(format!("the same shows above it, on {name}: {count} failed"));
    }
    if above.len() > NAMED {
        evidence.push(format!(
            "and on {} above it",
            counted(above.len().saturating_sub(NAMED), "more device")
        ));
    }
    evidence.extend(scene.topology.unread.iter().cloned());
    evidence
}

/// `12 reads on 253:1 (tdata) failed with EIO (i/o error), the first at .., the last at .., at sectors 0-7`
fn failed((kind, tally): &(&Kind, &Tally), name: &str) -> String {
    let (one, many) = match kind.direction {
        Direction::Read => ("read", "reads"),
        Direction::Write => ("write", "writes"),
        Direction::Discard => ("discard", "discards"),
        Direction::Flush => ("flush", "flushes"),
        Direction::Other => ("operation", "operations"),
    };
    let what = if tally.count == 1 { one } else { many };
    let sectors = if tally.sectors.is_empty() {
        String::new()
    } else {
        format!(", at sectors {}", tally.sectors)
    };
    let source = if tally.sources == [BlockSource::KernelLog] {
        ", as the kernel's log says"
    } else {
        ""
    };
    format!(
        "{} {what} on {name} failed with {}, the first at {}, the last at {}{sectors}{source}",
        tally.count,
        describe_error(kind.errno),
        tally.first,
        tally.last
    )
}

fn below(
    scene: &Scene<'_>,
    errors: &BlockErrors,
    one: &Failing<'_>,
    (data, metadata): (&Placed, &Placed),
    shared: bool,
    evidence: &mut Vec<String>,
) {
    let pool = scene.pool;
    let name = scene.topology.call(one.device);
    if *metadata != Placed::Nowhere {
        evidence.push(if one.device == pool.metadata_device {
            format!("{name} is the metadata device of pool {}", pool.name)
        } else {
            let on = scene.topology.call(pool.metadata_device);
            format!(
                "the metadata device of pool {}, {on}, lies on it: {}",
                pool.name,
                place(metadata)
            )
        });
        evidence.push(match scene.world {
            Some(world) => format!(
                "the whole pool is hit, with {}",
                counted(world.thin.len(), "thin device")
            ),
            None => "the whole pool is hit".to_owned(),
        });
    }
    if *data == Placed::Nowhere {
        return;
    }
    let data_device = pool.data_device();
    evidence.push(if one.device == pool.device {
        format!("{name} is pool {} itself, on its data device", pool.name)
    } else if Some(one.device) == data_device {
        format!("{name} is the data device of pool {}", pool.name)
    } else {
        let on = data_device.map_or_else(String::new, |device| {
            format!(", {},", scene.topology.call(device))
        });
        format!(
            "the data device of pool {}{on} lies on it: {}",
            pool.name,
            place(data)
        )
    });
    match (scene.world, errors.owners(), data) {
        (_, _, Placed::Somewhere) => evidence.push(
            "where on the data device is not known, so nobody can tell which thin devices are hit".to_owned(),
        ),
        (None, ..) => evidence.push(
            "which thin devices are hit can not be told while the databases or the pool's metadata can not be read"
                .to_owned(),
        ),
        (Some(_), None, _) => evidence.push("which thin devices are hit was not read yet".to_owned()),
        (Some(world), Some(owners), _) => hit(world, owners, shared, evidence),
    }
}

fn place(placed: &Placed) -> String {
    match placed {
        Placed::At(sectors) => format!("its sectors {sectors} are hit"),
        Placed::Somewhere => "where is not known".to_owned(),
        Placed::Nowhere => "not hit".to_owned(),
    }
}

fn hit(world: &World, owners: &DataOwners, shared: bool, evidence: &mut Vec<String>) {
    let whose = if shared {
        "the failed sectors of all failing devices together"
    } else {
        "the failed sectors"
    };
    evidence.push(format!(
        "{whose} lie in data blocks {} of the pool",
        owners.blocks
    ));
    if owners.owners.is_empty() && owners.incomplete.is_none() {
        evidence.push("no thin device has data in these blocks".to_owned());
    }
    for (id, count) in owners.owners.iter().take(NAMED) {
        evidence.push(format!("{} has data in {count} of these blocks", who(world, *id)));
    }
    if owners.owners.len() > NAMED {
        let more = owners.owners.len().saturating_sub(NAMED);
        evidence.push(format!("and {more} more thin devices have data in them"));
    }
    if let Some(why) = &owners.incomplete {
        evidence.push(format!("these are the least that are hit: {why}"));
    }
}

fn of_node(scene: &Scene<'_>, node: &Node, evidence: &mut Vec<String>) {
    let pool = scene.pool;
    // Without a thin target in its table its name says what it was.
    let named = || {
        let record = scene.world?.pool_db.devices.get(node.name.as_str())?;
        Some(record.device_id)
    };
    let ids: Vec<ThinId> = if node.thin_ids.is_empty() {
        named().into_iter().collect()
    } else {
        node.thin_ids.clone()
    };
    for id in &ids {
        let who = scene
            .world
            .map_or_else(|| format!("thin device {id}"), |world| who(world, *id));
        evidence.push(format!("{node} is {who}"));
    }
    if ids.is_empty() {
        evidence.push(format!("{node} is a device of pool {}", pool.name));
    }
    if scene.topology.is_error_table(node.device) {
        evidence.push(format!(
            "the live table of {node} is `error`: that is what `dmsetup remove --force`, which containerd uses, leaves of a \
             device that is in use; it is no failure of a disk, and its data are still in the pool"
        ));
    } else {
        evidence.push("no device below it fails".to_owned());
    }
    if pool.mode != PoolMode::ReadWrite {
        evidence.push(format!("pool {} is {}", pool.name, pool.mode));
    }
}

/// `thin device 7, containerd's tp-snap-3, active snapshot default/5/key`
fn who(world: &World, id: ThinId) -> String {
    let Some(record) = world.record_of(id) else {
        return format!("thin device {id}, which no record of containerd's names,");
    };
    let number = world.pool.name.snapshot_of(&record.name);
    let row = number.and_then(|number| world.snapshots.snapshots.iter().find(|(_, row)| row.id == number));
    let snapshot = match row {
        None => "without a snapshot".to_owned(),
        Some((key, row)) => {
            let kind = match row.kind {
                SnapshotKind::View => "view",
                SnapshotKind::Active => "active",
                SnapshotKind::Committed => "committed",
                SnapshotKind::Other(_) => "other",
            };
            let shown: String = key.chars().take(KEY).collect();
            let cut = if shown.len() < key.len() { ".." } else { "" };
            format!("{kind} snapshot {}{cut}", shown.escape_debug())
        }
    };
    format!(
        "thin device {id}, containerd's {}, {snapshot},",
        record.name.escape_debug()
    )
}
