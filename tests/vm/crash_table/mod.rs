//! The crash table on a real containerd: it dies in one window after another, and what comes of it when nobody helps, when
//! suture repairs beside it and when suture repairs before its start is held to the rows in `rows`, which
//! docs/crash-table.md shows. `page` holds the page to the rows, `scenes` sets the operations and breaks them at `deaths`.

mod deaths;
mod doubt;
mod found;
mod page;
mod rows;
mod scenes;

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use xtask::vm::containerd::{Containerd, Options};

use self::{
    rows::{Row, rows},
    scenes::{DEADLINE, NOTHING, SOON, Scene, Set, in_words},
};
use crate::{stage::*, support::*};

/// What happened in a window.
#[derive(Debug, Default, PartialEq, Eq)]
struct Happened {
    /// What was there when containerd was dead.
    found: String,
    /// What `suture check` finds once containerd is started again, and nobody has tried anything yet.
    told: String,
    /// What comes of trying.
    alone: String,
    /// What suture did beside it then.
    beside: String,
    /// And when containerd was restarted.
    restart: String,
    /// What suture did before containerd's start.
    before: String,
}

/// containerd is started again, and people try what they want; then suture repairs beside it, and with its next restart.
fn alone_and_beside(stage: &mut Stage<'_>, set: &Set, happened: &mut Happened) -> Result<()> {
    happened.found = set.found(stage)?;
    stage.containerd.start()?;
    happened.told = classes(stage)?;
    let service = set.service(stage, "alone")?;
    let again = set.again(stage)?.map(|again| format!("; {again}"));
    let left = classes(stage)?;
    happened.alone = format!("{service}{}; left: {left}", again.unwrap_or_default());
    happened.beside = in_words(&stage.repair(&SOON)?)?;
    happened.restart = in_words(&stage.repair_offline(&[&DEADLINE[..], &SOON].concat())?)?;
    if service == "never works" {
        let service = set.service(stage, "healed")?;
        ensure!(service != "never works", "suture did not heal it");
    }
    set.person(stage).context("after it was alone")
}

/// The classes of what `suture check` finds.
fn classes(stage: &Stage<'_>) -> Result<String> {
    let classes = stage.check_with(&SOON)?.classes();
    Ok(if classes.is_empty() {
        NOTHING.to_owned()
    } else {
        classes.join(", ")
    })
}

/// suture repairs before containerd is started: the first prepare works, unless somebody still uses what was half made.
fn before(stage: &mut Stage<'_>, set: &Set, happened: &mut Happened) -> Result<()> {
    let found = set.found(stage)?;
    ensure!(
        found == happened.found,
        "the same kill left `{found}`, and before `{}`",
        happened.found
    );
    let repair = stage.repair(&[&["--offline"][..], &DEADLINE, &SOON].concat())?;
    stage.containerd.start()?;
    let service = set.service(stage, "before")?;
    let left = classes(stage)?;
    let mut said = vec![in_words(&repair)?];
    if service != "works" {
        said.push(service.to_owned());
    }
    if left != NOTHING {
        said.push(format!("left: {left}"));
    }
    happened.before = said.join("; ");
    set.person(stage).context("after a repair before its start")
}

/// Names the windows that are to be played.
const CHOSEN: &str = "SUTURE_WINDOWS";

/// One window, by kills on a stage.
fn by_kill(row: &Row) -> Result<Happened> {
    let mut happened = Happened::default();
    on_stage(|stage| {
        let alone = Set::make(stage, row.scene, &format!("{}-a", row.window))?;
        alone.break_at(stage, row.death)?;
        alone_and_beside(stage, &alone, &mut happened)?;
        stage.remove_all()?;
        let helped = Set::make(stage, row.scene, &format!("{}-b", row.window))?;
        helped.break_at(stage, row.death)?;
        before(stage, &helped, &mut happened)
    })?;
    Ok(happened)
}

/// The same with a power cut right after the death: what was not on the disks is gone, and no dm device is left.
fn by_power_cut(row: &Row) -> Result<Happened> {
    let disks = tempfile::tempdir()?;
    let mut happened = Happened::default();
    let set = cut(row, disks.path(), "a")?;
    on_disks(disks.path(), row.scene, |stage| {
        alone_and_beside(stage, &set, &mut happened)?;
        stage.remove_all()
    })?;
    let set = cut(row, disks.path(), "b")?;
    on_disks(disks.path(), row.scene, |stage| {
        before(stage, &set, &mut happened)
    })?;
    Ok(happened)
}

