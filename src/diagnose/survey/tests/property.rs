//! Whatever databases and pools hold: no panic, nothing named twice, and nothing deleted that anything references.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::model::{
    CoreDb, Provenance, Severity, Subject,
    survey::{Container, CoreSnapshot},
};

/// Numbers are few, so that they meet.
fn small() -> impl Strategy<Value = u32> {
    prop_oneof![20 => 0..9_u32, 1 => Just(ThinId::MAX.0), 1 => Just(u32::MAX)]
}

fn state() -> impl Strategy<Value = DeviceState> {
    (-1..16_i64).prop_map(DeviceState::from)
}

fn record_name() -> impl Strategy<Value = String> {
    prop_oneof![12 => (0..9_u64).prop_map(name), 1 => Just("legacy".to_owned()), 1 => Just(name(u64::MAX))]
}

prop_compose! {
    fn node()(name in prop_oneof![4 => record_name(), 1 => Just("somebodys".to_owned())],
              ids in prop::collection::vec(small(), 0..3),
              flags in prop::array::uniform5(prop::bool::weighted(0.2)),
              open in 0..2_u32) -> (String, Vec<u32>, [bool; 5], u32) {
        (name, ids, flags, open)
    }
}

prop_compose! {
    fn databases()(records in prop::collection::vec((record_name(), small(), state(), any::<bool>()), 0..7),
                   rows in prop::collection::vec((0..9_u64, 0..5_u8, prop::option::of(0..9_u64)), 0..7),
                   twin in prop::option::weighted(0.1, 0..9_u64),
                   sequence in prop_oneof![12 => 0..10_u64, 1 => Just(u64::MAX)],
                   ids in prop::collection::btree_map(small(), (0..4_u8).prop_map(IdState::from), 0..9),
                   id_sequence in prop_oneof![12 => 0..10_u64, 1 => Just(u64::MAX)],
                   parents in prop::collection::vec((0..9_u64, 0..9_u64), 0..2),
                   contradicts in prop::bool::weighted(0.1),
                   presence in prop_oneof![8 => Just(Presence::Complete), 1 => Just(Presence::NoBuckets), 1 => Just(Presence::NoFile)])
                  -> Stage {
        let mut stage = stage();
        for (name, id, state, failed) in records {
            stage = stage.named(&name, id, state).with(|survey| {
                survey.pool_db.devices.get_mut(&name).unwrap().error = if failed { "busy".to_owned() } else { String::new() };
            });
        }
        for (snapshot, kind, parent) in rows {
            stage = stage.row(snapshot, SnapshotKind::from(kind), parent);
        }
        stage.with(|survey| {
            if let Some(row) = twin.and_then(|id| survey.snapshots.snapshots.get(&key(id))).cloned() {
                survey.snapshots.snapshots.insert("twin".to_owned(), row);
            }
            for (child, parent) in parents {
                if let Some(record) = survey.pool_db.devices.get_mut(&name(child)) {
                    record.parent_name = name(parent);
                }
            }
            survey.snapshots.contradiction = contradicts.then(|| "the index has it otherwise".to_owned());
            // Mostly what the rows say; at times anything.
            if sequence > 4 { survey.snapshots.sequence = sequence; }
            survey.snapshots.presence = presence;
            survey.pool_db.device_ids.extend(ids.into_iter().map(|(id, state)| (ThinId(id), state)));
            if id_sequence > 4 { survey.pool_db.id_sequence = id_sequence; }
        })
    }
}

prop_compose! {
    pub(super) fn surveys()(databases in databases(),
                 thins in prop::collection::btree_set(small(), 0..9),
                 read in prop::bool::weighted(0.9),
                 nodes in prop::collection::vec(node(), 0..4),
                 claims in prop::collection::btree_set(small(), 0..4),
                 set_up in prop::bool::weighted(0.9),
                 mode in prop_oneof![6 => Just(PoolMode::ReadWrite), 1 => Just(PoolMode::OutOfDataSpace), 1 => Just(PoolMode::ReadOnly), 1 => Just(PoolMode::Unknown)],
                 async_remove in any::<Option<bool>>(),
                 running in any::<bool>()) -> Stage {
        let mut stage = if running { databases.running() } else { databases };
        for id in thins {
            stage = stage.thin(id);
        }
        for (name, ids, flags, open) in nodes {
            let [suspended, unreadable, dead, deferred, error] = flags;
            stage = stage.node(&name, 0).but(|node| {
                node.thin_ids = ids.into_iter().map(ThinId).collect();
                node.suspended = suspended;
                node.unreadable = unreadable;
                node.live = !dead;
                node.deferred_remove = deferred;
                node.error_table = error;
                node.open_count = open;
            });
        }
        for id in claims {
            stage = stage.claim(id);
        }
        stage.with(|survey| {
            survey.async_remove = async_remove;
            survey.pool.as_mut().unwrap().mode = mode;
            if !set_up { survey.pool = None; }
            if !read { survey.thin = None; }
        })
    }
}

