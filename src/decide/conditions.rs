//! Whether what a repair rests on holds in a survey that was read just now. All but those of the moment itself: the lock, the
//! backup and the transaction are read by whoever acts.

mod at_work;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    model::{
        Act, Condition, ConditionReading, ContainerdState, Diagnoses, Diagnosis, IdState, Knowledge, Node,
        PoolActivation, Provenance, RepairPlan, SnapshotId, Survey, ThinId,
    },
    words::times,
};

/// A survey with what it shows, by the keys that conditions ask for.
pub struct Evidence<'a> {
    survey: &'a Survey,
    knowledge: &'a Knowledge,
    /// The life of the pool in which the plans were made.
    activation: Option<&'a PoolActivation>,
    findings: BTreeMap<&'a str, &'a Diagnosis>,
    /// Names of records by the thin ids that they carry, in that order.
    carriers: Vec<(ThinId, &'a str)>,
    /// Numbers of the snapshots that are listed, ascending.
    rows: Vec<SnapshotId>,
    holders: BTreeMap<ThinId, Vec<&'a Node>>,
    doubt: Option<String>,
}

impl<'a> Evidence<'a> {
    /// Of a survey. `activation` is the pool's when the plans were made.
    #[must_use]
    pub fn new(
        survey: &'a Survey,
        diagnoses: &'a Diagnoses,
        knowledge: &'a Knowledge,
        activation: Option<&'a PoolActivation>,
    ) -> Self {
        let records = survey.pool_db.devices.values();
        let mut carriers: Vec<_> = records
            .map(|record| (record.device_id, record.name.as_str()))
            .collect();
        carriers.sort_unstable();
        let mut holders: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for node in &survey.nodes {
            for id in &node.thin_ids {
                holders.entry(*id).or_default().push(node);
            }
        }
        let findings = diagnoses.found.iter();
        let rows = survey.snapshots.snapshots.values();
        let mut rows: Vec<_> = rows.map(|row| row.id).collect();
        rows.sort_unstable();
        rows.dedup();
        Self {
            survey,
            knowledge,
            activation,
            findings: findings.map(|one| (one.finding.id.0.as_str(), one)).collect(),
            carriers,
            holders,
            doubt: doubt(survey, &rows),
            rows,
        }
    }

    /// Reads each condition of a plan but `containerd-stopped` of the moment, `backed-up` and `same-transaction`.
    #[must_use]
    pub fn read(&self, plan: &RepairPlan) -> Vec<ConditionReading> {
        let of_the_moment = [Condition::BackedUp, Condition::SameTransaction];
        self.read_some(plan, |condition| !of_the_moment.contains(&condition))
    }

    /// The same of the conditions that are still to be asked once the plan's own first edits are in the database: those say
    /// that the finding is another one now, and that nobody else wrote is proven by the transaction.
    #[must_use]
    pub fn read_after_edits(&self, plan: &RepairPlan) -> Vec<ConditionReading> {
        let asked = [
            Condition::PoolWritable,
            Condition::NotOpen,
            Condition::NoRow,
            Condition::ThinThere,
            Condition::NobodyAtWork,
            Condition::ContainerdStopped,
        ];
        self.read_some(plan, |condition| asked.contains(&condition))
    }

    fn read_some(&self, plan: &RepairPlan, wanted: impl Fn(Condition) -> bool) -> Vec<ConditionReading> {
        let conditions = plan.conditions.iter().copied().filter(|one| wanted(*one));
        let read = conditions.map(|condition| {
            let (holds, detail) = match self.one(condition, plan) {
                Ok(detail) => (true, detail),
                Err(detail) => (false, detail),
            };
            ConditionReading {
                condition,
                holds,
                detail,
            }
        });
        read.collect()
    }

