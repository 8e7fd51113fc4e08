//! containerd itself: what its configuration says (`config`), which process it is (`process`), and what it has started
//! that works on devices (`at_work`).

mod arguments;
mod at_work;
mod config;
mod process;

pub use at_work::at_work;
pub use config::{ConfigError, DEFAULT_CONFIG, Devmapper, discover, read_config};
pub use process::{ProcessError, holder_of, is_running, wait_for_end};
