//! Waits for the process that does the work, at most until the deadline. One that hangs in the kernel (state D) can not be
//! killed; it is left behind, and holds no lock that containerd waits for.

use std::{
    io::{BufRead as _, BufReader},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Child, Command},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};

use super::OPERATIONAL;

/// Time for a worker that was asked to end.
const TO_END: Duration = Duration::from_millis(300);

/// Starts the worker with this process's own arguments, and waits for it.
pub(super) fn run(deadline: Duration) -> u8 {
    let (ours, theirs) = match UnixStream::pair() {
        Ok(pair) => pair,
        Err(error) => return failed(&format!("making a socket for the worker: {error}")),
    };
    let started = Instant::now();
    // This very program, also when its file was replaced meanwhile.
    let worker = Command::new("/proc/self/exe")
        .arg0(std::env::args_os().next().unwrap_or_else(|| "suture".into()))
        .args(std::env::args_os().skip(1))
        .arg("--as-worker")
        .stdin(OwnedFd::from(theirs))
        .spawn();
    let mut worker = match worker {
        Ok(worker) => worker,
        Err(error) => return failed(&format!("starting the process that does the work: {error}")),
    };
    let doing = Arc::new(Mutex::new("starting".to_owned()));
    let told = Arc::clone(&doing);
    thread::spawn(move || {
        for line in BufReader::new(ours).lines().map_while(Result::ok) {
            *told.lock().unwrap_or_else(PoisonError::into_inner) = line;
        }
    });
    if wait(&mut worker, deadline.saturating_sub(started.elapsed())) {
        return match worker.wait().map(|status| status.code()) {
            Ok(Some(code)) => u8::try_from(code).unwrap_or(OPERATIONAL),
            _ => failed("the process that does the work was killed; the next repair settles what it left"),
        };
    }
    let doing = doing.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let gone = end(&mut worker);
    let rest = if gone {
        "it was stopped; whatever it had begun is whole, and the next repair goes on from there"
    } else {
        "it hangs in the kernel and can not be stopped; it holds no lock that containerd waits for"
    };
    failed(&format!(
        "the repair was not finished within {} s. It was: {doing}; {rest}",
        deadline.as_secs_f32()
    ))
}

/// Whether it ended in this time.
fn wait(worker: &mut Child, time: Duration) -> bool {
    let pid = i32::try_from(worker.id()).ok().and_then(Pid::from_raw);
    let handle = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let until = Instant::now() + time;
    loop {
        if matches!(worker.try_wait(), Ok(Some(_))) {
            return true;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        match &handle {
            Some(handle) => {
                let left = Timespec {
                    tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: i64::from(left.subsec_nanos()),
                };
                // An interruption, or a wrong word from the kernel, is only another look.
                let _ = poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&left));
            }
            None => thread::sleep(left.min(Duration::from_millis(5))),
        }
    }
}

/// Asks it to end, which lets it put things in order, and then kills it.
fn end(worker: &mut Child) -> bool {
    if let Some(pid) = i32::try_from(worker.id()).ok().and_then(Pid::from_raw) {
        // It is a child that was not waited for, so the number is its own.
        let _ = kill_process(pid, Signal::TERM);
    }
    if wait(worker, TO_END) {
        return true;
    }
    drop(worker.kill());
    wait(worker, TO_END)
}

fn failed(why: &str) -> u8 {
    eprintln!("suture: {why}");
    OPERATIONAL
}