    /// Names of the records that carry a thin id.
    fn carriers_of(&self, id: ThinId) -> impl Iterator<Item = &'a str> {
        let begin = self.carriers.partition_point(|(carried, _)| *carried < id);
        let rest = self.carriers.iter().skip(begin);
        rest.take_while(move |(carried, _)| *carried == id)
            .map(|(_, name)| *name)
    }

    fn one(&self, condition: Condition, plan: &RepairPlan) -> Result<String, String> {
        match condition {
            Condition::StillFound => self.still_found(plan),
            Condition::PoolWritable => self.pool_writable(),
            Condition::NotOpen => self.not_open(plan),
            Condition::Provenance => self.provenance(plan),
            Condition::NoRow => self.no_row(plan),
            Condition::NoRecord => self.no_record(plan),
            Condition::ThinThere => self.thin(&wants_thin(plan), true),
            Condition::ThinGone => self.thin(&wants_no_thin(plan), false),
            Condition::NobodyAtWork => self.nobody_at_work(plan),
            Condition::DatabasesWhole => match &self.doubt {
                None => Ok("both databases are whole".to_owned()),
                Some(doubt) => Err(doubt.clone()),
            },
            Condition::ContainerdStopped => match &self.survey.containerd {
                ContainerdState::Stopped { .. } => Ok("nobody holds the pool database's lock".to_owned()),
                ContainerdState::Running { who, .. } => Err(format!("containerd runs: {who}")),
                ContainerdState::Unknown { why } => Err(why.clone()),
            },
            Condition::Named => Ok("a person named it".to_owned()),
            Condition::BackedUp | Condition::SameTransaction => Err("not read yet".to_owned()),
        }
    }

    fn still_found(&self, plan: &RepairPlan) -> Result<String, String> {
        match self.findings.get(plan.finding.0.as_str()) {
            None => Err("a new look does not find it any more".to_owned()),
            Some(now) if now.remedy.action != plan.remedy.action || now.remedy.acts != plan.remedy.acts => {
                Err("a new look finds it, and has another remedy for it".to_owned())
            }
            // Whose the device is is asked by a condition of its own, on which not every act of a plan rests: the program that
            // wrote to it may have ended since, and it is another one to look at.
            Some(now)
                if now.finding.class != plan.class
                    || (now.finding.provenance != plan.provenance
                        && !plan.conditions.contains(&Condition::Provenance)) =>
            {
                Err("a new look finds something else about it".to_owned())
            }
            Some(_) => Ok("a new look finds it just so".to_owned()),
        }
    }

    fn pool_writable(&self) -> Result<String, String> {
        let Some(pool) = &self.survey.pool else {
            return Err(format!("the pool {} is not set up", self.survey.pool_name));
        };
        if self.activation != Some(&pool.activation) {
            return Err("the pool was taken down and set up again since".to_owned());
        }
        match pool.refuses_deletes() {
            Some(why) => Err(why),
            None => Ok(format!(
                "the pool is {}, and takes what it is asked to do",
                pool.mode
            )),
        }
    }

    fn not_open(&self, plan: &RepairPlan) -> Result<String, String> {
        let removed = |node: &Node| {
            plan.acts.iter().any(|act| {
                matches!(act, Act::RemoveNode { name, device }
                    if node.name.as_str() == name && node.device == *device)
            })
        };
        let deletes: Vec<_> = plan.deletes().collect();
        if let (Some(node), false) = (
            self.survey
                .nodes
                .iter()
                .find(|node| node.unreadable && !removed(node)),
            deletes.is_empty(),
        ) {
            return Err(format!("dm device {node} can not be read and may map it"));
        }
        for id in deletes {
            let holders = self.holders.get(&id).into_iter().flatten();
            if let Some(node) = holders.copied().find(|node| !removed(node)) {
                return Err(format!("thin device {id} is open through dm device {node}"));
            }
        }
        for node in self.survey.nodes.iter().filter(|node| removed(node)) {
            if node.open_count > 0 {
                return Err(format!("dm device {node} is open {}", times(node.open_count)));
            }
            if let Some(mount) = self
                .survey
                .mounts
                .by_device
                .get(&node.device)
                .and_then(|all| all.first())
            {
                return Err(format!(
                    "dm device {node} is mounted at {} by {} [{}]",
                    mount.path.escape_debug(),
                    mount.process.escape_debug(),
                    mount.pid
                ));
            }
        }
        Ok("nobody has it open".to_owned())
    }

    fn provenance(&self, plan: &RepairPlan) -> Result<String, String> {
        for id in plan.deletes() {
            let known = match &plan.provenance {
                Provenance::SeenByProbe { operation } => {
                    let claim = self.knowledge.claims.get(&id);
                    let mark = self.survey.mark_of(id);
                    claim.is_some_and(|claim| {
                        claim.operation == *operation && mark.as_ref() == Some(&claim.mark)
                    })
                }
                Provenance::ToldByRecord { name } => self
                    .survey
                    .pool_db
                    .devices
                    .get(name)
                    .is_some_and(|record| record.device_id == id),
                Provenance::Unknown => false,
            };
            if !known {
                return Err(format!("nobody can prove that containerd made thin device {id}"));
            }
        }
        Ok(match &plan.provenance {
            Provenance::SeenByProbe { operation } => {
                format!("suture saw it being made and abandoned ({operation}), and it is the very device")
            }
            Provenance::ToldByRecord { name } => {
                format!("containerd's record {} names it", name.escape_debug())
            }
            Provenance::Unknown => "nothing is deleted".to_owned(),
        })
    }

    fn no_row(&self, plan: &RepairPlan) -> Result<String, String> {
        let by_id = plan.deletes().flat_map(|id| self.carriers_of(id));
        let names = plan.acts.iter().filter_map(record_name).chain(by_id);
        for name in names {
            let row = self.survey.pool_name.snapshot_of(name);
            if let Some(id) = row.filter(|id| self.rows.binary_search(id).is_ok()) {
                return Err(format!("snapshot {id} uses {}", name.escape_debug()));
            }
        }
        Ok("no snapshot uses it".to_owned())
    }

    fn no_record(&self, plan: &RepairPlan) -> Result<String, String> {
        let own: Vec<_> = plan.acts.iter().filter_map(record_name).collect();
        let freed = plan.acts.iter().filter_map(|act| match act {
            Act::SetId { thin_id, .. } | Act::InsertRemovedRecord { thin_id, .. } => Some(*thin_id),
            _ => None,
        });
        let stopped = matches!(self.survey.containerd, ContainerdState::Stopped { .. });
        for id in plan.deletes().chain(freed) {
            if let Some(name) = self.carriers_of(id).find(|name| !own.contains(name)) {
                return Err(format!("the record {} carries id {id}", name.escape_debug()));
            }
            // A running containerd may draw an id that is not faulty at any moment, and make a device of it.
            if !stopped && self.survey.id_state(id) != Some(IdState::Faulty) {
                return Err(format!(
                    "containerd runs and does not have id {id} as faulty: it may draw it at any moment; try again with containerd stopped"
                ));
            }
        }
        Ok("no record carries its id".to_owned())
    }

    fn thin(&self, ids: &[ThinId], there: bool) -> Result<String, String> {
        for id in ids {
            match self.survey.has_thin(*id) {
                None => return Err("the pool's metadata could not be read".to_owned()),
                Some(found) if found == there => {}
                Some(true) => return Err(format!("thin device {id} is in the pool")),
                Some(false) => return Err(format!("thin device {id} is not in the pool")),
            }
        }
        if ids.is_empty() && !there {
            return Ok("the thin device is deleted before".to_owned());
        }
        Ok(format!(
            "the pool's metadata {} it",
            if there { "have" } else { "do not have" }
        ))
    }
}

