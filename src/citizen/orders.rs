//! What signals ask of suture: to end (SIGTERM, SIGINT), at once (a second one), to read its configuration again
//! (SIGHUP). A thread of its own takes them, so that they count also while everything else hangs.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
    low_level,
};
use tokio::sync::watch;

/// From the order to end to the end, whatever hangs: 5 s with some to spare. A thread that hangs in the kernel outlives
/// this, as no signal ends it; everything else has ended then.
pub const ENDS_WITHIN: Duration = Duration::from_millis(4500);
/// How often to look for a second order while ending.
const TICK: Duration = Duration::from_millis(20);
/// Exit code of an end that came too late, or too soon, for everything to be stored.
const NOT_KEPT: i32 = 1;

/// How far the end has come.
#[derive(Debug, Clone, Default)]
pub struct Ending {
    begun: Arc<AtomicBool>,
    kept: Arc<AtomicBool>,
}

impl Ending {
    /// Whether it was asked for: then nothing new is begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::SeqCst)
    }

    /// Says that all there is to keep is kept: from now on an end by force loses nothing.
    pub fn is_kept(&self) {
        self.kept.store(true, Ordering::SeqCst);
    }

    fn code(&self) -> i32 {
        if self.kept.load(Ordering::SeqCst) {
            0
        } else {
            NOT_KEPT
        }
    }
}

/// What is asked of suture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// To end.
    End,
    /// To read its configuration again.
    Reload,
}

/// The agent's end of it.
#[derive(Debug)]
pub struct Orders {
    ending: Ending,
    end: watch::Receiver<bool>,
    reload: watch::Receiver<u64>,
}

impl Orders {
    /// Takes the process's signals from now on.
    pub fn by_signals() -> io::Result<Self> {
        let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
        let ending = Ending::default();
        let (to_end, end) = watch::channel(false);
        let (to_reload, reload) = watch::channel(0_u64);
        let theirs = ending.clone();
        thread::Builder::new()
            .name("suture-signals".to_owned())
            .spawn(move || {
                for signal in signals.forever() {
                    if signal == SIGHUP {
                        to_reload.send_modify(|times| *times = times.wrapping_add(1));
                    } else {
                        break;
                    }
                }
                theirs.begun.store(true, Ordering::SeqCst);
                to_end.send_replace(true);
                see_to_the_end(&mut signals, &theirs);
            })?;
        Ok(Self { ending, end, reload })
    }

    /// How far the end has come.
    #[must_use]
    pub fn ending(&self) -> Ending {
        self.ending.clone()
    }

    /// Is done when suture is to end, and from then on at once.
    pub async fn end(&mut self) {
        if self.end.wait_for(|end| *end).await.is_err() {
            // The thread ends with the process.
            std::future::pending::<()>().await;
        }
    }

    /// The next order. Several to read the configuration again, before anybody asks, are one; the order to end stays.
    pub async fn next(&mut self) -> Order {
        tokio::select! {
            biased;
            ended = self.end.wait_for(|end| *end) => {
                if ended.is_ok() {
                    return Order::End;
                }
            }
            again = self.reload.changed() => {
                if again.is_ok() {
                    return Order::Reload;
                }
            }
        }
        std::future::pending().await
    }
}

/// Ends the process if it has not ended by itself in time, or as soon as it is asked again.
fn see_to_the_end(signals: &mut Signals, ending: &Ending) -> ! {
    let begun = Instant::now();
    loop {
        let again = signals.pending().any(|signal| signal != SIGHUP);
        let late = begun.elapsed() >= ENDS_WITHIN;
        if again || late {
            let code = ending.code();
            if code == NOT_KEPT {
                let why = if again {
                    "was asked twice to end, and ends at once"
                } else {
                    "could not end in time, since something hangs, and ends now"
                };
                eprintln!(
                    "suture: {why}; what it saw last may not be in the ledger, and what it had begun is settled by looking at its next start"
                );
            }
            // Nothing that could wait for anybody: no destructors, no handlers.
            low_level::exit(code);
        }
        thread::sleep(TICK);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        io::{BufRead as _, BufReader, Write as _},
        process::{Child, Command, Stdio},
    };

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    const ROLE: &str = "SUTURE_TEST_ORDERS";

    /// Not a test of its own: what the tests below start as a process.
    #[test]
    fn a_process_that_hangs_when_it_is_to_end() {
        let Ok(role) = env::var(ROLE) else { return };
        let orders = Orders::by_signals().unwrap();
        if role == "kept" {
            orders.ending().is_kept();
        }
        writeln!(io::stderr(), "up").unwrap();
        loop {
            thread::sleep(Duration::from_secs(1));
        }
    }

    fn hanging(role: &str) -> Child {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "citizen::orders::tests::a_process_that_hangs_when_it_is_to_end",
                "--nocapture",
            ])
            .env(ROLE, role)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "up\n");
        child
    }

    fn send(child: &Child, signal: Signal) {
        let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    #[test]
    fn what_hangs_is_ended_in_time_and_its_code_says_whether_all_was_kept() {
        for (role, code) in [("hangs", 1), ("kept", 0)] {
            let mut child = hanging(role);
            let begun = Instant::now();
            send(&child, Signal::TERM);
            assert_eq!(child.wait().unwrap().code(), Some(code), "{role}");
            let took = begun.elapsed();
            // Not at once: it had its time. And a busy machine takes some more.
            assert!(
                took >= ENDS_WITHIN && took < ENDS_WITHIN + Duration::from_secs(5),
                "{role}: {took:?}"
            );
        }
    }

    #[test]
    fn the_second_order_to_end_ends_it_at_once_and_a_hang_up_does_not() {
        let mut child = hanging("hangs");
        send(&child, Signal::HUP);
        let begun = Instant::now();
        send(&child, Signal::TERM);
        // As one they would be one order.
        thread::sleep(Duration::from_millis(300));
        send(&child, Signal::HUP);
        thread::sleep(Duration::from_millis(300));
        assert!(child.try_wait().unwrap().is_none(), "ended by SIGHUP");
        send(&child, Signal::INT);
        assert_eq!(child.wait().unwrap().code(), Some(1));
        assert!(begun.elapsed() < ENDS_WITHIN, "{:?}", begun.elapsed());
    }
}
