//! What is read, what is refused and where, and that what is printed is what is read.

use std::collections::BTreeSet;

use super::{keys::TABLES, lists::RULE_KEYS, read::read, *};
use crate::{
    decide::{
        Handling, PolicyParts,
        engine::{Day, LabelRule, Pattern, Rule, TimeOfDay, Window, Zone},
    },
    model::{FindingClass, Mode, Severity},
};

fn parse(text: &str) -> Config {
    let read = read(text);
    read.unwrap_or_else(|faults| {
        panic!(
            "{:?}",
            faults.iter().map(|one| one.line(text)).collect::<Vec<_>>()
        )
    })
    .0
}

/// The only fault: its line, its column, the word there, and what is said.
fn fault(text: &str) -> (usize, usize, String, String) {
    let faults = read(text).unwrap_err();
    assert_eq!(faults.len(), 1, "{text}: {faults:?}");
    let place = faults[0].place(text);
    let word = text[faults[0].span.clone()].to_owned();
    (place.line, place.column, word, place.what)
}

#[test]
fn what_is_not_said_is_as_shipped() {
    let config = parse("");
    assert_eq!(config, Config::default());
    for class in FindingClass::ALL {
        let expected = match class {
            FindingClass::ForeignThin => Handling::Observe,
            _ => Handling::Auto,
        };
        assert_eq!(config.repair.of(class), expected, "{class}");
    }
}

#[test]
fn a_class_is_handled_as_the_file_says() {
    let config = parse("[repair]\nwedge = \"observe\"\nforeign-thin = \"auto\"\n");
    assert_eq!(config.repair.of(FindingClass::Wedge), Handling::Observe);
    assert_eq!(config.repair.of(FindingClass::ForeignThin), Handling::Auto);
    assert_eq!(config.repair.of(FindingClass::BurnedId), Handling::Auto);
    assert_eq!(config.policy.repair, config.repair);
}

#[test]
fn what_is_printed_is_read_as_the_same() {
    let text = Config::default().text();
    assert_eq!(parse(&text), Config::default(), "{text}");
}

#[test]
fn what_is_printed_has_every_key_once_with_a_comment() {
    let text = Config::default().text();
    let lines: Vec<_> = text.lines().collect();
    for table in &TABLES {
        let header = format!("[{}]", table.name);
        let begin = lines.iter().position(|line| *line == header).unwrap();
        let end = lines[begin + 1..].iter().position(|line| line.starts_with('['));
        let end = end.map_or(lines.len(), |end| begin + 1 + end);
        for key in table.keys {
            let said = format!("{} = ", key.name);
            let hits: Vec<_> = (begin..end).filter(|at| lines[*at].starts_with(&said)).collect();
            assert_eq!(hits.len(), 1, "{header} {}", key.name);
            assert!(lines[hits[0] - 1].starts_with("# "), "{header} {}", key.name);
        }
    }
    for class in FindingClass::ALL {
        let said = format!("{class} = ");
        assert_eq!(
            lines.iter().filter(|line| line.starts_with(&said)).count(),
            2,
            "{class}"
        );
    }
    assert!(lines.iter().all(|line| line.len() < 120));
}

#[test]
fn every_key_that_is_printed_is_really_read() {
    let other = |name: &str| match name {
        "kill-switch" => "\"/run/stop\"",
        "approval-lasts" | "keep-for" | "closes-after" => "\"2h\"",
        "restart-and-repair" => "\"plan\"",
        "restart-for" => "\"space\"",
        "actions-per-hour" | "failures" => "7",
        "bytes-per-hour" | "largest" => "\"3GiB\"",
        "first" => "\"31s\"",
        "longest" | "within" | "came-back-within" => "\"3h\"",
        "zone" => "\"+01:00\"",
        "group" => "\"suture\"",
        name => panic!("{name} has no other value"),
    };
    let mut seen = BTreeSet::new();
    for table in &TABLES {
        for key in table.keys {
            let said = format!("{} = {}", key.name, other(key.name));
            let config = parse(&format!("[{}]\n{said}\n", table.name));
            assert_ne!(config, Config::default(), "[{}] {said}", table.name);
            let text = config.text();
            assert!(text.lines().any(|line| line == said), "[{}] {said}", table.name);
            assert_eq!(parse(&text), config, "[{}] {said}", table.name);
            assert!(seen.insert(text), "[{}] {said} is another key too", table.name);
        }
    }
}

