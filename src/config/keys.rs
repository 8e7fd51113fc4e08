//! Every key with a value of its own: its name, what it means, how it is read and how it is printed. Reading, `config default`
//! and what is said about a wrong key all go by this list.

use std::path::PathBuf;

use toml::de::DeValue;

use super::{
    ControlSettings, LedgerSettings,
    values::{self, A_SIZE, A_TIME, Word},
};
use crate::{
    decide::engine::{PolicyParts, Zone},
    model::Bytes,
};

/// A configuration that is being read or printed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Draft {
    pub(super) policy: PolicyParts,
    pub(super) ledger: LedgerSettings,
    pub(super) control: ControlSettings,
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) expected: String,
}

type Take = fn(&mut Draft, &DeValue<'_>) -> Result<(), Wrong>;

/// One key.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) show: fn(&Draft) -> String,
    pub(super) take: Take,
}

/// A table of keys.
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) keys: &'static [Key],
}

/// The tables, in the order in which they are printed.
pub(super) const TABLES: [Table; 8] = [POLICY, NODE, POOL, BACK_OFF, BREAKER, QUIET, LEDGER, CONTROL];

const POLICY: Table = Table {
    name: "policy",
    about: "What the running sidecar (`suture run --act`) heals by itself. It is read again when it changes, and on SIGHUP; while it can not be understood, the last one that could holds.",
    keys: &[
        Key {
            name: "kill-switch",
            about: "While this file exists, nothing is done.",
            show: |draft| quoted(&draft.policy.kill_switch.display().to_string()),
            take: |draft, value| {
                draft.policy.kill_switch = PathBuf::from(text(value, "a path")?);
                Ok(())
            },
        },
        Key {
            name: "approval-lasts",
            about: "How long the approval of a plan is good for.",
            show: |draft| time_shown(draft.policy.approval_lasts),
            take: |draft, value| put(&mut draft.policy.approval_lasts, time(value)),
        },
        Key {
            name: "restart-and-repair",
            about: "Whether containerd may be stopped for a repair that needs that: `observe` and `plan` wait for its next start, `approve` asks a person, `auto` does it. Running containers go on; nothing can be started meanwhile.",
            show: |draft| word_shown(draft.policy.restart_and_repair),
            take: |draft, value| put(&mut draft.policy.restart_and_repair, word(value)),
        },
        Key {
            name: "restart-for",
            about: "For which findings it may be: this severity and worse ones. From the worst: outage, damage, stuck, space, notice.",
            show: |draft| word_shown(draft.policy.restart_for),
            take: |draft, value| put(&mut draft.policy.restart_for, word(value)),
        },
    ],
};

const NODE: Table = Table {
    name: "policy.budget.node",
    about: "What may be done in any hour, in all pools together. What was tried and failed counts too.",
    keys: &[
        Key {
            name: "actions-per-hour",
            about: "Remedies that are begun.",
            show: |draft| draft.policy.node.actions.to_string(),
            take: |draft, value| put(&mut draft.policy.node.actions, number(value)),
        },
        Key {
            name: "bytes-per-hour",
            about: "Data of the thin devices that are deleted, what they share with others included.",
            show: |draft| size_shown(draft.policy.node.bytes),
            take: |draft, value| put(&mut draft.policy.node.bytes, size(value)),
        },
    ],
};

const POOL: Table = Table {
    name: "policy.budget.pool",
    about: "The same for each pool.",
    keys: &[
        Key {
            name: "actions-per-hour",
            about: "Remedies that are begun.",
            show: |draft| draft.policy.pool.actions.to_string(),
            take: |draft, value| put(&mut draft.policy.pool.actions, number(value)),
        },
        Key {
            name: "bytes-per-hour",
            about: "Data of the thin devices that are deleted.",
            show: |draft| size_shown(draft.policy.pool.bytes),
            take: |draft, value| put(&mut draft.policy.pool.bytes, size(value)),
        },
    ],
};

const BACK_OFF: Table = Table {
    name: "policy.back-off",
    about: "How long a finding is left alone after its remedy failed or was refused by a guard. Each time doubles it.",
    keys: &[
        Key {
            name: "first",
            about: "The first time.",
            show: |draft| time_shown(draft.policy.back_off.first),
            take: |draft, value| put(&mut draft.policy.back_off.first, time(value)),
        },
        Key {
            name: "longest",
            about: "At most.",
            show: |draft| time_shown(draft.policy.back_off.longest),
            take: |draft, value| put(&mut draft.policy.back_off.longest, time(value)),
        },
    ],
};

