//! A program from its start to its end: how long it took, and the most memory it had.

#![expect(
    unsafe_code,
    reason = "only wait4(2) tells what one child used, and no library here has it"
)]

use std::{
    io,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};

/// What a program took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    /// From start to end.
    pub(crate) milliseconds: f64,
    /// The most that was resident at any moment, pages of its file included.
    pub(crate) peak_mib: f64,
}

/// Runs a program, which must end with 0, and throws away what it prints.
pub(crate) fn run(command: &mut Command, doing: &str) -> Result<Ended> {
    let begun = Instant::now();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("{doing}: starting a program"))?;
    let pid = libc::pid_t::try_from(child.id())?;
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are to memory of ours of the right type, and nobody else waits for this child.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
    let milliseconds = begun.elapsed().as_secs_f64() * 1000.0;
    if waited != pid {
        return Err(io::Error::last_os_error()).with_context(|| format!("{doing}: waiting for its end"));
    }
    ensure!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
        "{doing}: it failed"
    );
    // SAFETY: all zeros is a value of this structure, and wait4 has filled it in.
    let usage = unsafe { usage.assume_init() };
    #[expect(
        clippy::cast_precision_loss,
        reason = "kibibytes of one process, far below 2^52"
    )]
    let peak_mib = usage.ru_maxrss as f64 / 1024.0;
    Ok(Ended {
        milliseconds,
        peak_mib,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_holds_memory_is_told_with_it_and_one_that_fails_is_an_error() {
        let held = "x=$(head -c 60000000 /dev/zero | tr '\\0' x); sleep 0.05";
        let ended = run(Command::new("sh").args(["-c", held]), "holding memory").unwrap();
        assert!(ended.peak_mib > 50.0 && ended.milliseconds > 50.0, "{ended:?}");
        let small = run(&mut Command::new("true"), "nothing").unwrap();
        assert!(small.peak_mib < 50.0, "{small:?}");
        assert!(run(&mut Command::new("false"), "failing").is_err());
    }
}
