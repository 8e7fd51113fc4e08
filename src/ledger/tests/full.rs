use std::fs;

use super::{readers::SmallDisk, *};

/// No page more than there are.
fn no_room(ledger: &Ledger) {
    let pages: i64 = ledger
        .connection
        .pragma_query_value(None, "page_count", |row| row.get(0))
        .unwrap();
    room(ledger, pages);
}

fn room(ledger: &Ledger, pages: i64) {
    ledger
        .connection
        .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
        .unwrap();
}

/// Fills what room the pages still have.
fn fill_up(ledger: &mut Ledger) {
    no_room(ledger);
    for id in 100.. {
        if ledger.intend(&plan_of(id), &reading(), at(50)).is_err() {
            return;
        }
    }
}

fn why(ledger: &Ledger) -> Option<Trouble> {
    match ledger.health() {
        Health::Well => None,
        Health::Degraded { why, .. } => Some(why),
    }
}

#[test]
fn a_full_ledger_takes_no_intent_goes_on_reading_and_stores_what_waited_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(&folder);
    fill(&mut ledger);
    assert_eq!(ledger.health(), Health::Well);
    fill_up(&mut ledger);
    assert_eq!(why(&ledger), Some(Trouble::Full));
    let before = ledger.open_operations().unwrap();

    // All that waits; only the newest state of one thing.
    for id in 20..200 {
        assert!(
            ledger
                .save_operation(&operation_of(id, OperationState::InFlight))
                .is_err()
        );
        assert!(ledger.save_operation(&abandoned(id)).is_err());
    }
    assert!(ledger.save_finding(&finding_of(9, None)).is_err());
    assert_eq!(ledger.open_operations().unwrap(), before);
    assert!(ledger.intend(&plan_of(1), &reading(), at(60)).is_err());
    assert!(ledger.approve("p-1", "uid 0", at(60)).is_err());
    assert!(ledger.catch_up().is_err());
    let Health::Degraded { waiting, lost, .. } = ledger.health() else {
        panic!("it is full");
    };
    assert_eq!((waiting, lost), (181, 0));
    assert_eq!(ledger.take_recovered(), None);

    room(&ledger, 1 << 20);
    ledger.catch_up().unwrap();
    assert_eq!(ledger.health(), Health::Well);
    let recovered = ledger.take_recovered().unwrap();
    assert_eq!(
        (recovered.stored, recovered.lost, recovered.why),
        (181, 0, Trouble::Full)
    );
    assert_eq!(ledger.take_recovered(), None);
    let operations = ledger.open_operations().unwrap();
    assert!(operations.contains(&abandoned(20)) && operations.contains(&abandoned(199)));
    assert_eq!(ledger.open_findings().unwrap().len(), 2);
    ledger.intend(&plan_of(1), &reading(), at(60)).unwrap();
}

#[test]
fn an_outcome_that_found_no_room_is_stored_with_the_next_write() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(&folder);
    let id = ledger.intend(&plan_of(1), &reading(), at(30)).unwrap();
    fill_up(&mut ledger);
    let long = Outcome::Failed {
        why: "x".repeat(9000),
    };
    assert!(ledger.conclude(id, &long, at(31)).is_err());
    assert_eq!(ledger.last_outcome(&plan_of(1).finding).unwrap(), None);
    room(&ledger, 1 << 20);
    // An intent is never the first thing that is stored: what waited goes before it.
    ledger.intend(&plan_of(2), &reading(), at(32)).unwrap();
    assert_eq!(ledger.last_outcome(&plan_of(1).finding).unwrap(), Some(long));
    assert_eq!(ledger.health(), Health::Well);
}

