//! `suture run` among other processes: what its service manager hears of it, how it ends, and that there is one of it.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use super::path;

/// Loading the probes takes its time on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A service manager that listens.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn at(place: &str) -> Self {
        let socket = UnixDatagram::bind(place).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Self {
            socket,
            heard: Vec::new(),
        }
    }

    /// Waits for a message with this line; says how many came before it.
    fn hears(&mut self, line: &str) -> usize {
        let (begun, before) = (Instant::now(), self.heard.len());
        loop {
            let mut message = [0; 2048];
            if let Ok(length) = self.socket.recv(&mut message) {
                let text = String::from_utf8(message[..length].to_vec()).unwrap();
                self.heard.push(text.clone());
                if text.lines().any(|one| one.starts_with(line)) {
                    return self.heard.len() - before;
                }
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "`{line}` did not come: {:?}",
                self.heard
            );
        }
    }

    fn last(&self) -> &str {
        self.heard.last().map_or("", String::as_str)
    }
}

/// `suture WORD` for a pool that there is not.
fn command(folder: &tempfile::TempDir, words: &[&str], pool: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_suture"));
    command
        .args(words)
        .args(["--pool", pool, "--root-path", folder.path().to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(folder: &tempfile::TempDir, pool: &str) -> Command {
    let mut run = command(folder, &["run"], pool);
    run.args(["--ledger", &path(folder, "ledger.db")])
        .args(["--socket", &path(folder, "suture.sock")]);
    run
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn the_service_manager_hears_of_it_and_no_second_one_watches_its_pool() {
    xtask::tracefs::mount_if_missing().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let pool = format!("no-such-pool-{}", std::process::id());
    let mut manager = Manager::at(&path(&folder, "notify"));
    let first = run(&folder, &pool)
        .env("NOTIFY_SOCKET", path(&folder, "notify"))
        .env("WATCHDOG_USEC", "1000000")
        .spawn()
        .unwrap();

    // Ready although there is no pool: that is told, and the first look is over.
    manager.hears("READY=1");
    manager.hears("STATUS=DEGRADED: ");
    assert!(
        manager
            .last()
            .contains(&format!("watches pool {pool}; only tells; no finding stands; ")),
        "{}",
        manager.last()
    );
    assert_eq!(manager.last().trim_end().lines().count(), 1);
    let alive = Instant::now();
    for _ in 0..4 {
        manager.hears("WATCHDOG=1");
    }
    assert!(
        alive.elapsed() >= Duration::from_millis(900),
        "every half second, not in {:?}",
        alive.elapsed()
    );

    // A second one.
    let second = run(&folder, &pool).output().unwrap();
    assert_eq!(second.status.code(), Some(8), "{}", text(&second));
    for part in [
        format!("suture [{}] watches the pool {pool} already", first.id()),
        format!("/run/suture/{pool}.lock"),
    ] {
        assert!(text(&second).contains(&part), "{}", text(&second));
    }
    // One that only records changes nothing, and may.
    let record = command(&folder, &["record", &path(&folder, "recording")], &pool)
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while !Path::new(&path(&folder, "recording")).exists() {
        assert!(begun.elapsed() < PATIENCE, "nothing is recorded");
        std::thread::sleep(Duration::from_millis(50));
    }
    signal(&record, "-INT");
    let recorded = record.wait_with_output().unwrap();
    assert_eq!(recorded.status.code(), Some(0), "{}", text(&recorded));

    signal(&first, "-HUP");
    manager.hears("RELOADING=1");
    assert!(manager.last().contains("\nMONOTONIC_USEC="), "{}", manager.last());
    manager.hears("READY=1");
    let begun = Instant::now();
    signal(&first, "-TERM");
    manager.hears("STOPPING=1");
    let ended = first.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended));
    assert!(text(&ended).contains("stopped"), "{}", text(&ended));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    fs::remove_file(format!("/run/suture/{pool}.lock")).unwrap();
}

/// Two that are started at the same moment: one watches, and the other says who does. Once the first is killed, which can not
/// tidy up, another one may.
#[test]
fn of_two_that_start_at_once_one_watches_and_after_its_death_another_may() {
    xtask::tracefs::mount_if_missing().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let pool = format!("nobody-s-pool-{}", std::process::id());
    let of = |number: u32| {
        let mut command = command(&folder, &["run"], &pool);
        command
            .args(["--ledger", &path(&folder, &format!("ledger-{number}.db"))])
            .args(["--socket", &path(&folder, &format!("{number}.sock"))]);
        command
    };
    let mut two = [of(1).spawn().unwrap(), of(2).spawn().unwrap()];
    let begun = Instant::now();
    let loser = loop {
        let ended = two.iter_mut().position(|one| one.try_wait().unwrap().is_some());
        if let Some(loser) = ended {
            break loser;
        }
        assert!(begun.elapsed() < PATIENCE, "both watch");
        std::thread::sleep(Duration::from_millis(20));
    };
    let [one, other] = two;
    let (loser, mut winner) = if loser == 0 { (one, other) } else { (other, one) };
    let refused = loser.wait_with_output().unwrap();
    assert_eq!(refused.status.code(), Some(8), "{}", text(&refused));
    let named = format!("suture [{}] watches the pool {pool} already", winner.id());
    assert!(text(&refused).contains(&named), "{}", text(&refused));
    assert!(winner.try_wait().unwrap().is_none(), "the other one ended too");

    winner.kill().unwrap();
    winner.wait().unwrap();
    let mut manager = Manager::at(&path(&folder, "notify"));
    let next = of(3)
        .env("NOTIFY_SOCKET", path(&folder, "notify"))
        .spawn()
        .unwrap();
    manager.hears("READY=1");
    signal(&next, "-TERM");
    let ended = next.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended));
    fs::remove_file(format!("/run/suture/{pool}.lock")).unwrap();
}
