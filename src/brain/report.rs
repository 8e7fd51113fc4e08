//! What is told: the same from a running suture and from a replay. `Display` is for people, `Serialize` for programs.

use std::{fmt, path::PathBuf};

use serde::Serialize;

use crate::{
    model::{
        ConditionReading, Finding, FindingId, GuardReading, Observation, Operation, OperationState, Outcome,
        Plan, PoolName, RepairOutcome, RepairPlan, Timestamp, observation::BlockError, sense::Sense,
    },
    words::{one_or, trace_id},
};

/// One thing told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "report", rename_all = "snake_case")]
#[expect(missing_docs, reason = "each says itself in its `Display`")]
pub enum Report {
    Started {
        pool: PoolName,
        database: PathBuf,
        act: bool,
    },
    Stopped,
    Degraded {
        why: String,
        senses: Vec<Sense>,
    },
    Recording {
        file: PathBuf,
    },
    RecordingStopped {
        file: PathBuf,
        why: String,
    },
    Replaying {
        pool: PoolName,
        suture: String,
        kernel: String,
        began: Timestamp,
    },
    Replayed {
        entries: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        damage: Option<String>,
    },
    NoLedger {
        why: String,
    },
    LedgerWorks {
        since: Timestamp,
        stored: usize,
        lost: u64,
    },
    NoTraces {
        why: String,
    },
    NotAskable {
        place: String,
        why: String,
    },
    Trouble {
        what: String,
    },
    TroubleOver,
    GapOpened {
        why: String,
    },
    GapClosed {
        why: String,
    },
    TracesHeldBack {
        endpoint: String,
        why: String,
    },
    TracesDelivered {
        endpoint: String,
    },
    Observed {
        observation: Observation,
    },
    BlockErrors {
        newest: BlockError,
        count: u64,
    },
    Operation {
        operation: Box<Operation>,
    },
    Found {
        finding: Finding,
        /// The span that tells of it; none where nobody traces, as in a replay.
        traceparent: Option<String>,
    },
    Decided {
        finding: Finding,
        kind: &'static str,
        text: String,
        plan: Option<Plan>,
    },
    Remedy {
        plan: Plan,
        guards: Vec<GuardReading>,
        outcome: Outcome,
        traceparent: Option<String>,
    },
    NotDone {
        plan: Plan,
        why: String,
    },
    /// What the engine decided about a finding of a healing round.
    Judged {
        finding: Finding,
        kind: &'static str,
        text: String,
        plan: Option<RepairPlan>,
    },
    /// What came of a plan of a healing round.
    Repair {
        plan: RepairPlan,
        conditions: Vec<ConditionReading>,
        outcome: RepairOutcome,
        traceparent: Option<String>,
    },
    /// What had come of a repair that was cut off.
    RepairSettled {
        finding: FindingId,
        outcome: RepairOutcome,
    },
    /// The policy was read anew.
    PolicyRead {
        file: PathBuf,
    },
    /// A new policy can not be used, and the one before stays.
    PolicyRefused {
        file: PathBuf,
        why: String,
    },
    /// A person said what is to be done.
    Commanded {
        who: String,
        what: String,
        effect: String,
    },
    Resolved {
        finding: Finding,
    },
}

