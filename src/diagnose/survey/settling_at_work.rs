//! On what somebody is at work at this moment: programs that containerd has started, and what a sidecar sees.

use std::collections::BTreeSet;

use crate::model::{ContainerdState, Diagnosis, Knowledge, Subject, Survey, ThinId};

/// What is worked on.
pub(super) struct Work<'a> {
    knowledge: &'a Knowledge,
    /// dm devices that programs name, and those of the thin devices that a sidecar sees somebody at work on.
    names: BTreeSet<String>,
    /// Thin ids that messages to the pool name.
    ids: BTreeSet<ThinId>,
    /// Set when a program does not tell what it works on: then it may be anything.
    anything: bool,
    /// Set when there is a program.
    any_program: bool,
}

/// Words of a message to the pool that are followed by thin ids (`pool_message`, drivers/md/dm-thin.c).
const MESSAGES: [&str; 3] = ["create_thin", "create_snap", "delete"];

impl<'a> Work<'a> {
    pub(super) fn new(survey: &Survey, knowledge: &'a Knowledge) -> Self {
        let programs: &[String] = match &survey.containerd {
            ContainerdState::Running { at_work, .. } | ContainerdState::Stopped { at_work } => at_work,
            ContainerdState::Unknown { .. } => &[],
        };
        let mut work = Self {
            knowledge,
            names: BTreeSet::new(),
            ids: BTreeSet::new(),
            anything: false,
            any_program: !programs.is_empty(),
        };
        if !knowledge.at_work.is_empty() {
            work.names.extend(names_of(survey, knowledge));
        }
        for program in programs {
            let (names, ids) = subjects(survey, program);
            work.anything |= names.is_empty() && ids.is_empty();
            work.names.extend(names);
            work.ids.extend(ids);
        }
        work
    }

    /// Whether nobody is at work on anything.
    pub(super) fn is_none(&self) -> bool {
        !self.any_program && self.knowledge.at_work.is_empty()
    }

    /// Whether somebody is, or may be, at work on what a diagnosis is about.
    pub(super) fn is_on(&self, one: &Diagnosis) -> bool {
        let by_id = |id: ThinId| self.ids.contains(&id) || self.knowledge.at_work.contains_key(&id);
        let by_name = |name: &str| self.names.contains(name);
        self.anything
            || match &one.finding.subject {
                Subject::Record { name, thin_id } => by_name(name) || by_id(*thin_id),
                Subject::Node { name, .. } | Subject::Device { name } => by_name(name),
                Subject::Snapshot { id, .. } => by_name(&format!("{}-snap-{id}", one.finding.pool)),
                Subject::ThinDevice { thin_id } | Subject::ThinId { thin_id } => by_id(*thin_id),
                Subject::Pool | Subject::BlockDevice { .. } => false,
            }
    }
}

/// The names of records and dm devices on thin devices that a sidecar sees somebody at work on.
fn names_of(survey: &Survey, knowledge: &Knowledge) -> Vec<String> {
    let is_busy = |id: &ThinId| knowledge.at_work.contains_key(id);
    let records = survey.pool_db.devices.values();
    let records = records.filter(|record| is_busy(&record.device_id));
    let nodes = survey.nodes.iter();
    let nodes = nodes.filter(|node| node.thin_ids.iter().any(is_busy));
    let names = records.map(|record| record.name.clone());
    names
        .chain(nodes.map(|node| node.name.as_str().to_owned()))
        .collect()
}

/// The dm devices and thin ids that a program's command line names.
fn subjects(survey: &Survey, program: &str) -> (Vec<String>, Vec<ThinId>) {
    let is_part = |one: char| one.is_ascii_alphanumeric() || "-_.+:@".contains(one);
    let mut names = Vec::new();
    let mut ids = Vec::new();
    let mut in_message = false;
    for word in program.split(|one| !is_part(one)).filter(|word| !word.is_empty()) {
        if MESSAGES.contains(&word) {
            in_message = true;
        } else if let (true, Ok(id)) = (in_message, word.parse()) {
            ids.push(ThinId(id));
        } else {
            in_message = false;
            if survey.pool_name.snapshot_of(word).is_some() {
                names.push(word.to_owned());
            }
        }
    }
    (names, ids)
}
