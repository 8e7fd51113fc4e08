//! A real file: its lock, its backup, and what an undo asks before it acts.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use suture::model::TxId;
use suture::observe::bbolt::BboltError;
use suture::remedy::bbolt_editor::{Edit, EditError, Editor};

use crate::peer::{self, Options, Order};

const OPTIONS: Options = Options {
    page_size: 4096,
    freelist: true,
};

fn pool(folder: &Path) -> PathBuf {
    let file = folder.join("pool.db");
    peer::pool_db(&file, 5, OPTIONS);
    file
}

fn put(key: &str, value: &[u8]) -> Edit {
    Edit::Put {
        bucket: vec![b"devices".to_vec()],
        key: key.into(),
        value: value.to_vec(),
    }
}

#[test]
fn a_file_that_somebody_has_locked_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = pool(folder.path());
    let held = std::fs::File::open(&file).unwrap();
    // A reader's lock is enough: bbolt's read-only open takes one.
    held.lock_shared().unwrap();
    let begun = std::time::Instant::now();
    let error = Editor::open(&file).unwrap_err();
    assert!(matches!(error, EditError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("pool.db") && begun.elapsed().as_secs() < 1);
    held.unlock().unwrap();

    let editor = Editor::open(&file).unwrap();
    assert!(peer::check(&file).unwrap_err().contains("timeout"));
    drop(editor);
    peer::check(&file).unwrap();
}

#[test]
fn only_a_bbolt_file_that_is_there_is_opened_and_none_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.db");
    let error = Editor::open(&missing).unwrap_err();
    assert!(
        matches!(error, EditError::Read(BboltError::Missing { .. })),
        "{error}"
    );
    assert!(!missing.exists());
    let empty = folder.path().join("empty.db");
    std::fs::write(&empty, "").unwrap();
    let error = Editor::open(&empty).unwrap_err();
    assert!(
        matches!(error, EditError::Read(BboltError::Empty { .. })),
        "{error}"
    );
    let error = Editor::open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("irectory"), "{error}");
}

#[test]
fn an_edit_that_changes_nothing_makes_no_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let file = pool(folder.path());
    let bytes = std::fs::read(&file).unwrap();
    let mut editor = Editor::open(&file).unwrap();
    let txid = editor.txid();
    let same = [
        Edit::Put {
            bucket: vec![b"device_ids".to_vec()],
            key: b"3".to_vec(),
            value: vec![1],
        },
        Edit::Delete {
            bucket: vec![b"devices".to_vec()],
            key: b"pool-snap-77".to_vec(),
        },
        Edit::SetSequence {
            bucket: vec![b"devices".to_vec()],
            sequence: 0,
        },
        put("gone again", b"x"),
        Edit::Delete {
            bucket: vec![b"devices".to_vec()],
            key: b"gone again".to_vec(),
        },
    ];
    assert_eq!(editor.commit(&same).unwrap(), txid);
    assert_eq!(editor.commit(&[]).unwrap(), txid);
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
}

#[test]
fn what_bbolt_would_refuse_is_refused_and_nothing_of_it_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let file = pool(folder.path());
    let bytes = std::fs::read(&file).unwrap();
    let mut editor = Editor::open(&file).unwrap();
    let at = |bucket: &[&str], key: &str| Edit::Put {
        bucket: bucket.iter().map(|name| name.as_bytes().to_vec()).collect(),
        key: key.into(),
        value: b"value".to_vec(),
    };
    for (edits, problem) in [
        (vec![at(&[], "devices")], "buckets only"),
        (vec![at(&["nowhere"], "key")], "no such bucket"),
        (vec![at(&["devices", "pool-snap-1"], "key")], "no such bucket"),
        (vec![at(&["devices"], "")], "1 to 32768 bytes"),
        (vec![at(&["devices"], &"k".repeat(32769))], "1 to 32768 bytes"),
        (vec![at(&["a", "b"], "key"), at(&["a"], "b")], "as a bucket"),
        (vec![at(&["a"], "b"), at(&["a", "b"], "key")], "as a value"),
        (vec![at(&["a"; 40], "key")], "too deep"),
    ] {
        let edits = [vec![put("good", b"1")], edits].concat();
        let error = editor.commit(&edits).unwrap_err();
        assert!(matches!(error, EditError::Refused { .. }), "{error}");
        assert!(error.to_string().contains(problem), "{error}");
    }
    drop(editor);
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
    peer::apply(&file, &[Order::new("create", &["devices", "inner"], "")], OPTIONS);
    let mut editor = Editor::open(&file).unwrap();
    for edit in [
        put("inner", b"1"),
        Edit::Delete {
            bucket: vec![b"devices".to_vec()],
            key: b"inner".to_vec(),
        },
    ] {
        let error = editor.commit(&[edit]).unwrap_err();
        assert!(error.to_string().contains("`devices/inner`"), "{error}");
    }
}

