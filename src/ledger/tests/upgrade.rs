use rusqlite::Connection;

use super::*;

/// A ledger as version 4 left it: without seals, and without the tables of version 5.
fn version_4(path: &Path) {
    let mut ledger = Ledger::open(path).unwrap();
    fill(&mut ledger);
    drop(ledger);
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(
            "DROP TABLE about; DROP TABLE devices; DROP TABLE observations; DROP TABLE plans; DROP TABLE engine;
             ALTER TABLE operations DROP COLUMN sum; ALTER TABLE findings DROP COLUMN sum;
             ALTER TABLE remedies DROP COLUMN sum; ALTER TABLE watching DROP COLUMN sum;
             ALTER TABLE repairs DROP COLUMN sum; PRAGMA user_version = 4;",
        )
        .unwrap();
}

#[test]
fn a_ledger_of_before_the_seals_is_taken_up_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    version_4(&path);
    let opened = Ledger::open_or_begin_anew(&path).unwrap();
    assert_eq!(opened.set_aside, None);
    assert_eq!(opened.ledger.open_operations().unwrap(), [abandoned(1)]);
    assert_eq!(opened.ledger.open_intents().unwrap().len(), 1);
    drop(opened);
    // The seals are there now.
    let connection = Connection::open(&path).unwrap();
    connection
        .execute(
            "UPDATE operations SET operation = replace(operation, '7', '8')",
            [],
        )
        .unwrap();
    drop(connection);
    assert!(matches!(Ledger::open(&path), Err(LedgerError::Damaged { .. })));
}

#[test]
fn a_repair_does_not_bring_the_ledger_of_a_running_older_suture_to_a_new_version() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    version_4(&path);
    let sidecar = File::create(folder.path().join("ledger.db.lock")).unwrap();
    sidecar.try_lock().unwrap();
    let refused = Ledger::open_beside_or_begin_anew(&path);
    assert!(
        matches!(refused, Err(LedgerError::OlderInUse { .. })),
        "{refused:?}"
    );
    let connection = Connection::open(&path).unwrap();
    let version: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap();
    assert_eq!(version, 4);
    drop((connection, sidecar));
    assert_eq!(
        Ledger::open_beside(&path).unwrap().open_operations().unwrap(),
        [abandoned(1)]
    );
}

#[test]
fn a_newer_ledger_is_refused_and_neither_changed_nor_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    drop(Ledger::open(&path).unwrap());
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch("PRAGMA user_version = 99; UPDATE about SET version = 99")
        .unwrap();
    drop(connection);
    let refused = Ledger::open_or_begin_anew(&path);
    assert!(
        matches!(refused, Err(LedgerError::Version { found: 99, .. })),
        "{refused:?}"
    );
    assert!(path.exists());
}

#[test]
fn a_version_that_only_the_header_has_is_damage() {
    for version in [0, 3, 4, 99] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        drop(Ledger::open(&path).unwrap());
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", version).unwrap();
        drop(connection);
        let opened = Ledger::open_or_begin_anew(&path).unwrap();
        assert!(opened.set_aside.is_some(), "{version}");
    }
}
