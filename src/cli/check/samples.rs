//! Looks for tests: a quiet one, and one with a finding of every class, every subject, every act and every guard.

use std::time::Duration;

use crate::{
    cli::look::Look,
    model::{
        Act, Condition, ContainerdState, CoreDb, DeviceNumber, DeviceRecord, DeviceState, Diagnoses,
        Diagnosis, Finding, FindingClass, FindingId, IdState, Knowledge, Node, OperationId, PoolDb,
        Provenance, Severity, Shared, SnapshotDb, SnapshotId, Subject, Survey, ThinId, Treat, Treatment,
        TxId, Users, When,
        databases::{Presence, SnapshotKind, SnapshotRow},
        survey::{Container, CoreSnapshot, Image, Mount, Mounts, Pod, Unread},
    },
    observe::{survey::SurveyPlaces, world::Places},
    testing,
};

const NODE: DeviceNumber = DeviceNumber { major: 253, minor: 7 };

fn record(snapshot: u64, id: u32, state: DeviceState) -> DeviceRecord {
    testing::record(&format!("tp-snap-{snapshot}"), id, state)
}

fn row(id: u64, kind: SnapshotKind, parent: Option<&str>) -> SnapshotRow {
    SnapshotRow {
        id: SnapshotId(id),
        kind,
        parent: parent.map(str::to_owned),
    }
}

fn core_snapshot(key: &str, parent: Option<&str>) -> CoreSnapshot {
    CoreSnapshot {
        namespace: "k8s.io".to_owned(),
        key: key.to_owned(),
        parent: parent.map(str::to_owned),
        leases: vec!["lease".to_owned()],
    }
}

fn container() -> Container {
    Container {
        namespace: "k8s.io".to_owned(),
        id: "c0ffee0123456789".to_owned(),
        image: Some("docker.io/library/web:1".to_owned()),
        snapshot_key: "c0ffee0123456789".to_owned(),
        pod: Some(Pod {
            namespace: "shop".to_owned(),
            name: "web-0".to_owned(),
            uid: "u-1".to_owned(),
        }),
    }
}

/// Layers 1 and 2 of an image, and a container on snapshot 3. Nothing is wrong.
pub(in crate::cli) fn quiet_look() -> Look {
    let records = [
        record(1, 11, DeviceState::Deactivated),
        record(2, 12, DeviceState::Deactivated),
        record(3, 13, DeviceState::Activated),
    ];
    let rows = [
        ("k8s.io/1/sha256:base", row(1, SnapshotKind::Committed, None)),
        (
            "k8s.io/2/sha256:top",
            row(2, SnapshotKind::Committed, Some("k8s.io/1/sha256:base")),
        ),
        (
            "k8s.io/3/c0ffee0123456789",
            row(3, SnapshotKind::Active, Some("k8s.io/2/sha256:top")),
        ),
    ];
    let core = [
        ("k8s.io/1/sha256:base", core_snapshot("sha256:base", None)),
        (
            "k8s.io/2/sha256:top",
            core_snapshot("sha256:top", Some("sha256:base")),
        ),
        (
            "k8s.io/3/c0ffee0123456789",
            core_snapshot("c0ffee0123456789", Some("sha256:top")),
        ),
    ];
    let ids = [11, 12, 13].map(ThinId);
    let survey = Survey {
        pool_db: PoolDb {
            devices: records.into_iter().map(|one| (one.name.clone(), one)).collect(),
            device_ids: ids.into_iter().map(|id| (id, IdState::Taken)).collect(),
            id_sequence: 13,
            txid: TxId(5),
        }
        .into(),
        snapshots: SnapshotDb {
            snapshots: rows.into_iter().map(|(key, row)| (key.to_owned(), row)).collect(),
            sequence: 3,
            txid: Some(TxId(4)),
            presence: Presence::Complete,
            contradiction: None,
        }
        .into(),
        thin: Some(
            ids.into_iter()
                .map(|id| (id, testing::mark(id.0).details))
                .collect(),
        ),
        nodes: vec![node("tp-snap-3", 13, NODE)],
        core: Some(Shared::from(CoreDb {
            snapshots: core.into_iter().map(|(key, one)| (key.to_owned(), one)).collect(),
            containers: vec![container()],
            images: vec![Image {
                namespace: "k8s.io".to_owned(),
                name: "docker.io/library/web:1".to_owned(),
                top_snapshots: vec!["sha256:top".to_owned()],
            }],
            txid: TxId(9),
        })),
        mounts: Mounts {
            by_device: [(
                NODE,
                vec![Mount {
                    namespace: 4_026_531_840,
                    pid: 77,
                    process: "containerd-shim".to_owned(),
                    path: "/run/rootfs".to_owned(),
                }],
            )]
            .into(),
            incomplete: None,
        },
        containerd: ContainerdState::Running {
            who: testing::containerd(),
            at_work: Vec::new(),
        },
        ..testing::survey()
    };
    Look {
        survey,
        diagnoses: Diagnoses::default(),
        in_flight: Vec::new(),
        knowledge: Knowledge::default(),
        took: Duration::from_millis(41),
        at: SurveyPlaces {
            places: Places {
                pool: testing::pool(),
                root: "/dm".into(),
            },
            core_db: None,
            async_remove: Some(false),
            metadata_device: None,
        },
        places: String::new(),
        repair_places: String::new(),
        offline_places: String::new(),
    }
}

