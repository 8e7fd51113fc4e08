//! The operations of containerd's that are broken, and the places where it dies in them.

use std::fmt;

use anyhow::{Context as _, Result};
use suture::model::{DeviceRecord, SnapshotId};
use xtask::vm::containerd::Side;

use crate::stage::*;

/// One operation of containerd's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scene {
    /// A prepare without a parent.
    Base,
    /// A prepare on a layer of which the dm device is gone.
    Layer,
    /// A prepare on a layer that somebody still has mounted, so that its dm device waits for its removal.
    Loaded,
    Commit,
    Remove,
    /// With `async_remove`.
    CleanUp,
}

impl Scene {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Base => "prepare without a parent",
            Self::Layer => "prepare on a layer that is not loaded",
            Self::Loaded => "prepare on a layer that is loaded",
            Self::Commit => "commit",
            Self::Remove => "remove",
            Self::CleanUp => "remove with async_remove, and its clean-up",
        }
    }
}

/// Where containerd dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    /// After so many commits to its pool database.
    Pool(u32),
    /// After a commit to its snapshot database.
    Rows,
    /// In it, before it takes effect.
    BeforeRows,
    /// After so many commits to its own database.
    Core(u32),
    /// After this call of `dmsetup`'s, given as a pattern of the shell's.
    Call(&'static str),
    /// In this call of `dmsetup`'s, of which only these commands are run.
    Within(&'static str, &'static str),
    /// After `mkfs`.
    Mkfs,
    /// About to unmount the new file system.
    Unmount,
}

impl fmt::Display for Death {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool(count) => write!(formatter, "after commit {count} of the pool database"),
            Self::Rows => write!(formatter, "after the commit of the snapshot database"),
            Self::BeforeRows => write!(formatter, "in the commit of the snapshot database"),
            Self::Core(count) => write!(formatter, "after commit {count} of its own database"),
            Self::Call(call) => write!(formatter, "after `dmsetup {}`", call.trim_end_matches(" *")),
            Self::Within(call, _) => write!(formatter, "within `dmsetup {}`", call.trim_end_matches(" *")),
            Self::Mkfs => write!(formatter, "after `mkfs.ext4`"),
            Self::Unmount => write!(formatter, "before `umount`"),
        }
    }
}

/// A scene that is set: what the operation is made on.
pub(super) struct Set {
    scene: Scene,
    /// What the keys of its snapshots begin with.
    tag: String,
    /// The snapshot that is made, committed or removed.
    number: u64,
    /// The layer below it, where that plays a part.
    layer: Option<u64>,
}

impl Set {
    /// Makes what the operation needs.
    pub(super) fn make(stage: &mut Stage<'_>, scene: Scene, tag: &str) -> Result<Self> {
        let key = |what: &str| format!("{tag}-{what}");
        let mut layer = None;
        if scene == Scene::CleanUp {
            stage.containerd.set_async_remove(true)?;
            stage.containerd.restart()?;
        }
        if matches!(scene, Scene::Layer | Scene::Loaded) {
            let below = stage.next()?;
            layer = Some(below);
            stage.containerd.prepare(&key("base"), None)?.ok()?;
            if scene == Scene::Loaded {
                stage.vm.sh(&format!(
                    "mkdir -p /mnt/held; mount /dev/mapper/tp-snap-{below} /mnt/held; sync"
                ))?;
            }
            stage.containerd.commit(&key("layer"), &key("base"))?.ok()?;
        }
        let number = stage.next()?;
        match scene {
            Scene::Base | Scene::Layer | Scene::Loaded => {}
            Scene::Commit => drop(stage.containerd.prepare(&key("active"), None)?.ok()?),
            Scene::Remove | Scene::CleanUp => {
                stage.containerd.prepare(&key("doomed"), None)?.ok()?;
                stage.containerd.ctr(["leases", "create", "--id", tag])?.ok()?;
            }
        }
        Ok(Self {
            scene,
            tag: tag.to_owned(),
            number,
            layer,
        })
    }

    fn key(&self, what: &str) -> String {
        format!("{}-{what}", self.tag)
    }

    /// The layer that snapshots are made on.
    fn parent(&self) -> Option<String> {
        self.layer.map(|_| self.key("layer"))
    }

