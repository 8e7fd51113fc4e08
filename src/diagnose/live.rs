//! Calls of containerd's that fail while they do, as findings: they begin with the failure and end with it. What is in the
//! way is a finding of its own where it can be told, and has the remedy.

use crate::{
    correlate::{Correlator, FailureKind, LiveFailure},
    model::{Finding, PoolName, Provenance, Subject, Timestamp},
};

/// The calls that fail at this moment. They need no world: the kernel's events tell of them.
#[must_use]
pub fn live(known: &Correlator, now: Timestamp) -> Vec<Finding> {
    let failures = known.sagas().failures().standing(now);
    failures.map(|failure| finding(failure, known.pool())).collect()
}

fn finding(failure: &LiveFailure, pool: &PoolName) -> Finding {
    Finding {
        id: failure.finding(pool),
        class: failure.class(),
        pool: pool.clone(),
        subject: subject(failure),
        // Nothing is to be deleted on the word of a failure.
        provenance: Provenance::Unknown,
        evidence: evidence(failure),
        died_in: None,
    }
}

fn subject(failure: &LiveFailure) -> Subject {
    // Of a missing parent whatever was to be made from it fails.
    let device = failure.device.as_ref();
    let device = device.filter(|_| failure.kind != FailureKind::ParentMissing);
    match (failure.kind, device, failure.thin_id) {
        (FailureKind::IdInPool | FailureKind::PoolRefuses, ..) | (_, None, None) => Subject::Pool,
        (_, Some(name), _) => Subject::Device { name: name.clone() },
        (_, None, Some(thin_id)) => Subject::ThinId { thin_id },
    }
}

fn evidence(failure: &LiveFailure) -> Vec<String> {
    let mut evidence = vec![match failure.count {
        1 => format!("{failure}, at {}", failure.since),
        _ => format!("{failure}, first at {}, last at {}", failure.since, failure.last),
    }];
    let device = failure
        .device
        .as_ref()
        .map(|name| name.escape_debug().to_string());
    let about = match (failure.kind, device, failure.thin_id) {
        (FailureKind::ParentMissing, device, Some(parent)) => {
            let made = device.map_or_else(|| "a new device".to_owned(), |name| format!("device {name}"));
            Some(format!("{made} was to be made from thin device {parent}"))
        }
        (_, Some(name), Some(id)) => Some(format!("it was about device {name}, thin id {id}")),
        (_, Some(name), None) => Some(format!("it was about device {name}")),
        (_, None, Some(id)) => Some(format!("it was about thin id {id}")),
        (_, None, None) => None,
    };
    let last = if failure.count > 1 {
        "of the last call: "
    } else {
        ""
    };
    evidence.extend(about.map(|about| format!("{last}{about}")));
    if let Some(key) = &failure.key {
        evidence.push(format!("that is the device of snapshot {}", key.escape_debug()));
    }
    if let Some(answer) = failure.answer() {
        evidence.push(format!("containerd answers whoever asked for it with `{answer}`"));
    }
    evidence.push(failure.consequence().to_owned());
    evidence
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{FindingClass, ThinId},
        testing::{at, by_containerd, by_hand, message, pool, up},
    };

    fn watching() -> Correlator {
        let mut known = Correlator::new(pool(), at(0));
        known.observe(&up(1));
        known
    }

    #[test]
    fn a_pool_that_refuses_is_one_finding_whatever_is_to_be_made_and_another_where_nothing_can_be_deleted() {
        let mut known = watching();
        known.observe(&message(10, "create_thin 7", -95, by_containerd()));
        let [first] = live(&known, at(10)).try_into().unwrap();
        assert_eq!(first.id.0, "failing-create/tp/pool-refuses");
        assert_eq!(
            (first.class, &first.subject),
            (FindingClass::FailingCreate, &Subject::Pool)
        );
        assert!(
            first.evidence[0].starts_with("create_thin fails with EOPNOTSUPP (1 time), at "),
            "{first:?}"
        );
        known.observe(&message(12, "create_snap 8 3", -95, by_containerd()));
        known.observe(&message(13, "delete 5", -95, by_containerd()));
        let [create, remove] = live(&known, at(14)).try_into().unwrap();
        assert_eq!(create.id, first.id);
        assert_eq!(remove.id.0, "failing-remove/tp/pool-refuses");
        let told = create.evidence.join("\n");
        for part in [
            "create_snap fails with EOPNOTSUPP (2 times), first at ",
            "of the last call: it was about thin id 8",
            "with `operation not supported`",
            "No new container starts",
        ] {
            assert!(told.contains(part), "`{part}` is not in {told}");
        }
    }

    #[test]
    fn what_somebody_else_tries_and_what_went_well_is_none() {
        let mut known = watching();
        known.observe(&message(10, "create_thin 7", -17, by_hand()));
        known.observe(&message(11, "create_thin 8", 0, by_containerd()));
        assert_eq!(live(&known, at(12)), []);
        known.observe(&message(12, "create_thin 7", -17, by_containerd()));
        assert_eq!(live(&known, at(12)).len(), 1);
    }

    #[test]
    fn a_missing_parent_is_about_the_parent_and_not_about_what_was_to_be_made() {
        let mut known = watching();
        known.observe(&message(10, "create_snap 8 3", -61, by_containerd()));
        let [found] = live(&known, at(10)).try_into().unwrap();
        assert_eq!(found.id.0, "failing-create/tp/parent-missing/3");
        assert_eq!(found.subject, Subject::ThinId { thin_id: ThinId(3) });
        assert!(found.evidence[1].contains("made from thin device 3"), "{found:?}");
    }
}
