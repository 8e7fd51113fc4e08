//! What can go wrong with asking and being asked.

use std::{io, net::SocketAddr, path::PathBuf};

/// Why suture can not be asked. It watches all the same.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket's folder could not be made.
    #[error("making the folder of the control socket {path}")]
    Folder {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The lock that goes with the socket could not be had.
    #[error("locking {path}, which says whose the control socket is")]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The group that may ask is not known.
    #[error(
        "looking up the group {name:?} whose members may talk to suture, so only root may; name one of this machine under [control] in the configuration"
    )]
    Group {
        /// Its name.
        name: String,
        /// Why it could not be looked up; nothing where it is simply not there.
        source: Option<io::Error>,
    },
    /// Another suture answers there.
    #[error("another suture answers at {path}; give this one a socket of its own with --socket")]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// Something else lies there.
    #[error("{path} is there and is no socket; remove it, or name another place with --socket")]
    NoSocket {
        /// What lies there.
        path: PathBuf,
    },
    /// The socket could not be made.
    #[error("making the control socket {path}")]
    Bind {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The address of the metrics can not be listened on.
    #[error(
        "listening on {address} for who reads the metrics; name a free address of this machine with --metrics"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Why asking brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody is there.
    #[error(
        "no suture runs here: nobody answers at {path}; start one with `suture run`, or name its socket with --socket"
    )]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// The socket is there and could not be spoken to.
    #[error(
        "asking the suture at {path}; it answers root, who it runs as, and the group that its configuration names"
    )]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It took the question and did not answer.
    #[error(
        "the suture at {path} did not answer within {seconds} s; is it stopped, or its machine overloaded?"
    )]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// How long was waited.
        seconds: f32,
    },
    /// It said no.
    #[error("the suture at {path} refuses: {why}")]
    Refused {
        /// The socket.
        path: PathBuf,
        /// Its words.
        why: String,
    },
    /// It did not follow a command. Nothing was changed.
    #[error("the suture at {path} does not follow: {why}")]
    NotFollowed {
        /// The socket.
        path: PathBuf,
        /// Its words.
        why: String,
    },
    /// Its answer is no answer.
    #[error("the answer of the suture at {path} is not understood; is it one of another version?")]
    Strange {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}
