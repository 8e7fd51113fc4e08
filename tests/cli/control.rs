//! What people tell a running suture, and what it says, against a suture of which only the socket is there.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixListener,
    path::PathBuf,
    process::{Output, Stdio},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use super::path;

/// A folder with a socket at which somebody answers, and what they were asked.
struct Fake {
    folder: tempfile::TempDir,
    asked: Arc<Mutex<Vec<Value>>>,
}

fn plan(id: &str, thin_id: u32) -> Value {
    let acts = json!([{ "act": "delete-thin", "thin_id": thin_id }]);
    let finding = format!("wedge/tp/{thin_id}");
    json!({
        "id": id, "finding": finding, "mode": "approve", "verdict": "await-approval", "asks": true,
        "plan": {
            "finding": finding, "class": "wedge", "severity": "outage",
            "subject": "thin_device", "thin_id": thin_id, "provenance": { "known": "unknown" },
            "remedy": { "action": "undo-half-done", "when": "online", "guards": ["still-found"], "acts": acts, "why": "so" },
            "acts": acts, "conditions": ["still-found", "not-open"], "left_out": null,
        }
    })
}

/// As a running suture would.
fn answer(question: &Value) -> Value {
    let followed = |effect: Value| json!({ "answer": "followed", "effect": effect, "protocol": 1 });
    match question["ask"].as_str().unwrap() {
        "findings" => json!({
            "answer": "findings", "at": "2026-11-20T21:30:57Z", "pid": 77, "total": 300,
            "obstacles": ["paused until `suture resume` by root"],
            "findings": [
                { "id": "wedge/tp/7", "class": "wedge", "subject": "thin_device", "thin_id": 7,
                  "first_seen": "2026-11-20T21:00:00Z", "decision": "waits for an approval",
                  "verdict": { "verdict": "await-approval", "plan": "wedge-aaaa", "asks": true } },
                { "id": "leaked-thin/tp/8", "class": "leaked-thin", "subject": "thin_device", "thin_id": 8,
                  "first_seen": "2026-11-20T21:00:00Z", "decision": "waits: for its grace" },
            ],
        }),
        "plans" => {
            let about = question["about"].as_str().unwrap();
            let all = [plan("wedge-aaaa", 7), plan("wedge-aabb", 8)];
            let fits: Vec<_> = all
                .into_iter()
                .filter(|plan| {
                    ["id", "finding"]
                        .iter()
                        .any(|key| plan[key].as_str().unwrap().starts_with(about))
                })
                .collect();
            json!({ "answer": "plans", "plans": fits })
        }
        "approve" if question["plan"] == "wedge-aabb" => json!({
            "answer": "not_followed", "why": "the plan needs no approval",
            "refusal": { "refusal": "no-such-plan", "id": "wedge-aabb" },
        }),
        "approve" => {
            followed(json!({ "effect": "approved", "id": question["plan"], "finding": "wedge/tp/7" }))
        }
        "reject" => {
            followed(json!({ "effect": "rejected", "id": question["plan"], "finding": "wedge/tp/7" }))
        }
        "pause" => followed(json!({ "effect": "paused", "until": null })),
        "resume" => followed(json!({ "effect": "resumed", "was_paused": true, "breakers": 1 })),
        other => json!({ "answer": "refused", "why": format!("{other} is not understood") }),
    }
}

impl Fake {
    fn new() -> Self {
        let fake = Self::down();
        let listener = UnixListener::bind(fake.socket()).unwrap();
        let asked = Arc::clone(&fake.asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                let question = serde_json::from_str(&line).unwrap();
                let answer = answer(&question);
                asked.lock().unwrap().push(question);
                writeln!(stream, "{answer}").unwrap();
            }
        });
        fake
    }

    /// Nobody is there.
    fn down() -> Self {
        let fake = Self {
            folder: tempfile::tempdir().unwrap(),
            asked: Arc::default(),
        };
        let switch = format!("[policy]\nkill-switch = '{}'\n", fake.kill_switch().display());
        fs::write(fake.folder.path().join("suture.toml"), switch).unwrap();
        fake
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("suture.sock")
    }

    fn kill_switch(&self) -> PathBuf {
        self.folder.path().join("etc/stop")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let config = path(&self.folder, "suture.toml");
        let ledger = path(&self.folder, "ledger.db");
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_suture"))
            .args(arguments)
            .env("SUTURE_SOCKET", self.socket())
            .env("SUTURE_CONFIG", config)
            .env("SUTURE_LEDGER", ledger)
            .env("SUDO_USER", "alice")
            .stdin(Stdio::null())
            .output();
        output.unwrap()
    }

    /// What it was asked last.
    fn last(&self) -> Value {
        self.asked.lock().unwrap().last().unwrap().clone()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Ends with this code and says all of this on one of the two outputs.
fn ends(output: &Output, code: i32, said: &[&str]) {
    let all = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{all}");
    for part in said {
        assert!(all.contains(part), "`{part}` is not in: {all}");
    }
}

#[test]
fn findings_are_those_of_the_running_suture() {
    let fake = Fake::new();
    let output = fake.run(&["findings"]);
    ends(
        &output,
        0,
        &[
            "source: the running suture [77]",
            "healing: paused until `suture resume` by root",
            "the oldest 2 of 300",
            "wedge-aaaa",
            "waits for `suture approve`",
            "waits: for its grace",
        ],
    );
    let output = fake.run(&["findings", "--class", "leaked-thin", "--output", "json"]);
    let lines: Vec<Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["source"], "sidecar");
    assert_eq!(lines[0]["id"], "leaked-thin/tp/8");
    let output = fake.run(&["findings", "--output", "json"]);
    assert!(text(&output.stdout).contains("\"plan\":\"wedge-aaaa\""));
}

