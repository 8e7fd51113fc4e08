//! What a check says to programs: docs/check.schema.json is its shape, and docs/check.md explains it. Fields are added, never
//! renamed or taken away.

use serde::Serialize;

use super::command;
use crate::{
    cli::look::{Look, Verdict},
    model::{
        Bytes, ContainerdState, DeviceNumber, Diagnosis, Pool, PoolMode, PoolUsage, Provenance, Subject,
        Survey, Timestamp, TxId,
        diagnosis::{Condition, Treatment, When},
        finding::{FindingClass, FindingId},
        survey::{Container, CoreSnapshot, Unread},
    },
};

/// All of it, as one document.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    status: Verdict,
    pool: PoolReport<'a>,
    world: WorldReport<'a>,
    findings: Vec<FindingReport<'a>>,
    in_flight: Vec<FindingReport<'a>>,
    explanations: &'a [String],
}

/// The pool.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct PoolReport<'a> {
    name: &'a str,
    /// None where it is not set up.
    device: Option<DeviceNumber>,
    mode: Option<PoolMode>,
    needs_check: Option<bool>,
    usage: Option<UsageReport>,
}

#[derive(Debug, Serialize)]
struct UsageReport {
    data_used_bytes: u64,
    data_total_bytes: u64,
    metadata_used_bytes: u64,
    metadata_total_bytes: u64,
    block_bytes: Bytes,
    metadata_snapshot_held: bool,
}

/// What was read, and when.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct WorldReport<'a> {
    time: Timestamp,
    took_us: u64,
    transactions: Transactions,
    counts: Counts,
    containerd: ContainerdReport<'a>,
    async_remove: Option<bool>,
    /// Whether a running suture watches this pool without a gap.
    watched: bool,
    unread: &'a [Unread],
    not_understood: &'a [String],
}

#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "these are the names that programs read")]
struct Transactions {
    pool_database: TxId,
    snapshot_database: Option<TxId>,
    containerd_database: Option<TxId>,
}

