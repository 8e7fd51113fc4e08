//! `suture reject`: keeps a running suture from carrying out one plan.

use clap::Args;

use super::{
    CliError,
    approve::{HowArguments, by},
};
use crate::control::Request;

/// Keep the running suture from carrying out a plan, whatever the policy says.
///
/// It holds until what was found changes, and so has another plan, or until somebody approves the plan.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes:\n  0  it is rejected\n  1  suture could not be asked, or has no such plan\n  2  a wrong word on the command line\n  4  none runs\n  5  suture refuses, such as because the plan is being carried out\n\nExample:\n  suture reject wedge-3f9a1c2b4d5e --why 'the node is drained tonight'"
)]
pub(super) struct RejectArguments {
    /// The plan's name, or that of its finding, or the beginning of one where only one begins so.
    #[arg(value_name = "ID")]
    id: String,
    /// Why; it is kept with the plan.
    #[arg(long, value_name = "TEXT", default_value_t)]
    why: String,
    #[command(flatten)]
    how: HowArguments,
}

pub(super) fn run(arguments: &RejectArguments) -> Result<(), CliError> {
    let plan = arguments.how.plan(&arguments.id)?;
    arguments.how.tell(&Request::Reject {
        plan: plan.id,
        why: arguments.why.clone(),
        by: by(),
    })
}
