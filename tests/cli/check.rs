//! `suture check`, `inspect` and `explain` on files alone: databases that containerd wrote, and metadata of a pool that is
//! not set up. No device-mapper, no containerd, no configuration.

use std::{fs, io::Write as _, path::PathBuf, process::Output};

use serde_json::Value;
use suture::model::ThinId;
use suture::observe::thin_metadata::ThinDetails;

use super::{suture, thin_image::ThinImage};

/// A folder with containerd's databases, one committed and one active snapshot on thin devices 1 and 2, and with metadata.
struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    /// With the metadata of a pool that has these thin devices.
    fn new(thin: &[u32]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        fs::copy(fixtures.join("pool.db"), folder.path().join("pool.db")).unwrap();
        fs::copy(fixtures.join("metadata.db"), folder.path().join("metadata.db")).unwrap();
        let details = ThinDetails {
            mapped_blocks: 16,
            transaction_id: 0,
            creation_time: 0,
            snapshotted_time: 0,
        };
        let devices = thin.iter().map(|id| (ThinId(*id), details)).collect();
        let mut file = fs::File::create(folder.path().join("tmeta")).unwrap();
        for block in ThinImage::new(&devices, 4).blocks {
            file.write_all(&block).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Runs a command on it; `more` comes after what says where all is.
    fn run(&self, command: &str, more: &[&str]) -> Output {
        let root = self.folder.path().to_str().unwrap();
        let ledger = self.path("ledger.db");
        let socket = self.path("suture.sock");
        let mut arguments = vec![command, "--pool", "pool"];
        if !more.contains(&"--root-path") {
            arguments.extend(["--root-path", root]);
        }
        arguments.extend(["--ledger", &ledger, "--socket", &socket]);
        arguments.extend(more);
        suture(&arguments)
    }

    /// A repair; it needs no metadata where it does nothing.
    fn repair(&self, more: &[&str]) -> Output {
        let ledger = self.path("ledger.db");
        let root = self.folder.path().to_str().unwrap();
        let mut arguments = vec![
            "repair",
            "--pool",
            "pool",
            "--root-path",
            root,
            "--ledger",
            &ledger,
        ];
        arguments.extend(more);
        suture(&arguments)
    }

    fn with_metadata(&self, command: &str, more: &[&str]) -> Output {
        let metadata = self.path("tmeta");
        let mut all = vec!["--metadata-device", metadata.as_str()];
        all.extend(more);
        self.run(command, &all)
    }
}

fn told(output: &Output) -> (String, Option<i32>) {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(
        !text.contains('\u{1b}'),
        "no colours outside of a terminal: {text}"
    );
    (text, output.status.code())
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_world_without_fault_is_clean_and_a_missing_ledger_and_socket_are_silent() {
    let stage = Stage::new(&[1, 2]);
    let output = stage.with_metadata("check", &[]);
    let (text, code) = told(&output);
    assert_eq!(code, Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        text.starts_with("pool: clean (2 snapshots, 2 thin devices, "),
        "{text}"
    );
    assert_eq!(output.stderr, b"", "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        !stage.folder.path().join("ledger.db").exists(),
        "reading makes no file"
    );
    let document = json(&stage.with_metadata("check", &["--output", "json"]));
    assert_eq!(document["status"], "clean");
    assert_eq!(document["world"]["counts"]["thin_devices"], 2);
    assert_eq!(document["pool"]["device"], Value::Null);
}

#[test]
fn what_is_wrong_is_named_with_the_command_and_its_exit_code() {
    // A layer's device is gone, and one is there that nobody knows.
    let stage = Stage::new(&[2, 9]);
    let output = stage.with_metadata("check", &[]);
    let (text, code) = told(&output);
    assert_eq!(code, Some(4), "{text}");
    let document = json(&stage.with_metadata("check", &["--output", "json"]));
    let found = document["findings"].as_array().unwrap();
    let classes: Vec<&str> = found.iter().map(|one| one["class"].as_str().unwrap()).collect();
    assert!(
        classes.contains(&"row-without-thin") && classes.contains(&"foreign-thin"),
        "{classes:?}"
    );
    assert_eq!(document["status"], "findings");
    for one in found {
        let id = one["id"].as_str().unwrap();
        assert!(
            text.contains(id) && text.contains(&format!("suture explain {id} --pool pool")),
            "{id}: {text}"
        );
        let output = stage.with_metadata("explain", &[id]);
        let (explained, code) = told(&output);
        assert_eq!(code, Some(0), "{explained}");
        assert!(
            explained.contains("What was read") && explained.contains("If nothing is done"),
            "{explained}"
        );
    }
    let (text, code) = told(&stage.with_metadata("explain", &["foreign"]));
    assert!(
        code == Some(0) && text.contains("foreign-thin: thin device 9"),
        "{text}"
    );
    let (text, code) = told(&stage.with_metadata("explain", &["wedge"]));
    assert!(code == Some(0) && text.contains("wedge"), "{text}");
    let output = stage.with_metadata("explain", &["wegde"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(8));
    assert!(
        error.contains("no finding wegde") && error.contains("foreign-thin/pool/9"),
        "{error}"
    );
}

#[test]
fn the_names_of_users_are_read_where_there_is_somebody_of_whom_they_are_told() {
    for (thin, found) in [(&[1, 2][..], false), (&[2, 9], true)] {
        let stage = Stage::new(thin);
        // containerd's own database lies beside the snapshotter's folder.
        let root = stage.folder.path().join("devmapper");
        let core = stage.folder.path().join("io.containerd.metadata.v1.bolt/meta.db");
        fs::create_dir(&root).unwrap();
        fs::create_dir(core.parent().unwrap()).unwrap();
        for name in ["pool.db", "metadata.db"] {
            fs::rename(stage.path(name), root.join(name)).unwrap();
        }
        let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        fs::copy(fixtures.join("meta.db"), &core).unwrap();
        let root = root.to_str().unwrap();
        let world = |command| {
            let more = ["--root-path", root, "--output", "json"];
            json(&stage.with_metadata(command, &more))["world"].clone()
        };
        let check = world("check");
        assert_eq!(check["counts"]["containers"].is_u64(), found, "{check}");
        assert_eq!(
            check["transactions"]["containerd_database"].is_u64(),
            found,
            "{check}"
        );
        assert!(world("inspect")["counts"]["containers"].is_u64());
        // That it can not be read is told in any case, once.
        fs::write(&core, "other bytes").unwrap();
        let unread = world("check")["unread"].clone();
        let told = unread.as_array().unwrap().iter();
        let told = told.filter(|one| one["what"].as_str().unwrap().contains("meta.db"));
        assert_eq!(told.count(), 1, "{unread}");
    }
}

#[test]
fn without_the_pool_and_without_its_metadata_the_check_is_not_whole() {
    let stage = Stage::new(&[1, 2]);
    let (text, code) = told(&stage.run("check", &[]));
    assert_eq!(code, Some(8), "{text}");
    assert!(text.starts_with("pool: not all of it could be checked"), "{text}");
    assert!(text.contains("--metadata-device"), "{text}");
}

#[test]
fn what_is_missing_or_damaged_is_an_error_that_names_the_file() {
    let stage = Stage::new(&[1, 2]);
    fs::write(stage.path("pool.db"), vec![7; 65536]).unwrap();
    for command in ["check", "inspect"] {
        let output = stage.with_metadata(command, &[]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(8), "{error}");
        assert!(
            error.starts_with("suture: ") && error.contains(&stage.path("pool.db")),
            "{error}"
        );
        assert!(output.stdout.is_empty());
    }
    fs::remove_file(stage.path("pool.db")).unwrap();
    let output = stage.with_metadata("check", &[]);
    assert_eq!(output.status.code(), Some(8));
    assert!(String::from_utf8(output.stderr).unwrap().contains("pool.db"));
}

/// What is left of a pool database, how it is told, and what containerd does with that.
const LOST: [(Option<usize>, &str, &str); 4] = [
    (None, "is gone", "it has the file open still"),
    (Some(0), "is empty", "gives out thin ids from 1 again"),
    (Some(1), "was cut short, to 1 byte,", "does not start with it"),
    (
        Some(4096),
        "was cut short, to 4,096 bytes,",
        "does not start with it",
    ),
];

fn lose(stage: &Stage, name: &str, left: Option<usize>) {
    let path = stage.path(name);
    let whole = fs::read(&path).unwrap();
    match left {
        None => fs::remove_file(&path).unwrap(),
        Some(length) => fs::write(&path, whole.get(..length).unwrap()).unwrap(),
    }
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_lost_pool_database_is_told_and_neither_called_fresh_nor_clean() {
    for (left, how, then) in LOST {
        let stage = Stage::new(&[1, 2]);
        lose(&stage, "pool.db", left);
        let rows = fs::read(stage.path("metadata.db")).unwrap();
        let backups = stage.path("backups");
        let outputs = [
            stage.with_metadata("check", &[]),
            stage.with_metadata("check", &["--output", "json"]),
            stage.with_metadata("inspect", &[]),
            stage.repair(&["--plan"]),
            stage.repair(&["--offline", "--backups", &backups]),
            stage.repair(&["--offline", "--delete-thin", "1", "--backups", &backups]),
        ];
        for output in outputs {
            let said = said(&output);
            assert_eq!(output.status.code(), Some(8), "{left:?}: {said}");
            for part in [
                how,
                then,
                "still lists 2 snapshots",
                "What can be saved",
                "backup of pool.db",
            ] {
                assert!(said.contains(part), "{left:?}: `{part}` is not in: {said}");
            }
            for part in ["has not started", "nothing to repair", "clean"] {
                assert!(!said.contains(part), "{left:?}: `{part}` is in: {said}");
            }
        }
        // Nothing was made of it.
        let size = fs::metadata(stage.path("pool.db")).ok().map(|file| file.len());
        assert_eq!(size, left.map(|length| length as u64));
        assert_eq!(fs::read(stage.path("metadata.db")).unwrap(), rows);
        assert!(!stage.folder.path().join("backups").exists());
    }
}

/// The twin: where no snapshot is listed the node is fresh, or lost all of it, and a repair is not in the way.
#[test]
fn without_any_snapshot_a_missing_pool_database_is_as_before_the_first_start() {
    for lost in [["pool.db", "metadata.db"], ["pool.db", "pool.db"]] {
        let stage = Stage::new(&[1, 2]);
        for name in lost {
            drop(fs::remove_file(stage.path(name)));
        }
        if lost[1] == "pool.db" {
            fs::write(stage.path("metadata.db"), b"").unwrap();
        }
        let output = stage.with_metadata("check", &[]);
        assert_eq!(output.status.code(), Some(8));
        assert!(
            said(&output).contains("its databases were deleted"),
            "{}",
            said(&output)
        );
        let output = stage.repair(&["--offline"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(said(&output).contains("nothing to repair"), "{}", said(&output));
    }
}

/// And the other way round: the records are there, and what lists the snapshots is not.
#[test]
fn a_lost_snapshot_database_is_told_and_nothing_is_deleted() {
    for left in [None, Some(0)] {
        let stage = Stage::new(&[1, 2]);
        lose(&stage, "metadata.db", left);
        let (text, code) = told(&stage.with_metadata("check", &[]));
        assert_eq!(code, Some(4), "{text}");
        assert!(
            text.contains("metadata.db is gone while pool.db has 2 records"),
            "{text}"
        );
        let before = fs::read(stage.path("pool.db")).unwrap();
        let output = stage.repair(&["--offline", "--backups", &stage.path("backups")]);
        assert_eq!(output.status.code(), Some(4), "{}", said(&output));
        assert_eq!(fs::read(stage.path("pool.db")).unwrap(), before);
    }
    for left in [1, 4096] {
        let stage = Stage::new(&[1, 2]);
        lose(&stage, "metadata.db", Some(left));
        let output = stage.with_metadata("check", &[]);
        assert_eq!(output.status.code(), Some(8));
        assert!(said(&output).contains("metadata.db"), "{}", said(&output));
    }
}

#[test]
fn a_broken_ledger_is_told_and_the_check_goes_on() {
    let stage = Stage::new(&[1, 2]);
    fs::write(stage.path("ledger.db"), vec![7; 8192]).unwrap();
    let output = stage.with_metadata("check", &[]);
    let error = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(told(&output).1, Some(0), "{error}");
    assert!(
        error.contains("without what the ledger knows") && error.contains("ledger.db"),
        "{error}"
    );
}

#[test]
fn inspect_shows_every_device_one_device_and_the_tree() {
    let stage = Stage::new(&[2, 9]);
    let (text, code) = told(&stage.with_metadata("inspect", &[]));
    assert_eq!(code, Some(0), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    let place = |part: &str| lines.iter().position(|line| line.contains(part)).unwrap();
    assert!(
        place("row-without-thin") < place("pool-snap-2"),
        "what is wrong comes first: {text}"
    );
    assert!(text.contains("thin 9") && text.contains("gone"), "{text}");
    let (text, code) = told(&stage.with_metadata("inspect", &["--tree"]));
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("pool-snap-1 committed")
            && (text.contains("-- pool-snap-2 active") || text.contains("── pool-snap-2 active")),
        "{text}"
    );
    let (text, code) = told(&stage.with_metadata("inspect", &["pool-snap-1"]));
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("no thin device 1") && text.contains("pool-snap-2"),
        "{text}"
    );
    let (text, _) = told(&stage.with_metadata("inspect", &["--faulty"]));
    assert!(!text.lines().skip(2).any(|line| line.contains(" ok ")), "{text}");
    let document = json(&stage.with_metadata("inspect", &["2", "--output", "json"]));
    assert_eq!(document["devices"].as_array().unwrap().len(), 1);
    assert_eq!(document["devices"][0]["name"], "pool-snap-2");
    assert_eq!(
        stage.with_metadata("inspect", &["no-such"]).status.code(),
        Some(8)
    );
}

#[test]
fn a_wrong_word_ends_with_the_code_of_fsck() {
    for wrong in [
        &["check", "--patience", "-1"][..],
        &["inspect", "--tree", "x"],
        &["explain"],
        &["check", "--reserve", "x"],
    ] {
        assert_eq!(suture(wrong).status.code(), Some(16), "{wrong:?}");
    }
}