#[test]
fn findings_come_from_the_ledger_where_none_runs() {
    let fake = Fake::down();
    ends(&fake.run(&["findings"]), 4, &["no suture runs here", "ledger.db"]);
    drop(suture::ledger::Ledger::open(&fake.folder.path().join("ledger.db")).unwrap());
    let output = fake.run(&["findings"]);
    ends(
        &output,
        0,
        &["source: the ledger ", "no suture runs here", "no findings"],
    );
    ends(&fake.run(&["findings", "all"]), 0, &["all that it has"]);
    ends(
        &fake.run(&["history", "--since", "1h"]),
        0,
        &["nothing of that was found"],
    );
    ends(
        &fake.run(&["history", "--since", "yesterday"]),
        2,
        &["expected a time ago"],
    );
}

#[test]
fn an_approval_shows_the_plan_and_needs_a_yes() {
    let fake = Fake::new();
    let shown = [
        "plan wedge-aaaa",
        "delete thin device 7 from the pool",
        "not-open: nobody has the device open or mounted",
    ];
    let output = fake.run(&["approve", "wedge/tp/7"]);
    ends(&output, 5, &shown);
    ends(&output, 5, &["say --yes", "nothing was changed"]);
    assert_eq!(fake.last()["ask"], "plans");

    let output = fake.run(&["approve", "wedge-aaa", "--yes"]);
    ends(&output, 0, &shown);
    assert!(text(&output.stdout).starts_with("approved: wedge-aaaa about wedge/tp/7"));
    assert_eq!(
        fake.last(),
        json!({ "ask": "approve", "plan": "wedge-aaaa", "by": "alice", "protocol": 1 })
    );
    let output = fake.run(&["approve", "wedge-aaaa", "--yes", "--output", "json"]);
    let effect: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(effect["effect"], "approved");
}

#[test]
fn a_plan_that_is_not_named_exactly_is_not_approved() {
    let fake = Fake::new();
    for (id, said) in [
        (
            "wedge",
            "2 plans begin with wedge; name one of wedge-aaaa, wedge-aabb",
        ),
        ("orphan", "no finding has a plan"),
    ] {
        ends(&fake.run(&["approve", id, "--yes"]), 1, &[said]);
        assert_eq!(fake.last()["ask"], "plans");
    }
    ends(
        &fake.run(&["approve", "wedge-aabb", "--yes"]),
        5,
        &["does not follow: the plan needs no approval"],
    );
}

#[test]
fn a_rejection_and_a_pause_say_why() {
    let fake = Fake::new();
    let output = fake.run(&["reject", "wedge-aaaa", "--why", "tonight"]);
    ends(&output, 0, &["rejected: wedge-aaaa"]);
    assert_eq!(fake.last()["why"], "tonight");
    let output = fake.run(&["pause", "--for", "1h", "--why", "work"]);
    ends(&output, 0, &["paused until `suture resume`"]);
    assert_eq!(
        fake.last(),
        json!({ "ask": "pause", "for_seconds": 3600, "why": "work", "by": "alice", "protocol": 1 })
    );
    assert!(!fake.kill_switch().exists());
    ends(&fake.run(&["pause", "--for", "0s"]), 2, &["from 1s to 366d"]);
    let output = fake.run(&["resume"]);
    ends(&output, 0, &["it goes on; one kind of remedy"]);
}

#[test]
fn while_none_runs_nothing_is_approved_and_a_pause_makes_the_kill_switch() {
    let fake = Fake::down();
    ends(
        &fake.run(&["approve", "wedge-aaaa", "--yes"]),
        4,
        &["no suture runs here", "suture repair --finding ID"],
    );
    ends(&fake.run(&["reject", "wedge-aaaa"]), 4, &["no suture runs here"]);
    ends(&fake.run(&["pause", "--for", "1h"]), 4, &["without --for"]);
    assert!(!fake.kill_switch().exists());
    ends(&fake.run(&["resume"]), 4, &["no suture runs here"]);

    ends(&fake.run(&["pause", "--why", "work"]), 0, &["was made"]);
    let made = fs::read_to_string(fake.kill_switch()).unwrap();
    assert!(made.contains("who: alice\nwhy: work\n"), "{made}");
    ends(&fake.run(&["pause"]), 0, &["is there already"]);
    ends(&fake.run(&["resume"]), 0, &["is removed"]);
    assert!(!fake.kill_switch().exists());
}

#[test]
fn resume_leaves_a_kill_switch_that_somebody_made_by_hand() {
    for fake in [Fake::down(), Fake::new()] {
        fs::create_dir(fake.folder.path().join("etc")).unwrap();
        fs::write(fake.kill_switch(), "").unwrap();
        ends(
            &fake.run(&["resume"]),
            5,
            &["is still there", "remove it by hand"],
        );
        assert!(fake.kill_switch().exists());
    }
}
