//! The two lists: rules, and quiet times. Each entry is a table of its own.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    keys::{self, Wrong},
    read::{RULES, Reading, WINDOWS},
};
use crate::{
    decide::engine::{Day, LABELS, LabelRule, Pattern, Rule, TimeOfDay, Window},
    model::Mode,
};

/// The keys of a rule, with what they mean and an example.
pub(super) const RULE_KEYS: [(&str, &str, &str); 7] = [
    (
        "class",
        "A class of findings; they are in docs/findings.md.",
        "\"suspended-device\"",
    ),
    (
        "pool",
        "The pool. In a text `*` stands for anything.",
        "\"vg0-*\"",
    ),
    (
        "namespace",
        "containerd's namespace of whoever is affected. A rule with `auto` has to fit everybody who is, any other fits as soon as it fits one.",
        "\"k8s.io\"",
    ),
    (
        "label",
        "A label of a container that is affected, as KEY=VALUE: io.kubernetes.pod.namespace, io.kubernetes.pod.name or io.kubernetes.pod.uid.",
        "\"io.kubernetes.pod.namespace=database-*\"",
    ),
    (
        "mode",
        "What may be done. The only key that must be there.",
        "\"approve\"",
    ),
    (
        "grace",
        "How long the finding must have stood; else as the class has it.",
        "\"1m\"",
    ),
    (
        "unseen",
        "The most that may be done where suture did not itself see the thin device being made; else as the class has it.",
        "\"approve\"",
    ),
];

/// The keys of a quiet time.
pub(super) const WINDOW_KEYS: [(&str, &str, &str); 3] = [
    ("from", "When it begins, HH:MM.", "\"22:00\""),
    (
        "to",
        "When it ends; before it begins means on the next day.",
        "\"06:00\"",
    ),
    (
        "days",
        "On which days it begins; on every day, if this is left out.",
        "[\"fri\", \"sat\"]",
    ),
];

/// The entries of a list, each with its place in it.
fn entries<'v, 'i>(
    reading: &mut Reading,
    path: &str,
    value: &'v Spanned<DeValue<'i>>,
) -> Vec<(std::ops::Range<usize>, &'v DeTable<'i>)> {
    let expected = format!("tables, [[{path}]]");
    let list = match value.get_ref() {
        DeValue::Array(list) => Ok(list),
        other => Err(keys::wrong(
            format!("{path} is {}", keys::kind(other)),
            expected.clone(),
        )),
    };
    let Some(list) = reading.check(value.span(), list) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (index, entry) in list.iter().enumerate() {
        reading.said.insert(format!("{path}[{index}]"), entry.span());
        let table = match entry.get_ref() {
            DeValue::Table(table) => Ok(table),
            other => Err(keys::wrong(
                format!("this is {}", keys::kind(other)),
                expected.clone(),
            )),
        };
        if let Some(table) = reading.check(entry.span(), table) {
            for (key, value) in table {
                let name = format!("{path}[{index}].{}", key.get_ref());
                reading.said.insert(name, value.span());
            }
            found.push((entry.span(), table));
        }
    }
    found
}

/// Reads the rules.
pub(super) fn rules(reading: &mut Reading, value: &Spanned<DeValue<'_>>) {
    for (span, table) in entries(reading, RULES, value) {
        let mut rule = Rule {
            class: None,
            pool: None,
            namespace: None,
            label: None,
            mode: Mode::Observe,
            grace: None,
            unseen: None,
        };
        for (key, value) in table {
            let taken = rule_key(&mut rule, key.get_ref(), value.get_ref());
            match taken {
                Some(taken) => drop(reading.check(value.span(), taken)),
                None => reading.unknown(key.span(), key.get_ref(), &RULE_KEYS.map(|(name, ..)| name)),
            }
        }
        if !table.iter().any(|(key, _)| key.get_ref() == "mode") {
            let wrong = keys::wrong("this rule has no mode", "`mode = \"...\"` in it");
            reading.check::<()>(span, Err(wrong));
        }
        reading.draft.policy.rules.push(rule);
    }
}

