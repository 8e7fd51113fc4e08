//! What every family judges by: the survey, its index, and how a diagnosis is put together.

use std::{cell::OnceCell, fmt::Display};

use super::{index::Index, whole::Whole, words};
use crate::model::{
    ContainerdState, Diagnosis, Finding, FindingClass, FindingId, Knowledge, Node, Provenance, Severity,
    SnapshotId, Subject, Survey, ThinId, Treat, Treatment, UserIndex, Users, When, survey::Claim,
};

/// A survey with its index.
pub(super) struct Scene<'a> {
    pub(super) survey: &'a Survey,
    pub(super) knowledge: &'a Knowledge,
    pub(super) index: Index<'a>,
    pub(super) whole: Whole,
    users: OnceCell<Option<UserIndex<'a>>>,
}

/// What a family found, before it is put together.
pub(super) struct Case {
    pub(super) class: FindingClass,
    /// What tells it from others of its class.
    pub(super) mark: String,
    pub(super) subject: Subject,
    pub(super) provenance: Provenance,
    pub(super) severity: Severity,
    pub(super) summary: String,
    pub(super) evidence: Vec<String>,
    pub(super) consequence: String,
    pub(super) users: Users,
    pub(super) remedy: Treat,
    pub(super) may_be_in_flight: bool,
}

impl<'a> Scene<'a> {
    pub(super) fn new(survey: &'a Survey, knowledge: &'a Knowledge) -> Self {
        let index = Index::new(survey);
        let whole = Whole::new(survey, &index);
        Self {
            survey,
            knowledge,
            index,
            whole,
            users: OnceCell::new(),
        }
    }

    /// Puts a diagnosis together.
    pub(super) fn diagnosis(&self, case: Case) -> Diagnosis {
        let pool = &self.survey.pool_name;
        Diagnosis {
            finding: Finding {
                id: FindingId::new(case.class, pool, &case.mark),
                class: case.class,
                pool: pool.clone(),
                subject: case.subject,
                provenance: case.provenance,
                evidence: case.evidence,
                died_in: None,
            },
            severity: case.severity,
            summary: case.summary,
            consequence: case.consequence,
            users: case.users,
            remedy: case.remedy,
            may_be_in_flight: case.may_be_in_flight,
        }
    }

    /// Who uses a snapshot, by its backend key.
    pub(super) fn users(&self, key: &str) -> Users {
        let index = self
            .users
            .get_or_init(|| self.survey.core.as_deref().map(UserIndex::new));
        index
            .as_ref()
            .map(|index| index.users_of(key))
            .unwrap_or_default()
    }

    /// Who uses the snapshot of a number.
    pub(super) fn users_of(&self, id: SnapshotId) -> Users {
        match self.index.rows.of(&id) {
            [(_, row)] => self.users(row.key),
            _ => Users::default(),
        }
    }

    /// The claim on a thin device, where it is for this very device.
    pub(super) fn claim(&self, id: ThinId) -> Option<&'a Claim> {
        let claim = self.knowledge.claims.get(&id).filter(|_| id <= ThinId::MAX)?;
        (self.survey.mark_of(id).as_ref() == Some(&claim.mark)).then_some(claim)
    }

    /// Whether no containerd runs; what can not be told counts as running.
    pub(super) fn is_stopped(&self) -> bool {
        matches!(self.survey.containerd, ContainerdState::Stopped { .. })
    }

    /// The name of a snapshot's device (`getDeviceName`, plugins/snapshots/devmapper/snapshotter.go).
    pub(super) fn device_name(&self, id: SnapshotId) -> String {
        format!("{}-snap-{id}", self.survey.pool_name)
    }

    /// Why the pool can not be asked to delete anything; nothing where it can.
    pub(super) fn pool_refuses(&self) -> Option<String> {
        let Some(pool) = &self.survey.pool else {
            return Some("the pool is not set up, so nothing can be done in it".to_owned());
        };
        pool.refuses_deletes()
    }

    /// Why a dm device can not be removed now; nothing where it can.
    pub(super) fn node_is_busy(&self, node: &Node) -> Option<String> {
        if self.survey.pool.is_none() {
            return Some(format!(
                "the pool is not set up, so dm device {} is left as it is",
                node.name
            ));
        }
        let mounted = self.survey.mounts.by_device.contains_key(&node.device);
        (node.open_count > 0 || mounted).then(|| {
            format!(
                "dm device {} is in use: {}",
                node.name,
                words::use_of(self.survey, node)
            )
        })
    }
}

/// A remedy that does nothing.
pub(super) fn leave_alone(why: impl Display) -> Treat {
    Treat {
        action: Treatment::LeaveAlone,
        when: When::Never,
        guards: Vec::new(),
        acts: Vec::new(),
        why: why.to_string(),
    }
}
