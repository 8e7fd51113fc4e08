//! What is left of a commit that was cut between the two databases (C10) keeps suture from healing anything, until a person
//! who knows better says so.

use anyhow::{Context as _, Result, ensure};

use super::{
    deaths::Death,
    scenes::{DEADLINE, SOON, Scene, Set, in_words},
};
use crate::{stage::*, support::*};

/// The long lane.
#[test]
fn after_a_commit_that_was_cut_a_wedge_is_healed_once_a_person_has_done_as_told() -> Result<()> {
    if !long_lane() {
        return Ok(());
    }
    on_stage(|stage| {
        let commit = Set::make(stage, Scene::Commit, "doubt")?;
        commit.break_at(stage, Death::Rows)?;
        stage.containerd.start()?;
        let prepare = Set::make(stage, Scene::Base, "wedge")?;
        prepare.break_at(stage, Death::Pool(5))?;

        let wedge = stage.check_with(&SOON)?.the("wedge")?;
        ensure!(wedge["remedy"]["action"] == "leave-alone", "{wedge}");
        let why = wedge["remedy"]["why"].as_str().context("why it is left")?;
        let offline = [&DEADLINE[..], &SOON].concat();
        let repair = stage.repair(&[&["--offline"][..], &offline].concat())?;
        ensure!(repair.done()?.is_empty(), "{repair:?}");

        stage.containerd.start()?;
        ensure!(prepare.service(stage, "still")? == "never works");
        let told = why.split('`').find(|words| words.starts_with("ctr "));
        stage
            .vm
            .sh(told.with_context(|| format!("no command in: {why}"))?)?;
        let done = in_words(&stage.repair_offline(&offline)?)?;
        ensure!(
            done == "mark faulty, remove dm device, delete thin device, forget record",
            "{done}"
        );
        ensure!(prepare.service(stage, "healed")? == "works");
        prepare.person(stage)
    })
}