/// The first condition that does not hold.
#[must_use]
pub fn first_refusal(readings: &[ConditionReading]) -> Option<&ConditionReading> {
    readings.iter().find(|reading| !reading.holds)
}

/// The record or dm device of containerd's names that an act is about.
fn record_name(act: &Act) -> Option<&str> {
    match act {
        Act::MarkFaulty { record } | Act::ForgetRecord { record } | Act::RestoreRecord { record, .. } => {
            Some(&record.name)
        }
        Act::RemoveNode { name, .. } | Act::InsertRemovedRecord { name, .. } => Some(name),
        Act::ResumeNode { .. } | Act::DeleteThin { .. } | Act::SetId { .. } | Act::RaiseIdSequence { .. } => {
            None
        }
    }
}

fn wants_thin(plan: &RepairPlan) -> Vec<ThinId> {
    let restored = plan.acts.iter().filter_map(|act| match act {
        Act::RestoreRecord { record, .. } => Some(record.device_id),
        _ => None,
    });
    let ids: Vec<_> = plan.deletes().chain(restored).collect();
    if ids.is_empty() {
        return plan.subject.thin_id().into_iter().collect();
    }
    ids
}

fn wants_no_thin(plan: &RepairPlan) -> Vec<ThinId> {
    let deleted: BTreeSet<_> = plan.deletes().collect();
    let freed = plan.acts.iter().filter_map(|act| match act {
        Act::ForgetRecord { record } => Some(record.device_id),
        Act::InsertRemovedRecord { thin_id, .. }
        | Act::SetId {
            thin_id,
            to: IdState::Free,
            ..
        } => Some(*thin_id),
        _ => None,
    });
    freed.filter(|id| !deleted.contains(id)).collect()
}

/// What speaks against the databases belonging together; the diagnosis asks more, and is asked again beside this.
fn doubt(survey: &Survey, rows: &[SnapshotId]) -> Option<String> {
    let devices = &survey.pool_db.devices;
    if let Some(why) = survey.storage_doubt() {
        return Some(why);
    }
    if rows.len() < survey.snapshots.snapshots.len() {
        return Some("metadata.db contradicts itself: more than one snapshot has the same number".to_owned());
    }
    let beyond = devices.values().find(|record| {
        survey
            .snapshot_of(record)
            .is_some_and(|id| survey.is_beyond_the_next(id))
    });
    beyond.map(|record| {
        format!(
            "the record {} is of a snapshot that metadata.db has not drawn yet: metadata.db was lost, or is an older one",
            record.name.escape_debug()
        )
    })
}
