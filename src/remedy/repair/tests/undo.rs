//! Taking a repair back.

use super::*;

fn undo(stage: &Stage, which: Option<&Path>) -> Result<Undone, RepairError> {
    let mut ledger = Ledger::open_beside(&stage.ledger_path()).unwrap();
    let backups = stage.backups();
    let tell = |what: &str| stage.tell(what);
    stage.repairer(&mut ledger, &backups, &tell).undo(which)
}

fn refused(stage: &Stage, which: Option<&Path>, word: &str) {
    let before = fs::read(stage.places.pool_db()).unwrap();
    let error = undo(stage, which).unwrap_err();
    let said = crate::words::explain(&error);
    assert!(said.contains(word), "{said}");
    assert_eq!(fs::read(stage.places.pool_db()).unwrap(), before);
}

#[test]
fn the_last_edit_is_taken_back_and_only_once() {
    let stage = Stage::new();
    faulty_live(&stage);
    let before = stage.database();
    let (results, _) = stage.repair().unwrap();
    assert_ne!(stage.database().devices, before.devices);
    let backup = Backup::open(results.backup.as_deref().unwrap()).unwrap();
    assert_eq!(backup.manifest.txid_before, before.txid);
    assert_eq!(PoolDb::read(backup.pool_db()).unwrap(), before);
    assert!(backup.folder.join("metadata.db").exists());

    let undone = undo(&stage, None).unwrap();
    assert_eq!(undone.txid, TxId(before.txid.0 + 2));
    let after = stage.database();
    assert_eq!(
        (after.devices, after.device_ids, after.id_sequence),
        (before.devices, before.device_ids, before.id_sequence)
    );
    refused(&stage, None, "something has happened since");
    let ledger = Ledger::open_to_read(&stage.ledger_path()).unwrap();
    let last = ledger.newest_repairs(1).unwrap().remove(0);
    assert_eq!(last.outcome, Some(RepairOutcome::Done));
    assert_eq!(last.intent.undoes, Some(undone.took_back));
}

#[test]
fn nothing_is_undone_once_something_has_happened() {
    let stage = Stage::new();
    faulty_live(&stage);
    stage.repair().unwrap();
    stage.edit(&[put_id(9, 2)]);
    refused(&stage, None, "something has happened since");

    let stage = Stage::new();
    faulty_live(&stage);
    stage.repair().unwrap();
    stage.sequence(7);
    refused(&stage, None, "something has happened since");
}

#[test]
fn a_record_of_a_device_that_was_deleted_is_not_brought_back() {
    let stage = Stage::new();
    orphan_record(&stage);
    assert_eq!(stage.outcome(), RepairOutcome::Done);
    refused(&stage, None, "deleted thin device 3");

    let stage = Stage::new();
    wedge(&stage);
    assert_eq!(stage.outcome(), RepairOutcome::Done);
    refused(&stage, None, "2 transactions");
}

#[test]
fn nothing_is_undone_under_a_running_containerd_or_from_a_backup_that_is_none() {
    let stage = Stage::new();
    refused(&stage, None, "there is no backup");
    faulty_live(&stage);
    let (results, _) = stage.repair().unwrap();
    let folder = results.backup.unwrap();
    *stage.holder.borrow_mut() = Some(containerd());
    refused(&stage, None, "containerd runs");
    *stage.holder.borrow_mut() = None;

    refused(&stage, Some(Path::new("/nowhere")), "/nowhere");
    let copy = folder.join("pool.db");
    let mut bytes = fs::read(&copy).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&copy, &bytes).unwrap();
    refused(&stage, None, "checksum");
    bytes[last] ^= 1;
    fs::write(&copy, bytes).unwrap();

    let mut other = Backup::open(&folder).unwrap();
    other.manifest.pool = PoolName::new("another");
    other.store().unwrap();
    refused(&stage, Some(&folder), "the backup is of");
    other.manifest.pool = PoolName::new(POOL);
    other.manifest.version = 2;
    other.store().unwrap();
    refused(&stage, Some(&folder), "version 2");
    other.manifest.version = 1;
    other.store().unwrap();
    let held = fs::File::options()
        .read(true)
        .open(stage.places.pool_db())
        .unwrap();
    held.lock().unwrap();
    refused(&stage, None, "locked");
    drop(held);
    undo(&stage, Some(&folder)).unwrap();
}

#[test]
fn an_undo_that_was_killed_is_settled_by_looking() {
    for step in 0.. {
        let stage = Stage::new();
        faulty_live(&stage);
        let before = stage.database();
        stage.repair().unwrap();
        let repaired = stage.database();
        stage.steps.set(0);
        stage.kill_before.set(Some(step));
        let killed = catch_unwind(AssertUnwindSafe(|| undo(&stage, None).map(drop)));
        stage.kill_before.set(None);
        if killed.is_ok() {
            assert!(step > 3);
            break;
        }
        let now = stage.database();
        assert!(
            now.devices == before.devices || now.devices == repaired.devices,
            "step {step}"
        );
        let open = Ledger::open_to_read(&stage.ledger_path())
            .unwrap()
            .unfinished_repairs()
            .unwrap();
        // What is found again would be repaired again; only the settling is of interest.
        stage.selection.borrow_mut().policy = RepairPolicy::nothing();
        let (_, settled) = stage.repair().unwrap();
        assert_eq!(settled.len(), open.len(), "step {step}");
        for one in settled {
            let expected = if now.devices == before.devices {
                RepairOutcome::SettledDone
            } else {
                RepairOutcome::SettledNotDone
            };
            assert_eq!(one.outcome, expected, "step {step}");
        }
    }
}

#[test]
fn ten_backups_are_kept() {
    let stage = Stage::new();
    for round in 0..12 {
        stage.edit(&[put_id(3 + round, 2)]);
        assert_eq!(stage.outcome(), RepairOutcome::Done);
    }
    let mut kept: Vec<_> = fs::read_dir(stage.backups())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    kept.sort();
    assert_eq!(kept.len(), 10);
    let newest = Backup::newest(&stage.backups()).unwrap();
    assert_eq!(
        newest.folder.file_name(),
        kept.last().map(std::ffi::OsString::as_os_str)
    );
}

#[test]
fn nobody_but_their_owner_reads_backups() {
    use std::os::unix::fs::PermissionsExt as _;
    let stage = Stage::new();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    stage.edit(&[put_id(3, 2)]);
    assert_eq!(stage.outcome(), RepairOutcome::Done);
    let first = Backup::newest(&stage.backups()).unwrap().folder;
    assert_eq!((mode(&stage.backups()), mode(&first)), (0o700, 0o700));
    for entry in fs::read_dir(&first).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    // As an older suture made them.
    fs::set_permissions(&first, fs::Permissions::from_mode(0o755)).unwrap();
    stage.edit(&[put_id(4, 2)]);
    assert_eq!(stage.outcome(), RepairOutcome::Done);
    assert_eq!(mode(&first), 0o700);
}
