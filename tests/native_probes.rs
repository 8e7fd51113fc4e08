//! The BPF programs on this machine's own kernel, without a VM: they load, attach and fire. A device-mapper ioctl on
//! /dev/null is refused (ENOTTY) but passes the same tracepoints as a real one; a loop device on a full tmpfs gives a
//! real block error. Needs root, and a kernel with BPF tracepoints and loop devices.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    collections::VecDeque,
    ffi::CString,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::fd::AsRawFd as _,
    path::Path,
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use suture::{
    model::{
        Observation, ThinId,
        dm::{DmCommand, DmIoctl, Message, Payload},
        kernel::Ending,
        observation::{BlockSource, Direction, LossKind},
    },
    observe::{
        probes::{self, ProbeOptions, Probes, Seen},
        watch_thread::WatchThread,
    },
};
use tokio::sync::mpsc;

/// The tests share one kernel: what one does the others would see.
static KERNEL: Mutex<()> = Mutex::new(());

const ENOTTY: i32 = 25;

struct Watching {
    events: mpsc::Receiver<Seen>,
    thread: Option<WatchThread>,
    earlier: VecDeque<Observation>,
    _kernel: MutexGuard<'static, ()>,
}

impl Watching {
    fn with(options: ProbeOptions, before_reading: impl FnOnce()) -> Self {
        let kernel = KERNEL.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(
            rustix::process::geteuid().is_root(),
            "this test loads BPF programs: run it as root"
        );
        xtask::tracefs::mount_if_missing().unwrap();
        let (sender, events) = mpsc::channel(65_536);
        let probes = Probes::attach(options).expect("the probes attach");
        before_reading();
        let thread = probes::start(probes, sender).expect("the reader starts");
        Self {
            events,
            thread: Some(thread),
            earlier: VecDeque::new(),
            _kernel: kernel,
        }
    }

    fn start() -> Self {
        Self::with(ProbeOptions::default(), || {})
    }

    /// Everything that the kernel had to say until now.
    fn caught_up(&mut self) -> Vec<Observation> {
        let wanted = self.thread.as_ref().unwrap().request_barrier();
        let mut seen: Vec<Observation> = self.earlier.drain(..).collect();
        loop {
            match self.events.blocking_recv().expect("the reader lives") {
                Seen::Observation(observation) => seen.push(observation),
                Seen::Barrier(number) if number == wanted => return seen,
                Seen::Barrier(_) | Seen::Senses(_) => {}
                Seen::Broken(why) => panic!("{why}"),
            }
        }
    }

    /// The device-mapper calls of this very process until now.
    fn own_calls(&mut self) -> Vec<DmIoctl> {
        let own = std::process::id();
        let calls = self.caught_up().into_iter().filter_map(|seen| match seen {
            Observation::DmIoctl(call) => Some(*call),
            _ => None,
        });
        calls.filter(|call| call.caller.process.pid == own).collect()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.events.close();
        while self.events.try_recv().is_ok() {}
        drop(self.thread.take());
    }
}

/// `struct dm_ioctl` (312 bytes) with data behind it.
fn request(name: &[u8], targets: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0_u8; 312];
    bytes[0] = 4;
    bytes[12..16].copy_from_slice(&u32::try_from(312 + data.len()).unwrap().to_le_bytes());
    bytes[16..20].copy_from_slice(&312_u32.to_le_bytes());
    bytes[20..24].copy_from_slice(&targets.to_le_bytes());
    bytes[48..48 + name.len()].copy_from_slice(name);
    bytes.extend(data);
    bytes
}

fn message(text: &[u8]) -> Vec<u8> {
    let mut data = vec![0_u8; 8];
    data.extend(text);
    data.push(0);
    data
}

/// Sends a device-mapper ioctl to /dev/null, which knows no ioctl at all.
#[expect(
    unsafe_code,
    reason = "an ioctl with a number of one's own is unsafe by nature"
)]
fn dm_ioctl(command: u32, argument: *mut u8) {
    let null = File::open("/dev/null").unwrap();
    // _IOWR(0xfd, command, struct dm_ioctl)
    let number = u64::from(0xc138_fd00 | command);
    // SAFETY: /dev/null refuses the number before it looks at the argument.
    let result = unsafe { libc::ioctl(null.as_raw_fd(), number, argument) };
    assert_eq!(result, -1);
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(ENOTTY));
}

