use std::time::Duration;

use super::*;

const DAY: u64 = 24 * 3600;

fn many(ledger: &Ledger, from: u64, count: u64) {
    let rows = (from..from + count).filter_map(|second| ObservationRow::of(&up(second)));
    ledger.save_observations(rows.collect()).unwrap();
}

/// Prunes until there is nothing more to be done; says how many rows went.
fn prune(ledger: &Ledger, retention: &Retention, now: Timestamp) -> (usize, Pruned) {
    let mut rows = 0;
    for _ in 0..1000 {
        let pruned = ledger.prune(retention, now).unwrap();
        rows += pruned.rows;
        if !pruned.more {
            return (rows, pruned);
        }
    }
    panic!("it never ends");
}

#[test]
fn what_is_over_goes_when_it_is_old_and_what_is_open_stays_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(&folder);
    fill(&mut ledger);
    let whole = all_of(&ledger).unwrap();
    let (rows, _) = prune(&ledger, &Retention::default(), at(29 * DAY));
    assert_eq!((rows, all_of(&ledger).unwrap()), (0, whole));

    prune(&ledger, &Retention::default(), at(1000 * DAY));
    assert_eq!(ledger.open_operations().unwrap(), [abandoned(1)]);
    assert_eq!(ledger.newest_findings(9).unwrap(), [finding_of(1, None)]);
    assert_eq!(ledger.open_intents().unwrap().len(), 1);
    assert_eq!(ledger.remedies_of(&plan_of(2).finding).unwrap(), []);
    assert_eq!(
        ledger.newest_repairs(9).unwrap(),
        ledger.unfinished_repairs().unwrap()
    );
    assert_eq!(ledger.newest_repairs(9).unwrap().len(), 1);
    assert_eq!(ledger.newest_observations(9).unwrap(), []);
    let plans: Vec<_> = ledger.plans(&PlanFilter::Newest(9)).unwrap();
    assert_eq!(
        plans.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(),
        ["p-1"]
    );
    assert_eq!(ledger.devices_of(&pool(), ThinId(1)).unwrap().len(), 1);
    assert_eq!(ledger.devices_of(&pool(), ThinId(2)).unwrap(), []);
    assert!(ledger.load_engine_state::<serde_json::Value>().unwrap().is_some());
    assert!(ledger.watched_until().unwrap().is_some());
}

#[test]
fn what_was_done_about_a_finding_that_stands_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(&folder);
    ledger.save_finding(&finding_of(1, None)).unwrap();
    let id = ledger.intend(&plan_of(1), &reading(), at(30)).unwrap();
    ledger.conclude(id, &Outcome::AlreadyDone, at(31)).unwrap();
    prune(
        &ledger,
        &Retention {
            age: Duration::ZERO,
            bytes: 0,
        },
        at(1000 * DAY),
    );
    assert_eq!(
        ledger.last_outcome(&plan_of(1).finding).unwrap(),
        Some(Outcome::AlreadyDone)
    );
}

#[test]
fn a_ledger_too_large_loses_observations_first_and_the_file_gets_smaller() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(&folder);
    fill(&mut ledger);
    for round in 0..10 {
        many(&ledger, 100 + round * 1000, 1000);
    }
    let file = folder.path().join("folder/ledger.db");
    let retention = Retention {
        age: Duration::from_secs(1000 * DAY),
        bytes: 1 << 20,
    };
    assert!(ledger.in_use().unwrap() > retention.bytes);
    // One call does a bounded part of it.
    let first = ledger.prune(&retention, at(DAY)).unwrap();
    assert!(first.more && first.rows <= 1000, "{first:?}");
    let (rows, last) = prune(&ledger, &retention, at(DAY));
    assert!(rows > 1000 && last.over == 0, "{rows} {last:?}");
    assert!(ledger.in_use().unwrap() <= retention.bytes);
    let size = file.metadata().unwrap().len();
    assert!(size <= retention.bytes, "{size}");
    // The newest stay, and everything that is not an observation.
    assert!(ledger.newest_observations(1).unwrap()[0].at == at(10_099));
    assert_eq!(ledger.remedies_of(&plan_of(2).finding).unwrap().len(), 1);
    assert_eq!(ledger.newest_findings(9).unwrap().len(), 2);
}

#[test]
fn what_is_open_stays_also_when_it_is_too_much_and_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(&folder);
    fill(&mut ledger);
    let (rows, last) = prune(
        &ledger,
        &Retention {
            age: Duration::from_secs(1000 * DAY),
            bytes: 0,
        },
        at(DAY),
    );
    assert!(rows > 0 && last.over > 0, "{rows} {last:?}");
    assert_eq!(ledger.open_operations().unwrap(), [abandoned(1)]);
    assert_eq!(ledger.open_intents().unwrap().len(), 1);
    assert_eq!(ledger.unfinished_repairs().unwrap().len(), 1);
    assert_eq!(ledger.open_findings().unwrap(), [finding_of(1, None)]);
    assert_eq!(ledger.plans(&PlanFilter::Live).unwrap().len(), 1);
    assert_eq!(ledger.devices_there(&pool()).unwrap(), [ThinId(1)].into());
    // And the next call has nothing to do.
    let again = ledger
        .prune(
            &Retention {
                age: Duration::from_secs(1000 * DAY),
                bytes: 0,
            },
            at(DAY),
        )
        .unwrap();
    assert_eq!((again.rows, again.over), (0, last.over));
}
