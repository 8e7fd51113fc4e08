//! The subcommands that need a node, where suture was built without: they say so.

use std::ffi::OsString;

use clap::Args;

/// Whatever was asked.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct AbsentArguments {
    /// Not looked at.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _arguments: Vec<OsString>,
}