#[test]
fn a_backup_is_the_same_to_the_byte_and_takes_nobodys_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = pool(folder.path());
    let bytes = std::fs::read(&file).unwrap();
    let mut editor = Editor::open(&file).unwrap();
    let backup = folder.path().join("pool.db.backup");
    // What a killed one left.
    std::fs::write(folder.path().join(".pool.db.backup.half"), "half").unwrap();
    editor.backup(&backup).unwrap();
    assert_eq!(std::fs::read(&backup).unwrap(), bytes);
    assert_eq!(
        std::fs::metadata(&backup).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    peer::check(&backup).unwrap();

    editor.commit(&[put("new", b"1")]).unwrap();
    let error = editor.backup(&backup).unwrap_err();
    assert!(matches!(error, EditError::BackupExists { .. }), "{error}");
    let dangling = folder.path().join("dangling");
    std::os::unix::fs::symlink("nowhere", &dangling).unwrap();
    let error = editor.backup(&dangling).unwrap_err();
    assert!(matches!(error, EditError::BackupExists { .. }), "{error}");
    let error = editor.backup(&folder.path().join("no/folder")).unwrap_err();
    assert!(error.to_string().contains("no/folder"), "{error}");
    assert_eq!(std::fs::read(&backup).unwrap(), bytes);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[test]
fn what_was_prepared_without_the_lock_is_committed_under_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = pool(folder.path());
    let bytes = std::fs::read(&file).unwrap();
    let backup = folder.path().join("backup");
    // Somebody else has the lock: that hinders no look, no backup and nothing that is only prepared.
    let held = std::fs::File::open(&file).unwrap();
    held.lock().unwrap();
    let editor = Editor::look(&file).unwrap();
    let prepared = editor.prepare(&[put("new", b"1")]).unwrap().unwrap();
    assert!(editor.prepare(&[]).unwrap().is_none());
    let copied = editor.copy(&backup).unwrap();
    assert_eq!(copied.crc32c(), crc32c::crc32c(&bytes));
    let error = Editor::look(&file).unwrap().lock().unwrap_err();
    assert!(matches!(error, EditError::Locked { .. }), "{error}");
    assert!(!backup.exists(), "it has its name only under the lock");
    held.unlock().unwrap();

    let before = editor.txid();
    let mut editor = editor.lock().unwrap();
    assert!(held.try_lock().is_err());
    editor.keep(copied).unwrap();
    assert_eq!(editor.commit_prepared(prepared).unwrap(), TxId(before.0 + 1));
    assert!(editor.holds_before(editor.txid(), &backup).unwrap());
    drop(editor);
    assert_eq!(std::fs::read(&backup).unwrap(), bytes);
    peer::check(&file).unwrap();
    // The same edit by the way with the lock leaves the same file.
    let other = folder.path().join("other.db");
    std::fs::write(&other, &bytes).unwrap();
    Editor::open(&other).unwrap().commit(&[put("new", b"1")]).unwrap();
    assert_eq!(std::fs::read(&other).unwrap(), std::fs::read(&file).unwrap());
}

#[test]
fn what_was_prepared_fits_no_other_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let file = pool(folder.path());
    let backup = folder.path().join("backup");
    let editor = Editor::look(&file).unwrap();
    let prepared = editor.prepare(&[put("new", b"1")]).unwrap().unwrap();
    let copied = editor.copy(&backup).unwrap();
    peer::apply(
        &file,
        &[Order::new("put", &["devices"], "theirs").value(b"3")],
        OPTIONS,
    );
    let bytes = std::fs::read(&file).unwrap();
    let error = editor.prepare(&[put("new", b"1")]).unwrap_err();
    assert!(matches!(error, EditError::Moved { .. }), "{error}");
    let error = editor.copy(&folder.path().join("another")).unwrap_err();
    assert!(matches!(error, EditError::Moved { .. }), "{error}");
    let error = editor.lock().unwrap_err();
    assert!(matches!(error, EditError::Moved { .. }), "{error}");

    let mut editor = Editor::open(&file).unwrap();
    let error = editor.commit_prepared(prepared).unwrap_err();
    assert!(matches!(error, EditError::Moved { .. }), "{error}");
    let error = editor.keep(copied).unwrap_err();
    assert!(matches!(error, EditError::Moved { .. }), "{error}");
    drop(editor);
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
    // Of a copy that was not kept nothing is left.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    // Another file took the name.
    let editor = Editor::look(&file).unwrap();
    let new = folder.path().join("new.db");
    std::fs::write(&new, &bytes).unwrap();
    std::fs::rename(&new, &file).unwrap();
    let error = editor.lock().unwrap_err();
    assert!(
        matches!(error, EditError::Read(BboltError::Replaced { .. })),
        "{error}"
    );
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
}

