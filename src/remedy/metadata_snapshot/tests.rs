use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::model::{DeviceNumber, PoolActivation};

/// A pool that holds one snapshot at most, as `reserve_metadata_snap` of dm-thin-metadata.c has it.
#[derive(Debug, Default)]
struct Pretended {
    held: Mutex<Option<u64>>,
    next: Mutex<u64>,
    read_only: AtomicBool,
    /// Refuses to release.
    stuck: AtomicBool,
    sent: Mutex<Vec<&'static str>>,
}

impl PoolMessages for Pretended {
    fn state(&self, _: &Pool) -> Result<State, ReserveError> {
        Ok(State {
            held_root: *self.held.lock().unwrap(),
            mode: if self.read_only.load(Ordering::SeqCst) {
                PoolMode::ReadOnly
            } else {
                PoolMode::ReadWrite
            },
            needs_check: false,
        })
    }

    fn send(&self, _: &PoolName, message: &'static str) -> Result<(), HandsError> {
        self.sent.lock().unwrap().push(message);
        let mut held = self.held.lock().unwrap();
        match message {
            RESERVE if held.is_some() => Err(HandsError::Busy),
            RESERVE => {
                let mut next = self.next.lock().unwrap();
                *next += 1;
                *held = Some(*next + 99);
                Ok(())
            }
            RELEASE if self.stuck.load(Ordering::SeqCst) => Err(HandsError::Kernel(95)),
            RELEASE => {
                *held = None;
                Ok(())
            }
            _ => Err(HandsError::Kernel(22)),
        }
    }
}

impl Pretended {
    fn held(&self) -> Option<u64> {
        *self.held.lock().unwrap()
    }

    fn sent(&self) -> Vec<&'static str> {
        self.sent.lock().unwrap().clone()
    }
}

fn pool(disk_sequence: u64) -> Pool {
    let metadata_device = DeviceNumber { major: 253, minor: 1 };
    Pool {
        name: PoolName::new("tp"),
        device: DeviceNumber { major: 253, minor: 3 },
        metadata_device,
        table: String::new(),
        mode: PoolMode::ReadWrite,
        activation: PoolActivation {
            boot: "b".to_owned(),
            disk_sequence: Some(disk_sequence),
            metadata_device,
        },
        needs_check: false,
    }
}

/// A signal ends all that the program has reserved: the tests, which are one program, come one after the other.
static ALONE: Mutex<()> = Mutex::new(());

struct Stage {
    _alone: MutexGuard<'static, ()>,
    folder: tempfile::TempDir,
    kernel: Arc<Pretended>,
    hand: ReservedSnapshots,
}

fn stage() -> Stage {
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let kernel = Arc::new(Pretended::default());
    let hand = ReservedSnapshots {
        folder: folder.path().to_owned(),
        kernel: Arc::clone(&kernel) as Arc<dyn PoolMessages>,
    };
    Stage {
        _alone: alone,
        folder,
        kernel,
        hand,
    }
}

impl Stage {
    fn note(&self) -> bool {
        NoteFile::is_there(self.folder.path(), &PoolName::new("tp"))
    }

    fn leave_note(&self, root: Option<u64>, pool: &Pool) {
        let mut file = NoteFile::lock(self.folder.path(), &pool.name).unwrap();
        let note = Note {
            pool: pool.name.clone(),
            activation: pool.activation.clone(),
            root,
        };
        file.write(&note).unwrap();
    }
}

#[test]
fn what_is_reserved_is_held_while_it_is_read_and_released_after() {
    let stage = stage();
    let mut read = Vec::new();
    stage
        .hand
        .with(&pool(1), &mut |root| {
            assert_eq!(stage.kernel.held(), Some(root));
            let text =
                std::fs::read_to_string(stage.folder.path().join("metadata-snapshot-tp.json")).unwrap();
            assert!(text.contains("\"root\":100"), "{text}");
            // No other suture gets in meanwhile.
            let other = stage.hand.with(&pool(1), &mut |_| panic!("read"));
            assert!(
                matches!(other, Err(ReserveError::AnotherSuture { .. })),
                "{other:?}"
            );
            read.push(root);
        })
        .unwrap();
    assert_eq!(
        (read, stage.kernel.held(), stage.note()),
        (vec![100], None, false)
    );
    assert_eq!(stage.kernel.sent(), [RESERVE, RELEASE]);
}

#[test]
fn what_another_holds_is_not_touched() {
    for note in [None, Some((None, 1)), Some((Some(6), 1)), Some((Some(7), 2))] {
        let stage = stage();
        *stage.kernel.held.lock().unwrap() = Some(7);
        // A note of a suture that never knew its root, of another root, or of another life of the pool, proves nothing.
        if let Some((root, life)) = note {
            stage.leave_note(root, &pool(life));
        }
        let refused = stage.hand.with(&pool(1), &mut |_| panic!("read"));
        assert!(
            matches!(refused, Err(ReserveError::HeldByAnother { .. })),
            "{refused:?}"
        );
        assert!(!stage.hand.clean_up(&pool(1)).unwrap());
        assert_eq!(
            (stage.kernel.held(), stage.kernel.sent()),
            (Some(7), vec![]),
            "{note:?}"
        );
    }
}

