use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    time::Duration,
};

use super::*;

const PLACE: &str = "SUTURE_TEST_LEDGER_TO_BE_KILLED_OVER";

/// What the child process of the next test does; alone it does nothing.
#[test]
fn writes_until_it_is_killed() {
    let Some(place) = env::var_os(PLACE) else {
        return;
    };
    let mut ledger = Ledger::open(Path::new(&place)).unwrap();
    let mut out = std::io::stderr();
    for number in 1.. {
        ledger.intend(&plan_of(number), &reading(), at(30)).unwrap();
        ledger.save_operation(&abandoned(number)).unwrap();
        // In one call, so that no half of a line is left when the process is killed.
        out.write_all(format!("stored {number}\n").as_bytes()).unwrap();
        if number % 50 == 0 {
            let _ = ledger
                .connection
                .query_row("PRAGMA wal_checkpoint", [], |_| Ok(()));
        }
    }
}

#[test]
fn a_suture_killed_while_it_writes_leaves_a_whole_ledger_with_every_intent_it_was_told_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..12_u64 {
        let path = folder.path().join(format!("ledger-{round}.db"));
        let mut child = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "ledger::tests::killed::writes_until_it_is_killed",
                "--nocapture",
            ])
            .env(PLACE, &path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let first = lines
            .find(|line| line.as_ref().is_ok_and(|line| line.starts_with("stored")))
            .unwrap()
            .unwrap();
        std::thread::sleep(Duration::from_millis(round * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let told = lines
            .map_while(Result::ok)
            .filter(|line| line.starts_with("stored"))
            .last()
            .unwrap_or(first);
        let told: usize = told.trim_start_matches("stored ").parse().unwrap();

        let opened = Ledger::open_or_begin_anew(&path).unwrap();
        assert_eq!(opened.set_aside, None);
        let (intents, operations) = (
            opened.ledger.open_intents().unwrap(),
            opened.ledger.open_operations().unwrap(),
        );
        // The one that was under way is there or not, whole.
        assert!(
            [told, told + 1].contains(&intents.len()),
            "{told} were stored, {} are there",
            intents.len()
        );
        assert!(
            [told, told + 1].contains(&operations.len()),
            "{told}, {}",
            operations.len()
        );
        for (intent, number) in intents.iter().zip(1..) {
            assert_eq!(intent.plan, plan_of(number));
        }
    }
}