fn send(command: u32, mut request: Vec<u8>) {
    dm_ioctl(command, request.as_mut_ptr());
}

#[test]
fn each_sense_says_by_what_means_it_sees_and_what_can_not_be_had_stops_nothing_else() {
    use suture::{
        model::sense::{Quality, SenseKind},
        observe::probes::Means,
    };
    let _kernel = KERNEL.lock().unwrap_or_else(PoisonError::into_inner);
    xtask::tracefs::mount_if_missing().unwrap();
    let options = ProbeOptions {
        means: Means::Tracepoints,
        ..ProbeOptions::default()
    };
    let probes = Probes::attach(options).expect("the probes attach");
    let of = |kind| probes.senses().iter().find(|one| one.sense == kind).unwrap();
    let calls = of(SenseKind::DeviceMapperCalls);
    assert_eq!(calls.quality, Quality::Degraded);
    assert!(calls.means.contains("sys_enter_ioctl"), "{calls}");
    assert!(calls.to_string().contains("switched off"), "{calls}");
    for missing in [SenseKind::PoolInternals, SenseKind::DeviceEnds] {
        assert_eq!(of(missing).quality, Quality::Missing);
        assert!(!of(missing).why.is_empty());
    }
    for full in [
        SenseKind::Lineage,
        SenseKind::BlockRequests,
        SenseKind::BlockBios,
        SenseKind::ProcessStarts,
        SenseKind::ProcessEnds,
        SenseKind::OutOfMemory,
    ] {
        assert_eq!(of(full).quality, Quality::Full, "{}", of(full));
    }
}

#[test]
fn a_containerd_that_starts_and_ends_is_seen_and_a_shim_is_not() {
    let mut watching = Watching::start();
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, script: &str| {
        let program = folder.path().join(name);
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut child = Command::new(&program).spawn().unwrap();
        child.wait().unwrap();
        child.id()
    };
    run("containerd-shim-runc-v2", "exit 1");
    let ended = run("containerd", "exit 7");
    let killed = run("containerd", "kill -KILL $$");
    let told: Vec<(u32, Option<Ending>)> = watching
        .caught_up()
        .into_iter()
        .filter_map(|seen| match seen {
            Observation::Process(change) => Some((change.who.process.pid, change.ended)),
            _ => None,
        })
        .collect();
    assert_eq!(
        told,
        [
            (ended, None),
            (ended, Some(Ending::Exited { code: 7 })),
            (killed, None),
            (killed, Some(Ending::Signalled { signal: 9 })),
        ]
    );
}

#[test]
fn a_message_is_seen_with_its_device_its_result_and_its_caller() {
    let mut watching = Watching::start();
    send(14, request(b"vg0-pool0", 0, &message(b"create_snap 59 6")));
    let calls = watching.own_calls();
    let [call] = calls.as_slice() else {
        panic!("{calls:?}")
    };
    assert_eq!(call.command, DmCommand::TargetMsg);
    assert_eq!(call.name.as_str(), "vg0-pool0");
    assert_eq!(
        call.payload,
        Payload::Message(Message::CreateSnap {
            id: ThinId(59),
            origin: ThinId(6)
        })
    );
    assert_eq!(call.result.0, Err(ENOTTY));
    assert!(call.duration < Duration::from_secs(1));
    assert!(call.caller.cgroup > 0);
    let age = suture::model::Timestamp::from(std::time::SystemTime::now()).since(call.entered);
    assert!(age < Duration::from_secs(30), "the time is wall time: {age:?}");
}

