//! Asks a running suture, and tells it what to do.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use rustix::io::Errno;
use serde_json::Value;

use super::{AskError, Request, StandingFindings, commands, message::Heard, socket::connect_to};
use crate::model::{Effect, healing::PlanStatus};

/// How long to wait for each step of an answer, unless the asker has less time.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer. The largest honest one has 256 findings of some hundred bytes, or a few plans of some thousand acts.
const MAX_ANSWER: u64 = 16 * 1024 * 1024;

/// How the suture at a socket is, as it said it: one of another version may say more, or less.
pub fn ask_status(path: &Path) -> Result<Value, AskError> {
    ask_status_within(path, PATIENCE)
}

/// The same, for a moment only: for whoever has little time, and can do without an answer.
pub fn ask_status_within(path: &Path, patience: Duration) -> Result<Value, AskError> {
    match ask(path, &Request::Status {}, patience)? {
        Heard::Status { status } => Ok(status),
        other => Err(unexpected(path, &other)),
    }
}

/// The findings that stand.
pub fn ask_findings(path: &Path) -> Result<StandingFindings, AskError> {
    match ask(path, &Request::Findings {}, PATIENCE)? {
        Heard::Findings(findings) => Ok(findings),
        other => Err(unexpected(path, &other)),
    }
}

/// The plans whose name, or whose finding's name, begins so.
pub fn ask_plans(path: &Path, about: &str) -> Result<Vec<PlanStatus>, AskError> {
    let request = Request::Plans {
        about: Some(about.to_owned()),
    };
    match ask(path, &request, PATIENCE)? {
        Heard::Plans { plans } => Ok(plans),
        other => Err(unexpected(path, &other)),
    }
}

/// Tells the suture at a socket what to do; waits for the agent as long as the server does.
pub fn command(path: &Path, request: &Request) -> Result<Effect, AskError> {
    match ask(path, request, commands::PATIENCE + PATIENCE)? {
        Heard::Followed { effect } => Ok(effect),
        other => Err(unexpected(path, &other)),
    }
}

fn unexpected(path: &Path, heard: &Heard) -> AskError {
    let path = path.to_owned();
    match heard {
        Heard::Refused { why } => AskError::Refused {
            path,
            why: why.clone(),
        },
        Heard::NotFollowed { why } => AskError::NotFollowed {
            path,
            why: why.clone(),
        },
        _ => AskError::Strange {
            path,
            source: serde::de::Error::custom("it answers another question"),
        },
    }
}

fn ask(path: &Path, request: &Request, patience: Duration) -> Result<Heard, AskError> {
    let strange = |source| AskError::Strange {
        path: path.to_owned(),
        source,
    };
    let line = converse(path, patience, &request.line().map_err(strange)?)?;
    serde_json::from_slice(&line).map_err(strange)
}

fn converse(path: &Path, patience: Duration, request: &str) -> Result<Vec<u8>, AskError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => AskError::NoAnswer {
            path: path.to_owned(),
            seconds: patience.as_secs_f32(),
        },
        _ => AskError::Connect {
            path: path.to_owned(),
            source,
        },
    };
    let socket = connect_to(path, Some(patience)).map_err(|errno| match errno {
        Errno::NOENT | Errno::CONNREFUSED => AskError::NotRunning {
            path: path.to_owned(),
        },
        other => failed(other.into()),
    })?;
    let mut stream = UnixStream::from(socket);
    stream.set_read_timeout(Some(patience)).map_err(failed)?;
    writeln!(stream, "{request}").map_err(failed)?;
    let mut line = Vec::new();
    BufReader::new(stream.take(MAX_ANSWER))
        .read_until(b'\n', &mut line)
        .map_err(failed)?;
    Ok(line)
}
