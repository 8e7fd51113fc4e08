use std::{fs, os::unix::fs::FileExt as _};

use super::*;

fn damaged(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains(".db.damaged-"))
        .filter(|path| !path.to_string_lossy().ends_with("-wal") && !path.to_string_lossy().ends_with("-shm"))
        .collect();
    found.sort();
    found
}

fn filled(path: &Path) -> String {
    let mut ledger = Ledger::open(path).unwrap();
    fill(&mut ledger);
    all_of(&ledger).unwrap()
}

fn flip(path: &Path, offset: u64, mask: u8) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ mask], offset).unwrap();
}

#[test]
fn any_flipped_byte_is_harmless_or_the_ledger_is_set_aside() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let whole = folder.path().join("whole.db");
    let content = filled(&whole);
    let size = whole.metadata().unwrap().len();
    let (mut harmless, mut set_aside) = (0, 0);
    // Each page has its share: its first bytes one by one, the others in steps.
    let heads = (0..size).filter(|offset| offset % 4096 < 16 || *offset < 100);
    let others = (0..size).step_by(211);
    for offset in heads.chain(others) {
        let place = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = place.path().join("ledger.db");
        fs::copy(&whole, &path).unwrap();
        flip(&path, offset, 1 << (offset % 8));
        let opened = Ledger::open_or_begin_anew(&path).unwrap_or_else(|error| panic!("{offset}: {error:?}"));
        if opened.set_aside.is_some() {
            set_aside += 1;
            assert_eq!(damaged(place.path()).len(), 1, "{offset}");
            // Nobody's claim comes from a damaged file.
            assert_eq!(opened.ledger.open_operations().unwrap(), [], "{offset}");
            assert_eq!(
                opened.ledger.devices_there(&pool()).unwrap(),
                [].into(),
                "{offset}"
            );
            for row in opened.ledger.open_intents().unwrap() {
                assert_eq!(row.plan, plan_of(1), "{offset}");
            }
        } else {
            harmless += 1;
            assert_eq!(all_of(&opened.ledger).unwrap(), content, "{offset}");
        }
    }
    assert!(harmless > 100 && set_aside > 100, "{harmless} {set_aside}");
}

#[test]
fn a_ledger_that_ends_early_is_set_aside() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let whole = folder.path().join("whole.db");
    filled(&whole);
    let bytes = fs::read(&whole).unwrap();
    for length in (1..bytes.len()).step_by(4096).chain([100, 4095, bytes.len() - 1]) {
        let place = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = place.path().join("ledger.db");
        fs::write(&path, &bytes[..length]).unwrap();
        let opened = Ledger::open_or_begin_anew(&path).unwrap();
        assert!(opened.set_aside.is_some(), "{length}");
        assert_eq!(opened.ledger.open_operations().unwrap(), []);
    }
}

#[test]
fn open_intents_and_what_people_said_are_taken_over_and_claims_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    filled(&path);
    // A letter in what an operation says: a claim.
    let connection = Connection::open(&path).unwrap();
    connection
        .execute(
            "UPDATE operations SET operation = replace(operation, '253', '254')",
            [],
        )
        .unwrap();
    connection
        .execute("UPDATE operations SET traceparent = 'x'", [])
        .unwrap();
    drop(connection);
    assert!(matches!(Ledger::open(&path), Err(LedgerError::Damaged { .. })));
    assert!(matches!(
        Ledger::open_to_read(&path),
        Err(LedgerError::Damaged { .. })
    ));
    assert!(matches!(
        Ledger::open_beside(&path),
        Err(LedgerError::Damaged { .. })
    ));

    let Opened { ledger, set_aside } = Ledger::open_or_begin_anew(&path).unwrap();
    let set_aside = set_aside.unwrap();
    assert_eq!(damaged(folder.path()), std::slice::from_ref(&set_aside.to));
    let expected = Salvaged {
        intents: 2,
        rejections: 1,
        engine: true,
        unreadable: Vec::new(),
    };
    assert_eq!(set_aside.salvaged, expected);
    assert!(set_aside.to_string().contains("2 open intents"), "{set_aside}");
    assert_eq!(ledger.open_operations().unwrap(), []);
    assert_eq!(ledger.abandoned(&pool()).unwrap(), []);
    assert_eq!(ledger.open_intents().unwrap()[0].plan, plan_of(1));
    let repairs = ledger.unfinished_repairs().unwrap();
    let unmarked = RepairIntent {
        marks: [].into(),
        ..repair_intent(1)
    };
    assert_eq!(
        repairs.iter().map(|row| &row.intent).collect::<Vec<_>>(),
        [&unmarked]
    );
    assert_eq!(ledger.plan("p-2").unwrap().unwrap().state, PlanState::Rejected);
    assert_eq!(ledger.plan("p-1").unwrap(), None);
    let engine: Option<serde_json::Value> = ledger.load_engine_state().unwrap();
    assert_eq!(engine, Some(serde_json::json!({"paused": true})));
    drop(ledger);
    assert_eq!(Ledger::open_or_begin_anew(&path).unwrap().set_aside, None);
}

