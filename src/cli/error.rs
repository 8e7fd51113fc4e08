//! Why a command ended early.

use std::io;

use crate::recording::{Damage, NotARecording};
#[cfg(feature = "node")]
use crate::{
    agent::AgentError,
    citizen::OnlyOneError,
    config::ConfigFileError,
    control::AskError,
    ledger::LedgerError,
    observe::{containerd::ConfigError, kernel_watch::KernelWatchError, world::WorldError},
};

/// Why a command ended early. Its message says what was being done; its sources say why that failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The agent could not start, or ended.
    #[cfg(feature = "node")]
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// Another suture watches the pool, or that can not be told.
    #[cfg(feature = "node")]
    #[error(transparent)]
    OnlyOne(#[from] OnlyOneError),
    /// Where the snapshotter keeps its things is not known.
    #[cfg(feature = "node")]
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// suture's own configuration can not be used.
    #[cfg(feature = "node")]
    #[error(transparent)]
    ConfigFile(#[from] ConfigFileError),
    /// The ledger could not be read.
    #[cfg(feature = "node")]
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The snapshotter and its pool could not be read.
    #[cfg(feature = "node")]
    #[error(transparent)]
    World(#[from] WorldError),
    /// Whose the pool's blocks are could not be read.
    #[cfg(feature = "node")]
    #[error("reading whose the pool's blocks are: {0}")]
    Space(String),
    /// Nothing, or more than one thing, goes by the name that was given.
    #[cfg(feature = "node")]
    #[error("{0}")]
    Named(String),
    /// The kernel could not be watched.
    #[cfg(feature = "node")]
    #[error(transparent)]
    KernelWatch(#[from] KernelWatchError),
    /// The kill switch could not be made or removed.
    #[cfg(feature = "node")]
    #[error(transparent)]
    KillSwitch(#[from] crate::control::stop::KillSwitchError),
    /// A person did not agree, or could not be asked. Nothing was changed.
    #[cfg(feature = "node")]
    #[error("{0}; nothing was changed")]
    NotAgreed(&'static str),
    /// A running suture could not be asked.
    #[cfg(feature = "node")]
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The databases could not be watched.
    #[cfg(feature = "node")]
    #[error("starting the thread that watches containerd's databases")]
    Databases(#[source] io::Error),
    /// Reading the probes broke off.
    #[cfg(feature = "node")]
    #[error("reading the kernel's events broke off: {0}")]
    ProbesBroke(String),
    /// The asynchronous runtime could not start.
    #[cfg(feature = "node")]
    #[error("starting the runtime's threads")]
    Runtime(#[source] io::Error),
    /// A value could not be written as JSON.
    #[cfg(feature = "node")]
    #[error("writing a result as JSON")]
    Json(#[from] serde_json::Error),
    /// The command touches a node, and this suture can not.
    #[cfg(not(feature = "node"))]
    #[error(
        "this suture was built without the node's parts; build it with `cargo build --release --features node` (or `cargo xtask build`)"
    )]
    WithoutNode,
    /// A file could not be opened.
    #[error("opening {file}")]
    Open {
        /// Its name.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// Nothing of a file can be replayed.
    #[error("{file}")]
    NotARecording {
        /// Its name.
        file: String,
        /// Why.
        source: NotARecording,
    },
    /// Only a part of a recording could be read.
    #[error("{file}: read up to entry {entries}")]
    Damaged {
        /// Its name.
        file: String,
        /// How many entries were read.
        entries: u64,
        /// Why no more.
        source: Box<Damage>,
    },
    /// Manual pages could not be written.
    #[error("writing manual pages into {folder}; name a folder that may be written to")]
    ManualPages {
        /// Its name.
        folder: String,
        /// Why.
        source: io::Error,
    },
    /// Standard output could not be written, other than by its reader going away.
    #[error("writing to standard output")]
    Print(#[source] io::Error),
}

#[cfg(feature = "node")]
impl CliError {
    /// An error of writing JSON to standard output: of the value, or of the output.
    pub(super) fn json(error: serde_json::Error) -> Self {
        match error.io_error_kind() {
            Some(_) => Self::Print(error.into()),
            None => Self::Json(error),
        }
    }
}
