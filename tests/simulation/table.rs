//! The crash table of docs/crash-table.md: for each window what the facts predict, what the model does when nobody helps, and
//! what suture does. `SUTURE_BLESS=1` writes it anew; a test holds it to what happens.

use std::{fmt::Write as _, fs};

use suture::model::RepairMode;

use crate::{
    machine::{Crash, Machine, State, run},
    one::crashed,
    recovery::{End, Reached, Way, person, recover, works},
    scenes::{SCENES, Scene},
    suture::Suture,
};

/// Whether new snapshots can be made after a crash, when nobody helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Works,
    AfterAnError,
    Never,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::AfterAnError => "works after an error",
            Self::Never => "never works again",
        }
    }
}

/// Names of the windows in the order of the durable steps, by scene. The facts' names; those with a dash lie between two.
fn windows(scene: &Scene) -> &'static [&'static str] {
    match scene.name {
        "prepare without a parent" => &[
            "B1", "B2", "B3", "B4", "B5", "B6-1", "B6-2", "B6", "B7", "B8", "B9-", "B9", "B10", "B11",
        ],
        "prepare on a layer that is not loaded" | "view" => &[
            "B1", "B2", "B3", "B4", "B5", "B6-1", "B6-2", "B6", "B7", "B9-", "B9", "B10", "B11",
        ],
        "prepare on a layer that is loaded" => &[
            "S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9-1", "S9-2", "S9", "S10", "S11", "S12", "S13",
            "S14-", "S14", "S15", "B11",
        ],
        "commit" | "commit of a device that is mounted" => {
            &["C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9", "C10", "C11"]
        }
        "remove" => &["R1", "R2-", "R2-", "R2", "R3", "R4", "R5", "R6", "R7", "R8"],
        "remove of a layer" => &["R4", "R5", "R6", "R7", "R8"],
        "remove with async_remove, and its clean-up" => {
            &["A1", "A2", "A3", "A4-", "A4-", "A4", "A5", "A6", "A7", "A8", "A9"]
        }
        _ => &[],
    }
}

/// What the facts predict of a window when nobody helps: whether new snapshots can be made, and what stays behind.
fn predicted(window: &str, power: bool) -> (Service, &'static str) {
    use Service::{AfterAnError, Never, Works};
    let activating = if power { Works } else { AfterAnError };
    match window {
        "B1" | "B2" => (Works, "a number is burned"),
        "B3" | "B4" | "B5" => (Works, "the thin device is leaked"),
        "B6-1" | "B6-2" if !power => (Never, "a dm device without a live table is never taken away"),
        "S9-1" | "S9-2" if !power => (
            Never,
            "a dm device without a live table is never taken away; the layer hangs until a reboot",
        ),
        "B6-1" | "B6-2" | "B6" => (activating, "the thin device is leaked"),
        "B7" | "B8" | "B9-" | "B9" | "S12" | "S13" | "S14-" | "S14" => (Never, "containerd#5646"),
        "B10" | "S15" => (Works, "a row that the next collection takes"),
        "S1" => (Works, "the layer's record is marked faulty"),
        "S2" => (Works, "the layer is marked faulty, and hangs until a reboot"),
        "S3" => (Works, "the layer hangs until a reboot"),
        "S4" | "S5" => (Works, "a number is burned; the layer hangs until a reboot"),
        "S6" | "S7" | "S8" => (Works, "the thin device is leaked; the layer hangs until a reboot"),
        "S9-1" | "S9-2" | "S9" => (
            activating,
            "the thin device is leaked; the layer hangs until a reboot",
        ),
        "S10" | "S11" => (Never, "containerd#5646; the layer hangs until a reboot"),
        "C1" | "C4" | "C5" | "C7" => (Works, "a good record is marked faulty"),
        "C2" => (Works, "marked faulty, and hangs until a reboot"),
        "C3" => (Works, "it hangs until a reboot"),
        "C8" | "C9" => (Works, "it can not be committed any more"),
        "C10" => (Works, "core has the old key"),
        "R7" => (Works, "neither it nor its parents can ever be removed"),
        "R1" | "R2-" | "R2" | "R3" | "R4" | "R5" | "R6" => (Works, "the next collection finishes it"),
        "A3" | "A4-" | "A4" | "A5" | "A6" | "A7" => (Works, "record and thin device are leaked for ever"),
        "A1" | "A2" | "A8" => (Works, "the next clean-up finishes it"),
        _ => (Works, "nothing"),
    }
}