impl fmt::Display for Report {
    #[expect(clippy::too_many_lines, reason = "it has an arm for each report")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { pool, database, act } => {
                let how = if *act {
                    "heals what is proven safe"
                } else {
                    "only tells"
                };
                write!(f, "watching pool {pool} and {}; {how}", database.display())
            }
            Self::Stopped => f.write_str("stopped"),
            Self::Degraded { why, senses } => {
                write!(
                    f,
                    "DEGRADED: {why}; what breaks is still found, but later, nobody sees who did it, and nothing is deleted"
                )?;
                senses.iter().try_for_each(|sense| write!(f, "\n      - {sense}"))
            }
            Self::Recording { file } => write!(f, "recording to {}", file.display()),
            Self::RecordingStopped { file, why } => write!(
                f,
                "NO RECORDING any more to {}: {why}; suture goes on watching",
                file.display()
            ),
            Self::Replaying {
                pool,
                suture,
                kernel,
                began,
            } => write!(
                f,
                "replaying what suture {suture} saw of pool {pool} on Linux {kernel} from {began} on"
            ),
            Self::Replayed {
                entries,
                damage: None,
            } => write!(
                f,
                "the recording ends here, after {entries} {}",
                one_or(*entries, "entry", "entries")
            ),
            Self::Replayed {
                entries,
                damage: Some(why),
            } => write!(f, "read up to entry {entries}; {why}"),
            Self::NoLedger { why } => write!(
                f,
                "NO LEDGER: {why}; suture only tells, because nothing is done without a durable intent"
            ),
            Self::LedgerWorks { since, stored, lost } => tell_ledger_works(*since, *stored, *lost, f),
            Self::NoTraces { why } => write!(f, "traces are not exported: {why}"),
            Self::NotAskable { place, why } => write!(f, "nobody can ask this suture at {place}: {why}"),
            Self::Trouble { what } => write!(f, "TROUBLE: {what}"),
            Self::TroubleOver => f.write_str("the trouble is over: the world was read again"),
            Self::GapOpened { why } => {
                write!(f, "GAP: {why}; nothing is deleted while it is open")
            }
            Self::GapClosed { why } => write!(f, "gap closed by a full read of the world ({why})"),
            Self::TracesHeldBack { endpoint, why } => {
                write!(
                    f,
                    "traces can not be delivered to {endpoint} and are kept for later ({why})"
                )
            }
            Self::TracesDelivered { endpoint } => write!(f, "traces are delivered to {endpoint} again"),
            Self::Observed { observation } => observation.fmt(f),
            Self::BlockErrors { newest, count: 1 } => newest.fmt(f),
            Self::BlockErrors { newest, count } => {
                write!(f, "{newest} ({count} of this kind since it was last told)")
            }
            Self::Operation { operation } => tell_operation(operation, f),
            Self::Found { finding, traceparent } => tell_found(finding, traceparent.as_deref(), f),
            Self::Decided {
                finding, text, plan, ..
            } => {
                write!(f, "decision on {finding}: {text}")?;
                if let Some(plan) = plan {
                    let guards: Vec<String> = plan.guards.iter().map(ToString::to_string).collect();
                    write!(f, "\n      guards: {}", guards.join(", "))?;
                }
                Ok(())
            }
            Self::Remedy {
                plan,
                guards,
                outcome,
                ..
            } => {
                write!(f, "REMEDY {}: {outcome}", plan.action)?;
                for reading in guards {
                    let sign = if reading.holds { "holds" } else { "DOES NOT HOLD" };
                    write!(f, "\n      {} {sign}: {}", reading.guard, reading.detail)?;
                }
                Ok(())
            }
            Self::NotDone { plan, why } => write!(f, "NOT DONE {}: {why}", plan.action),
            Self::Judged { finding, text, .. } => write!(f, "decision on {finding}: {text}"),
            Self::Repair {
                plan,
                conditions,
                outcome,
                ..
            } => {
                write!(f, "REPAIR of {}: {outcome}", plan.finding)?;
                for act in &plan.acts {
                    write!(f, "\n      - {act}")?;
                }
                for reading in conditions {
                    let sign = if reading.holds { "holds" } else { "DOES NOT HOLD" };
                    write!(f, "\n      {} {sign}: {}", reading.condition, reading.detail)?;
                }
                Ok(())
            }
            Self::RepairSettled { finding, outcome } => {
                write!(f, "a repair of {finding} had been cut off: {outcome}")
            }
            Self::PolicyRead { file } => write!(f, "the policy in {} holds from now on", file.display()),
            Self::PolicyRefused { file, why } => write!(
                f,
                "POLICY NOT READ from {}: {why}; the one before stays",
                file.display()
            ),
            Self::Commanded { who, what, effect } => write!(f, "{who} said: {what}; {effect}"),
            Self::Resolved { finding } => write!(f, "resolved {finding}"),
        }
    }
}

/// An operation, with where it stands.
fn tell_found(finding: &Finding, traceparent: Option<&str>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "FOUND {finding}")?;
    for text in finding.sentences() {
        write!(f, "\n      - {text}")?;
    }
    match traceparent {
        Some(traceparent) => write!(f, "\n      trace {}", trace_id(traceparent)),
        None => Ok(()),
    }
}

fn tell_ledger_works(since: Timestamp, stored: usize, lost: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "the ledger is written again; it was not since {since}")?;
    match stored {
        0 => {}
        1 => f.write_str(", and one thing that had waited is stored")?,
        many => write!(f, ", and {many} things that had waited are stored")?,
    }
    match lost {
        0 => Ok(()),
        1 => f.write_str("; one more was too much to wait, and is not"),
        many => write!(f, "; {many} more were too much to wait, and are not"),
    }
}

fn tell_operation(operation: &Operation, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "operation: {operation}: ")?;
    let last = operation.steps.last();
    match &operation.state {
        OperationState::InFlight => match last {
            Some(step) => {
                write!(f, "{} -> {}", step.request, step.error.as_deref().unwrap_or("ok"))
            }
            None => f.write_str("in flight"),
        },
        OperationState::Orphaned { .. } => f.write_str("its containerd is gone; was it finished?"),
        OperationState::Abandoned { record, .. } => match record {
            Some(state) => write!(f, "ABANDONED half way; containerd's record says {state}"),
            None => f.write_str("ABANDONED half way; containerd has no record of it"),
        },
        OperationState::Completed { .. } => f.write_str("completed"),
        OperationState::Failed { error } => write!(f, "refused by the kernel with {error}"),
        OperationState::Deleted { .. } => f.write_str("the device is deleted"),
        OperationState::Superseded { .. } => f.write_str("what bears that id now may be another device"),
    }
}