    /// The operation, as a shell's command. A removal is asked for and collected in one go: containerd may begin to collect
    /// as soon as it is asked.
    fn operation(&self) -> String {
        let key = |what: &str| format!("\"{}\"", self.key(what));
        let ctr = "ctr snapshots --snapshotter devmapper";
        match self.scene {
            Scene::Base => format!("{ctr} prepare {}", key("new")),
            Scene::Layer | Scene::Loaded => format!("{ctr} prepare {} {}", key("new"), key("layer")),
            Scene::Commit => format!("{ctr} commit {} {}", key("committed"), key("active")),
            Scene::Remove | Scene::CleanUp => {
                format!(
                    "{ctr} rm {}; ctr leases delete --sync \"{}\"",
                    key("doomed"),
                    self.tag
                )
            }
        }
    }

    /// Begins the operation and kills containerd in it.
    pub(super) fn break_at(&self, stage: &mut Stage<'_>, death: Death) -> Result<()> {
        let options = stage.containerd.options().clone();
        let containerd = &mut stage.containerd;
        match death {
            Death::Pool(count) => containerd.kill_after_commits(&options.pool_db(), count)?,
            Death::Rows => containerd.kill_after_commits(&options.snapshot_db(), 1)?,
            Death::BeforeRows => containerd.kill_at_commit(&options.snapshot_db())?,
            Death::Core(count) => containerd.kill_after_commits(&options.core_db(), count)?,
            Death::Call(call) => containerd.kill_at_dmsetup(Side::After, call)?,
            Death::Within(call, commands) => containerd.die_in_dmsetup(call, commands)?,
            Death::Mkfs => containerd.kill_after_mkfs()?,
            Death::Unmount => containerd.kill_at_unmount()?,
        }
        let _client = stage.vm.spawn(["sh", "-c", &self.operation()], &[])?;
        stage
            .containerd
            .wait_for_death()
            .with_context(|| format!("{} never came to: {death}", self.scene.name()))?;
        stage.containerd.remove_wrappers()
    }

    /// What is there of the snapshot, and what is unusual of the layer below it. containerd does not run.
    pub(super) fn found(&self, stage: &Stage<'_>) -> Result<String> {
        let database = stage.pool_db()?;
        let thin = stage.containerd.thin_ids()?;
        let mut words = Vec::new();
        let record = database.devices.get(&format!("tp-snap-{}", self.number));
        words.push(state_of(record));
        if record.is_some_and(|record| thin.contains(&u64::from(record.device_id.0))) {
            words.push("thin device".to_owned());
        }
        words.extend(node(stage, self.number)?);
        let rows = stage.snapshot_db()?.snapshots;
        if rows.values().any(|row| row.id == SnapshotId(self.number)) {
            words.push("row".to_owned());
        }
        // A key that nobody used before is in the file only once it was written there.
        let core = stage.containerd.options().core_db();
        if stage
            .vm
            .run(["grep", "-q", &self.key("new"), &core])?
            .status
            .success()
        {
            words.push("known to containerd".to_owned());
        }
        if let Some(layer) = self.layer {
            let below = database.devices.get(&format!("tp-snap-{layer}"));
            let mut of_layer = vec![state_of(below)];
            of_layer.extend(node(stage, layer)?);
            words.push(format!("the layer {}", of_layer.join(", ")));
        }
        Ok(words.join(", "))
    }

