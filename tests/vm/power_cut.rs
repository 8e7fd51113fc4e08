//! The power is cut in the middle of an offline repair: the database is the old or the new one, and the next repair
//! finishes.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use suture::model::{DeviceState, IdState};
use xtask::vm::{
    CutOn, Vm,
    containerd::{Containerd, Options},
};

use crate::{
    preload::{AT_DELETE, preload},
    stage::*,
    support::*,
};

/// Says so on the console when suture comes to a place, and stays there: the power is cut at that word.
const STOP_AT: &str = r#"
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void at(const char *place) {
    const char *wanted = getenv("STOP_AT");
    if (!wanted || strcmp(wanted, place)) return;
    int console = open("/dev/ttyS0", O_WRONLY | O_NOCTTY);
    if (console >= 0) dprintf(console, "suture has come to this place\n");
    for (;;) pause();
}

/* Of the pool database only: each commit calls it twice, before and after its meta page is written. */
int fdatasync(int fd) {
    static int count;
    char link[64], path[256] = {0}, place[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, path, sizeof path - 1) > 0 && strlen(path) > 6 && !strcmp(path + strlen(path) - 6, "/tp.db")) {
        snprintf(place, sizeof place, "sync %d", ++count);
        at(place);
    }
    int (*next)(int) = dlsym(RTLD_NEXT, "fdatasync");
    return next(fd);
}

static void before_delete(void) { at("before delete"); }
static void after_delete(void) { at("after delete"); }
"#;

const WORD: &str = "suture has come to this place";

/// The ledger is kept with the disks, as on a node.
fn keep_ledger(vm: &Vm) -> Result<()> {
    vm.sh("mkdir -p /persist/suture /var/lib/suture; mount --bind /persist/suture /var/lib/suture")?;
    Ok(())
}

/// Disks with a wedge on them, and what else is in the pool.
fn wedge_on(disks: &Path) -> Result<Kept> {
    let vm = boot_with_disks(disks)?;
    let mut containerd = containerd(&vm)?;
    let kept = Kept::write(&vm, &containerd, "kept", 1)?;
    containerd.kill_after_mkfs()?;
    containerd.prepare("half", None)?;
    containerd.wait_for_death()?;
    drop(containerd);
    vm.shutdown()?;
    Ok(kept)
}

/// Repairs until suture comes to the place, and no further.
fn cut_at(disks: &Path, place: &str) -> Result<()> {
    let cut = CutOn::new(WORD);
    let vm = machine().disks(disks).cut_power_on(&cut).boot()?;
    keep_ledger(&vm)?;
    let _containerd = Containerd::set_up(&vm, Options::default())?;
    preload(&vm, "/opt/stop.so", &[STOP_AT, AT_DELETE])?;
    let mut repair = vm.spawn(
        ["suture", "repair", "--offline", "--deadline", "60"],
        &[("LD_PRELOAD", "/opt/stop.so"), ("STOP_AT", place)],
    )?;
    let ended = repair.wait(PATIENCE);
    ensure!(
        cut.has_fired() && ended.is_err(),
        "suture never came to `{place}`: {ended:?}"
    );
    Ok(())
}

/// After the cut: old or new, and the next repair finishes.
fn finish(disks: &Path, place: &str, kept: &Kept) -> Result<()> {
    let vm = boot_with_disks(disks)?;
    keep_ledger(&vm)?;
    let containerd = Containerd::set_up(&vm, Options::default())?;
    let mut stage = Stage { vm: &vm, containerd };
    let database = stage.pool_db()?;
    let is_left = match database.devices.get("tp-snap-2") {
        None => database.device_ids.values().any(|state| *state == IdState::Free),
        Some(record) => [DeviceState::Activated, DeviceState::Faulty].contains(&record.state),
    };
    ensure!(is_left, "neither old nor new: {database:?}");
    eprintln!("{place}: {:?}", database.devices.get("tp-snap-2"));
    stage.repair(&["--offline"])?.ok()?;
    ensure!(stage.containerd.thin_ids()? == [1]);
    stage.containerd.start()?;
    stage.containerd.prepare("at once", None)?.ok()?;
    ensure!(kept.is_whole(&vm)?);
    Check::in_vm(&vm)?.expect(&[]).map(drop)
}

fn power_cut_at(places: &[&str]) -> Result<()> {
    let wedged = tempfile::tempdir()?;
    let kept = wedge_on(wedged.path())?;
    for place in places {
        let disks = tempfile::tempdir()?;
        let copied = Command::new("cp")
            .args(["--sparse=always", "-r"])
            .arg(wedged.path().join("."))
            .arg(disks.path())
            .status()?;
        ensure!(copied.success());
        cut_at(disks.path(), place)?;
        finish(disks.path(), place, &kept).with_context(|| (*place).to_owned())?;
    }
    Ok(())
}

/// Before the meta page of the first commit is on the disk.
#[test]
fn a_power_cut_in_an_offline_repair_leaves_the_old_or_the_new_and_the_next_finishes() -> Result<()> {
    power_cut_at(&["sync 2"])
}

/// The long lane.
#[test]
fn a_power_cut_anywhere_in_an_offline_repair_is_finished_by_the_next() -> Result<()> {
    if !long_lane() {
        return Ok(());
    }
    power_cut_at(&["sync 1", "before delete", "after delete", "sync 3", "sync 4"])
}