#[derive(Debug, Serialize)]
struct Counts {
    records: usize,
    thin_ids: usize,
    snapshots: usize,
    /// None where the pool's metadata could not be read.
    thin_devices: Option<usize>,
    dm_devices: usize,
    /// None where containerd's own database was not read: there is nobody to tell of, or it could not be.
    containers: Option<usize>,
    images: Option<usize>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
enum ContainerdReport<'a> {
    Running { pid: u32, at_work: &'a [String] },
    Stopped { at_work: &'a [String] },
    Unknown { why: &'a str },
}

/// One finding.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct FindingReport<'a> {
    id: &'a FindingId,
    class: FindingClass,
    severity: &'static str,
    summary: &'a str,
    consequence: &'a str,
    subject: SubjectReport<'a>,
    evidence: &'a [String],
    provenance: &'a Provenance,
    affected: Affected<'a>,
    remedy: RemedyReport<'a>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum SubjectReport<'a> {
    ThinDevice { thin_id: u32 },
    Record { name: &'a str, thin_id: u32 },
    ThinId { thin_id: u32 },
    Snapshot { id: u64, key: &'a str },
    DmDevice { name: &'a str, device: DeviceNumber },
    Device { name: &'a str },
    Pool,
    BlockDevice { device: DeviceNumber },
}

#[derive(Debug, Serialize)]
struct Affected<'a> {
    snapshot: Option<&'a CoreSnapshot>,
    containers: &'a [Container],
    more_containers: usize,
    images: &'a [String],
    more_images: usize,
}

#[derive(Debug, Serialize)]
struct RemedyReport<'a> {
    action: Treatment,
    when: When,
    guards: &'a [Condition],
    acts: Vec<String>,
    why: &'a str,
    /// For a shell; none where suture does nothing.
    command: Option<String>,
}

impl<'a> Report<'a> {
    pub(super) fn new(look: &'a Look) -> Self {
        let each = |found: &'a [Diagnosis]| found.iter().map(|one| FindingReport::new(one, look)).collect();
        Self {
            status: look.verdict(),
            pool: PoolReport::new(&look.survey),
            world: WorldReport::new(look),
            findings: each(&look.diagnoses.found),
            in_flight: each(&look.in_flight),
            explanations: &look.diagnoses.explanations,
        }
    }
}

impl<'a> PoolReport<'a> {
    pub(in crate::cli) fn new(survey: &'a Survey) -> Self {
        let pool = survey.pool.as_ref();
        Self {
            name: survey.pool_name.as_str(),
            device: pool.map(|pool| pool.device),
            mode: pool.map(|pool: &Pool| pool.mode),
            needs_check: pool.map(|pool| pool.needs_check),
            usage: survey.usage.map(UsageReport::from),
        }
    }
}

impl From<PoolUsage> for UsageReport {
    fn from(usage: PoolUsage) -> Self {
        let data = |blocks: u64| blocks.saturating_mul(usage.block_size.0);
        let metadata = |blocks: u64| blocks.saturating_mul(METADATA_BLOCK);
        Self {
            data_used_bytes: data(usage.data_used),
            data_total_bytes: data(usage.data_total),
            metadata_used_bytes: metadata(usage.metadata_used),
            metadata_total_bytes: metadata(usage.metadata_total),
            block_bytes: usage.block_size,
            metadata_snapshot_held: usage.held_root.is_some(),
        }
    }
}

/// `THIN_METADATA_BLOCK_SIZE`, drivers/md/dm-thin-metadata.h: 8 sectors.
const METADATA_BLOCK: u64 = 4096;

impl<'a> WorldReport<'a> {
    pub(in crate::cli) fn new(look: &'a Look) -> Self {
        let survey = &look.survey;
        let core = survey.core.as_ref();
        Self {
            time: survey.begun,
            took_us: u64::try_from(look.took.as_micros()).unwrap_or(u64::MAX),
            transactions: Transactions {
                pool_database: survey.pool_db.txid,
                snapshot_database: survey.snapshots.txid,
                containerd_database: core.map(|core| core.txid),
            },
            counts: Counts {
                records: survey.pool_db.devices.len(),
                thin_ids: survey.pool_db.device_ids.len(),
                snapshots: survey.snapshots.snapshots.len(),
                thin_devices: survey.thin.as_ref().map(std::collections::BTreeMap::len),
                dm_devices: survey.nodes.len(),
                containers: core.map(|core| core.containers.len()),
                images: core.map(|core| core.images.len()),
            },
            containerd: match &survey.containerd {
                ContainerdState::Running { who, at_work } => ContainerdReport::Running {
                    pid: who.pid,
                    at_work,
                },
                ContainerdState::Stopped { at_work } => ContainerdReport::Stopped { at_work },
                ContainerdState::Unknown { why } => ContainerdReport::Unknown { why },
            },
            async_remove: survey.async_remove,
            watched: look.knowledge.watched,
            unread: &survey.unread,
            not_understood: &look.diagnoses.not_understood,
        }
    }
}

impl<'a> FindingReport<'a> {
    pub(in crate::cli) fn new(one: &'a Diagnosis, look: &Look) -> Self {
        Self {
            id: &one.finding.id,
            class: one.finding.class,
            severity: one.severity.name(),
            summary: &one.summary,
            consequence: &one.consequence,
            subject: SubjectReport::from(&one.finding.subject),
            evidence: &one.finding.evidence,
            provenance: &one.finding.provenance,
            affected: Affected {
                snapshot: one.users.snapshot.as_ref(),
                containers: &one.users.containers,
                more_containers: one.users.more_containers,
                images: &one.users.images,
                more_images: one.users.more_images,
            },
            remedy: RemedyReport {
                action: one.remedy.action,
                when: one.remedy.when,
                guards: &one.remedy.guards,
                acts: one.remedy.acts.iter().map(ToString::to_string).collect(),
                why: &one.remedy.why,
                command: command(one, look),
            },
        }
    }
}

impl<'a> From<&'a Subject> for SubjectReport<'a> {
    fn from(subject: &'a Subject) -> Self {
        match subject {
            Subject::ThinDevice { thin_id } => Self::ThinDevice { thin_id: thin_id.0 },
            Subject::Record { name, thin_id } => Self::Record {
                name,
                thin_id: thin_id.0,
            },
            Subject::ThinId { thin_id } => Self::ThinId { thin_id: thin_id.0 },
            Subject::Snapshot { id, key } => Self::Snapshot { id: id.0, key },
            Subject::Node { name, device } => Self::DmDevice {
                name,
                device: *device,
            },
            Subject::Device { name } => Self::Device { name },
            Subject::Pool => Self::Pool,
            Subject::BlockDevice { device } => Self::BlockDevice { device: *device },
        }
    }
}