pub(super) fn node(name: &str, id: u32, device: DeviceNumber) -> Node {
    Node {
        open_count: 1,
        ..testing::node(name, id, device)
    }
}

/// A finding of each class; between them every severity, subject, provenance, treatment, act and guard.
pub(in crate::cli) fn look_with_everything() -> Look {
    let mut look = quiet_look();
    let device = DeviceNumber { major: 253, minor: 8 };
    look.survey.nodes.push(Node {
        open_count: 0,
        ..node("tp-snap-7", 17, device)
    });
    look.survey
        .pool_db
        .devices
        .insert("tp-snap-7".to_owned(), record(7, 17, DeviceState::Activated));
    look.survey.pool_db.device_ids.insert(ThinId(17), IdState::Taken);
    if let Some(thin) = &mut look.survey.thin {
        thin.insert(ThinId(17), testing::mark(17).details);
        thin.insert(ThinId(18), testing::mark(18).details);
    }
    look.survey.unread.push(Unread {
        what: "mounts of one namespace".to_owned(),
        why: "permission denied".to_owned(),
        matters: false,
    });
    let seen_by_a_check = FindingClass::ALL.into_iter().filter(|class| !class.is_live());
    look.diagnoses.found = seen_by_a_check.map(diagnosis).collect();
    look.diagnoses
        .found
        .sort_by_key(|one| (one.severity, one.finding.class));
    look.diagnoses.explanations = vec!["The databases were wiped.".to_owned()];
    look.diagnoses.not_understood = vec!["the record tp-snap-9 is in state 99".to_owned()];
    look.in_flight = vec![diagnosis(FindingClass::OrphanRecord)];
    look
}

