//! How a running suture is asked and told: one JSON line each way over a unix socket (`server`, `client`, `message`), and its
//! metrics over HTTP (`http`). Questions are answered with the last `Status` that the agent published; commands wait for the
//! agent (`commands`), who is never waited for by anybody else. `access` says who may, `clients` bounds what they can hold.

mod access;
mod client;
mod clients;
#[cfg(test)]
mod command_tests;
mod commands;
mod error;
mod http;
mod message;
mod peer;
mod server;
mod socket;
pub mod stop;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::sync::watch;

pub use access::Group;
pub use client::{PATIENCE, ask_findings, ask_plans, ask_status, ask_status_within, command};
pub use clients::ClientCounts;
pub use commands::{Asked, CommandSender, Commands, Said, commands};
pub use error::{AskError, ServeError};
pub use http::MetricsServer;
pub use message::{PROTOCOL, Request, StandingFindings};
pub use server::{ControlServer, Serving};

use crate::model::Status;

/// Where the socket is unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/suture/suture.sock";

/// The last status that the agent published.
pub type StatusFeed = watch::Receiver<Arc<Status>>;
