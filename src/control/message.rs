//! What is said over the socket: one line of JSON each way. docs/control.md describes it for who writes a client.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::{Effect, PlanId, Refusal, Status, Timestamp, healing::PlanStatus, status::FindingStatus};

/// The version of what is said. It changes when an old client would misunderstand; new questions and new fields in answers
/// do not change it.
pub const PROTOCOL: u64 = 1;
/// Characters of a reason, and of a name.
const LONGEST_WORDS: usize = 500;
/// The longest pause with an end.
const LONGEST_PAUSE: u64 = 366 * 86_400;

/// What may be asked: one line of JSON, such as `{"ask":"status"}` or `{"ask":"pause","for_seconds":3600,"protocol":1}`.
/// A field that is not known here is refused, because it would have made the command another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How suture is.
    Status {},
    /// The findings that stand.
    Findings {},
    /// The plans that they have now.
    Plans {
        /// Only those whose name, or whose finding's name, begins so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        about: Option<String>,
    },
    /// Carry out a plan.
    Approve {
        /// Which.
        plan: PlanId,
        /// For whom, as the asker says; it is kept beside who they are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// Never carry out a plan.
    Reject {
        /// Which.
        plan: PlanId,
        /// Why.
        #[serde(default)]
        why: String,
        /// For whom.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// Do nothing.
    Pause {
        /// So many seconds from now; until `resume` without.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        for_seconds: Option<u64>,
        /// Why.
        #[serde(default)]
        why: String,
        /// For whom.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// Go on.
    Resume {
        /// For whom.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
}

impl Request {
    /// As it goes over the socket, without its line end.
    pub(super) fn line(&self) -> serde_json::Result<String> {
        let mut value = serde_json::to_value(self)?;
        if let Value::Object(fields) = &mut value {
            // The status is asked for as ever, so that a suture of before this understands.
            if !matches!(self, Self::Status {}) {
                fields.insert("protocol".to_owned(), PROTOCOL.into());
            }
        }
        serde_json::to_string(&value)
    }

    /// What a line asks; or why that can not be told.
    pub(super) fn understand(line: &[u8]) -> Result<Self, String> {
        let not_understood = |error: &dyn std::fmt::Display| {
            format!("the request is not understood ({error}); one that is: {{\"ask\":\"status\"}}")
        };
        // As a map: a list would be understood too, field by field, whatever the fields are.
        let mut fields: Map<String, Value> =
            serde_json::from_slice(line).map_err(|error| not_understood(&error))?;
        if let Some(protocol) = fields.remove("protocol")
            && protocol != PROTOCOL
        {
            return Err(not_understood(&format!(
                "it is of protocol {protocol}, and this suture speaks {PROTOCOL}"
            )));
        }
        let request: Self = serde_json::from_value(fields.into()).map_err(|error| not_understood(&error))?;
        request.within_bounds().map_err(|what| not_understood(&what))?;
        Ok(request)
    }

    fn within_bounds(&self) -> Result<(), String> {
        let (words, time): (Vec<&str>, Option<u64>) = match self {
            Self::Status {} | Self::Findings {} => (Vec::new(), None),
            Self::Plans { about } => (about.as_deref().into_iter().collect(), None),
            Self::Approve { plan, by } => (by.as_deref().into_iter().chain([plan.as_str()]).collect(), None),
            Self::Reject { plan, why, by } => (
                by.as_deref().into_iter().chain([plan.as_str(), why]).collect(),
                None,
            ),
            Self::Pause { for_seconds, why, by } => (
                by.as_deref().into_iter().chain([why.as_str()]).collect(),
                *for_seconds,
            ),
            Self::Resume { by } => (by.as_deref().into_iter().collect(), None),
        };
        if words.iter().any(|one| one.chars().count() > LONGEST_WORDS) {
            return Err(format!("a text may have {LONGEST_WORDS} characters"));
        }
        if time.is_some_and(|seconds| seconds == 0 || seconds > LONGEST_PAUSE) {
            return Err(format!("a pause lasts 1 to {LONGEST_PAUSE} seconds"));
        }
        Ok(())
    }
}

/// What is answered: one line of JSON.
#[derive(Debug, Serialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(super) enum Answer<'s> {
    /// How suture is.
    Status {
        /// The last that the agent published.
        status: &'s Status,
    },
    /// The findings that stand.
    Findings {
        /// When this was put together.
        at: Timestamp,
        /// suture's process.
        pid: u32,
        /// How many there are.
        total: u64,
        /// The oldest of them, at most [`Status::MAX_FINDINGS`].
        findings: &'s [FindingStatus],
        /// What keeps suture from healing, a plain sentence each.
        obstacles: Vec<String>,
    },
    /// The plans.
    Plans {
        /// Those that were asked for.
        plans: Vec<&'s PlanStatus>,
    },
    /// A command was followed.
    Followed {
        /// What came of it.
        effect: Effect,
    },
    /// A command was not followed.
    NotFollowed {
        /// Why, for programs.
        refusal: Refusal,
        /// Why, in a sentence.
        why: String,
    },
    /// Nothing is told, and nothing done.
    Refused {
        /// Why, in a sentence.
        why: String,
    },
}

impl Answer<'_> {
    /// As it goes over the socket, with its line end.
    pub(super) fn line(&self) -> serde_json::Result<Vec<u8>> {
        #[derive(Serialize)]
        struct Line<'a> {
            #[serde(flatten)]
            answer: &'a Answer<'a>,
            protocol: u64,
        }
        let mut line = serde_json::to_vec(&Line {
            answer: self,
            protocol: PROTOCOL,
        })?;
        line.push(b'\n');
        Ok(line)
    }
}

/// The findings that stand, as a running suture says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StandingFindings {
    /// When this was put together.
    pub at: Timestamp,
    /// Its process.
    pub pid: u32,
    /// How many there are.
    pub total: u64,
    /// The oldest of them.
    pub findings: Vec<FindingStatus>,
    /// What keeps it from healing, a plain sentence each.
    pub obstacles: Vec<String>,
}

/// What a running suture answers, as its client reads it. A status stays as it came: another version may say more, or less.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(super) enum Heard {
    Status { status: Value },
    Findings(StandingFindings),
    Plans { plans: Vec<PlanStatus> },
    Followed { effect: Effect },
    NotFollowed { why: String },
    Refused { why: String },
}