fn cut(row: &Row, disks: &Path, tag: &str) -> Result<Set> {
    let vm = boot_with_disks(disks)?;
    let containerd = containerd(&vm)?;
    let mut stage = Stage { vm: &vm, containerd };
    let set = Set::make(&mut stage, row.scene, &format!("{}-{tag}", row.window))?;
    set.break_at(&mut stage, row.death)?;
    vm.cut_power()?;
    Ok(set)
}

fn on_disks(disks: &Path, scene: Scene, scenario: impl FnOnce(&mut Stage<'_>) -> Result<()>) -> Result<()> {
    let vm = boot_with_disks(disks)?;
    let options = Options {
        async_remove: scene == Scene::CleanUp,
        ..Options::default()
    };
    let containerd = Containerd::set_up(&vm, options)?;
    scenario(&mut Stage { vm: &vm, containerd })?;
    vm.shutdown()
}

/// Holds the rows of scenes to what happens: those of the normal lane, or all.
fn hold(scenes: &[Scene]) -> Result<()> {
    let mut wrong = Vec::new();
    let rows: Vec<_> = rows()
        .filter(|row| scenes.contains(&row.scene) && is_chosen(row))
        .collect();
    let none_is_meant = std::env::var_os(CHOSEN).is_some();
    ensure!(
        !rows.is_empty() || none_is_meant,
        "no window of {scenes:?} is played"
    );
    for row in rows {
        let happened = if row.power {
            by_power_cut(row)
        } else {
            by_kill(row)
        };
        match happened {
            Ok(happened) if row.is(&happened) => {}
            Ok(happened) => wrong.push(format!(
                "{} was expected to be {row:#?}, and was {happened:#?}",
                row.window
            )),
            Err(error) => wrong.push(format!("{}: {error:#}", row.window)),
        }
        if let Some(last) = wrong.last() {
            eprintln!("so far: {last}");
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

/// The long lane plays every window; `SUTURE_WINDOWS=Base/B7,Commit,Remove/R7'/power` only some, also while the table is made.
fn is_chosen(row: &Row) -> bool {
    let scene = format!("{:?}", row.scene);
    let name = format!("{scene}/{}{}", row.window, if row.power { "/power" } else { "" });
    match std::env::var(CHOSEN) {
        Ok(named) => named.split(',').any(|one| one == name || one == scene),
        Err(_) => row.normal || long_lane(),
    }
}

#[test]
fn a_containerd_that_dies_in_a_prepare_without_a_parent_leaves_what_the_crash_table_says() -> Result<()> {
    hold(&[Scene::Base])
}

#[test]
fn a_containerd_that_dies_in_a_prepare_on_a_layer_leaves_what_the_crash_table_says() -> Result<()> {
    hold(&[Scene::Layer, Scene::View])
}

#[test]
fn a_containerd_that_dies_in_a_prepare_on_a_loaded_layer_leaves_what_the_crash_table_says() -> Result<()> {
    hold(&[Scene::Loaded])
}

#[test]
fn a_containerd_that_dies_in_a_commit_leaves_what_the_crash_table_says() -> Result<()> {
    hold(&[Scene::Commit, Scene::CommitMounted])
}

#[test]
fn a_containerd_that_dies_in_a_removal_leaves_what_the_crash_table_says() -> Result<()> {
    hold(&[Scene::Remove, Scene::RemoveLayer])
}

#[test]
fn a_containerd_that_dies_in_a_clean_up_leaves_what_the_crash_table_says() -> Result<()> {
    hold(&[Scene::CleanUp])
}

#[test]
fn a_containerd_that_dies_as_it_starts_leaves_what_the_crash_table_says() -> Result<()> {
    hold(&[Scene::Start])
}

#[test]
fn a_containerd_that_dies_as_it_takes_back_a_prepare_leaves_what_the_crash_table_says() -> Result<()> {
    hold(&[Scene::TakingBack])
}