prop_compose! {
    /// containerd's own database: it knows some snapshots, of which the snapshot storage may have none, and one container.
    fn cores()(known in prop::collection::btree_map(0..9_u64, prop::option::of(0..9_u64), 0..9), on in 0..9_u64) -> CoreDb {
        let client = |id: u64| format!("key-{id}");
        CoreDb {
            snapshots: known.into_iter().map(|(id, parent)| (key(id), CoreSnapshot {
                namespace: "k8s.io".to_owned(),
                key: client(id),
                parent: parent.map(client),
                leases: Vec::new(),
            })).collect(),
            containers: vec![Container {
                namespace: "k8s.io".to_owned(),
                id: "c".to_owned(),
                image: None,
                snapshot_key: client(on),
                pod: None,
            }],
            ..CoreDb::default()
        }
    }
}

/// Rows whose snapshot a record belongs to.
fn rows_of(survey: &Survey, record: &DeviceRecord) -> usize {
    let snapshot = survey.snapshot_of(record);
    let rows = survey.snapshots.snapshots.values();
    rows.filter(|row| Some(row.id) == snapshot).count()
}

fn carriers(survey: &Survey, id: ThinId) -> Vec<&DeviceRecord> {
    let records = survey.pool_db.devices.values();
    records.filter(|record| record.device_id == id).collect()
}

/// Whether the rows are in doubt: they do not fit their index, or two bear one number.
fn rows_contradict(survey: &Survey) -> bool {
    let mut numbers = BTreeSet::new();
    let mut rows = survey.snapshots.snapshots.values();
    survey.snapshots.contradiction.is_some() || !rows.all(|row| numbers.insert(row.id))
}

/// Whether a record whose snapshot is there says that it was made from this one.
fn is_built_on(survey: &Survey, record: &DeviceRecord) -> bool {
    let mut records = survey.pool_db.devices.values();
    records.any(|child| child.parent_name == record.name && rows_of(survey, child) > 0)
}

/// A device that suture itself saw being made and abandoned, and that no record names, needs no row's word.
fn no_row_in_doubt_is_relied_on(survey: &Survey, one: &Diagnosis) -> Result<(), TestCaseError> {
    for act in &one.remedy.acts {
        match act {
            Act::DeleteThin { thin_id } => {
                let carriers = carriers(survey, *thin_id);
                prop_assert!(carriers.is_empty() || !rows_contradict(survey), "{one:?}");
                prop_assert!(
                    !carriers.iter().any(|record| is_built_on(survey, record)),
                    "{one:?}"
                );
            }
            Act::ForgetRecord { record } => {
                prop_assert!(
                    !rows_contradict(survey) && !is_built_on(survey, record),
                    "{one:?}"
                );
            }
            _ => {}
        }
    }
    Ok(())
}