#[expect(clippy::too_many_lines, reason = "it is a table, class by class")]
fn diagnosis(class: FindingClass) -> Diagnosis {
    use FindingClass as C;
    let record = record(7, 17, DeviceState::Activated);
    let device = DeviceNumber { major: 253, minor: 8 };
    let of_record = Subject::Record {
        name: "tp-snap-7".to_owned(),
        thin_id: ThinId(17),
    };
    let snapshot = Subject::Snapshot {
        id: SnapshotId(3),
        key: "k8s.io/3/c0ffee0123456789".to_owned(),
    };
    let of_node = Subject::Node {
        name: "tp-snap-7".to_owned(),
        device,
    };
    let name = || "tp-snap-7".to_owned();
    let delete = Act::DeleteThin { thin_id: ThinId(17) };
    let remove = Act::RemoveNode { name: name(), device };
    let forget = Act::ForgetRecord {
        record: record.clone(),
    };
    let undo = vec![
        Act::MarkFaulty {
            record: record.clone(),
        },
        remove.clone(),
        delete.clone(),
        forget.clone(),
    ];
    let free = Act::SetId {
        thin_id: ThinId(17),
        from: Some(IdState::Faulty),
        to: IdState::Free,
    };
    let reserve = vec![
        Act::SetId {
            thin_id: ThinId(18),
            from: None,
            to: IdState::Faulty,
        },
        Act::RaiseIdSequence { from: 13, to: 18 },
    ];
    let restore = Act::RestoreRecord {
        record: record.clone(),
        to: DeviceState::Deactivated,
    };
    let insert = Act::InsertRemovedRecord {
        name: name(),
        snapshot: SnapshotId(7),
        thin_id: ThinId(20),
    };
    let thin = Subject::ThinDevice { thin_id: ThinId(17) };
    let foreign = Subject::ThinDevice { thin_id: ThinId(18) };
    let number = Subject::ThinId { thin_id: ThinId(19) };
    let block = Subject::BlockDevice {
        device: DeviceNumber { major: 7, minor: 1 },
    };
    let none = (Treatment::LeaveAlone, When::Never, Vec::new());
    let (severity, subject, (action, when, acts)) = match class {
        C::LeakedThin => (
            Severity::Space,
            thin,
            (Treatment::DeleteThin, When::Online, vec![delete]),
        ),
        C::ForeignThin => (
            Severity::Outage,
            foreign,
            (Treatment::ReserveId, When::Offline, reserve),
        ),
        C::OrphanRecord | C::StuckCleanup => (
            Severity::Space,
            of_record,
            (Treatment::UndoHalfDone, When::Online, vec![remove, delete]),
        ),
        C::Wedge => (
            Severity::Outage,
            of_record,
            (Treatment::UndoHalfDone, When::Offline, undo),
        ),
        C::FaultyNext => (
            Severity::Notice,
            of_record,
            (Treatment::MarkFaulty, When::Offline, vec![forget]),
        ),
        C::FaultyLive => (
            Severity::Notice,
            of_record,
            (Treatment::RestoreRecord, When::Offline, vec![restore]),
        ),
        C::SuspendedDevice => (
            Severity::Stuck,
            of_node,
            (
                Treatment::ResumeNode,
                When::Online,
                vec![Act::ResumeNode { name: name(), device }],
            ),
        ),
        C::RowWithoutRecord => (
            Severity::Stuck,
            snapshot,
            (Treatment::InsertRemovedRecord, When::Offline, vec![insert]),
        ),
        C::RowWithoutThin => (Severity::Damage, snapshot, none),
        C::OrphanNode => (
            Severity::Stuck,
            of_node,
            (Treatment::RemoveNode, When::Online, vec![remove]),
        ),
        C::BurnedId => (
            Severity::Notice,
            number,
            (Treatment::FreeId, When::Offline, vec![free]),
        ),
        C::ErrorTable => (Severity::Damage, of_node, none),
        C::BlockErrors => (Severity::Damage, block, none),
        C::PoolOutOfSpace | C::PoolReadOnly | C::PoolFailed | C::PoolNeedsCheck => {
            (Severity::Outage, Subject::Pool, none)
        }
        C::PoolMetadataNearlyFull => (Severity::Space, Subject::Pool, none),
        C::MetadataSnapshotHeld => (Severity::Notice, Subject::Pool, none),
        C::FailingCreate => (Severity::Outage, Subject::Pool, none),
        C::FailingRemove => (Severity::Stuck, Subject::Device { name: name() }, none),
    };
    let mark = match &subject {
        Subject::ThinDevice { thin_id } | Subject::ThinId { thin_id } => thin_id.to_string(),
        Subject::Record { .. } | Subject::Node { .. } | Subject::Device { .. } => "7".to_owned(),
        Subject::Snapshot { id, .. } => id.to_string(),
        Subject::Pool | Subject::BlockDevice { .. } => "pool".to_owned(),
    };
    let provenance = match class {
        C::LeakedThin => Provenance::SeenByProbe {
            operation: OperationId::new(testing::at(1), ThinId(17)),
        },
        C::Wedge | C::OrphanRecord => Provenance::ToldByRecord { name: name() },
        _ => Provenance::Unknown,
    };
    Diagnosis {
        finding: Finding {
            id: FindingId(format!("{class}/tp/{mark}")),
            class,
            pool: testing::pool(),
            subject,
            provenance,
            evidence: vec![format!("what was read that makes it {class}")],
            died_in: None,
        },
        severity,
        summary: format!("This is what {class} means for it."),
        consequence: format!("This is what {class} does."),
        users: Users {
            snapshot: Some(core_snapshot("c0ffee0123456789", Some("sha256:top"))),
            containers: vec![container()],
            more_containers: 2,
            images: vec!["docker.io/library/web:1".to_owned()],
            more_images: 0,
        },
        remedy: Treat {
            action,
            when,
            guards: match when {
                When::Never => Vec::new(),
                When::Online | When::Offline => ALL_GUARDS.to_vec(),
            },
            acts,
            why: "This is why.".to_owned(),
        },
        may_be_in_flight: false,
    }
}

const ALL_GUARDS: [Condition; 14] = [
    Condition::StillFound,
    Condition::PoolWritable,
    Condition::NotOpen,
    Condition::Provenance,
    Condition::NoRow,
    Condition::NoRecord,
    Condition::ThinThere,
    Condition::ThinGone,
    Condition::NobodyAtWork,
    Condition::DatabasesWhole,
    Condition::ContainerdStopped,
    Condition::BackedUp,
    Condition::SameTransaction,
    Condition::Named,
];
