//! The twins: almost the same worlds, in which suture must not act.

use anyhow::{Result, ensure};

use crate::support::*;

/// The same leaked id, but made by hand before containerd met it.
#[test]
fn a_device_made_by_hand_is_told_and_never_deleted() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let mut containerd = containerd(&vm)?;
    let mut suture = Suture::start(&vm, &["--act", "--grace", "2"], &[])?;
    vm.sh("dmsetup message tp 0 'create_thin 1'")?;

    // containerd draws the same id, is refused, and marks it faulty: to its database it looks like any leaked one.
    let refused = containerd.prepare("meets it", None)?;
    ensure!(
        !refused.status.success() && refused.stderr.to_lowercase().contains("file exists"),
        "{}",
        refused.stderr
    );
    prepare_with_retries(&containerd, "goes on")?;
    containerd.restart()?;

    let failed = suture.expect("operation", |report| report["operation"]["state"] == "failed")?;
    ensure!(
        failed["operation"]["error"] == "EEXIST" && failed["operation"]["thin_id"] == 1,
        "{failed}"
    );
    let decided = suture.expect_ever("decided", |report| report["finding"]["thin_id"] == 1)?;
    ensure!(
        decided["kind"] == "tell" && decided["finding"]["class"] == "foreign-thin",
        "{decided}"
    );
    vm.wait_until(
        "the ledger has the finding with its newest evidence",
        PATIENCE,
        || {
            Ok(history(&vm)?.iter().any(|entry| {
                entry["finding"]["class"] == "foreign-thin"
                    && entry["finding"]["evidence"]
                        .to_string()
                        .contains("has id 1 as faulty")
            }))
        },
    )?;
    std::thread::sleep(std::time::Duration::from_secs(12));
    ensure!(!suture.told("remedy")?);
    ensure!(containerd.thin_ids()?.contains(&1));
    suture.stop()
}

#[test]
fn a_device_that_is_open_is_refused_by_its_guard_until_it_is_closed() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let mut containerd = containerd(&vm)?;
    let mut suture = Suture::start(&vm, &["--act", "--grace", "8"], &[])?;
    break_and_restart(&mut containerd)?;
    // The first try removes the node that the killed containerd left; now somebody opens the leaked device.
    prepare_with_retries(&containerd, "again")?;
    suture.expect("found", |report| report["finding"]["class"] == "leaked-thin")?;
    vm.sh("dmsetup create by-hand --table \"0 131072 thin /dev/mapper/tp 1\"")?;

    let refused = suture.expect_remedy("refused")?;
    let why = refused["outcome"]["why"].to_string();
    ensure!(why.contains("not-open") && why.contains("by-hand"), "{why}");
    ensure!(containerd.thin_ids()?.contains(&1));
    let told = history(&vm)?;
    ensure!(
        told[0]["remedies"][0]["outcome"]["outcome"] == "refused",
        "{told:?}"
    );

    vm.sh("dmsetup remove by-hand")?;
    suture.expect_remedy("done")?;
    ensure!(!containerd.thin_ids()?.contains(&1));
    suture.stop()
}

#[test]
fn lost_events_stop_everything_until_the_world_was_read_anew() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let mut containerd = containerd(&vm)?;
    // A ring of four events, and a suture that does not read it for a while.
    let mut suture = Suture::start(&vm, &["--act", "--grace", "20", "--dm-ring-bytes", "4096"], &[])?;
    break_and_restart(&mut containerd)?;
    prepare_with_retries(&containerd, "again")?;
    suture.expect("found", |report| report["finding"]["class"] == "leaked-thin")?;
    suture.signal(Signal::STOP)?;
    vm.sh("for i in 1 2 3 4 5 6; do dmsetup info tp >/dev/null; done; sleep 20")?;
    suture.signal(Signal::CONT)?;

    // The finding is ripe by now; the gap comes first, then the read that closes it, and only then the remedy.
    suture.expect("gap_opened", |report| {
        report["why"].to_string().contains("ring buffer was full")
    })?;
    ensure!(!suture.told("remedy")?, "something was done with events missing");
    suture.expect("gap_closed", |_| true)?;
    suture.expect_remedy("done")?;
    ensure!(!containerd.thin_ids()?.contains(&1));
    suture.stop()
}

/// Somebody has cleaned up by hand, and used the id for something of their own, while suture was not there to see it.
#[test]
fn a_device_made_again_by_hand_while_suture_was_down_is_not_the_leaked_one() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let mut containerd = containerd(&vm)?;
    let suture = Suture::start(&vm, &["--act", "--grace", "600"], &[])?;
    break_and_restart(&mut containerd)?;
    prepare_with_retries(&containerd, "again")?;
    vm.wait_until("the leaked device is found", PATIENCE, || {
        Ok(history(&vm)?
            .iter()
            .any(|entry| entry["finding"]["class"] == "leaked-thin"))
    })?;
    suture.stop()?;
    vm.sh("dmsetup message tp 0 'delete 1'; dmsetup message tp 0 'create_thin 1'")?;

    let mut suture = Suture::start(&vm, &["--act", "--grace", "0"], &[])?;
    let found = suture.expect("found", |report| report["finding"]["thin_id"] == 1)?;
    ensure!(found["finding"]["class"] == "foreign-thin", "{found}");
    std::thread::sleep(std::time::Duration::from_secs(12));
    ensure!(!suture.told("remedy")? && containerd.thin_ids()?.contains(&1));
    suture.stop()
}

/// The kernel takes a message's verb in any case.
#[test]
fn a_device_made_again_in_capital_letters_is_not_the_leaked_one() -> Result<()> {
    let vm = boot(Kernel::V6_1)?;
    let mut containerd = containerd(&vm)?;
    let mut suture = Suture::start(&vm, &["--act", "--grace", "20"], &[])?;
    break_and_restart(&mut containerd)?;
    prepare_with_retries(&containerd, "again")?;
    suture.expect("found", |report| report["finding"]["class"] == "leaked-thin")?;
    vm.sh("dmsetup message tp 0 'Delete 1'; dmsetup message tp 0 'CREATE_THIN 1'")?;
    let found = suture.expect("found", |report| report["finding"]["thin_id"] == 1)?;
    ensure!(found["finding"]["class"] == "foreign-thin", "{found}");
    std::thread::sleep(std::time::Duration::from_secs(25));
    ensure!(!suture.told("remedy")? && containerd.thin_ids()?.contains(&1));
    suture.stop()
}
