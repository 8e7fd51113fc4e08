//! Asks a running suture.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use rustix::io::Errno;
use serde_json::Value;

use super::{Answer, AskError, Request, socket::connect_to};

/// How long to wait for each step of an answer, unless the asker has less time.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer. The largest honest one has 256 findings of some hundred bytes.
const MAX_ANSWER: u64 = 16 * 1024 * 1024;

/// How the suture at a socket is, as it said it: one of another version may say more, or less.
pub fn ask_status(path: &Path) -> Result<Value, AskError> {
    ask_status_within(path, PATIENCE)
}

/// The same, for a moment only: for whoever has little time, and can do without an answer.
pub fn ask_status_within(path: &Path, patience: Duration) -> Result<Value, AskError> {
    let strange = |source| AskError::Strange {
        path: path.to_owned(),
        source,
    };
    let request = serde_json::to_string(&Request::Status).map_err(strange)?;
    let line = converse(path, patience, &request)?;
    match serde_json::from_slice(&line).map_err(strange)? {
        Answer::Status { status } => Ok(status),
        Answer::Refused { why } => Err(AskError::Refused {
            path: path.to_owned(),
            why,
        }),
    }
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
    writeln!(stream, "{request}").map_err(failed)?;
    let mut line = Vec::new();
    BufReader::new(stream.take(MAX_ANSWER))
        .read_until(b'\n', &mut line)
        .map_err(failed)?;
    Ok(line)
}
