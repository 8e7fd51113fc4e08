//! How a running suture is asked: one JSON line each way over a unix socket (`server`, `client`), and its metrics over
//! HTTP (`http`). What is answered is the last `Status` that the agent published: nobody who asks can hold up the agent,
//! and `clients` bounds what they can hold of the rest.

mod client;
mod clients;
mod error;
mod http;
mod server;
mod socket;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use client::{PATIENCE, ask_status, ask_status_within};
pub use clients::ClientCounts;
pub use error::{AskError, ServeError};
pub use http::MetricsServer;
pub use server::ControlServer;

use crate::model::Status;

/// Where the socket is unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/suture/suture.sock";

/// The last status that the agent published.
pub type StatusFeed = watch::Receiver<Arc<Status>>;

/// What may be asked: one line of JSON, such as `{"ask":"status"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// How suture is.
    Status,
}

/// What is answered: one line of JSON. `S` is how the asker wants the status: as one, or as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer<S> {
    /// How suture is.
    Status {
        /// The last that the agent published.
        status: S,
    },
    /// Nothing is told.
    Refused {
        /// Why, in a sentence.
        why: String,
    },
}