fn nothing_referenced_is_deleted(stage: &Stage) -> Result<(), TestCaseError> {
    let survey = &stage.survey;
    for one in stage.judge().found {
        no_row_in_doubt_is_relied_on(survey, &one)?;
        for act in &one.remedy.acts {
            match act {
                Act::DeleteThin { thin_id } => {
                    let carriers = carriers(survey, *thin_id);
                    prop_assert!(carriers.len() <= 1, "{one:?}");
                    prop_assert!(
                        carriers.iter().all(|record| rows_of(survey, record) == 0),
                        "{one:?}"
                    );
                    prop_assert_eq!(survey.has_thin(*thin_id), Some(true));
                    prop_assert!(*thin_id <= ThinId::MAX);
                    let foreign = survey
                        .nodes
                        .iter()
                        .filter(|node| node.unreadable || node.thin_ids.contains(thin_id));
                    for node in foreign {
                        prop_assert!(!node.unreadable && node.open_count == 0, "{one:?}");
                        prop_assert!(
                            survey.pool_name.snapshot_of(node.name.as_str()).is_some(),
                            "{one:?}"
                        );
                    }
                    match &one.finding.provenance {
                        Provenance::SeenByProbe { .. } => {
                            let claim = &stage.knowledge.claims[thin_id];
                            prop_assert_eq!(survey.mark_of(*thin_id), Some(claim.mark.clone()));
                        }
                        Provenance::ToldByRecord { name } => {
                            let record = &survey.pool_db.devices[name];
                            prop_assert_eq!(record.device_id, *thin_id);
                            let number = survey.pool_name.snapshot_of(name).unwrap().0;
                            let proves = number <= survey.snapshots.sequence
                                || matches!(record.state, Created | Activating | Activated);
                            prop_assert!(proves, "{one:?}");
                        }
                        Provenance::Unknown => prop_assert!(false, "{one:?}"),
                    }
                }
                Act::ForgetRecord { record } => {
                    prop_assert_eq!(rows_of(survey, record), 0);
                    prop_assert_eq!(carriers(survey, record.device_id).len(), 1);
                    // The id is free then: nothing may be left in the pool.
                    let deleted = one.remedy.acts.contains(&Act::DeleteThin {
                        thin_id: record.device_id,
                    });
                    prop_assert!(
                        deleted || survey.has_thin(record.device_id) == Some(false),
                        "{one:?}"
                    );
                }
                Act::RemoveNode { name, .. } => {
                    let node = survey
                        .nodes
                        .iter()
                        .find(|node| node.name.as_str() == name)
                        .unwrap();
                    prop_assert_eq!(node.open_count, 0);
                    let record = survey.pool_db.devices.get(name);
                    prop_assert!(
                        record.is_none_or(|record| rows_of(survey, record) == 0),
                        "{one:?}"
                    );
                }
                Act::SetId {
                    thin_id,
                    to: IdState::Free,
                    ..
                } => {
                    prop_assert_eq!(survey.has_thin(*thin_id), Some(false));
                    prop_assert!(carriers(survey, *thin_id).is_empty());
                }
                Act::MarkFaulty { record } => {
                    let harmless =
                        rows_of(survey, record) == 0 || survey.has_thin(record.device_id) == Some(false);
                    prop_assert!(harmless, "{one:?}");
                }
                Act::InsertRemovedRecord { thin_id, .. } => {
                    prop_assert_eq!(survey.has_thin(*thin_id), Some(false));
                    prop_assert!(carriers(survey, *thin_id).is_empty());
                }
                Act::RestoreRecord { record, .. } => prop_assert_eq!(rows_of(survey, record), 1),
                Act::SetId { .. } | Act::RaiseIdSequence { .. } | Act::ResumeNode { .. } => {}
            }
            if one.remedy.when == When::Online {
                prop_assert!(!act.is_edit());
            }
            if survey.pool.is_none() {
                prop_assert!(act.is_edit());
            }
        }
    }
    Ok(())
}