#[test]
fn an_intent_that_is_not_as_written_is_not_taken_over_and_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    filled(&path);
    let connection = Connection::open(&path).unwrap();
    connection
        .execute(
            "UPDATE remedies SET plan = replace(plan, '\"thin_id\":1', '\"thin_id\":2')",
            [],
        )
        .unwrap();
    drop(connection);
    let Opened { ledger, set_aside } = Ledger::open_or_begin_anew(&path).unwrap();
    let set_aside = set_aside.unwrap();
    assert_eq!(ledger.open_intents().unwrap(), []);
    assert_eq!(set_aside.salvaged.unreadable.len(), 1, "{set_aside}");
    assert!(
        set_aside.to_string().contains("suture's own open intents"),
        "{set_aside}"
    );
}

#[test]
fn garbage_is_set_aside_three_are_kept_and_what_is_deleted_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let mut before = Vec::new();
    for round in 0..5 {
        fs::write(&path, vec![7; 8192]).unwrap();
        let opened = Ledger::open_or_begin_anew(&path).unwrap();
        let set_aside = opened.set_aside.unwrap();
        assert_eq!(fs::read(&set_aside.to).unwrap(), vec![7; 8192]);
        assert!(
            set_aside.to_string().contains("nothing in it can be read"),
            "{set_aside}"
        );
        let expected: Vec<PathBuf> = if round < 3 {
            Vec::new()
        } else {
            vec![before.remove(0)]
        };
        assert_eq!(set_aside.deleted, expected);
        before.push(set_aside.to);
        assert_eq!(damaged(folder.path()).len(), before.len());
    }
    assert_eq!(before.len(), 3);
}

#[test]
fn a_log_whose_ledger_is_gone_is_set_aside_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    fs::write(folder.path().join("ledger.db-wal"), b"a log").unwrap();
    let opened = Ledger::open_or_begin_anew(&path).unwrap();
    let set_aside = opened.set_aside.unwrap();
    let log = crate::files::beside(&set_aside.to, "-wal");
    assert_eq!(fs::read(log).unwrap(), b"a log");
}

#[test]
fn a_damaged_ledger_is_not_set_aside_under_somebody_who_writes_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    fs::write(&path, vec![7; 8192]).unwrap();
    let repair = crate::remedy::repair::OnlyOne::take(&nowhere(), &path).unwrap();
    let refused = Ledger::open_or_begin_anew(&path);
    assert!(
        matches!(refused, Err(LedgerError::DamagedInUse { .. })),
        "{refused:?}"
    );
    assert_eq!(damaged(folder.path()), [] as [PathBuf; 0]);
    drop(repair);

    let sidecar = File::create(folder.path().join("ledger.db.lock")).unwrap();
    sidecar.try_lock().unwrap();
    let refused = Ledger::open_beside_or_begin_anew(&path);
    assert!(
        matches!(refused, Err(LedgerError::DamagedInUse { .. })),
        "{refused:?}"
    );
    drop(sidecar);
    assert!(
        Ledger::open_beside_or_begin_anew(&path)
            .unwrap()
            .set_aside
            .is_some()
    );
    assert_eq!(damaged(folder.path()).len(), 1);
}

/// A node without databases.
fn nowhere() -> crate::observe::world::Places {
    crate::observe::world::Places {
        pool: pool(),
        root: "/nonexistent/devmapper".into(),
    }
}
