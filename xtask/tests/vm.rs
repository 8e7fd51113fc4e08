//! The VM keeps its promises. These boot it, so they need the set-up, which the first of them makes.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use xtask::vm::containerd::Containerd;
use xtask::vm::{Ended, Kernel, Signal, Vm};

/// Emulation is hungry: one VM at a time keeps each of them quick, and the limits honest.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_command_gives_its_code_and_both_outputs_on_every_kernel() {
    let _turn = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    for kernel in Kernel::ALL {
        let vm = Vm::builder().kernel(kernel).boot().unwrap();
        let release = vm.sh("uname -r").unwrap();
        assert!(release.starts_with(&format!("{kernel}.")), "{release}");
        assert!(
            vm.run(["dmsetup", "targets"])
                .unwrap()
                .ok()
                .unwrap()
                .stdout
                .contains("thin-pool")
        );
        vm.sh("modprobe dm-flakey; dmsetup targets | grep flakey")
            .unwrap();
        let output = vm
            .run(["sh", "-c", "echo to out; echo to err >&2; exit 7"])
            .unwrap();
        assert_eq!(output.status, Ended::Exited(7));
        assert_eq!(
            (output.stdout.as_str(), output.stderr.as_str()),
            ("to out\n", "to err\n")
        );
        let error = output.ok().unwrap_err().to_string();
        assert!(
            error.contains("exit code 7") && error.contains("to err"),
            "{error}"
        );
        let missing = vm.run(["no-such-program"]).unwrap_err();
        assert!(format!("{missing:#}").contains("no-such-program"), "{missing:#}");
        vm.shutdown().unwrap();
    }
}

#[test]
fn commands_run_side_by_side_and_take_signals() {
    let _turn = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let helper = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(helper.path(), "#!/bin/sh\necho \"helped $1\"\n").unwrap();
    std::fs::set_permissions(helper.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let vm = Vm::builder().file(helper.path(), "helper").boot().unwrap();

    let mut waiting = vm
        .spawn(
            ["sh", "-c", "echo $GREETING; exec sleep 1000"],
            &[("GREETING", "here I am")],
        )
        .unwrap();
    waiting.wait_for_line(|line| line == "here I am", SOON).unwrap();
    assert_eq!(vm.sh("helper you").unwrap(), "helped you\n");
    waiting.kill(Signal::TERM).unwrap();
    assert_eq!(waiting.wait(SOON).unwrap().status, Ended::Killed(15));
    assert!(
        waiting.kill(Signal::TERM).is_err(),
        "a program that ended takes no signal"
    );

    // Much output at once from several programs, none of which is read before the others ended.
    let mut many: Vec<_> = (0..3)
        .map(|_| vm.spawn(["seq", "1", "50000"], &[]).unwrap())
        .collect();
    for process in &mut many {
        assert_eq!(process.wait(SOON).unwrap().stdout.lines().count(), 50_000);
    }

    // An orphan is reaped by process 1 without taking anybody's exit status.
    vm.sh("(true & exec true) & wait").unwrap();
    vm.wait_until("no zombie is left", SOON, || Ok(!vm.sh("ps")?.contains(" Z ")))
        .unwrap();

    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    vm.write_file("/root/deep/file", &bytes, 0o600).unwrap();
    assert_eq!(vm.read_file("/root/deep/file").unwrap(), bytes);
    assert!(vm.read_file("/nothing").is_err());

    // The host's loopback interface, seen from the guest.
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let mut client = vm.spawn(["nc", "10.0.2.2", &port.to_string()], &[]).unwrap();
    std::io::Write::write_all(&mut server.accept().unwrap().0, b"hello from the host\n").unwrap();
    client
        .wait_for_line(|line| line == "hello from the host", SOON)
        .unwrap();
}

#[test]
fn what_was_synced_outlives_a_power_cut() {
    let _turn = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let disks = tempfile::tempdir().unwrap();
    let vm = Vm::builder().disks(disks.path()).boot().unwrap();
    vm.sh("echo kept > /persist/file; sync; echo gone > /root/file")
        .unwrap();
    vm.cut_power().unwrap();
    let error = format!("{:#}", vm.sh("true").unwrap_err());
    assert!(error.contains("the power was cut"), "{error}");
    drop(vm);

    let vm = Vm::builder().disks(disks.path()).boot().unwrap();
    assert_eq!(vm.sh("cat /persist/file; ls /root").unwrap(), "kept\n");
}

#[test]
fn a_command_that_never_ends_meets_the_time_limit() {
    let _turn = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let limit = Duration::from_secs(10);
    let vm = Vm::builder().time_limit(limit).boot().unwrap();
    let begun = Instant::now();
    let error = format!("{:#}", vm.run(["sleep", "1000"]).unwrap_err());
    assert!(error.contains("time limit of 10s"), "{error}");
    assert!(begun.elapsed() < SOON);
}

#[test]
fn a_kernel_that_cannot_boot_shows_its_console() {
    let _turn = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    // Too little for the initramfs: the kernel panics.
    let Err(error) = Vm::builder().kernel_arguments("rdinit=/nothing").boot() else {
        panic!("it booted")
    };
    let error = format!("{error:#}");
    assert!(
        error.contains("console ends with") && error.contains("panic"),
        "{error}"
    );
}

#[test]
fn containerd_leaves_a_thin_device_behind_when_it_is_killed_half_way() {
    let _turn = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let disks = tempfile::tempdir().unwrap();
    let vm = Vm::builder().disks(disks.path()).boot().unwrap();
    let mut containerd = Containerd::serving(&vm).unwrap();
    containerd.prepare("whole", None).unwrap().ok().unwrap();
    let snapshots = containerd.ls().unwrap();
    assert_eq!(
        (
            snapshots.len(),
            snapshots[0].key.as_str(),
            snapshots[0].kind.as_str()
        ),
        (1, "whole", "Active")
    );
    assert_eq!(containerd.thin_ids().unwrap(), [1]);

    containerd.kill_after_dmsetup_create().unwrap();
    assert!(!containerd.prepare("half", None).unwrap().status.success());
    assert_eq!(containerd.wait_for_death().unwrap(), Ended::Killed(9));
    assert_eq!(containerd.thin_ids().unwrap(), [1, 2]);
    containerd.restart().unwrap();
    assert!(
        containerd
            .ls()
            .unwrap()
            .iter()
            .all(|snapshot| snapshot.key != "half")
    );
    // The leaked device's node is in the way of the first try, and gone after it.
    vm.wait_until("prepares succeed again", SOON, || {
        Ok(containerd.prepare("after", None)?.status.success())
    })
    .unwrap();
    let ids = containerd.thin_ids().unwrap();
    assert!(ids.starts_with(&[1, 2]) && ids.len() == 3, "{ids:?}");
    vm.cut_power().unwrap();
    drop(vm);

    // The pool and the databases are there again in the next life of the disks.
    let vm = Vm::builder().disks(disks.path()).boot().unwrap();
    let containerd = Containerd::serving(&vm).unwrap();
    assert!(
        containerd
            .ls()
            .unwrap()
            .iter()
            .any(|snapshot| snapshot.key == "whole")
    );
    let image = containerd.import_image(2).unwrap();
    let said = containerd
        .ctr([
            "run",
            "--rm",
            "--snapshotter",
            "devmapper",
            &image,
            "first",
            "/bin/cat",
            "/layer-1",
        ])
        .unwrap();
    assert_eq!(said.ok().unwrap().stdout, "layer 1\n");
}