#[test]
fn what_waits_is_bounded_observations_go_first_and_what_is_given_up_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(&folder);
    fill_up(&mut ledger);
    let rows = vec![ObservationRow::of(&up(1)).unwrap(); 30];
    assert!(ledger.save_observations(rows).is_err());
    let most = u32::try_from(writing::MOST_LATE).unwrap();
    for id in 0..most {
        assert!(ledger.save_operation(&abandoned(1000 + id)).is_err());
    }
    let Health::Degraded { waiting, lost, .. } = ledger.health() else {
        panic!("it is full");
    };
    assert_eq!((waiting, lost), (writing::MOST_LATE, 30));
    assert!(ledger.save_operation(&abandoned(9999)).is_err());
    room(&ledger, 1 << 20);
    ledger.catch_up().unwrap();
    assert_eq!(ledger.take_recovered().unwrap().lost, 31);
    let operations = ledger.open_operations().unwrap();
    assert!(operations.contains(&abandoned(9999)) && !operations.contains(&abandoned(1000)));
}

#[test]
fn a_transaction_that_found_no_room_leaves_nothing_half_stored_and_nothing_open() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(&folder);
    fill_up(&mut ledger);
    let many: Vec<_> = (0..5000).map(|_| repair_intent(1)).collect();
    assert!(ledger.intend_repairs(&many, at(1)).is_err());
    assert_eq!(ledger.unfinished_repairs().unwrap(), []);
    assert!(ledger.connection.is_autocommit());
    room(&ledger, 1 << 20);
    assert_eq!(
        ledger.intend_repairs(&[repair_intent(1)], at(1)).unwrap().len(),
        1
    );
}

#[test]
fn a_disk_that_is_really_full_is_survived() {
    let disk = SmallDisk::new(1024);
    let path = disk.path().join("ledger.db");
    let mut ledger = Ledger::open(&path).unwrap();
    fill(&mut ledger);
    let ballast = disk.path().join("ballast");
    let _ = fs::write(&ballast, vec![0; 2 << 20]);
    let mut stored = 0;
    let refused = loop {
        match ledger.intend(&plan_of(100 + stored), &reading(), at(50)) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.trouble(), Trouble::Full, "{refused:?}");
    let stored = usize::try_from(stored).unwrap();
    assert_eq!(ledger.open_intents().unwrap().len(), 1 + stored);
    assert!(ledger.save_operation(&abandoned(77)).is_err());
    // Pruning finds no room either, which is no reason to lose anything.
    let _ = ledger.prune(&Retention::default(), at(1_000_000_000));
    assert_eq!(ledger.open_intents().unwrap().len(), 1 + stored);

    fs::remove_file(&ballast).unwrap();
    ledger.catch_up().unwrap();
    assert!(ledger.open_operations().unwrap().contains(&abandoned(77)));
    drop(ledger);
    let again = Ledger::open_or_begin_anew(&path).unwrap();
    assert_eq!(again.set_aside, None);
    assert_eq!(again.ledger.open_intents().unwrap().len(), 1 + stored);
}

#[test]
fn a_suture_that_starts_on_a_full_or_read_only_disk_reads_and_writes_again_when_it_can() {
    for read_only in [true, false] {
        let disk = SmallDisk::new(1024);
        let path = disk.path().join("ledger.db");
        let mut ledger = Ledger::open(&path).unwrap();
        fill(&mut ledger);
        let written = all_of(&ledger).unwrap();
        drop(ledger);
        let ballast = disk.path().join("ballast");
        if read_only {
            disk.read_only(true);
        } else {
            let _ = fs::write(&ballast, vec![0; 2 << 20]);
        }
        let mut ledger = Ledger::open_or_begin_anew(&path).unwrap().ledger;
        let expected = if read_only {
            Trouble::ReadOnly
        } else {
            Trouble::Full
        };
        assert_eq!(all_of(&ledger).unwrap(), written);
        if read_only {
            assert_eq!(why(&ledger), Some(expected));
        }
        assert!(ledger.save_operation(&abandoned(77)).is_err());
        assert!(ledger.intend(&plan_of(3), &reading(), at(60)).is_err());
        assert!(ledger.catch_up().is_err());
        assert!(why(&ledger).is_some());
        if read_only {
            disk.read_only(false);
        } else {
            fs::remove_file(&ballast).unwrap();
        }
        ledger.catch_up().unwrap();
        assert_eq!(ledger.health(), Health::Well);
        assert!(ledger.open_operations().unwrap().contains(&abandoned(77)));
        ledger.intend(&plan_of(3), &reading(), at(60)).unwrap();
    }
}
