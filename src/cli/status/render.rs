//! The status in words: the verdict first, then what a person would ask next. No colours: it reads the same in a log.

use std::{fmt::Write as _, time::Duration};

use comfy_table::{ContentArrangement, LineStyle, Table, TableStyle};

use crate::{
    model::{
        Status, Timestamp,
        sense::Quality,
        status::{FindingStatus, LossTotal, Mode},
    },
    words::{counted, date_time},
};

/// A line above, below, and under the header: rows are short, and there are many.
const STYLE: TableStyle = TableStyle::new()
    .top_border(LineStyle::none().fill('─').junction('─'))
    .header_separator(LineStyle::none().fill('═').junction('═'))
    .bottom_border(LineStyle::none().fill('─').junction('─'));

/// All of it; ends with a line end. Tables are kept to `width` characters, where one is given.
pub(super) fn text(status: &Status, now: Timestamp, width: Option<u16>) -> String {
    let mut parts = vec![verdict(status, now) + "\n" + &facts(status, now)];
    parts.push(titled(
        "senses",
        &table(
            width,
            ["what it sees", "how", "by what means", "why not better"],
            status.senses.iter().map(|one| {
                [
                    one.sense.to_string(),
                    one.quality.to_string(),
                    one.means.clone(),
                    one.why.join("\n"),
                ]
            }),
        ),
    ));
    let total: u64 = status.finding_counts.values().sum();
    if total > 0 {
        let rows = status.findings.iter().map(|one| {
            [
                one.class.to_string(),
                one.subject.to_string(),
                date_time(one.first_seen),
                decision(one),
            ]
        });
        let mut part = titled(
            "findings",
            &table(width, ["class", "what", "first seen", "decision"], rows),
        );
        let more = total.saturating_sub(status.findings.len() as u64);
        if more > 0 {
            let _ = writeln!(part, "and {more} more; `suture history` has them");
        }
        parts.push(part);
    }
    if !status.losses.is_empty() {
        let row = |one: &LossTotal| [one.kind.to_string(), one.total.to_string(), date_time(one.last)];
        let rows = status.losses.iter().map(row);
        parts.push(titled("lost", &table(width, ["what", "how many", "last"], rows)));
    }
    parts.push(titled(
        "bounds",
        &table(
            width,
            ["what", "limit", "now", "times hit"],
            status.bounds.iter().map(|one| {
                [
                    one.bound.words().to_owned(),
                    one.limit.to_string(),
                    one.current
                        .map_or_else(String::new, |current| current.to_string()),
                    one.hits.to_string(),
                ]
            }),
        ),
    ));
    parts.join("\n")
}

/// What was decided, and which plan waits for a person.
fn decision(finding: &FindingStatus) -> String {
    let plan = finding.verdict.as_ref().filter(|verdict| verdict.asks);
    match plan.and_then(|verdict| verdict.plan.as_ref()) {
        Some(plan) => format!("{}\nsuture approve {plan}", finding.decision),
        None => finding.decision.clone(),
    }
}

/// The first line, and a line for each further reason.
fn verdict(status: &Status, now: Timestamp) -> String {
    let hangs = status
        .staleness(now)
        .map(|age| format!("its agent has said nothing for {}, so it may hang", duration(age)));
    let reasons: Vec<&String> = hangs.iter().chain(&status.overall.reasons).collect();
    let mode = match status.mode {
        Mode::Heals => "heals what is proven safe",
        Mode::OnlyTells => "only tells",
    };
    let who = format!("suture [{}] watches pool {}; {mode}", status.pid, status.pool);
    match reasons.as_slice() {
        [] if status.senses.iter().all(|one| one.quality == Quality::Full) => {
            format!("{who}; sees everything")
        }
        [] => format!("{who}; sees everything that it needs"),
        [only] => format!("DEGRADED: {who}; {only}"),
        several => {
            let mut text = format!("DEGRADED: {who}; for {} reasons:", several.len());
            for reason in several {
                let _ = write!(text, "\n  - {reason}");
            }
            text
        }
    }
}

