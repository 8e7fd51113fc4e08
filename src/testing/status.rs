//! A status in which everything is there once.

use std::collections::BTreeMap;

use super::{at, pool};
use crate::model::{
    FindingClass, FindingId, Incarnation, Status, Subject, ThinId,
    observation::LossKind,
    sense::{Quality, Sense, SenseKind},
    status::{
        Bound, BoundKind, ContainerdStatus, EventKind, FindingStatus, LossTotal, Mode, Overall, ReadResult,
        StatusPlaces, TraceDelivery, WorldRead, WorldReads,
    },
};

/// Of a suture that is well.
pub(crate) fn status() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        pid: 1234,
        since: at(1_000),
        at: at(2_000),
        pool: pool(),
        places: StatusPlaces {
            pool_database: "/var/lib/containerd/devmapper/tp.db".into(),
            snapshot_database: "/var/lib/containerd/devmapper/metadata.db".into(),
            ledger: Some("/var/lib/suture/ledger.db".into()),
        },
        mode: Mode::Heals,
        overall: Overall::because(Vec::new()),
        senses: SenseKind::ALL
            .map(|sense| Sense {
                sense,
                quality: Quality::Full,
                means: match sense {
                    SenseKind::DeviceMapperCalls => "kprobe dm_ctl_ioctl".to_owned(),
                    // What a label must survive.
                    SenseKind::Holder => "the \"lock\"\\\nand a pidfd".to_owned(),
                    _ => format!("tracepoint {}", sense.name()),
                },
                why: Vec::new(),
            })
            .into(),
        gap: None,
        world: WorldReads {
            last: Some(WorldRead {
                at: at(1_999),
                took_us: 12_345,
            }),
            trouble: None,
            results: BTreeMap::from([(ReadResult::Consistent, 9), (ReadResult::Busy, 2)]),
        },
        containerd: ContainerdStatus {
            up: Some(Incarnation {
                pid: 812,
                start_ticks: 77,
                boot: "this boot".to_owned(),
            }),
            unknown: None,
        },
        finding_counts: BTreeMap::from([(FindingClass::LeakedThin, 1)]),
        findings: vec![FindingStatus {
            id: FindingId("leaked-thin/tp/7".to_owned()),
            class: FindingClass::LeakedThin,
            subject: Subject::ThinDevice { thin_id: ThinId(7) },
            first_seen: at(1_990),
            decision: "waits: for its grace".to_owned(),
            verdict: None,
        }],
        open_operations: 1,
        events: BTreeMap::from([(EventKind::DmIoctl, 41), (EventKind::Lost, 1)]),
        losses: vec![LossTotal {
            kind: LossKind::DmRingFull,
            total: 7,
            last: at(1_500),
        }],
        bounds: BoundKind::ALL
            .map(|bound| Bound {
                bound,
                limit: 1_048_576,
                current: (bound == BoundKind::QueueEvents).then_some(5),
                hits: u64::from(bound == BoundKind::DmRingBytes) * 7,
            })
            .into(),
        traces: Some(TraceDelivery {
            endpoint: "http://collector:4317".to_owned(),
            error: Some("refused".to_owned()),
            kept: 12,
            dropped: 3,
        }),
        ledger_trouble: None,
        healing: None,
    }
}
