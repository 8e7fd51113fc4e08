//! A program that runs in the VM.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use suture_vm_guest::{Ask, Program, Stream, Tell};

use super::Signal;
use super::link::Link;
use super::output::{Ended, Output};

/// Longer than any VM lives.
const NO_LIMIT: Duration = Duration::from_hours(365 * 24);

/// A program that was started with [`super::Vm::spawn`]. Dropping it leaves the program alone.
pub struct Process {
    link: Arc<Link>,
    id: u64,
    replies: Receiver<Tell>,
    command: Vec<String>,
    pid: u32,
    out: Vec<u8>,
    err: Vec<u8>,
    /// Complete lines of both streams, in the order in which they ended.
    lines: Vec<String>,
    /// The beginnings of lines without an end yet: standard output, standard error.
    unfinished: (Vec<u8>, Vec<u8>),
    /// How many of `lines` earlier waits have been through.
    looked_at: usize,
    ended: Option<Ended>,
}

impl Process {
    pub(super) fn start(link: &Arc<Link>, program: Program) -> Result<Self> {
        let command = program.argv.clone();
        let replies = link.request(Ask::Run(program))?;
        let pid = match replies.receiver.recv() {
            Ok(Tell::Started(pid)) => pid,
            Ok(Tell::Failed(reason)) => return Err(anyhow!(reason)),
            Ok(other) => bail!("the VM answered {other:?} to the start of a program"),
            Err(_) => return Err(link.gone()),
        };
        Ok(Self {
            link: Arc::clone(link),
            id: replies.id,
            replies: replies.receiver,
            command,
            pid,
            out: Vec::new(),
            err: Vec::new(),
            lines: Vec::new(),
            unfinished: (Vec::new(), Vec::new()),
            looked_at: 0,
            ended: None,
        })
    }

    /// Its process id in the guest.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for a line, of either stream, that `is_it` accepts, and gives it. Lines which an earlier call has been
    /// through are not looked at again, so successive calls find successive events. An error if the program ends
    /// without it, or after `limit`.
    pub fn wait_for_line(&mut self, is_it: impl Fn(&str) -> bool, limit: Duration) -> Result<String> {
        let until = Instant::now() + limit;
        loop {
            while let Some(line) = self.lines.get(self.looked_at) {
                self.looked_at += 1;
                if is_it(line) {
                    return Ok(line.clone());
                }
            }
            if let Some(ended) = self.ended {
                bail!(
                    "`{}` ended ({ended}) without the awaited line; it said:\n{}",
                    self.name(),
                    self.lines.join("\n")
                );
            }
            if !self.take_next(until, &mut |_, _| {})? {
                bail!(
                    "`{}` did not say the awaited line within {limit:?}; it said:\n{}",
                    self.name(),
                    self.lines.join("\n")
                );
            }
        }
    }

    /// The complete lines of both streams that have arrived until now.
    pub fn lines_so_far(&mut self) -> Result<&[String]> {
        while self.ended.is_none() && self.take_next(Instant::now(), &mut |_, _| {})? {}
        Ok(&self.lines)
    }

    /// Sends a signal to it.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        self.link.ask(Ask::Signal {
            run: self.id,
            signal: signal.as_raw(),
        })?;
        Ok(())
    }

    /// Waits for its end, and gives all that it wrote. An error, and the program goes on, after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<Output> {
        self.wait_with(limit, |_, _| {})
    }

    /// As [`Process::wait`], and gives each piece of output that was not yet seen to `sink` as it comes.
    pub fn wait_with(&mut self, limit: Duration, mut sink: impl FnMut(Stream, &[u8])) -> Result<Output> {
        let until = Instant::now() + limit;
        let status = loop {
            if let Some(ended) = self.ended {
                break ended;
            }
            if !self.take_next(until, &mut sink)? {
                bail!(
                    "`{}` had not ended after {limit:?}; it said:\n{}",
                    self.name(),
                    self.lines.join("\n")
                );
            }
        };
        Ok(Output {
            command: self.command.clone(),
            status,
            stdout: String::from_utf8_lossy(&self.out).into_owned(),
            stderr: String::from_utf8_lossy(&self.err).into_owned(),
        })
    }

    /// Waits as long as the VM lives.
    pub fn finish(&mut self) -> Result<Output> {
        self.wait(NO_LIMIT)
    }

    /// As [`Process::finish`], and gives each piece of output to `sink` as it comes.
    pub fn finish_with(&mut self, sink: impl FnMut(Stream, &[u8])) -> Result<Output> {
        self.wait_with(NO_LIMIT, sink)
    }

    fn name(&self) -> String {
        self.command.join(" ")
    }

    /// Takes the next reply in; false if none came until then.
    fn take_next(&mut self, until: Instant, sink: &mut impl FnMut(Stream, &[u8])) -> Result<bool> {
        let ended = match self
            .replies
            .recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            Ok(Tell::Output(stream, piece)) => {
                sink(stream, &piece);
                self.take_output(stream, &piece);
                return Ok(true);
            }
            Ok(Tell::Exited(code)) => Ended::Exited(code),
            Ok(Tell::Killed(signal)) => Ended::Killed(signal),
            Ok(Tell::Failed(reason)) => bail!("`{}` in the VM: {reason}", self.name()),
            Ok(_) => return Ok(true),
            Err(RecvTimeoutError::Timeout) => return Ok(false),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(self.link.gone().context(format!("running `{}`", self.name())));
            }
        };
        self.ended = Some(ended);
        let (out, err) = std::mem::take(&mut self.unfinished);
        let last = [out, err].into_iter().filter(|rest| !rest.is_empty());
        self.lines
            .extend(last.map(|rest| String::from_utf8_lossy(&rest).into_owned()));
        Ok(true)
    }

    fn take_output(&mut self, stream: Stream, piece: &[u8]) {
        let (all, unfinished) = match stream {
            Stream::Out => (&mut self.out, &mut self.unfinished.0),
            Stream::Err => (&mut self.err, &mut self.unfinished.1),
        };
        all.extend_from_slice(piece);
        unfinished.extend_from_slice(piece);
        while let Some(end) = unfinished.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = unfinished.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            self.lines.push(line.trim_end_matches(['\n', '\r']).to_owned());
        }
    }
}