    /// Whether new snapshots can be made: people try three times.
    pub(super) fn service(&self, stage: &Stage<'_>, what: &str) -> Result<&'static str> {
        for said in ["works", "works at the second try", "works at the third try"] {
            let key = self.key(&format!("{what}-{}", said.replace(' ', "-")));
            let tried = stage.containerd.prepare(&key, self.parent().as_deref())?;
            if tried.status.success() {
                return Ok(said);
            }
            eprintln!("{}: {}", self.tag, tried.stderr.trim());
        }
        Ok("never works")
    }

    /// What comes of the same once more, where that is no prepare.
    pub(super) fn again(&self, stage: &Stage<'_>) -> Result<Option<&'static str>> {
        Ok(match self.scene {
            Scene::Base | Scene::Layer | Scene::Loaded => None,
            Scene::Commit => {
                let tried = stage
                    .containerd
                    .commit(&self.key("committed"), &self.key("active"))?;
                eprintln!("{}: {}", self.tag, tried.stderr.trim());
                Some(if tried.status.success() {
                    "it can be committed"
                } else {
                    "it can not be committed"
                })
            }
            Scene::Remove | Scene::CleanUp => {
                // Removing something makes containerd look for what else is to be collected.
                let _ = stage.containerd.remove(&self.key("alone-works"))?;
                stage.containerd.collect_garbage()?;
                let rows = stage.snapshot_db()?.snapshots;
                let stays = rows.values().any(|row| row.id == SnapshotId(self.number));
                let record = stage
                    .pool_db()?
                    .devices
                    .contains_key(&format!("tp-snap-{}", self.number));
                Some(match (stays, record) {
                    (false, false) => "it is collected",
                    (false, true) => "its record stays",
                    (true, _) => "it is never collected",
                })
            }
        })
    }
}

fn state_of(record: Option<&DeviceRecord>) -> String {
    record.map_or_else(|| "no record".to_owned(), |record| record.state.to_string())
}

/// The state of a snapshot's dm device, if it is there.
fn node(stage: &Stage<'_>, number: u64) -> Result<Option<String>> {
    let name = format!("tp-snap-{number}");
    let info = stage.vm.run([
        "dmsetup",
        "info",
        "--columns",
        "--noheadings",
        "-o",
        "attr",
        &name,
    ])?;
    if !info.status.success() {
        return Ok(None);
    }
    let attributes = info.stdout.trim().to_owned();
    let table = stage.vm.run(["dmsetup", "table", &name])?.stdout;
    let mounted = stage
        .vm
        .sh("cat /proc/mounts")?
        .contains(&format!("/dev/mapper/{name} "));
    let kind = if !attributes.starts_with('L') {
        "dm device without a table"
    } else if table.contains(" error") {
        "dm device with the error table"
    } else if attributes.contains('s') {
        "suspended dm device"
    } else {
        "dm device"
    };
    Ok(Some(if mounted {
        format!("{kind}, mounted")
    } else {
        kind.to_owned()
    }))
}

/// What only people may do: they unmount what was left mounted, and name the thin devices that nobody needs.
pub(super) fn person(stage: &mut Stage<'_>) -> Result<()> {
    stage.vm.sh(
        "for place in $(awk '/^.dev.mapper.tp-snap-/ { print $2 }' /proc/mounts); do timeout 20 umount $place; done",
    )?;
    for _ in 0..4 {
        for found in stage.check_with(&SOON)?.findings() {
            if found["class"] == "foreign-thin" {
                let id = found["subject"]["thin_id"].to_string();
                stage.repair(&[&["--delete-thin", &id], &SOON[..]].concat())?;
            }
        }
        if stage.check_with(&SOON)?.findings().is_empty() {
            return Ok(());
        }
        stage.repair(&SOON)?;
        stage.repair_offline(&[&DEADLINE[..], &SOON].concat())?;
        stage.containerd.collect_after_a_removal()?;
    }
    anyhow::bail!("it does not become clean: {}", stage.check()?.json)
}

/// An emulator is slow; how long an offline repair may take is not what is looked at here.
pub(super) const DEADLINE: [&str; 2] = ["--deadline", "60"];

/// Nobody is at work but who was killed: what stands still for a moment is left behind.
pub(super) const SOON: [&str; 2] = ["--patience", "1"];

/// Where there is nothing to say.
pub(super) const NOTHING: &str = "nothing";

/// What a repair did, in words.
pub(super) fn in_words(repair: &Repair) -> Result<String> {
    let done = repair.done()?;
    let words: Vec<&str> = done
        .iter()
        .map(|act| match act.as_str() {
            "resume-node" => "resume",
            "remove-node" => "remove dm device",
            "delete-thin" => "delete thin device",
            "mark-faulty" => "mark faulty",
            "forget-record" => "forget record",
            "restore-record" => "restore record",
            "insert-removed-record" => "insert record",
            "set-id" => "free number",
            other => other,
        })
        .collect();
    Ok(if words.is_empty() {
        NOTHING.to_owned()
    } else {
        words.join(", ")
    })
}