#[test]
fn an_undo_takes_back_the_last_transaction_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let file = pool(folder.path());
    let before = peer::dump(&file);
    let backup = folder.path().join("backup");
    let mut editor = Editor::open(&file).unwrap();
    editor.backup(&backup).unwrap();
    let first = editor.commit(&[put("new", b"1")]).unwrap();
    let error = editor.undo(TxId(first.0 - 1)).unwrap_err();
    assert!(matches!(error, EditError::Moved { .. }), "{error}");
    drop(editor);
    // Another process, later.
    let mut editor = Editor::open(&file).unwrap();
    assert!(editor.holds_before(first, &backup).unwrap());
    assert_eq!(editor.undo(first).unwrap(), TxId(first.0 + 1));
    let error = editor.undo(first).unwrap_err();
    assert!(matches!(error, EditError::Moved { .. }), "{error}");
    drop(editor);
    peer::check(&file).unwrap();
    assert_eq!(peer::dump(&file), before);

    // containerd ran in between.
    let mut editor = Editor::open(&file).unwrap();
    let second = editor.commit(&[put("new", b"2")]).unwrap();
    drop(editor);
    peer::apply(
        &file,
        &[Order::new("put", &["devices"], "theirs").value(b"3")],
        OPTIONS,
    );
    let mut editor = Editor::open(&file).unwrap();
    let bytes = std::fs::read(&file).unwrap();
    let error = editor.undo(second).unwrap_err();
    assert!(matches!(error, EditError::Moved { .. }), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
}

#[test]
fn what_a_cut_off_commit_wrote_over_the_old_contents_is_seen_before_an_undo() {
    let folder = tempfile::tempdir().unwrap();
    let file = pool(folder.path());
    let backup = folder.path().join("backup");
    let mut editor = Editor::open(&file).unwrap();
    editor.backup(&backup).unwrap();
    let txid = editor.commit(&[put("new", b"1")]).unwrap();
    drop(editor);
    // As if bbolt had been killed in the next transaction, before its meta page: pages that are free now hold
    // something else, which looks good.
    let edited = std::fs::read(&file).unwrap();
    let old = std::fs::read(&backup).unwrap();
    let mut page = 0;
    let mut spoilt = edited.clone();
    for at in 2..old.len() / 4096 {
        let place = at * 4096..(at + 1) * 4096;
        // The old leaf pages, which stayed where they were.
        if old[place.clone()] == edited[place.clone()] && old[place.start + 8] == 2 {
            page = at;
            let record = spoilt[place.clone()]
                .windows(9)
                .position(|part| part == b"67108864,");
            if let Some(record) = record {
                spoilt[place.start + record] = b'7';
            }
        }
    }
    assert!(page > 0 && spoilt != edited);
    std::fs::write(&file, &spoilt).unwrap();
    let editor = Editor::open(&file).unwrap();
    assert!(!editor.holds_before(txid, &backup).unwrap());
    drop(editor);
    std::fs::write(&file, &edited).unwrap();
    let mut editor = Editor::open(&file).unwrap();
    assert!(editor.holds_before(txid, &backup).unwrap());
    let later = editor.commit(&[put("new", b"2")]).unwrap();
    assert!(!editor.holds_before(later, &backup).unwrap());
    // And one that looks damaged is not gone back to at all.
    drop(editor);
    let mut ruined = edited;
    ruined[page * 4096 + 8] = 0x77;
    std::fs::write(&file, &ruined).unwrap();
    if let Ok(mut editor) = Editor::open(&file) {
        let error = editor.undo(txid).unwrap_err();
        assert!(error.to_string().contains(&format!("page {page}")), "{error}");
        assert_eq!(std::fs::read(&file).unwrap(), ruined);
    }
}

#[test]
fn a_file_that_takes_the_name_is_not_written_to_and_neither_is_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = pool(folder.path());
    let mut editor = Editor::open(&file).unwrap();
    let other = folder.path().join("other");
    std::fs::copy(&file, &other).unwrap();
    std::fs::rename(&other, &file).unwrap();
    let error = editor.commit(&[put("new", b"1")]).unwrap_err();
    assert!(
        matches!(error, EditError::Read(BboltError::Replaced { .. })),
        "{error}"
    );
    assert!(editor.backup(&other).is_err() && !other.exists());
}