/// What comes of a crashed machine that is only started again.
fn alone(state: &State) -> Service {
    let machine = Machine::of(state.clone());
    for _ in 0..2 {
        if run(machine.start()).is_ok() {
            break;
        }
        machine.stop();
    }
    person(&machine);
    match (works(&machine), works(&machine), works(&machine)) {
        (Ok(()), ..) => Service::Works,
        (_, Ok(()), _) => Service::AfterAnError,
        _ => Service::Never,
    }
}

fn helped(state: &State, scene: &Scene, way: Way) -> End {
    let machine = Machine::of(state.clone());
    let suture = Suture::on(&machine);
    match recover(&machine, &suture, way, &scene.operation, None, scene.name) {
        Reached::Yes(end) => end,
        Reached::No => End::default(),
    }
}

fn did(end: &End) -> String {
    let mut text = if end.acts.is_empty() {
        "nothing".to_owned()
    } else {
        end.acts.join(", ")
    };
    if end.left.iter().any(|one| one.starts_with("foreign")) {
        text.push_str("; *a thin device is left*");
    }
    text
}

fn table() -> String {
    let mut text = String::new();
    for scene in &SCENES {
        let names = windows(scene);
        if names.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n### {}\n", scene.name);
        text.push_str("| window | last durable step | crash | the facts: when nobody helps | the model: when nobody helps | suture before containerd's start | suture beside it | the same, watched |\n|---|---|---|---|---|---|---|---|\n");
        for (at, window) in names.iter().enumerate() {
            for crash in [Crash::Kill, Crash::Power] {
                let (machine, last) = crashed(scene, false, at + 1, crash)
                    .unwrap_or_else(|| panic!("{}: there is no step {}", scene.name, at + 1));
                let state = machine.get(State::clone);
                let power = crash == Crash::Power;
                let (service, note) = predicted(window, power);
                let found = alone(&state);
                assert_eq!(found, service, "{}, {window} ({last}), {crash:?}", scene.name);
                let before = helped(&state, scene, Way::Before);
                let beside = helped(&state, scene, Way::Beside);
                let seen = crashed(scene, true, at + 1, crash).unwrap().0.get(State::clone);
                let watched = helped(&seen, scene, Way::Beside);
                let _ = writeln!(
                    text,
                    "| {window} | `{last}` | {} | {}; {note} | {} | {} | {} | {} |",
                    if power { "power cut" } else { "kill" },
                    service.name(),
                    found.name(),
                    did(&before),
                    did(&beside),
                    did(&watched),
                );
            }
        }
        let over = crashed(scene, false, names.len() + 1, Crash::Kill);
        assert!(over.is_none(), "{} has more steps than windows", scene.name);
    }
    text
}

const BEGIN: &str = "<!-- by the simulation: begin -->\n";
const END: &str = "\n<!-- by the simulation: end -->";

#[test]
fn the_crash_table_in_the_documentation_is_what_happens() {
    assert_eq!(Way::Before.mode(), RepairMode::Offline);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/crash-table.md");
    let page = fs::read_to_string(path).unwrap();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (written, tail) = rest.split_once(END).unwrap();
    let now = table();
    if std::env::var_os("SUTURE_BLESS").is_some() {
        fs::write(path, format!("{head}{BEGIN}{now}{END}{tail}")).unwrap();
    } else {
        assert!(
            written == now,
            "docs/crash-table.md is out of date: run this test with SUTURE_BLESS=1"
        );
    }
}