fn each_is_named_once(stage: &Stage) -> Result<(), TestCaseError> {
    let survey = &stage.survey;
    let mut ids = BTreeSet::new();
    let mut named = BTreeSet::new();
    for one in stage.judge().found {
        prop_assert!(ids.insert(one.finding.id.clone()), "{}", one.finding.id);
        let mut own = vec![];
        match &one.finding.subject {
            Subject::ThinDevice { thin_id } | Subject::ThinId { thin_id } => {
                own.push(format!("thin {thin_id}"));
            }
            Subject::Record { name, .. } => own.push(format!("record {name}")),
            Subject::Snapshot { id, .. } => {
                own.push(format!("row {id}"));
                own.push(format!("record {}", name(id.0)));
            }
            Subject::Node { name, .. } | Subject::Device { name } => own.push(format!("node {name}")),
            Subject::Pool | Subject::BlockDevice { .. } => {}
        }
        for act in &one.remedy.acts {
            match act {
                Act::DeleteThin { thin_id } => own.push(format!("thin {thin_id}")),
                Act::RemoveNode { name, .. } | Act::ResumeNode { name, .. } => {
                    own.push(format!("node {name}"));
                }
                _ => {}
            }
        }
        own.sort();
        own.dedup();
        for thing in own {
            prop_assert!(named.insert(thing.clone()), "{thing} twice: {:?}", stage.ids());
        }
    }
    // A thin device that no record names is never passed over in silence.
    for id in survey.thin.iter().flat_map(|thin| thin.keys()) {
        let free = carriers(survey, *id).is_empty();
        prop_assert_eq!(
            free && survey.thin.is_some(),
            named.contains(&format!("thin {id}")) && free
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]

    #[test]
    fn nothing_that_anything_references_is_ever_deleted(stage in surveys()) {
        nothing_referenced_is_deleted(&stage)?;
        // Not by what follows from a remedy either.
        let next = unique(stage).heal();
        nothing_referenced_is_deleted(&next)?;
    }

    #[test]
    fn each_thing_is_named_at_most_once(stage in surveys()) {
        each_is_named_once(&stage)?;
    }

    #[test]
    fn remedies_come_to_an_end(stage in surveys()) {
        // One pass may clear what spoke against another: a number that was reserved lets a claimed device be deleted, that
        // leaves its number, and a number that is free again speaks for a row that lost its record.
        let healed = (0..8).fold(unique(stage), |stage, _| stage.heal());
        for one in healed.judge().found {
            prop_assert!(one.remedy.acts.is_empty(), "{one:?}");
            prop_assert!(one.severity == Severity::Notice || one.remedy.when == When::Never, "{one:?}");
        }
    }

    /// A check reads the names of users only where there is somebody of whom they are told.
    #[test]
    fn reading_names_only_where_they_are_told_changes_no_answer(
        stages in prop::collection::vec((surveys(), prop::option::weighted(0.9, cores())), 1..4)
    ) {
        let settling = crate::diagnose::Settling::new(std::time::Duration::from_secs(2));
        let (mut always, mut when_found) = (settling.clone(), settling);
        for (look, (stage, core)) in stages.into_iter().cycle().take(300).enumerate() {
            let now = testing::at(u64::try_from(look).unwrap());
            let without = Survey { core: None, ..stage.survey.clone() };
            let with = Survey { core: core.map(Into::into), ..stage.survey };
            let expected = always.look(&with, &stage.knowledge, now);
            let mut told = when_found.look(&without, &stage.knowledge, now);
            if told.tells_of_users() {
                told = when_found.look(&with, &stage.knowledge, now);
            }
            prop_assert_eq!(&told, &expected);
            if matches!(told, crate::diagnose::Settled::Done(..)) {
                break;
            }
        }
    }

    /// A repair reads only which snapshots containerd knows: who uses them is told, and decides nothing.
    #[test]
    fn without_users_all_is_judged_the_same_but_for_naming_them(stage in surveys(), core in cores()) {
        let snapshots = CoreDb { containers: Vec::new(), images: Vec::new(), ..core.clone() };
        let with = |core: CoreDb| Survey { core: Some(core.into()), ..stage.survey.clone() };
        let nobody = |mut all: Diagnoses| {
            for one in &mut all.found {
                one.users.containers.clear();
                one.users.images.clear();
            }
            all
        };
        let (all, part) = (with(core), with(snapshots));
        prop_assert_eq!(
            nobody(super::super::survey(&all, &stage.knowledge)),
            nobody(super::super::survey(&part, &stage.knowledge))
        );
    }

    #[test]
    fn settling_ends_whatever_it_sees(stages in prop::collection::vec(surveys(), 1..4)) {
        let mut settling = crate::diagnose::Settling::new(std::time::Duration::from_secs(2));
        let mut ended = false;
        for (look, stage) in stages.iter().cycle().take(300).enumerate() {
            let now = testing::at(u64::try_from(look).unwrap());
            if let crate::diagnose::Settled::Done(diagnoses, in_flight) = settling.look(&stage.survey, &stage.knowledge, now) {
                let all = stage.judge().found.len();
                prop_assert_eq!(diagnoses.found.len() + in_flight.len(), all);
                prop_assert!(in_flight.iter().all(|one| one.may_be_in_flight));
                ended = true;
                break;
            }
        }
        prop_assert!(ended);
    }
}

/// The kernel knows a name once.
fn unique(stage: Stage) -> Stage {
    stage.with(|survey| {
        let mut names = BTreeSet::new();
        survey.nodes.retain(|node| names.insert(node.name.clone()));
    })
}
