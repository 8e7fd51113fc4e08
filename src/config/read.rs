//! From the text to a configuration, or to everything that is wrong with it, each with its place.

use std::{collections::BTreeMap, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Config, Fault,
    keys::{self, Draft, TABLES, Wrong},
    lists, values,
};
use crate::{
    decide::{
        Handling,
        engine::{ClassRule, HealingPolicy, PolicyProblem},
    },
    model::{FindingClass, Mode},
};

/// Tables of which each key is a class or an entry.
pub(super) const REPAIR: &str = "repair";
pub(super) const CLASSES: &str = "policy.class";
pub(super) const RULES: &str = "policy.rule";
pub(super) const WINDOWS: &str = "policy.quiet.window";

type Entry<'t, 'i> = (&'t Spanned<std::borrow::Cow<'i, str>>, &'t Spanned<DeValue<'i>>);

/// What is being read.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) draft: Draft,
    pub(super) faults: Vec<Fault>,
    /// Where each key was said.
    pub(super) said: BTreeMap<String, Range<usize>>,
}

/// Reads a configuration: with what is odd about it, or all that is wrong.
pub(super) fn read(text: &str) -> Result<(Config, Vec<Fault>), Vec<Fault>> {
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let fault = |error: toml::de::Error| Fault::new(error.span().unwrap_or_default(), error.message());
        return Err(errors.into_iter().map(fault).collect());
    }
    let mut reading = Reading::default();
    reading.table("", root.get_ref());
    reading.finish()
}

