//! The words that the test VM and the host speak with each other.
//!
//! Both sides send frames over one virtio serial port: four bytes of length, little endian, then a [`Request`] or a
//! [`Reply`] in postcard's encoding. Requests carry a number of the host's choice; every reply names the request it
//! belongs to, so any number of them can be under way at once.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The name of the virtio serial port on both sides.
pub const PORT_NAME: &str = "suture-vm";

/// On the kernel's command line: the guest's first process becomes systemd.
pub const SYSTEMD: &str = "suture.init=systemd";

/// The largest frame that is sent or accepted, in bytes. Files beyond it do not fit; disks are there for those.
pub const MAX_FRAME: usize = 64 * 1024 * 1024;

/// The number of replies that answer no request.
pub const NO_REQUEST: u64 = 0;

/// What the host asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the host, above [`NO_REQUEST`].
    pub id: u64,
    /// What is to be done.
    pub what: Ask,
}

/// The things that can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Run a program. Answered by `Started`, any number of `Output`s, and `Exited` or `Killed`.
    Run(Program),
    /// Send a signal to the program that was started by an earlier request.
    Signal {
        /// The request that started it.
        run: u64,
        /// The signal's number.
        signal: i32,
    },
    /// Write a file, through a temporary one beside it. Answered by `Done`.
    WriteFile {
        /// Where.
        path: String,
        /// Its permissions, as in `0o755`.
        mode: u32,
        /// Its contents.
        bytes: Vec<u8>,
    },
    /// Read a file. Answered by `File`.
    ReadFile {
        /// Which.
        path: String,
    },
    /// Sync and switch the machine off. Not answered.
    PowerOff,
}

/// A program to be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The program and its arguments; never empty.
    pub argv: Vec<String>,
    /// Variables on top of the agent's own environment.
    pub env: Vec<(String, String)>,
    /// The folder to run in; `/root` if none.
    pub folder: Option<String>,
    /// What it reads from its standard input.
    pub stdin: Vec<u8>,
}

/// What the guest tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The request it belongs to.
    pub id: u64,
    /// What happened.
    pub what: Tell,
}

/// The things that can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tell {
    /// The guest is up and takes requests. The only reply without a request.
    Ready,
    /// The program runs, under this process id.
    Started(u32),
    /// A piece of the program's output.
    Output(Stream, Vec<u8>),
    /// The program ended by itself, with this code. Nothing follows.
    Exited(i32),
    /// The program was ended by this signal. Nothing follows.
    Killed(i32),
    /// A file's contents.
    File(Vec<u8>),
    /// It is done.
    Done,
    /// It could not be done, for this reason. Nothing follows.
    Failed(String),
}

/// Where a program wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Writes one frame.
pub fn send<T: Serialize>(to: &mut impl Write, message: &T) -> io::Result<()> {
    let body = postcard::to_stdvec(message).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX_FRAME);
    let length =
        length.ok_or_else(|| io::Error::other(format!("a message of {} bytes is too long", body.len())))?;
    // One write, so that a frame is not torn when several are to be sent.
    let mut frame = length.to_le_bytes().to_vec();
    frame.extend_from_slice(&body);
    to.write_all(&frame)?;
    to.flush()
}

/// Reads one frame; none at the end of the stream.
pub fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(io::Error::other(format!(
            "a message of {length} bytes is too long; the stream is damaged"
        )));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    postcard::from_bytes(&body).map(Some).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in() {
        let first = Reply {
            id: 7,
            what: Tell::Output(Stream::Err, b"x\0y".to_vec()),
        };
        let second = Reply {
            id: NO_REQUEST,
            what: Tell::Ready,
        };
        let mut wire = Vec::new();
        send(&mut wire, &first).unwrap();
        send(&mut wire, &second).unwrap();
        let mut wire = wire.as_slice();
        assert_eq!(receive::<Reply>(&mut wire).unwrap(), Some(first));
        assert_eq!(receive::<Reply>(&mut wire).unwrap(), Some(second));
        assert_eq!(receive::<Reply>(&mut wire).unwrap(), None);
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_memory_is_taken() {
        let error = receive::<Reply>(&mut u32::MAX.to_le_bytes().as_slice()).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }

    #[test]
    fn a_cut_frame_is_an_error() {
        let mut wire = Vec::new();
        send(
            &mut wire,
            &Reply {
                id: 1,
                what: Tell::Done,
            },
        )
        .unwrap();
        wire.pop();
        assert!(receive::<Reply>(&mut wire.as_slice()).is_err());
    }
}