#[test]
fn the_examples_in_the_comments_are_right() {
    let text = Config::default().text();
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let policy = parse(&uncommented).policy;
    assert_eq!(policy.rules.len(), 1);
    let rule = &policy.rules[0];
    assert!(rule.class.is_some() && rule.pool.is_some() && rule.namespace.is_some());
    assert!(rule.label.is_some() && rule.grace.is_some() && rule.unseen.is_some());
    assert_eq!(policy.quiet.windows.len(), 1);
    assert_eq!(policy.quiet.windows[0].days(), [Day::Fri, Day::Sat]);
}

#[test]
fn a_whole_policy_is_read_and_printed() {
    let text = r#"
        [policy]
        kill-switch = "/run/suture-stop"
        restart-and-repair = "auto"
        restart-for = "stuck"

        [policy.class]
        wedge = "auto"
        leaked-thin = { grace = "1m", unseen = "auto" }

        [[policy.rule]]
        class = "suspended-device"
        namespace = "k8s.io"
        label = "io.kubernetes.pod.namespace=database=*"
        mode = "approve"

        [[policy.rule]]
        pool = "test-*"
        mode = "auto"
        grace = "0s"
        unseen = "auto"

        [policy.quiet]
        zone = "-03:30"
        [[policy.quiet.window]]
        from = "08:00"
        to = "18:30"
        days = ["mon", "tue"]
        [[policy.quiet.window]]
        from = "23:00"
        to = "01:00"
    "#;
    let config = parse(text);
    let parts = config.policy.clone().into_parts();
    assert_eq!(parts.restart_for, Severity::Stuck);
    let wedge = config.policy.of(FindingClass::Wedge);
    assert_eq!((wedge.mode, wedge.unseen), (Mode::Auto, Mode::Approve));
    let leaked = config.policy.of(FindingClass::LeakedThin);
    assert_eq!((leaked.mode, leaked.unseen), (Mode::Auto, Mode::Auto));
    assert_eq!(leaked.grace, Duration::from_mins(1));
    let first = Rule {
        class: Some(FindingClass::SuspendedDevice),
        pool: None,
        namespace: Some(Pattern::new("k8s.io")),
        label: Some(LabelRule {
            key: "io.kubernetes.pod.namespace".to_owned(),
            value: Pattern::new("database=*"),
        }),
        mode: Mode::Approve,
        grace: None,
        unseen: None,
    };
    assert_eq!(parts.rules[0], first);
    assert_eq!(parts.rules[1].grace, Some(Duration::ZERO));
    let time = |text| TimeOfDay::parse(text).unwrap();
    assert_eq!(parts.quiet.zone, Zone::Offset(-210));
    assert_eq!(
        parts.quiet.windows,
        [
            Window::new(time("08:00"), time("18:30"), vec![Day::Mon, Day::Tue]).unwrap(),
            Window::new(time("23:00"), time("01:00"), Day::ALL.to_vec()).unwrap(),
        ]
    );
    assert_ne!(parts, PolicyParts::default());
    assert_eq!(parse(&config.text()), config);
}

#[test]
fn what_is_not_understood_is_refused_with_line_column_word_and_what_was_expected() {
    for (text, line, column, word, said) in [
        ("[repair]\n\nwedge = \"atuo\"\n", 3, 9, "\"atuo\"", "`auto`"),
        ("[repair]\nwegde = \"auto\"\n", 2, 1, "wegde", "`wedge`"),
        ("\n\n[repairs]\nwedge = \"auto\"\n", 3, 2, "repairs", "`repair`"),
        ("repair = 3\n", 1, 10, "3", "a table, [repair]"),
        ("[policy]\ngarce = 1\n", 2, 1, "garce", "one of"),
        (
            "[policy.class]\nwedge = { mode = \"auto\", grace = \"-5s\" }\n",
            2,
            34,
            "\"-5s\"",
            "negative",
        ),
        ("[policy.class]\nwedge = 5\n", 2, 9, "5", "a mode"),
        (
            "[policy.class]\nforeign-thin = \"auto\"\n",
            2,
            16,
            "\"auto\"",
            "--delete-thin",
        ),
        (
            "[policy.back-off]\nfirst = \"2h\"\nlongest = \"1h\"\n",
            3,
            11,
            "\"1h\"",
            "shorter",
        ),
        ("[policy.breaker]\nfailures = -1\n", 2, 12, "-1", "a whole number"),
        ("[policy.breaker]\nfailures = 0\n", 2, 12, "0", "at least 1"),
        (
            "[policy.budget.node]\nbytes-per-hour = \"5GB\"\n",
            2,
            18,
            "\"5GB\"",
            "a size",
        ),
        (
            "[policy.quiet]\nzone = \"Berlin\"\n",
            2,
            8,
            "\"Berlin\"",
            "an offset",
        ),
        (
            "[policy.quiet]\nwindow = [{ from = \"25:00\", to = \"06:00\" }]\n",
            2,
            20,
            "\"25:00\"",
            "time of day",
        ),
        (
            "[[policy.quiet.window]]\nfrom = \"08:00\"\nto = \"09:00\"\ndays = [\"sun\", \"moon\"]\n",
            4,
            16,
            "\"moon\"",
            "`mon`",
        ),
        (
            "[[policy.rule]]\nmode = \"auto\"\nlabel = \"team=*\"\n",
            3,
            9,
            "\"team=*\"",
            "io.kubernetes.pod.name",
        ),
        (
            "[[policy.rule]]\nmode = \"auto\"\nclas = \"wedge\"\n",
            3,
            1,
            "clas",
            "`class`",
        ),
        (
            "[policy]\nkill-switch = \"stop\"\n",
            2,
            15,
            "\"stop\"",
            "from the root",
        ),
        ("[ledger]\nkeep-for = 90\n", 2, 12, "90", "a time"),
        ("[control]\ngroup = [\"a\"]\n", 2, 9, "[\"a\"]", "an array"),
    ] {
        let (at, character, there, what) = fault(text);
        assert_eq!((at, character, there.as_str()), (line, column, word), "{text}");
        assert!(what.contains(said), "{what} does not say {said}");
    }
}