const BREAKER: Table = Table {
    name: "policy.breaker",
    about: "The circuit breaker: a kind of remedy that fails or does not help is given up. `suture resume` takes it up again.",
    keys: &[
        Key {
            name: "failures",
            about: "After so many. No more of a kind are under way at once than may still fail.",
            show: |draft| draft.policy.breaker.failures.to_string(),
            take: |draft, value| put(&mut draft.policy.breaker.failures, number(value)),
        },
        Key {
            name: "within",
            about: "Within this time.",
            show: |draft| time_shown(draft.policy.breaker.within),
            take: |draft, value| put(&mut draft.policy.breaker.within, time(value)),
        },
        Key {
            name: "came-back-within",
            about: "A finding that is back within this time after it was healed was not helped.",
            show: |draft| time_shown(draft.policy.breaker.came_back_within),
            take: |draft, value| put(&mut draft.policy.breaker.came_back_within, time(value)),
        },
        Key {
            name: "closes-after",
            about: "After this time it is taken up again by itself; \"never\" leaves that to a person.",
            show: |draft| {
                let closes = draft.policy.breaker.closes_after;
                closes.map_or_else(|| quoted("never"), time_shown)
            },
            take: |draft, value| {
                let never = text(value, A_TIME)? == "never";
                let time = if never { None } else { Some(time(value)?) };
                draft.policy.breaker.closes_after = time;
                Ok(())
            },
        },
    ],
};

const QUIET: Table = Table {
    name: "policy.quiet",
    about: "Quiet hours, in which nothing is done.",
    keys: &[Key {
        name: "zone",
        about: "By whose clock: \"local\" is the machine's, \"+02:00\" a fixed offset from UTC.",
        show: |draft| quoted(&draft.policy.quiet.zone.to_string()),
        take: |draft, value| {
            let expected = "\"local\", or an offset from UTC such as \"+02:00\"";
            let written = text(value, expected)?;
            let zone = Zone::parse(written);
            draft.policy.quiet.zone =
                zone.ok_or_else(|| wrong(format!("{written:?} is not a zone"), expected))?;
            Ok(())
        },
    }],
};

const LEDGER: Table = Table {
    name: "ledger",
    about: "What suture keeps of what it found and did.",
    keys: &[
        Key {
            name: "keep-for",
            about: "How long.",
            show: |draft| time_shown(draft.ledger.keep_for),
            take: |draft, value| put(&mut draft.ledger.keep_for, time(value)),
        },
        Key {
            name: "largest",
            about: "How large the ledger may become; the oldest goes first.",
            show: |draft| size_shown(draft.ledger.largest),
            take: |draft, value| put(&mut draft.ledger.largest, size(value)),
        },
    ],
};

const CONTROL: Table = Table {
    name: "control",
    about: "Who may talk to a running suture, beside root.",
    keys: &[Key {
        name: "group",
        about: "Members of this group may look, approve, reject, pause and resume. With \"\" only root may.",
        show: |draft| quoted(draft.control.group.as_deref().unwrap_or_default()),
        take: |draft, value| {
            let group = text(value, "the name of a group, or \"\"")?;
            draft.control.group = (!group.is_empty()).then(|| group.to_owned());
            Ok(())
        },
    }],
};

/// A text as TOML has it.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

pub(super) fn time_shown(time: std::time::Duration) -> String {
    quoted(&values::show_time(time))
}

fn size_shown(size: Bytes) -> String {
    quoted(&values::show_size(size))
}

pub(super) fn word_shown(word: impl Word) -> String {
    quoted(word.word())
}

fn put<T>(place: &mut T, value: Result<T, Wrong>) -> Result<(), Wrong> {
    *place = value?;
    Ok(())
}

pub(super) fn wrong(what: impl Into<String>, expected: impl Into<String>) -> Wrong {
    Wrong {
        what: what.into(),
        expected: expected.into(),
    }
}

/// What kind of value was written.
pub(super) fn kind(value: &DeValue<'_>) -> String {
    let article = |kind: &str| match kind {
        "integer" | "array" | "offset datetime" => format!("an {kind}"),
        _ => format!("a {kind}"),
    };
    article(value.type_str())
}

pub(super) fn text<'v>(value: &'v DeValue<'_>, expected: &str) -> Result<&'v str, Wrong> {
    match value {
        DeValue::String(text) => Ok(text),
        other => Err(wrong(format!("this is {}", kind(other)), expected)),
    }
}

pub(super) fn word<W: Word>(value: &DeValue<'_>) -> Result<W, Wrong> {
    let all = W::all();
    let names: Vec<_> = all.iter().map(|one| one.word()).collect();
    let written = text(value, &format!("one of {}", names.join(", ")))?;
    values::word(written).map_err(|expected| wrong(format!("{written:?} is not known here"), expected))
}

pub(super) fn time(value: &DeValue<'_>) -> Result<std::time::Duration, Wrong> {
    values::time(text(value, A_TIME)?).map_err(|what| wrong(what, A_TIME))
}

fn size(value: &DeValue<'_>) -> Result<Bytes, Wrong> {
    values::size(text(value, A_SIZE)?).map_err(|what| wrong(what, A_SIZE))
}

fn number(value: &DeValue<'_>) -> Result<u32, Wrong> {
    const EXPECTED: &str = "a whole number from 0 to 4294967295";
    let DeValue::Integer(written) = value else {
        return Err(wrong(format!("this is {}", kind(value)), EXPECTED));
    };
    let number = u32::from_str_radix(written.as_str(), written.radix());
    number.map_err(|_| wrong(format!("{written} is not in range"), EXPECTED))
}
