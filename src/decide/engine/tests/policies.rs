//! What a policy says of a finding, and which policies can not be made.

use super::*;
use crate::model::{
    Severity,
    survey::{Container, CoreSnapshot, Pod},
};

fn rule(mode: Mode) -> Rule {
    Rule {
        class: None,
        pool: None,
        namespace: None,
        label: None,
        mode,
        grace: None,
        unseen: None,
    }
}

fn rules(rules: Vec<Rule>) -> HealingPolicy {
    with(|parts| parts.rules = rules)
}

fn container(namespace: &str, pod: Option<(&str, &str)>) -> Container {
    Container {
        namespace: namespace.to_owned(),
        id: "c".to_owned(),
        image: None,
        snapshot_key: "k".to_owned(),
        pod: pod.map(|(namespace, name)| Pod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: "u".to_owned(),
        }),
    }
}

/// The mode of a suspended device that these containers use.
fn mode(policy: &HealingPolicy, containers: Vec<Container>, more: usize) -> Mode {
    let mut bench = bench(HealingPolicy::default());
    bench.suspended(3);
    let mut seen = bench.diagnoses();
    let diagnosis = &mut seen.found[0];
    let snapshot = containers.first().map(|first| CoreSnapshot {
        namespace: first.namespace.clone(),
        key: "k".to_owned(),
        parent: None,
        leases: Vec::new(),
    });
    diagnosis.users.snapshot = snapshot;
    diagnosis.users.containers = containers;
    diagnosis.users.more_containers = more;
    let selection = Selection::all(RepairMode::Online, RepairPolicy::default());
    let plans = plan(&seen, &selection);
    policy.setting(&seen.found[0], &plans[0]).mode
}

#[test]
fn shipped_is_automatic_only_what_loses_nothing_and_is_proven() {
    use FindingClass as C;
    let auto = [C::LeakedThin, C::OrphanRecord, C::SuspendedDevice, C::OrphanNode];
    let policy = HealingPolicy::default();
    for class in FindingClass::ALL {
        let of = policy.of(class);
        assert_eq!(of.mode == Mode::Auto, auto.contains(&class), "{class}");
        assert!(of.unseen <= Mode::Approve, "{class}");
        assert!(of.grace >= seconds(15), "{class}");
    }
    assert_eq!(policy.of(C::ForeignThin).mode, Mode::Observe);
    assert_eq!(policy.of(C::Wedge).mode, Mode::Approve);
    assert!(policy.oddities().is_empty());
}

#[test]
fn the_first_rule_that_fits_holds() {
    let class = |class, mode| Rule {
        class: Some(class),
        ..rule(mode)
    };
    let policy = rules(vec![
        class(FindingClass::LeakedThin, Mode::Observe),
        class(FindingClass::SuspendedDevice, Mode::Plan),
        rule(Mode::Approve),
    ]);
    assert_eq!(mode(&policy, Vec::new(), 0), Mode::Plan);
    let policy = rules(vec![
        rule(Mode::Approve),
        class(FindingClass::SuspendedDevice, Mode::Plan),
    ]);
    assert_eq!(mode(&policy, Vec::new(), 0), Mode::Approve);
    let pool = |name: &str| {
        rules(vec![Rule {
            pool: Some(Pattern::new(name)),
            ..rule(Mode::Observe)
        }])
    };
    assert_eq!(mode(&pool("t*"), Vec::new(), 0), Mode::Observe);
    assert_eq!(mode(&pool("other"), Vec::new(), 0), Mode::Auto);
}

#[test]
fn leave_has_to_fit_everybody_and_restraint_anybody() {
    let of = |mode| {
        let mut policy = rules(vec![Rule {
            namespace: Some(Pattern::new("test-*")),
            ..rule(mode)
        }])
        .into_parts();
        policy
            .classes
            .get_mut(&FindingClass::SuspendedDevice)
            .unwrap()
            .mode = Mode::Approve;
        HealingPolicy::new(policy).unwrap()
    };
    let (test, live) = (container("test-1", None), container("live", None));
    let both = vec![test.clone(), live.clone()];
    assert_eq!(mode(&of(Mode::Auto), vec![test.clone()], 0), Mode::Auto);
    assert_eq!(mode(&of(Mode::Auto), both.clone(), 0), Mode::Approve);
    assert_eq!(mode(&of(Mode::Auto), vec![test.clone()], 1), Mode::Approve);
    assert_eq!(mode(&of(Mode::Auto), Vec::new(), 0), Mode::Approve);
    assert_eq!(mode(&of(Mode::Observe), both, 0), Mode::Observe);
    assert_eq!(mode(&of(Mode::Observe), vec![live], 0), Mode::Approve);
}

#[test]
fn a_label_names_the_pod() {
    let policy = rules(vec![Rule {
        label: Some(LabelRule {
            key: "io.kubernetes.pod.name".to_owned(),
            value: Pattern::new("db-*"),
        }),
        ..rule(Mode::Observe)
    }]);
    let of = |name| vec![container("k8s.io", Some(("default", name)))];
    assert_eq!(mode(&policy, of("db-0"), 0), Mode::Observe);
    assert_eq!(mode(&policy, of("web-0"), 0), Mode::Auto);
    assert_eq!(mode(&policy, vec![container("k8s.io", None)], 0), Mode::Auto);
}