/// What the reasons do not say.
fn facts(status: &Status, now: Timestamp) -> String {
    let mut lines = vec![(
        "running",
        format!(
            "version {}, since {} ({})",
            status.version,
            date_time(status.since),
            duration(now.since(status.since))
        ),
    )];
    lines.push((
        "containerd",
        match (&status.containerd.up, &status.containerd.unknown) {
            (Some(who), _) => format!("{who} is up"),
            (None, Some(why)) => format!("not known: {why}"),
            (None, None) => "is not running, or not with this pool".to_owned(),
        },
    ));
    lines.push((
        "world",
        match &status.world.last {
            Some(read) => format!(
                "read {} ago, in {}",
                duration(now.since(read.at)),
                duration(Duration::from_micros(read.took_us))
            ),
            None => "not read yet".to_owned(),
        },
    ));
    lines.push((
        "gap",
        match &status.gap {
            Some(gap) => format!(
                "open since {}; nothing is deleted before the world was read anew",
                date_time(gap.noticed)
            ),
            None => "none open".to_owned(),
        },
    ));
    let findings: u64 = status.finding_counts.values().sum();
    lines.push((
        "open",
        format!(
            "{}, {}",
            counted(findings, "finding"),
            counted(status.open_operations, "operation")
        ),
    ));
    if let Some(healing) = &status.healing {
        let obstacles = healing.obstacles();
        if obstacles.is_empty() {
            lines.push(("healing", "by the policy".to_owned()));
        }
        lines.extend(obstacles.into_iter().map(|obstacle| ("healing", obstacle)));
    }
    let ledger = status.places.ledger.as_ref();
    lines.push((
        "ledger",
        ledger.map_or_else(|| "none".to_owned(), |path| path.display().to_string()),
    ));
    if let Some(traces) = &status.traces {
        lines.push((
            "traces",
            match &traces.error {
                None => format!("delivered to {}", traces.endpoint),
                Some(error) => format!(
                    "not delivered to {}: {error}; {} kept for later, {} given up",
                    traces.endpoint, traces.kept, traces.dropped
                ),
            },
        ));
    }
    lines.iter().fold(String::new(), |mut text, (what, how)| {
        let _ = writeln!(text, "  {what:<11} {how}");
        text
    })
}

fn titled(title: &str, table: &Table) -> String {
    format!("{title}\n{table}\n")
}