/// Takes one key of a rule; nothing where there is no such key.
fn rule_key(rule: &mut Rule, key: &str, value: &DeValue<'_>) -> Option<Result<(), Wrong>> {
    let pattern = || keys::text(value, "a text, in which * stands for anything").map(Pattern::new);
    Some(match key {
        "class" => keys::word(value).map(|class| rule.class = Some(class)),
        "pool" => pattern().map(|pattern| rule.pool = Some(pattern)),
        "namespace" => pattern().map(|pattern| rule.namespace = Some(pattern)),
        "label" => label(value).map(|label| rule.label = Some(label)),
        "mode" => keys::word(value).map(|mode| rule.mode = mode),
        "grace" => keys::time(value).map(|grace| rule.grace = Some(grace)),
        "unseen" => keys::word(value).map(|unseen| rule.unseen = Some(unseen)),
        _ => return None,
    })
}

fn label(value: &DeValue<'_>) -> Result<LabelRule, Wrong> {
    let expected = format!("KEY=VALUE with a key of {}", LABELS.join(", "));
    let written = keys::text(value, &expected)?;
    let parts = written.split_once('=');
    let (key, value) = parts.ok_or_else(|| keys::wrong(format!("{written:?} is not a label"), expected))?;
    Ok(LabelRule {
        key: key.to_owned(),
        value: Pattern::new(value),
    })
}

/// Reads the quiet times.
pub(super) fn windows(reading: &mut Reading, value: &Spanned<DeValue<'_>>) {
    for (span, table) in entries(reading, WINDOWS, value) {
        let (mut from, mut to, mut days) = (None, None, Some(Day::ALL.to_vec()));
        let mut whole = true;
        for (key, value) in table {
            let place = value.span();
            match key.get_ref().as_ref() {
                "from" => from = reading.check(place, time_of_day(value.get_ref())),
                "to" => to = reading.check(place, time_of_day(value.get_ref())),
                "days" => days = day_list(reading, value),
                name => {
                    reading.unknown(key.span(), name, &WINDOW_KEYS.map(|(name, ..)| name));
                    whole = false;
                }
            }
        }
        for name in ["from", "to"] {
            if !table.iter().any(|(key, _)| key.get_ref() == name) {
                let wrong = keys::wrong(
                    format!("this quiet time has no {name:?}"),
                    format!("`{name} = \"HH:MM\"` in it"),
                );
                reading.check::<()>(span.clone(), Err(wrong));
                whole = false;
            }
        }
        // What is missing was told already.
        let (Some(from), Some(to), Some(days), true) = (from, to, days, whole) else {
            continue;
        };
        let window = Window::new(from, to, days).ok_or_else(|| {
            keys::wrong(
                "this quiet time has no length, or no day",
                "a beginning, another end, and a day",
            )
        });
        if let Some(window) = reading.check(span, window) {
            reading.draft.policy.quiet.windows.push(window);
        }
    }
}

fn time_of_day(value: &DeValue<'_>) -> Result<TimeOfDay, Wrong> {
    let expected = "a time of day from \"00:00\" to \"24:00\"";
    let written = keys::text(value, expected)?;
    let time = TimeOfDay::parse(written);
    time.ok_or_else(|| keys::wrong(format!("{written:?} is not a time of day"), expected))
}

fn day_list(reading: &mut Reading, value: &Spanned<DeValue<'_>>) -> Option<Vec<Day>> {
    let list = match value.get_ref() {
        DeValue::Array(list) => Ok(list),
        other => Err(keys::wrong(
            format!("this is {}", keys::kind(other)),
            "a list of days, such as [\"sat\", \"sun\"]",
        )),
    };
    let list = reading.check(value.span(), list)?;
    let days = list
        .iter()
        .map(|day| reading.check(day.span(), keys::word(day.get_ref())));
    days.collect()
}
