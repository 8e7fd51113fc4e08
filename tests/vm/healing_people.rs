//! What people say to the running sidecar: approve, reject, pause, resume, the kill switch, and another policy.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{healing::*, stage::*, support::*};

/// Nothing of a class without a person.
const APPROVE: &str = "[policy.class]\norphan-node = \"approve\"\n";

/// The name of the plan for a dm device, as `suture findings` lists it as waiting.
fn waiting_plan(stage: &Stage<'_>, name: &str) -> Result<String> {
    let listed = say(stage.vm, &["findings", "--output", "json"])?.ok()?.stdout;
    let rows: Vec<Value> = listed
        .lines()
        .map(|line| serde_json::from_str(line).context("reading the findings"))
        .collect::<Result<_>>()?;
    let row = rows
        .iter()
        .find(|row| row["verdict"]["asks"] == true && row.to_string().contains(name))
        .with_context(|| format!("no plan for {name} waits in {listed}"))?;
    ensure!(
        row["source"] == "sidecar" && row["verdict"]["mode"] == "approve",
        "{row}"
    );
    let plan = row["plan"].as_str().context("its plan has a name")?;
    Ok(plan.to_owned())
}

/// Two findings of one class: one is approved, the other rejected.
#[test]
fn what_needs_a_person_is_done_once_approved_and_not_where_it_is_rejected() -> Result<()> {
    on_stage(|stage| {
        let mut suture = sidecar(stage.vm, APPROVE)?;
        let (wanted, unwanted) = (make_orphan(stage, 1)?, make_orphan(stage, 2)?);
        for _ in 0..2 {
            let judged = suture.expect_judged("orphan-node", "await-approval")?;
            let text = judged["text"].as_str().unwrap_or_default();
            ensure!(
                text.starts_with("waits for `suture approve orphan-node-"),
                "{judged}"
            );
        }
        let (yes, no) = (waiting_plan(stage, &wanted)?, waiting_plan(stage, &unwanted)?);
        // Nobody is at a terminal, so nobody agrees.
        let unsaid = say(stage.vm, &["approve", &yes])?;
        ensure!(unsaid.status.code() == 5, "{unsaid:?}");
        let rejected = say(stage.vm, &["reject", &no, "--why", "it is mine"])?;
        ensure!(rejected.status.success(), "{rejected:?}");
        ensure!(suture.repairs()? == 0, "nobody approved anything yet");
        let approved = say(stage.vm, &["approve", &yes, "--yes"])?;
        ensure!(
            approved.status.success() && approved.stderr.contains(&wanted),
            "{approved:?}"
        );
        suture.expect_repair("orphan-node", "done")?;
        ensure!(!node_is_there(stage.vm, &wanted)? && node_is_there(stage.vm, &unwanted)?);
        another_round(stage.vm)?;
        ensure!(suture.repairs()? == 1 && node_is_there(stage.vm, &unwanted)?);
        // What was approved was for once: the same again has to be approved again.
        ensure!(make_orphan(stage, 1)? == wanted);
        suture.expect_judged("orphan-node", "await-approval")?;
        ensure!(node_is_there(stage.vm, &wanted)?);
        suture.stop()?;
        stage
            .vm
            .sh(&format!("dmsetup remove {wanted}; dmsetup remove {unwanted}"))?;
        stage.expect_works()
    })
}

/// A pause lasts over a restart of suture; the kill switch lasts as long as its file.
#[test]
fn while_it_is_paused_or_switched_off_nothing_is_done_and_afterwards_it_is() -> Result<()> {
    on_stage(|stage| {
        let mut suture = sidecar(stage.vm, "")?;
        let paused = say(stage.vm, &["pause", "--why", "a look first", "--config", POLICY])?;
        ensure!(paused.status.success(), "{paused:?}");
        let name = make_orphan(stage, 1)?;
        let blocked = suture.expect_judged("orphan-node", "blocked")?;
        ensure!(
            blocked["text"]
                .as_str()
                .unwrap_or_default()
                .contains("a look first"),
            "{blocked}"
        );
        suture.stop()?;
        let mut suture = sidecar_again(stage.vm, &[])?;
        std::thread::sleep(std::time::Duration::from_secs(25));
        ensure!(suture.repairs()? == 0 && node_is_there(stage.vm, &name)?);
        let resumed = say(stage.vm, &["resume", "--config", POLICY])?;
        ensure!(resumed.status.success(), "{resumed:?}");
        suture.expect_repair("orphan-node", "done")?;
        ensure!(!node_is_there(stage.vm, &name)?);

        stage.vm.sh(&format!("touch {KILL_SWITCH}"))?;
        let other = make_orphan(stage, 2)?;
        let blocked = suture.expect_judged("orphan-node", "blocked")?;
        ensure!(
            blocked["text"].as_str().unwrap_or_default().contains(KILL_SWITCH),
            "{blocked}"
        );
        // It is no switch of `suture pause`.
        let resumed = say(stage.vm, &["resume", "--config", POLICY])?;
        ensure!(resumed.status.code() == 5, "{resumed:?}");
        std::thread::sleep(std::time::Duration::from_secs(25));
        ensure!(suture.repairs()? == 1 && node_is_there(stage.vm, &other)?);
        stage.vm.sh(&format!("rm {KILL_SWITCH}"))?;
        suture.expect_repair("orphan-node", "done")?;
        ensure!(!node_is_there(stage.vm, &other)?);
        suture.stop()?;
        stage.expect_works()
    })
}

/// A policy with a slip of the pen changes nothing, and its line is told; the next one that is right holds.
#[test]
fn a_wrong_policy_changes_nothing_and_a_right_one_holds() -> Result<()> {
    on_stage(|stage| {
        let mut suture = sidecar(stage.vm, APPROVE)?;
        let name = make_orphan(stage, 1)?;
        suture.expect_judged("orphan-node", "await-approval")?;
        write_policy(stage.vm, "[policy.class]\norphan-node = \"autp\"\n")?;
        suture.signal(Signal::HUP)?;
        let refused = suture.expect("policy_refused", |_| true)?;
        let why = refused["why"].as_str().unwrap_or_default();
        // The first two lines are those of the kill switch.
        ensure!(why.contains("line 4") && why.contains("autp"), "{refused}");
        another_round(stage.vm)?;
        ensure!(
            suture.repairs()? == 0 && node_is_there(stage.vm, &name)?,
            "the policy before holds no more"
        );
        write_policy(stage.vm, "[policy.class]\norphan-node = \"auto\"\n")?;
        suture.signal(Signal::HUP)?;
        suture.expect("policy_read", |_| true)?;
        suture.expect_repair("orphan-node", "done")?;
        ensure!(!node_is_there(stage.vm, &name)?);
        suture.stop()?;
        stage.expect_works()
    })
}
