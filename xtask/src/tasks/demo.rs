//! The story that `cargo xtask run` tells where there is no containerd to run on: a real one is killed in the middle of
//! creating a snapshot, and suture heals what it left behind.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::relay::Relay;
use crate::vm::containerd::Containerd;
use crate::vm::{Kernel, Vm};

/// Tells the story; fails if suture did not heal.
pub fn run(suture: &Path, kernel: Kernel) -> Result<ExitCode> {
    chapter(&format!(
        "A node: Linux {kernel}, a thin pool, and a real containerd with a snapshot in use"
    ));
    let vm = Vm::builder()
        .kernel(kernel)
        .time_limit(Duration::from_mins(10))
        .file(suture, "suture")
        .boot()?;
    let mut containerd = Containerd::serving(&vm)?;
    containerd.prepare("in-use", None)?.ok()?;
    let checksum = vm.sh("mkdir -p /mnt/data; mount /dev/mapper/tp-snap-1 /mnt/data
        echo 'somebody needs this' > /mnt/data/file; sync; umount /mnt/data
        mount -o ro /dev/mapper/tp-snap-1 /mnt/data; sha256sum /mnt/data/file; umount /mnt/data")?;
    say(&format!(
        "thin devices in the pool: {:?}; device 1 holds somebody's data",
        containerd.thin_ids()?
    ));

    chapter("suture starts beside it: kernel probes on, and leave to heal what is proven safe");
    let arguments = ["suture", "run", "--act", "--verbose", "--grace", "10"];
    let mut told = Relay::of(vm.spawn(arguments, &[])?);
    told.until("gap closed")?;

    chapter("The break: containerd is killed (SIGKILL) the moment the device of a new snapshot appears");
    containerd.kill_after_dmsetup_create()?;
    let prepared = containerd.prepare("half-done", None)?;
    ensure!(
        !prepared.status.success(),
        "containerd was not killed, and the snapshot was made"
    );
    containerd.wait_for_death()?;
    say(
        "containerd is dead; its database says `Activating`, the kernel has the device, and no snapshot is known",
    );
    told.until("ABANDONED")?;

    chapter("containerd comes back, marks the device faulty and forgets its name");
    containerd.start()?;
    for attempt in 1..=5 {
        let prepared = containerd.prepare("next", None)?;
        if prepared.status.success() {
            say(&format!("try {attempt} to create a snapshot: it works again"));
            break;
        }
        let why = prepared.stderr.lines().last().unwrap_or_default().to_owned();
        say(&format!(
            "try {attempt} to create a snapshot fails, the left-over is in the way: {why}"
        ));
    }
    let before = containerd.thin_ids()?;
    say(&format!(
        "thin devices in the pool: {before:?}; device 2 is leaked: containerd will never use or delete it"
    ));
    ensure!(
        before.contains(&2),
        "nothing was leaked, so there is nothing to heal"
    );

    chapter(
        "suture has seen all of it from inside the kernel. It waits 10 s, reads everything again, and acts",
    );
    let begun = Instant::now();
    told.until("resolved")?;

    chapter("Afterwards");
    let after = containerd.thin_ids()?;
    say(&format!("thin devices in the pool: {after:?}"));
    let now =
        vm.sh("mount -o ro /dev/mapper/tp-snap-1 /mnt/data; sha256sum /mnt/data/file; umount /mnt/data")?;
    ensure!(now == checksum, "the contents of another snapshot changed");
    say("the data on device 1 are untouched");
    containerd.prepare("and-on", None)?.ok()?;
    say("containerd goes on creating snapshots. What suture keeps of it (`suture history`):");
    println!("{}", vm.run(["suture", "history"])?.ok()?.stdout);
    told.end()?;
    let expected: Vec<u64> = before.into_iter().filter(|id| *id != 2).collect();
    if after != expected {
        bail!("suture should have deleted device 2 and nothing else");
    }
    println!(
        "The leaked device was deleted {:.0} s after it was found: exactly that one, with every guard read just before.\n\
         On a node of your own: `suture run` tells, `suture run --act` heals; README.md goes on from here.",
        begun.elapsed().as_secs_f32()
    );
    Ok(ExitCode::SUCCESS)
}

fn chapter(title: &str) {
    println!("\n== {title}");
}

fn say(text: &str) {
    println!("   {text}");
}