impl Reading {
    fn table(&mut self, path: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let whole = if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}.{name}")
            };
            self.said.insert(whole.clone(), value.span());
            self.entry(path, &whole, (key, value));
        }
    }

    fn entry(&mut self, path: &str, whole: &str, (key, value): Entry<'_, '_>) {
        let known = TABLES.iter().find(|table| table.name == path);
        let name = key.get_ref().as_ref();
        let known = known.and_then(|table| table.keys.iter().find(|known| known.name == name));
        if let Some(known) = known {
            let taken = (known.take)(&mut self.draft, value.get_ref());
            self.check(value.span(), taken);
            return;
        }
        if path == REPAIR || path == CLASSES {
            self.class(path, (key, value));
        } else if whole == RULES {
            lists::rules(self, value);
        } else if whole == WINDOWS {
            lists::windows(self, value);
        } else if is_table(whole) {
            match value.get_ref() {
                DeValue::Table(table) => self.table(whole, table),
                other => {
                    let what = format!("{whole} is {}", keys::kind(other));
                    self.faults
                        .push(Fault::new(value.span(), what).expected(format!("a table, [{whole}]")));
                }
            }
        } else {
            let known = below(path);
            self.unknown(key.span(), name, &known);
        }
    }

    /// A key that there is not.
    pub(super) fn unknown(&mut self, span: Range<usize>, name: &str, known: &[&str]) {
        let fault = Fault::new(span, format!("there is no key {name:?} here"));
        let expected = values::one_of(known.iter().copied(), name);
        self.faults.push(fault.expected(expected));
    }

    /// Keeps what is wrong with a value.
    pub(super) fn check<T>(&mut self, span: Range<usize>, taken: Result<T, Wrong>) -> Option<T> {
        match taken {
            Ok(taken) => Some(taken),
            Err(wrong) => {
                self.faults
                    .push(Fault::new(span, wrong.what).expected(wrong.expected));
                None
            }
        }
    }

    fn class(&mut self, path: &str, (key, value): Entry<'_, '_>) {
        let name = key.get_ref().as_ref();
        let class: Result<FindingClass, _> = values::word(name);
        let class =
            class.map_err(|expected| keys::wrong(format!("{name:?} is no class of findings"), expected));
        let Some(class) = self.check(key.span(), class) else {
            return;
        };
        if path == REPAIR {
            let handling: Result<Handling, _> = keys::word(value.get_ref());
            if let Some(handling) = self.check(value.span(), handling) {
                let repair = std::mem::take(&mut self.draft.policy.repair);
                self.draft.policy.repair = repair.with(class, handling);
            }
            return;
        }
        let mut rule = ClassRule::shipped(class);
        match value.get_ref() {
            DeValue::Table(table) => self.class_table(table, &mut rule),
            DeValue::String(_) => {
                let mode: Result<Mode, _> = keys::word(value.get_ref());
                rule.mode = self.check(value.span(), mode).unwrap_or(rule.mode);
            }
            other => {
                let expected = "a mode, or a table such as { mode = \"auto\", grace = \"15s\" }";
                let wrong = keys::wrong(format!("this is {}", keys::kind(other)), expected);
                self.check::<()>(value.span(), Err(wrong));
            }
        }
        self.draft.policy.classes.insert(class, rule);
    }

    fn class_table(&mut self, table: &DeTable<'_>, rule: &mut ClassRule) {
        for (key, value) in table {
            let span = value.span();
            let value = value.get_ref();
            match key.get_ref().as_ref() {
                "mode" => {
                    rule.mode = self.check(span, keys::word(value)).unwrap_or(rule.mode);
                }
                "unseen" => {
                    rule.unseen = self.check(span, keys::word(value)).unwrap_or(rule.unseen);
                }
                "grace" => {
                    rule.grace = self.check(span, keys::time(value)).unwrap_or(rule.grace);
                }
                name => self.unknown(key.span(), name, &["mode", "grace", "unseen"]),
            }
        }
    }

    fn finish(mut self) -> Result<(Config, Vec<Fault>), Vec<Fault>> {
        let draft = std::mem::take(&mut self.draft);
        let policy = match HealingPolicy::new(draft.policy) {
            Ok(policy) => policy,
            Err(problems) => {
                let faults: Vec<_> = problems.iter().map(|one| self.fault(one)).collect();
                // What was not understood is left out of the policy, and explains some of these.
                if self.faults.is_empty() {
                    self.faults = faults;
                }
                HealingPolicy::default()
            }
        };
        if !self.faults.is_empty() {
            self.faults.sort_by_key(|fault| fault.span.start);
            return Err(self.faults);
        }
        let odd = policy.oddities();
        let warnings = odd.iter().map(|one| self.fault(one)).collect();
        let config = Config {
            repair: policy.repair.clone(),
            policy,
            ledger: draft.ledger,
            control: draft.control,
        };
        Ok((config, warnings))
    }

    /// A problem of the policy, at the place where its key was said, or the nearest that was.
    fn fault(&self, problem: &PolicyProblem) -> Fault {
        let mut key = problem.key.as_str();
        loop {
            if let Some(span) = self.said.get(key) {
                return Fault::new(span.clone(), problem.what.clone());
            }
            match key.rfind(['.', '[']) {
                Some(end) => key = key.get(..end).unwrap_or_default(),
                None => return Fault::new(0..0, problem.to_string()),
            }
        }
    }
}

/// Every table and list.
fn names() -> impl Iterator<Item = &'static str> {
    TABLES
        .iter()
        .map(|table| table.name)
        .chain([REPAIR, CLASSES, RULES, WINDOWS])
}

/// Whether there is such a table, or one below it.
fn is_table(path: &str) -> bool {
    names().any(|name| {
        name.strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// The keys and tables that there are in a table.
fn below(path: &str) -> Vec<&'static str> {
    let keys = TABLES.iter().filter(|table| table.name == path);
    let mut found: Vec<_> = keys
        .flat_map(|table| table.keys.iter().map(|key| key.name))
        .collect();
    for name in names() {
        let rest = match path {
            "" => Some(name),
            _ => name.strip_prefix(path).and_then(|rest| rest.strip_prefix('.')),
        };
        let next = rest.and_then(|rest| rest.split('.').next());
        found.extend(next.filter(|next| !found.contains(next)));
    }
    found
}