#[test]
fn what_is_missing_is_told_where_it_should_be() {
    let (line, _, _, what) = fault("[policy]\n\n[[policy.rule]]\nclass = \"wedge\"\n");
    assert_eq!(line, 3);
    assert!(what.contains("no mode"), "{what}");
    let (line, _, _, what) = fault("[[policy.quiet.window]]\nfrom = \"08:00\"\n");
    assert_eq!(line, 1);
    assert!(what.contains("no \"to\""), "{what}");
    let (_, _, _, what) = fault("[[policy.quiet.window]]\nfrom = \"08:00\"\nto = \"08:00\"\n");
    assert!(what.contains("no length"), "{what}");
}

#[test]
fn all_that_is_wrong_is_told_in_its_order() {
    let text = "[repair]\nwedge = \"x\"\n[policy.breaker]\nfailures = \"3\"\n[policy.nothing]\na = 1\n";
    let faults = read(text).unwrap_err();
    let lines: Vec<_> = faults.iter().map(|fault| fault.place(text).line).collect();
    assert_eq!(lines, [2, 4, 5]);
}

#[test]
fn text_that_is_no_toml_is_refused_with_its_line() {
    for text in [
        "[repair\n",
        "a = \n",
        "[policy]\nkill-switch = \"a\nb\"\n",
        "\u{0}",
    ] {
        let faults = read(text).unwrap_err();
        assert!(!faults.is_empty(), "{text}");
        assert!(faults[0].line(text).starts_with("line "), "{text}");
    }
}

#[test]
fn a_rule_that_never_holds_is_a_warning_at_its_line() {
    let rule = |class: &str| format!("[[policy.rule]]\nclass = \"{class}\"\nmode = \"plan\"\n");
    let text = format!("{}{}", rule("wedge"), rule("wedge"));
    let (config, warnings) = read(&text).unwrap();
    assert_eq!(config.policy.rules.len(), 2);
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].place(&text).line, 4);
    assert!(warnings[0].what.contains("rule 1"), "{}", warnings[0].what);
    let text = format!("{}{}", rule("wedge"), rule("leaked-thin"));
    assert!(read(&text).unwrap().1.is_empty());
}

#[test]
fn a_fault_is_shown_with_its_line() {
    let text = "# a\n[repair]\nwedge = \"atuo\" # über\n";
    let shown = read(text).unwrap_err()[0].shown(text, "/etc/suture/suture.toml", true);
    for part in [
        "error: \"atuo\" is not known here",
        "/etc/suture/suture.toml:3:9",
        "wedge = \"atuo\" # über",
        "^^^^^^ expected `auto`",
    ] {
        assert!(shown.contains(part), "{part} is not in:\n{shown}");
    }
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("suture.toml");
    assert!(matches!(Config::read(&path), Err(ConfigFileError::Read { .. })));
    fs::write(&path, "[repair]\nnothing = 1\n").unwrap();
    let said = Config::read(&path).unwrap_err().to_string();
    assert!(said.contains("line 2") && said.contains("suture.toml"), "{said}");
    fs::write(&path, "[repair]\nnothing = 1\nnobody = 2\n").unwrap();
    let said = Config::read(&path).unwrap_err().to_string();
    assert!(said.contains("1 more"), "{said}");
}

#[test]
fn every_key_of_a_rule_has_an_example() {
    assert_eq!(RULE_KEYS.len(), 7);
    assert!(
        RULE_KEYS
            .iter()
            .all(|(_, about, example)| !about.is_empty() && !example.is_empty())
    );
}
