//! The qemu process: started, watched, ended.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::console::{Console, ConsoleSink, follow};
use super::cut::{CutOn, Source};
use crate::command::tail;

/// How often the process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long a killed process may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(10);

pub(super) struct Machine {
    state: Mutex<State>,
    /// Told when the state's `status` is set.
    ended: Condvar,
    console: Console,
    cut_on: Option<CutOn>,
    begun: Instant,
}

struct State {
    qemu: Child,
    status: Option<ExitStatus>,
    /// Why it ended or is about to, if that was our doing. The first reason stays.
    reason: Option<String>,
}

impl Machine {
    /// Starts qemu. After `limit` it is killed.
    pub(super) fn start(
        mut command: Command,
        limit: Duration,
        mut sink: Option<ConsoleSink>,
        cut_on: Option<CutOn>,
    ) -> Result<Arc<Self>> {
        let mut qemu = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting qemu")?;
        let (stdout, stderr) = (qemu.stdout.take(), qemu.stderr.take());
        let state = Mutex::new(State {
            qemu,
            status: None,
            reason: None,
        });
        let console = Console::default();
        let machine = Arc::new(Self {
            state,
            ended: Condvar::new(),
            console,
            cut_on,
            begun: Instant::now(),
        });
        if let Some(stdout) = stdout {
            let machine = Arc::clone(&machine);
            thread::spawn(move || {
                follow(stdout, |piece| {
                    machine.console.add(piece);
                    machine.look_at(Source::Console, piece);
                    if let Some(sink) = &mut sink {
                        sink(piece);
                    }
                });
            });
        }
        if let Some(stderr) = stderr {
            // What qemu itself complains about belongs where one looks when the machine is gone.
            let machine = Arc::clone(&machine);
            thread::spawn(move || follow(stderr, |piece| machine.console.add(piece)));
        }
        let watched = Arc::clone(&machine);
        thread::spawn(move || watched.watch(limit));
        Ok(machine)
    }

    /// Cuts the power if that is the text it was to be cut on.
    pub(super) fn look_at(&self, source: Source, piece: &[u8]) {
        if self
            .cut_on
            .as_ref()
            .is_some_and(|cut_on| cut_on.feed(source, piece))
        {
            // That the machine is gone already is just as well.
            let _ = self.kill("the power was cut at the awaited text");
        }
    }

    /// Looks after the process until it ended.
    fn watch(&self, limit: Duration) {
        loop {
            let mut state = self.lock();
            match state.qemu.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => {
                    state.status = Some(status);
                    self.ended.notify_all();
                    return;
                }
                Err(_) => return,
            }
            if self.begun.elapsed() > limit {
                state
                    .reason
                    .get_or_insert_with(|| format!("its time limit of {limit:?} was reached"));
                let _ = state.qemu.kill();
            }
            drop(state);
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Ends the machine at once, and waits until it is gone. Fine if it was gone already.
    pub(super) fn kill(&self, reason: &str) -> Result<()> {
        let mut state = self.lock();
        if state.status.is_none() {
            state.reason.get_or_insert_with(|| reason.to_owned());
            state.qemu.kill().context("killing qemu")?;
        }
        drop(state);
        self.wait_for_end(KILL_LIMIT)
    }

    /// Says beforehand why the machine is going to end.
    pub(super) fn expect_end(&self, reason: &str) {
        self.lock().reason.get_or_insert_with(|| reason.to_owned());
    }

    /// Waits until the process is gone.
    pub(super) fn wait_for_end(&self, limit: Duration) -> Result<()> {
        let state = self.lock();
        let waited = self
            .ended
            .wait_timeout_while(state, limit, |state| state.status.is_none());
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.status.is_none() {
            bail!(
                "the VM was still there after {limit:?}; its console ends with:\n{}",
                self.console_tail()
            );
        }
        Ok(())
    }

    /// Whether the process has ended.
    pub(super) fn is_gone(&self) -> bool {
        self.lock().status.is_some()
    }

    /// The reason, as the end of the sentence "the VM is gone: ...".
    pub(super) fn why_gone(&self) -> String {
        // The connection ends a little before the process does.
        let _ = self.wait_for_end(Duration::from_secs(1));
        let state = self.lock();
        match (&state.reason, state.status) {
            (Some(reason), _) => reason.clone(),
            (None, Some(status)) => {
                format!(
                    "it switched itself off or crashed (qemu: {status}); its console ends with:\n{}",
                    self.console_tail()
                )
            }
            (None, None) => format!(
                "its agent is gone; its console ends with:\n{}",
                self.console_tail()
            ),
        }
    }

    pub(super) fn console(&self) -> String {
        self.console.text()
    }

    pub(super) fn console_tail(&self) -> String {
        tail(&self.console.text())
    }

    pub(super) fn uptime(&self) -> Duration {
        self.begun.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