fn table<const COLUMNS: usize>(
    width: Option<u16>,
    header: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> Table {
    let mut table = Table::new();
    table
        .load_style(STYLE)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    match width {
        Some(width) => table.set_width(width),
        None => table.force_no_tty(),
    };
    for row in rows {
        table.add_row(row);
    }
    table
}

/// As exact as a person wants it.
fn duration(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{:.1} ms", time.as_secs_f64() * 1000.0),
        seconds @ 1..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{
            FindingClass, PlanId,
            healing::{HealingStatus, VerdictStatus},
            sense::SenseKind,
            status::{Overall, shortcomings},
        },
        testing::status,
    };

    fn first_line(status: &Status) -> String {
        text(status, status.at, None).lines().next().unwrap().to_owned()
    }

    #[test]
    fn the_first_line_is_the_verdict() {
        let mut status = status();
        assert_eq!(
            first_line(&status),
            "suture [1234] watches pool tp; heals what is proven safe; sees everything"
        );
        for one in &mut status.senses {
            if one.sense == SenseKind::OutOfMemory {
                one.quality = Quality::Missing;
            }
        }
        assert!(first_line(&status).ends_with("; sees everything that it needs"));
        for one in &mut status.senses {
            if one.sense == SenseKind::Lineage {
                one.quality = Quality::Degraded;
            }
        }
        status.overall = Overall::because(shortcomings(&status.senses));
        assert_eq!(
            first_line(&status),
            "DEGRADED: suture [1234] watches pool tp; heals what is proven safe; sees late or less exactly: who forked whom"
        );
        status.mode = Mode::OnlyTells;
        status.overall = Overall::because(vec!["one".to_owned(), "two".to_owned()]);
        let told = text(&status, status.at, None);
        assert!(
            told.starts_with(
                "DEGRADED: suture [1234] watches pool tp; only tells; for 2 reasons:\n  - one\n  - two\n"
            ),
            "{told}"
        );
    }

    #[test]
    fn a_status_that_nobody_renews_is_said_to_be_old() {
        let status = status();
        let told = text(&status, status.at.plus(Duration::from_mins(3)), None);
        assert!(told.starts_with("DEGRADED: "), "{told}");
        assert!(told.contains("said nothing for 3 min"), "{told}");
    }

    #[test]
    fn everything_that_matters_is_in_the_tables() {
        let mut status = status();
        status.senses[0].why = vec!["the kprobe was refused".to_owned()];
        status.gap = Some(crate::model::status::OpenGap {
            noticed: status.at,
            why: "7 device-mapper events were lost".to_owned(),
        });
        status.overall = Overall::because(vec!["7 device-mapper events were lost".to_owned()]);
        status.finding_counts.insert(FindingClass::LeakedThin, 1000);
        let told = text(&status, status.at.plus(Duration::from_secs(2)), None);
        for part in [
            "the kprobe was refused",
            "kprobe dm_ctl_ioctl",
            "; 7 device-mapper events were lost\n",
            "nothing is deleted before",
            "read 3 s ago, in 12.3 ms",
            "containerd [812] is up",
            "leaked-thin",
            "thin device 7",
            "waits: for its grace",
            "and 999 more",
            "the ring buffer was full",
            "bytes of the device-mapper ring",
            "1048576",
            "1,000 findings, 1 operation\n",
            "/var/lib/suture/ledger.db",
            "not delivered to http://collector:4317: refused; 12 kept for later, 3 given up",
        ] {
            assert!(told.contains(part), "`{part}` is not in:\n{told}");
        }
    }

    #[test]
    fn what_keeps_suture_from_healing_and_what_waits_for_a_person_is_told() {
        let mut status = status();
        assert!(!text(&status, status.at, None).contains("healing"));
        status.healing = Some(HealingStatus::default());
        assert!(text(&status, status.at, None).contains("  healing     by the policy\n"));
        status.healing = Some(HealingStatus {
            kill_switch: Some("the kill switch /etc/suture/stop is there".to_owned()),
            ..HealingStatus::default()
        });
        status.findings[0].verdict = Some(VerdictStatus {
            verdict: "await-approval".to_owned(),
            severity: None,
            mode: None,
            plan: Some(PlanId::typed("leaked-thin-3f9a1c2b4d5e")),
            asks: true,
            until: None,
        });
        let told = text(&status, status.at, None);
        assert!(
            told.contains("  healing     the kill switch /etc/suture/stop is there\n"),
            "{told}"
        );
        assert!(told.contains("suture approve leaked-thin-3f9a1c2b4d5e"), "{told}");
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["findings"][0]["verdict"]["plan"], "leaked-thin-3f9a1c2b4d5e");
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status);
        if let Some(verdict) = &mut status.findings[0].verdict {
            verdict.asks = false;
        }
        assert!(!text(&status, status.at, None).contains("suture approve"));
    }

    #[test]
    fn a_status_survives_json_whole_and_its_names_are_stable() {
        let status = status();
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["mode"], "heals");
        assert_eq!(json["overall"]["quality"], "full");
        assert_eq!(json["senses"][0]["sense"], "device_mapper_calls");
        assert_eq!(json["findings"][0]["class"], "leaked-thin");
        assert_eq!(json["findings"][0]["thin_id"], 7);
        assert_eq!(json["finding_counts"]["leaked-thin"], 1);
        assert_eq!(json["losses"][0]["kind"], "dm_ring_full");
        assert_eq!(json["bounds"][0]["bound"], "dm_ring_bytes");
        assert_eq!(json["events"]["dm_ioctl"], 41);
        assert_eq!(json["world"]["last"]["took_us"], 12_345);
        assert_eq!(json["world"]["results"]["consistent"], 9);
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status);
    }
}
