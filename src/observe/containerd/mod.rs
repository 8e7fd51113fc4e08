//! containerd itself: what its configuration says (`config`), and which process it is (`process`).

mod config;
mod process;

pub use config::{ConfigError, Devmapper, read_config};
pub use process::{ProcessError, holder_of, is_running, wait_for_end};
