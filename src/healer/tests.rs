//! The worker against a node that is a value, and what of a survey it hands on.

use std::{cell::RefCell, collections::BTreeSet, time::Duration};

use super::{
    about::about,
    message::{self, Answer, Ask, Begin},
    worker::Worker,
};
use crate::{
    cli::samples,
    diagnose,
    model::{Bytes, DeviceRecord, DeviceState, Incarnation, Knowledge, Survey, ThinId, Timestamp, TxId},
    observe::world::WorldError,
    remedy::{
        Hands, HandsError, NodeNow,
        repair::{OnlyOne, Sight},
    },
    testing,
};

/// A node that is as it is told to be, and counts what is done to it.
struct Node {
    surveys: RefCell<Vec<Result<Survey, WorldError>>>,
    deleted: RefCell<Vec<ThinId>>,
}

impl Sight for Node {
    fn survey(&self, _: &BTreeSet<ThinId>) -> Result<Survey, WorldError> {
        let mut surveys = self.surveys.borrow_mut();
        if surveys.len() > 1 {
            surveys.remove(0)
        } else {
            Ok(surveys[0].as_ref().unwrap().clone())
        }
    }

    fn transactions(&self) -> Result<(TxId, Option<TxId>), WorldError> {
        Ok(self.surveys.borrow()[0].as_ref().unwrap().transactions())
    }

    fn holder(&self) -> Result<Option<Incarnation>, String> {
        Ok(None)
    }

    fn now(&self) -> Timestamp {
        testing::at(100)
    }
}

impl Hands for Node {
    fn delete_thin(&self, _: &crate::model::PoolName, id: ThinId) -> Result<(), HandsError> {
        self.deleted.borrow_mut().push(id);
        Ok(())
    }

    fn node(&self, _: &str) -> Result<Option<NodeNow>, HandsError> {
        Ok(None)
    }

    fn resume_node(&self, _: &str) -> Result<(), HandsError> {
        Ok(())
    }

    fn remove_node(&self, _: &str) -> Result<(), HandsError> {
        Ok(())
    }
}

fn node(surveys: Vec<Result<Survey, WorldError>>) -> Node {
    Node {
        surveys: RefCell::new(surveys),
        deleted: RefCell::default(),
    }
}

fn ask(node: &Node, ask: Ask) -> Answer {
    let folder = tempfile::tempdir().unwrap();
    ask_with(&begin(folder.path()), node, ask)
}

fn begin(folder: &std::path::Path) -> Begin {
    Begin {
        places: samples::quiet().1,
        ledger: folder.join("ledger.db"),
        backups: folder.join("backups"),
    }
}

fn ask_with(begin: &Begin, node: &Node, ask: Ask) -> Answer {
    Worker {
        begin,
        sight: node,
        hands: node,
        tell: &|_| {},
    }
    .answer(ask)
}

fn look() -> Ask {
    Ask::Look {
        knowledge: Knowledge::default(),
        patience: Duration::ZERO,
    }
}

#[test]
fn what_is_said_survives_the_socket() {
    let looked = ask(&node(vec![Ok(samples::everything().0)]), look());
    assert!(matches!(looked, Answer::Looked(_)), "{looked:?}");
    let line = message::line(&looked).unwrap();
    assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
    assert_eq!(message::parse::<Answer>(&line).unwrap(), looked);
}

#[test]
fn a_busy_containerd_is_asked_again_and_then_said_to_be_busy() {
    let quiet = samples::quiet().0;
    let busy = || Err(WorldError::Busy);
    let after = ask(&node(vec![busy(), busy(), busy(), Ok(quiet.clone())]), look());
    assert!(matches!(after, Answer::Looked(_)), "{after:?}");
    let never = ask(&node(vec![busy(), busy(), busy(), busy(), Ok(quiet)]), look());
    assert!(matches!(never, Answer::Failed { busy: true, .. }), "{never:?}");
}

#[test]
fn what_is_handed_on_is_what_the_findings_are_about_with_all_that_it_was_made_from() {
    let mut survey = samples::quiet().0;
    // A fourth snapshot on the third, whose record is gone.
    let third = "k8s.io/3/c0ffee0123456789".to_owned();
    let row = crate::model::databases::SnapshotRow {
        id: crate::model::SnapshotId(4),
        kind: crate::model::databases::SnapshotKind::Active,
        parent: Some(third),
    };
    survey.snapshots.snapshots.insert("k8s.io/4/next".to_owned(), row);
    survey.snapshots.sequence = 4;
    let unrelated = DeviceRecord {
        device_id: ThinId(99),
        size: Bytes(1),
        name: "tp-snap-99".to_owned(),
        parent_name: String::new(),
        state: DeviceState::Deactivated,
        error: String::new(),
    };
    survey.pool_db.devices.insert(unrelated.name.clone(), unrelated);
    let diagnoses = diagnose::survey(&survey, &Knowledge::default());
    let one = diagnoses
        .found
        .iter()
        .find(|one| one.finding.class == crate::model::FindingClass::RowWithoutRecord);
    let part = about(&survey, one);
    let names: Vec<&str> = part.pool_db.devices.keys().map(String::as_str).collect();
    assert_eq!(names, ["tp-snap-1", "tp-snap-2", "tp-snap-3"]);
    assert_eq!(part.snapshots.snapshots.len(), 4);
    assert_eq!(part.transactions(), survey.transactions());
    let nothing = about(&survey, []);
    assert!(nothing.pool_db.devices.is_empty() && nothing.nodes.is_empty());
    assert_eq!(nothing.thin.map(|thin| thin.len()), Some(0));
}

#[test]
fn what_another_repair_is_at_is_not_settled_as_if_that_were_dead() {
    let folder = tempfile::tempdir().unwrap();
    let begin = begin(folder.path());
    let quiet = node(vec![Ok(samples::quiet().0)]);
    let other = OnlyOne::take(&begin.places.places, &begin.ledger).unwrap();
    let meanwhile = ask_with(&begin, &quiet, Ask::Settle);
    assert!(
        matches!(meanwhile, Answer::Failed { busy: true, .. }),
        "{meanwhile:?}"
    );
    drop(other);
    let afterwards = ask_with(&begin, &quiet, Ask::Settle);
    assert!(matches!(afterwards, Answer::Settled { .. }), "{afterwards:?}");
}

#[test]
fn nothing_is_done_of_what_is_not_found_any_more() {
    let (survey, diagnoses) = samples::everything();
    let plan = crate::decide::plan(
        &diagnoses,
        &crate::decide::Selection::all(
            crate::model::RepairMode::Online,
            crate::decide::RepairPolicy::default(),
        ),
    )
    .into_iter()
    .find(|plan| plan.class == crate::model::FindingClass::LeakedThin)
    .unwrap();
    assert!(!plan.acts.is_empty());
    let quiet = node(vec![Ok(samples::quiet().0)]);
    let answer = ask(
        &quiet,
        Ask::Act {
            knowledge: Knowledge::default(),
            plans: vec![plan],
            life: survey.pool.as_ref().map(|pool| pool.activation.clone()),
            within: Duration::from_secs(10),
        },
    );
    let Answer::Acted { results } = answer else {
        panic!("{answer:?}")
    };
    let outcome = results[0].outcome.clone().unwrap();
    assert!(
        matches!(&outcome, crate::model::RepairOutcome::Refused { why } if why.contains("still-found")),
        "{outcome}"
    );
    assert_eq!(*quiet.deleted.borrow(), []);
}
