//! A configuration as its file: every key, explained, with its value.

use std::fmt::Write as _;

use super::{
    Config,
    keys::{self, Draft, TABLES},
    lists::{RULE_KEYS, WINDOW_KEYS},
    read::{CLASSES, REPAIR, RULES, WINDOWS},
};
use crate::{
    decide::engine::{Rule, Window},
    model::FindingClass,
};

/// How long a line of comment may be.
const WIDTH: usize = 100;

/// The text. Read again it gives the same configuration.
pub(super) fn text(config: &Config) -> String {
    let draft = Draft {
        policy: config.policy.clone().into_parts(),
        ledger: config.ledger.clone(),
        control: config.control.clone(),
    };
    let mut out = String::new();
    comment(
        &mut out,
        "suture's configuration, /etc/suture/suture.toml. What is left out is as shipped. `suture config check` says what is wrong with it. Times are written \"15s\", \"10m\", \"24h\", \"90d\", sizes \"512MiB\", \"256GiB\".",
    );
    repair(&mut out, &draft);
    for table in &TABLES {
        out.push('\n');
        comment(&mut out, table.about);
        line(&mut out, format_args!("[{}]", table.name));
        for key in table.keys {
            comment(&mut out, key.about);
            line(&mut out, format_args!("{} = {}", key.name, (key.show)(&draft)));
        }
        match table.name {
            "policy" => {
                classes(&mut out, &draft);
                rules(&mut out, &draft);
            }
            "policy.quiet" => windows(&mut out, &draft),
            _ => {}
        }
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a text does not fail.
    let _ = writeln!(out, "{text}");
}

/// A comment, in lines of words.
fn comment(out: &mut String, text: &str) {
    let mut width = 0;
    for word in text.split(' ') {
        if width == 0 || width + word.len() > WIDTH {
            out.push_str(if width == 0 { "#" } else { "\n#" });
            width = 1;
        }
        out.push(' ');
        out.push_str(word);
        width += 1 + word.len();
    }
    out.push('\n');
}

fn repair(out: &mut String, draft: &Draft) {
    out.push('\n');
    comment(
        out,
        "What `suture repair` does about the findings of a class, also before every start of containerd: `auto` carries out their remedy where its conditions hold, `observe` tells of them and leaves them. Whatever is said here, thin devices that nobody can prove containerd made are deleted only when each is named (`suture repair --delete-thin ID`); `auto` lets suture keep containerd from drawing their numbers. The classes are in docs/findings.md.",
    );
    line(out, format_args!("[{REPAIR}]"));
    for class in FindingClass::ALL {
        let handling = keys::word_shown(draft.policy.repair.of(class));
        line(out, format_args!("{class} = {handling}"));
    }
}

fn classes(out: &mut String, draft: &Draft) {
    out.push('\n');
    comment(
        out,
        "What the running sidecar does about the findings of a class. `mode`: `observe` tells of them, `plan` tells what would be done, `approve` does it once a person has approved that very plan (`suture approve ID`), `auto` does it. `grace`: how long a finding must have stood unchanged before. `unseen`: the most that is done where a thin device would be deleted that suture did not itself see containerd make, only a record of containerd's tells so. A mode alone is enough: wedge = \"observe\".",
    );
    line(out, format_args!("[{CLASSES}]"));
    for (class, rule) in &draft.policy.classes {
        line(
            out,
            format_args!(
                "{class} = {{ mode = {}, grace = {}, unseen = {} }}",
                keys::word_shown(rule.mode),
                keys::time_shown(rule.grace),
                keys::word_shown(rule.unseen)
            ),
        );
    }
}

/// The keys of a list's entries, as an example that is commented out.
fn example(out: &mut String, name: &str, keys: &[(&str, &str, &str)]) {
    line(out, format_args!("#[[{name}]]"));
    for (key, about, example) in keys {
        comment(out, about);
        line(out, format_args!("#{key} = {example}"));
    }
}

fn rules(out: &mut String, draft: &Draft) {
    out.push('\n');
    comment(
        out,
        "Rules for some findings. The first that fits holds; without one, what the class says. What a rule does not name fits anything.",
    );
    example(out, RULES, &RULE_KEYS);
    for rule in &draft.policy.rules {
        line(out, format_args!("[[{RULES}]]"));
        for (key, value) in rule_values(rule) {
            line(out, format_args!("{key} = {value}"));
        }
    }
}

fn rule_values(rule: &Rule) -> Vec<(&'static str, String)> {
    let pattern = |pattern: &Option<_>| {
        pattern
            .as_ref()
            .map(|pattern: &crate::decide::engine::Pattern| keys::quoted(&pattern.to_string()))
    };
    let label = rule.label.as_ref();
    let label = label.map(|label| keys::quoted(&format!("{}={}", label.key, label.value)));
    let values = [
        ("class", rule.class.map(keys::word_shown)),
        ("pool", pattern(&rule.pool)),
        ("namespace", pattern(&rule.namespace)),
        ("label", label),
        ("mode", Some(keys::word_shown(rule.mode))),
        ("grace", rule.grace.map(keys::time_shown)),
        ("unseen", rule.unseen.map(keys::word_shown)),
    ];
    let said = values.into_iter().filter_map(|(key, value)| Some((key, value?)));
    said.collect()
}

fn windows(out: &mut String, draft: &Draft) {
    comment(out, "Each quiet time.");
    example(out, WINDOWS, &WINDOW_KEYS);
    for window in &draft.policy.quiet.windows {
        line(out, format_args!("[[{WINDOWS}]]"));
        window_values(out, window);
    }
}

fn window_values(out: &mut String, window: &Window) {
    let days: Vec<_> = window.days().iter().map(|day| keys::word_shown(*day)).collect();
    line(
        out,
        format_args!("from = {}", keys::quoted(&window.from().to_string())),
    );
    line(
        out,
        format_args!("to = {}", keys::quoted(&window.to().to_string())),
    );
    line(out, format_args!("days = [{}]", days.join(", ")));
}
