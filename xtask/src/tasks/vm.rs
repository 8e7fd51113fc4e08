//! stub
/// a
#[derive(Debug, clap::Args)]
pub struct Arguments {}
/// a
pub fn run(_: &Arguments) -> anyhow::Result<std::process::ExitCode> { Ok(0.into()) }