#[test]
fn who_came_first_between_looking_and_reserving_keeps_it() {
    /// Says that nothing is held, and refuses.
    struct Late(Pretended);
    impl PoolMessages for Late {
        fn state(&self, pool: &Pool) -> Result<State, ReserveError> {
            let state = self.0.state(pool)?;
            Ok(State {
                held_root: None,
                ..state
            })
        }
        fn send(&self, pool: &PoolName, message: &'static str) -> Result<(), HandsError> {
            self.0.send(pool, message)
        }
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let kernel = Arc::new(Late(Pretended::default()));
    *kernel.0.held.lock().unwrap() = Some(7);
    let hand = ReservedSnapshots {
        folder: folder.path().to_owned(),
        kernel: Arc::clone(&kernel) as Arc<dyn PoolMessages>,
    };
    let refused = hand.with(&pool(1), &mut |_| panic!("read"));
    assert!(
        matches!(refused, Err(ReserveError::HeldByAnother { .. })),
        "{refused:?}"
    );
    assert_eq!((kernel.0.held(), kernel.0.sent()), (Some(7), vec![RESERVE]));
    assert!(!NoteFile::is_there(folder.path(), &PoolName::new("tp")));
}

#[test]
fn a_panic_while_reading_releases_it() {
    let stage = stage();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        stage.hand.with(&pool(1), &mut |_| panic!("on purpose"))
    }));
    assert!(panicked.is_err());
    assert_eq!((stage.kernel.held(), stage.note()), (None, false));
    // And the lock is free again.
    stage.hand.with(&pool(1), &mut |_| {}).unwrap();
}

#[test]
fn a_signal_releases_it_and_what_is_read_then_does_not_count() {
    let stage = stage();
    let over = stage.hand.with(&pool(1), &mut |_| {
        signals::end_all();
        assert_eq!(stage.kernel.held(), None);
        // Another one's from now on.
        *stage.kernel.held.lock().unwrap() = Some(8);
    });
    assert!(matches!(over, Err(ReserveError::Ended)), "{over:?}");
    assert_eq!(stage.kernel.held(), Some(8));
}

#[test]
fn what_a_killed_suture_left_is_released_and_only_that() {
    for through in ["clean_up", "with"] {
        let stage = stage();
        *stage.kernel.held.lock().unwrap() = Some(7);
        stage.leave_note(Some(7), &pool(1));
        if through == "clean_up" {
            assert!(stage.hand.clean_up(&pool(1)).unwrap());
            assert_eq!(stage.kernel.sent(), [RELEASE]);
            assert!(!stage.hand.clean_up(&pool(1)).unwrap());
        } else {
            stage
                .hand
                .with(&pool(1), &mut |root| assert_eq!(root, 100))
                .unwrap();
            assert_eq!(stage.kernel.sent(), [RELEASE, RESERVE, RELEASE]);
        }
        assert_eq!((stage.kernel.held(), stage.note()), (None, false));
    }
}

#[test]
fn what_somebody_took_away_or_replaced_is_not_released_again() {
    for now in [None, Some(7)] {
        let stage = stage();
        let over = stage
            .hand
            .with(&pool(1), &mut |_| *stage.kernel.held.lock().unwrap() = now);
        assert!(
            matches!(over, Err(ReserveError::TakenAway { root: 100, .. })),
            "{over:?}"
        );
        assert_eq!((stage.kernel.held(), stage.kernel.sent()), (now, vec![RESERVE]));
    }
}

#[test]
fn what_can_not_be_released_now_is_released_by_the_next() {
    let stage = stage();
    stage.kernel.stuck.store(true, Ordering::SeqCst);
    let over = stage.hand.with(&pool(1), &mut |_| {});
    assert!(
        matches!(over, Err(ReserveError::NotReleased { root: 100, .. })),
        "{over:?}"
    );
    assert_eq!((stage.kernel.held(), stage.note()), (Some(100), true));
    stage.kernel.stuck.store(false, Ordering::SeqCst);
    assert!(stage.hand.clean_up(&pool(1)).unwrap());
    assert_eq!((stage.kernel.held(), stage.note()), (None, false));
}

#[test]
fn nothing_is_reserved_in_a_pool_that_takes_no_writes() {
    let stage = stage();
    stage.kernel.read_only.store(true, Ordering::SeqCst);
    let refused = stage.hand.with(&pool(1), &mut |_| panic!("read"));
    assert!(
        matches!(refused, Err(ReserveError::NotWritable { .. })),
        "{refused:?}"
    );
    assert_eq!((stage.kernel.sent(), stage.note()), (vec![], false));
}

#[test]
fn without_a_note_nothing_is_reserved() {
    let mut stage = stage();
    let file = stage.folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    stage.hand.folder = file;
    let refused = stage.hand.with(&pool(1), &mut |_| panic!("read"));
    assert!(matches!(refused, Err(ReserveError::Note { .. })), "{refused:?}");
    assert_eq!(stage.kernel.sent(), [""; 0]);
}
