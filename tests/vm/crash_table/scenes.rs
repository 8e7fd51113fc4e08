//! The operations of containerd's that are broken, and what people do before and after.

use anyhow::{Context as _, Result};
use suture::model::SnapshotId;
use xtask::vm::{Signal, containerd::Side};

use super::deaths::Death;
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
    /// A view of such a layer.
    View,
    Commit,
    /// A commit of a snapshot that somebody has mounted, so that its dm device waits for its removal.
    CommitMounted,
    Remove,
    /// Of a layer, which has no dm device.
    RemoveLayer,
    /// With `async_remove`.
    CleanUp,
    /// A prepare that fails where the dm device of an earlier one, cut in B6, has its name; containerd takes it back.
    TakingBack,
    /// containerd's own start, when the dm device of a snapshot is gone, as after a reboot.
    Start,
}

impl Scene {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Base => "prepare without a parent",
            Self::Layer => "prepare on a layer that is not loaded",
            Self::Loaded => "prepare on a layer that is loaded",
            Self::View => "view",
            Self::Commit => "commit",
            Self::CommitMounted => "commit of a device that is mounted",
            Self::Remove => "remove",
            Self::RemoveLayer => "remove of a layer",
            Self::CleanUp => "remove with async_remove, and its clean-up",
            Self::TakingBack => {
                "taking back a prepare that failed, for a dm device of its name was left in B6"
            }
            Self::Start => "containerd's start, when a dm device is gone",
        }
    }

    /// Whether there is a layer below the snapshot.
    fn is_on_a_layer(self) -> bool {
        matches!(self, Self::Layer | Self::Loaded | Self::View)
    }

    /// What the key ends with that is there once the operation is done.
    pub(super) fn makes(self) -> &'static str {
        match self {
            Self::Commit | Self::CommitMounted => "committed",
            _ => "new",
        }
    }
}

/// A scene that is set: what the operation is made on.
pub(super) struct Set {
    pub(super) scene: Scene,
    /// What the keys of its snapshots begin with.
    tag: String,
    /// The snapshot that is made, committed or removed.
    pub(super) number: u64,
    /// The layer below it, where that plays a part.
    pub(super) layer: Option<u64>,
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
        if scene.is_on_a_layer() {
            let below = stage.next()?;
            layer = Some(below);
            stage.containerd.prepare(&key("base"), None)?.ok()?;
            if scene == Scene::Loaded {
                hold(stage, below)?;
            }
            stage.containerd.commit(&key("layer"), &key("base"))?.ok()?;
        }
        let number = stage.next()?;
        if scene == Scene::TakingBack {
            let containerd = &mut stage.containerd;
            containerd.kill_at_dmsetup(Side::After, "create *")?;
            let _client = containerd.begin_prepare(&key("cut"))?;
            containerd.wait_for_death()?;
            containerd.remove_wrappers()?;
            containerd.start()?;
        }
        match scene {
            Scene::Base | Scene::Layer | Scene::Loaded | Scene::View | Scene::TakingBack => {}
            Scene::Commit | Scene::CommitMounted | Scene::Start => {
                stage.containerd.prepare(&key("active"), None)?.ok()?;
            }
            Scene::RemoveLayer => {
                stage.containerd.prepare(&key("base"), None)?.ok()?;
                stage.containerd.commit(&key("doomed"), &key("base"))?.ok()?;
                stage.containerd.ctr(["leases", "create", "--id", tag])?.ok()?;
            }
            Scene::Remove | Scene::CleanUp => {
                stage.containerd.prepare(&key("doomed"), None)?.ok()?;
                stage.containerd.ctr(["leases", "create", "--id", tag])?.ok()?;
            }
        }
        if scene == Scene::CommitMounted {
            hold(stage, number)?;
        }
        Ok(Self {
            scene,
            tag: tag.to_owned(),
            number,
            layer,
        })
    }

    pub(super) fn key(&self, what: &str) -> String {
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
            Scene::Base | Scene::TakingBack => format!("{ctr} prepare {}", key("new")),
            Scene::Layer | Scene::Loaded => format!("{ctr} prepare {} {}", key("new"), key("layer")),
            Scene::View => format!("{ctr} view {} {}", key("new"), key("layer")),
            // containerd is started instead.
            Scene::Start => String::new(),
            Scene::Commit | Scene::CommitMounted => {
                format!("{ctr} commit {} {}", key("committed"), key("active"))
            }
            Scene::Remove | Scene::RemoveLayer | Scene::CleanUp => {
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
        if self.scene == Scene::Start {
            // The dm device goes as with a reboot.
            containerd.kill(Signal::KILL)?;
            stage.vm.sh(&format!("dmsetup remove tp-snap-{}", self.number))?;
        }
        match death {
            Death::Pool(count) => containerd.kill_after_commits(&options.pool_db(), count)?,
            Death::Rows => containerd.kill_after_commits(&options.snapshot_db(), 1)?,
            Death::BeforeRows => containerd.kill_at_commit(&options.snapshot_db())?,
            Death::Core(count) => containerd.kill_after_commits(&options.core_db(), count)?,
            Death::Call(call) => containerd.kill_at_dmsetup(Side::After, call)?,
            Death::Ahead(call) => containerd.kill_at_dmsetup(Side::Before, call)?,
            Death::Within(half) => containerd.die_in_dmsetup(half.call(), half.commands())?,
            Death::Mkfs => containerd.kill_after_mkfs()?,
            Death::Unmount => containerd.kill_at_unmount()?,
        }
        let _client = if self.scene == Scene::Start {
            stage.containerd.launch()?;
            None
        } else {
            Some(stage.vm.spawn(["sh", "-c", &self.operation()], &[])?)
        };
        stage
            .containerd
            .wait_for_death()
            .with_context(|| format!("{} never came to: {death}", self.scene.name()))?;
        stage.containerd.remove_wrappers()
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

    /// What only people may do, so that nothing is left.
    pub(super) fn person(&self, stage: &mut Stage<'_>) -> Result<()> {
        if matches!(self.scene, Scene::Commit | Scene::CommitMounted) {
            // C10 leaves the old key in containerd's own database, and as long as it is there suture deletes nothing.
            let _ = stage.containerd.remove(&self.key("active"))?;
        }
        person(stage)
    }

    /// What comes of the same once more, where that is no prepare.
    pub(super) fn again(&self, stage: &Stage<'_>) -> Result<Option<&'static str>> {
        Ok(match self.scene {
            Scene::Base | Scene::Layer | Scene::Loaded | Scene::View | Scene::TakingBack => None,
            Scene::Commit | Scene::CommitMounted | Scene::Start => {
                let tried = stage
                    .containerd
                    .commit(&self.key("committed"), &self.key("active"))?;
                eprintln!("{}: {}", self.tag, tried.stderr.trim());
                let key = self.key("committed");
                let is_there =
                    || -> Result<bool> { Ok(stage.containerd.ls()?.iter().any(|one| one.key == key)) };
                Some(if tried.status.success() {
                    "it can be committed"
                } else if is_there()? {
                    "it is committed already"
                } else {
                    "it can not be committed"
                })
            }
            Scene::Remove | Scene::RemoveLayer | Scene::CleanUp => {
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

/// Somebody has a snapshot mounted.
fn hold(stage: &Stage<'_>, number: u64) -> Result<()> {
    stage.vm.sh(&format!(
        "mkdir -p /mnt/held; mount /dev/mapper/tp-snap-{number} /mnt/held; sync"
    ))?;
    Ok(())
}

/// They unmount what was left mounted, and name the thin devices that nobody needs.
fn person(stage: &mut Stage<'_>) -> Result<()> {
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
