//! `cargo xtask test`: every test, from unit to VM.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::command::clean_cargo;

/// Cases of each property test in the long lane.
const LONG_CASES: &str = "20000";

/// Set for the scenarios in the VM that take long, or that a cheaper one covers too: a thousand checks under load, more
/// places to cut the power.
const LONG_LANE: &str = "SUTURE_LONG_LANE";

/// What may be asked of the tests.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask test\n  cargo xtask test --long\n  cargo xtask test -- leaked_thin"
)]
pub struct Arguments {
    /// The slower lane too: many more cases of each property test, minutes of each fuzz target, a thousand checks under
    /// load, a soak of ten minutes, scenarios that a cheaper one mostly covers, and the story of `cargo xtask run` on both
    /// kernels
    #[arg(long)]
    long: bool,
    /// Arguments for the test programs, such as a part of a test's name
    #[arg(last = true, value_name = "ARGUMENT")]
    for_tests: Vec<String>,
}

/// Makes the machine ready and runs the tests.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "the tests load BPF programs into this machine's kernel and need root; run `sudo -E env PATH=\"$PATH\" cargo xtask test`"
        );
    }
    crate::setup::everything(false)?;
    without_node()?;
    let mut cargo = clean_cargo();
    cargo
        .args(["test", "--locked", "--workspace", "--all-features", "--target-dir"])
        .arg(crate::target_dir())
        .arg("--")
        // As many VMs at a time: each keeps one core busy.
        .args(["--test-threads", "2"])
        .args(&arguments.for_tests)
        .current_dir(crate::workspace_root());
    if arguments.long {
        cargo.env("PROPTEST_CASES", LONG_CASES).env(LONG_LANE, "1");
    }
    let status = cargo.status().context("starting cargo")?;
    if !status.success() {
        bail!("a test failed, see above");
    }
    if arguments.for_tests.is_empty() {
        super::fuzz::all(if arguments.long {
            super::fuzz::LONG
        } else {
            super::fuzz::SHORT
        })?;
    }
    if arguments.long {
        let suture = super::build::suture(super::build::Profile::Release)?;
        for kernel in [crate::setup::Kernel::V6_1, crate::setup::Kernel::V6_12] {
            super::demo::run(&suture, kernel)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What any machine can build and test: the default build, with neither the BPF compiler nor libdevmapper.
fn without_node() -> Result<()> {
    let status = clean_cargo()
        .args([
            "test",
            "--locked",
            "--package",
            "suture",
            "--lib",
            "--test",
            "replay",
            "--target-dir",
        ])
        .arg(crate::target_dir())
        .current_dir(crate::workspace_root())
        .status()
        .context("starting cargo")?;
    if !status.success() {
        bail!("a test of the build without the node's parts failed, see above");
    }
    Ok(())
}