#[test]
fn names_with_control_characters_and_oversized_messages_arrive_harmless() {
    let mut watching = Watching::start();
    let long: Vec<u8> = std::iter::repeat_n(b'9', 5000).collect();
    send(3, request(b"evil\x1b[31m\r\n", 0, &[]));
    send(14, request(&[0xff; 128], 0, &message(&long)));
    let calls = watching.own_calls();
    let [create, oversized] = calls.as_slice() else {
        panic!("{calls:?}")
    };
    assert_eq!(create.name.as_str(), "evil\\x1b[31m\\r\\n");
    assert!(
        create
            .to_string()
            .starts_with("create device evil\\x1b[31m\\r\\n -> ENOTTY")
    );
    assert!(oversized.truncated);
    assert!(
        matches!(&oversized.payload, Payload::Message(Message::Other { text }) if text.as_str().len() <= 512)
    );
    assert_eq!(oversized.name.as_str(), "\\xff".repeat(128));
}

#[test]
fn a_request_that_can_not_be_read_is_seen_as_such() {
    let mut watching = Watching::start();
    dm_ioctl(14, std::ptr::null_mut());
    let mut lying = request(b"tp", 0, &[]);
    // Claims data far outside of what is mapped.
    lying[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    lying[16..20].copy_from_slice(&0x7fff_0000_u32.to_le_bytes());
    send(14, lying);
    let calls = watching.own_calls();
    assert_eq!(calls.len(), 2);
    assert!(
        calls.iter().all(|call| call.payload == Payload::Malformed),
        "{calls:?}"
    );
    assert_eq!(calls[1].name.as_str(), "tp");
}

#[test]
fn a_table_is_seen_with_its_targets() {
    let mut watching = Watching::start();
    let mut target = Vec::new();
    target.extend(0_u64.to_le_bytes());
    target.extend(131_072_u64.to_le_bytes());
    target.extend([0; 8]);
    target.extend(b"thin\0\0\0\0\0\0\0\0\0\0\0\0");
    target.extend(b"253:2 59\0");
    send(9, request(b"tp-snap-1", 1, &target));
    let calls = watching.own_calls();
    assert_eq!(
        calls[0].request(),
        "load table of tp-snap-1: 0 131072 thin 253:2 59"
    );
}

#[test]
#[expect(unsafe_code, reason = "an ioctl of another driver's")]
fn other_ioctls_are_not_seen() {
    let mut watching = Watching::start();
    let null = File::open("/dev/null").unwrap();
    for number in [0x5401_u64, 0x1268, 0xc138_fc0e, 0xc138_fe0e] {
        // SAFETY: /dev/null refuses every ioctl.
        unsafe { libc::ioctl(null.as_raw_fd(), number, std::ptr::null_mut::<u8>()) };
    }
    assert_eq!(watching.own_calls(), []);
}

#[test]
#[ignore = "no test of its own: the next one runs it in a child process"]
fn child_that_makes_one_call() {
    send(14, request(b"tp", 0, &message(b"delete 7")));
}

#[test]
fn the_parent_is_known_even_when_it_did_not_wait() {
    let mut watching = Watching::start();
    let this = std::env::current_exe().unwrap();
    // sh forks the caller and is gone before it calls: /proc would say that init is the parent.
    let script = format!(
        "(sleep 0.3; exec {} --ignored --exact child_that_makes_one_call) >/dev/null 2>&1 & echo $!",
        this.display()
    );
    let shell = Command::new("sh")
        .arg("-c")
        .arg(script)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let shell_pid = shell.id();
    let caller: u32 = String::from_utf8(shell.wait_with_output().unwrap().stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let call = loop {
        let found = watching.caught_up().into_iter().find_map(|seen| match seen {
            Observation::DmIoctl(call) if call.caller.process.pid == caller => Some(call),
            _ => None,
        });
        if let Some(call) = found {
            break call;
        }
        assert!(Instant::now() < deadline, "the child's call was not seen");
        std::thread::sleep(Duration::from_millis(50));
    };
    let parent = call.caller.ancestors.first().expect("the parent is known");
    assert_eq!((parent.pid, parent.comm.as_str()), (shell_pid, "sh"));
    assert_eq!(
        call.caller.ancestors.get(1).map(|one| one.pid),
        Some(std::process::id())
    );
}

#[test]
fn what_does_not_fit_into_the_ring_is_counted() {
    let calls = 50;
    let options = ProbeOptions {
        dm_ring_bytes: 4096,
        ..ProbeOptions::default()
    };
    let mut watching = Watching::with(options, || {
        for _ in 0..calls {
            send(0, request(b"", 0, &[]));
        }
    });
    let seen = watching.caught_up();
    let own = std::process::id();
    let arrived = seen
        .iter()
        .filter(|one| matches!(one, Observation::DmIoctl(call) if call.caller.process.pid == own))
        .count() as u64;
    let lost: u64 = seen
        .iter()
        .map(|one| match one {
            Observation::Lost {
                what: LossKind::DmRingFull,
                count,
                ..
            } => *count,
            _ => 0,
        })
        .sum();
    assert!(arrived > 0 && lost > 0, "{arrived} arrived, {lost} lost");
    assert_eq!(arrived + lost, calls, "every call is either there or counted");
}

#[test]
fn an_impossible_ring_is_refused_in_words() {
    let error = Probes::attach(ProbeOptions {
        dm_ring_bytes: 5000,
        ..ProbeOptions::default()
    })
    .err()
    .unwrap();
    assert!(error.to_string().contains("power of two"), "{error}");
}

/// A loop device on a sparse file in a tmpfs that is smaller than the file, so that a write runs out of space.
struct FullDisk {
    folder: tempfile::TempDir,
    device: String,
}

impl FullDisk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let size = CString::new("size=4m").unwrap();
        rustix::mount::mount(
            "tmpfs",
            folder.path(),
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            size.as_c_str(),
        )
        .unwrap();
        let file = folder.path().join("disk");
        File::create(&file).unwrap().set_len(64 << 20).unwrap();
        let output = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(&file)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Self {
            device: String::from_utf8(output.stdout).unwrap().trim().to_owned(),
            folder,
        }
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.device]).status();
        let _ = rustix::mount::unmount(self.folder.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_failed_write_is_seen_with_its_place_and_cause() {
    let mut watching = Watching::start();
    let disk = FullDisk::new();
    let status = Command::new("dd")
        .args([
            "if=/dev/zero",
            "bs=1M",
            "count=32",
            "seek=8",
            "oflag=direct",
            "conv=notrunc",
        ])
        .arg(format!("of={}", disk.device))
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(!status.success(), "the disk is full");
    let number = fs::read_to_string(format!(
        "/sys/block/{}/dev",
        Path::new(&disk.device).file_name().unwrap().to_str().unwrap()
    ))
    .unwrap();
    let errors: Vec<_> = watching
        .caught_up()
        .into_iter()
        .filter_map(|seen| match seen {
            Observation::BlockError(error) if error.device.to_string() == number.trim() => Some(error),
            _ => None,
        })
        .collect();
    let request = errors
        .iter()
        .find(|error| error.source == BlockSource::Request)
        .expect("block_rq_error fired");
    assert_eq!(
        (request.errno, request.direction),
        (28, Direction::Write),
        "{request}"
    );
    assert!(request.sector.0 >= 8 * 2048 && request.length.0 > 0, "{request}");
}

#[test]
fn watch_prints_lines_for_people_and_for_programs() {
    drop(Watching::start());
    let _kernel = KERNEL.lock().unwrap_or_else(PoisonError::into_inner);
    for (format, check) in [
        (
            "text",
            (|line: &str| line.contains("create_snap 59 6 on vg0-pool0 -> ENOTTY (")) as fn(&str) -> bool,
        ),
        ("json", |line| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            value["kind"] == "dm_ioctl" && value["payload"]["id"] == 59 && value["error"] == "ENOTTY"
        }),
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_suture"))
            .args(["watch", "--output", format])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // It takes a moment to attach: call until it is seen.
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let caller = std::thread::spawn(move || {
            while stopped.recv_timeout(Duration::from_millis(100)).is_err() {
                send(14, request(b"vg0-pool0", 0, &message(b"create_snap 59 6")));
            }
        });
        let line = lines
            .find(|line| line.as_ref().is_ok_and(|line| line.contains("vg0-pool0")))
            .unwrap()
            .unwrap();
        stop.send(()).unwrap();
        caller.join().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(check(&line), "{format}: {line}");
    }
}
