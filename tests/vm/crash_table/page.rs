//! The part of docs/crash-table.md that is made of the rows. `SUTURE_BLESS=1` writes it anew.

use std::{fmt::Write as _, fs};

use anyhow::{Context as _, Result, ensure};

use super::rows::{MISSED, rows};

const BEGIN: &str = "<!-- on a real containerd: begin -->\n";
const END: &str = "\n<!-- on a real containerd: end -->";

const HEAD: &str = "| window | containerd died | crash | the facts: when nobody helps | what was there | found after containerd's start | containerd alone | then suture beside it | and at its next restart | suture before containerd's start |\n|---|---|---|---|---|---|---|---|---|---|\n";

fn table() -> String {
    let mut text = String::new();
    let mut scene = None;
    for row in rows() {
        if scene != Some(row.scene) {
            let _ = write!(text, "\n### {}\n\n{HEAD}", row.scene.name());
            scene = Some(row.scene);
        }
        let crash = if row.power { "power cut" } else { "kill" };
        let _ = writeln!(
            text,
            "| {} | {} | {crash} | {} | {} | {} | {} | {} | {} | {} |",
            row.window,
            row.death,
            row.facts,
            row.found,
            row.told,
            row.alone,
            row.beside,
            row.restart,
            row.before
        );
    }
    text.push_str("\n### Windows that were not hit\n\n| window | why |\n|---|---|\n");
    for (window, why) in MISSED {
        let _ = writeln!(text, "| {window} | {why} |");
    }
    text
}

/// No VM is needed for this: the scenarios hold the rows to what happens, and this holds the page to the rows.
#[test]
fn the_crash_table_of_a_real_containerd_in_the_documentation_is_what_the_scenarios_hold() -> Result<()> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/crash-table.md");
    let page = fs::read_to_string(path)?;
    let (head, rest) = page.split_once(BEGIN).context("where the table begins")?;
    let (written, tail) = rest.split_once(END).context("where the table ends")?;
    let now = table();
    if std::env::var_os("SUTURE_BLESS").is_some() {
        fs::write(path, format!("{head}{BEGIN}{now}{END}{tail}"))?;
        return Ok(());
    }
    ensure!(
        written == now,
        "docs/crash-table.md is out of date: run this test with SUTURE_BLESS=1"
    );
    Ok(())
}