#[test]
fn a_rule_may_set_the_grace_and_how_much_an_unseen_maker_allows() {
    let policy = rules(vec![Rule {
        grace: Some(seconds(90)),
        unseen: Some(Mode::Auto),
        ..rule(Mode::Auto)
    }]);
    let mut bench = bench(policy);
    let record = bench.orphan_record(5);
    bench.round();
    bench.pass(seconds(89));
    assert!(waits_for(&bench.verdict(&record), "stand unchanged for 90 s"));
    bench.pass(seconds(1));
    assert!(is_act(&bench.verdict(&record)));
}

#[test]
fn no_policy_deletes_what_nobody_can_prove_to_be_containerds() {
    let mut everything = rules(vec![Rule {
        unseen: Some(Mode::Auto),
        ..rule(Mode::Auto)
    }])
    .into_parts();
    everything.repair = RepairPolicy::default().with(FindingClass::ForeignThin, Handling::Auto);
    let mut bench = bench(HealingPolicy::new(everything).unwrap());
    // One is out of the way, containerd would draw the other.
    bench.put(|world| world.thin(7).thin(1003));
    for id in [7, 1003] {
        let verdict = bench.ripe(&FindingId(format!("foreign-thin/tp/{id}")));
        assert!(matches!(verdict, Verdict::Observe { .. }), "{verdict:?}");
    }
}

#[test]
fn a_policy_that_makes_no_sense_can_not_be_made() {
    type Break = fn(&mut PolicyParts);
    let foreign = |mode| Rule {
        class: Some(FindingClass::ForeignThin),
        ..rule(mode)
    };
    assert!(HealingPolicy::new(PolicyParts::default()).is_ok());
    assert!(HealingPolicy::new(rules(vec![foreign(Mode::Plan)]).into_parts()).is_ok());
    for mode in [Mode::Approve, Mode::Auto] {
        let parts = PolicyParts {
            rules: vec![foreign(mode)],
            ..PolicyParts::default()
        };
        assert_eq!(
            HealingPolicy::new(parts).unwrap_err()[0].key,
            "policy.rule[0].mode"
        );
    }
    let broken: [(&str, Break); 10] = [
        ("policy.kill-switch", |parts| parts.kill_switch = "stop".into()),
        ("policy.breaker.failures", |parts| parts.breaker.failures = 0),
        ("policy.breaker.within", |parts| {
            parts.breaker.within = Duration::ZERO;
        }),
        ("policy.breaker.closes-after", |parts| {
            parts.breaker.closes_after = Some(Duration::ZERO);
        }),
        ("policy.back-off.first", |parts| {
            parts.back_off.first = Duration::ZERO;
        }),
        ("policy.back-off.longest", |parts| {
            parts.back_off.longest = seconds(1);
        }),
        ("policy.approval-lasts", |parts| {
            parts.approval_lasts = Duration::from_hours(24 * 400);
        }),
        ("policy.class.foreign-thin", |parts| {
            let rule = parts.classes.get_mut(&FindingClass::ForeignThin).unwrap();
            rule.mode = Mode::Auto;
        }),
        ("policy.class.wedge", |parts| {
            parts.classes.get_mut(&FindingClass::Wedge).unwrap().grace = Duration::MAX;
        }),
        ("policy.rule[0].label", |parts| {
            parts.rules = vec![Rule {
                label: Some(LabelRule {
                    key: "team".to_owned(),
                    value: Pattern::new("*"),
                }),
                ..rule(Mode::Plan)
            }];
        }),
    ];
    for (key, change) in broken {
        let mut parts = PolicyParts::default();
        change(&mut parts);
        let problems = HealingPolicy::new(parts).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].key, key);
    }
}

#[test]
fn a_class_that_is_not_named_is_as_shipped() {
    let parts = PolicyParts {
        classes: BTreeMap::new(),
        ..PolicyParts::default()
    };
    assert_eq!(HealingPolicy::new(parts).unwrap(), HealingPolicy::default());
}

#[test]
fn a_rule_that_never_holds_is_odd_and_so_is_a_remedy_that_there_is_not() {
    let in_namespace = |namespace: &str, mode| Rule {
        namespace: Some(Pattern::new(namespace)),
        ..rule(mode)
    };
    let odd = |rules_of: Vec<Rule>| rules(rules_of).oddities().len();
    assert_eq!(
        odd(vec![
            in_namespace("a*", Mode::Plan),
            in_namespace("ab", Mode::Auto)
        ]),
        1
    );
    assert_eq!(
        odd(vec![
            in_namespace("ab", Mode::Plan),
            in_namespace("a*", Mode::Plan)
        ]),
        0
    );
    assert_eq!(odd(vec![rule(Mode::Auto), in_namespace("a", Mode::Observe)]), 1);
    // The first asks everybody, the second anybody: a layer of two namespaces comes to the second.
    assert_eq!(
        odd(vec![
            in_namespace("a", Mode::Auto),
            in_namespace("a", Mode::Observe)
        ]),
        0
    );
    assert_eq!(
        odd(vec![in_namespace("a", Mode::Auto), in_namespace("a", Mode::Auto)]),
        1
    );
    let failed = Rule {
        class: Some(FindingClass::PoolFailed),
        ..rule(Mode::Auto)
    };
    assert_eq!(odd(vec![failed]), 1);
}

#[test]
fn a_restart_is_for_the_worst_only_as_shipped() {
    let policy = HealingPolicy::default();
    assert_eq!(policy.restart_for, Severity::Outage);
    assert_eq!(policy.restart_and_repair, Mode::Approve);
}
