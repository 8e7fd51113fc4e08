//! `cargo xtask fuzz`: the targets of `fuzz/`, built by the same compiler as everything else.
//!
//! What cargo-fuzz needs a nightly compiler for is its choice of a sanitizer. In code without `unsafe` there is nothing for
//! one to find; the coverage that libFuzzer is guided by is a pass of LLVM's that every compiler has.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};

use crate::command::clean_cargo;

/// What cargo-fuzz builds with, without a sanitizer (its `src/project.rs`).
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1";
/// With a target named, the flags do not reach build scripts and macros.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// Seconds that one input may take. Readers look several times at what looks torn, which takes some 200 ms.
const TIMEOUT: u64 = 10;
/// Memory of the whole program, in MiB: a second net below the one of `fuzz/src/bounds.rs`.
const MEMORY: u64 = 2048;

/// What may be asked of the fuzzing.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask fuzz\n  cargo xtask fuzz pool_db --seconds 600\n  cargo xtask fuzz pool_db --input target/fuzz/artifacts/pool_db/crash-0123"
)]
pub struct Arguments {
    /// Which targets; all if none is named
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// For how long, each
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
    /// Only run this one input: one that failed, to see why
    #[arg(long, value_name = "PATH")]
    input: Option<PathBuf>,
}

/// How long a target is run, and with what luck.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Seconds.
    pub seconds: u64,
    /// Inputs at most.
    pub runs: Option<u64>,
    /// The same inputs again each time, and what is found is not kept.
    pub repeatable: bool,
}

/// Of each change to suture: a few seconds.
pub const SHORT: Effort = Effort {
    seconds: 8,
    runs: Some(50_000),
    repeatable: true,
};
/// Minutes each.
pub const LONG: Effort = Effort {
    seconds: 180,
    runs: None,
    repeatable: false,
};

/// Builds the targets and runs them.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    crate::setup::host_packages()?;
    crate::setup::bpf_toolchain(false)?;
    build()?;
    let known = targets()?;
    if let Some(unknown) = arguments.targets.iter().find(|name| !known.contains(name)) {
        bail!(
            "there is no fuzz target `{unknown}`; there are {}",
            known.join(", ")
        );
    }
    let wanted = if arguments.targets.is_empty() {
        known
    } else {
        arguments.targets.clone()
    };
    if let Some(input) = &arguments.input {
        let [target] = wanted.as_slice() else {
            bail!("name the one target that the input is for");
        };
        let status = Command::new(binary(target))
            .arg(input)
            .status()
            .context("starting a fuzz target")?;
        return Ok(if status.success() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    let effort = Effort {
        seconds: arguments.seconds,
        runs: None,
        repeatable: false,
    };
    these(&wanted, effort)?;
    Ok(ExitCode::SUCCESS)
}

/// Builds all targets and runs each with that effort.
pub fn all(effort: Effort) -> Result<()> {
    build()?;
    these(&targets()?, effort)
}

fn folder() -> PathBuf {
    crate::target_dir().join("fuzz")
}

fn binary(target: &str) -> PathBuf {
    folder().join(TRIPLE).join("release").join(target)
}

/// The names of the targets: of the files that they are in.
fn targets() -> Result<Vec<String>> {
    let folder = crate::workspace_root().join("fuzz/fuzz_targets");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .with_context(|| format!("reading {}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".rs")?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

fn build() -> Result<()> {
    eprintln!("fuzz: building the targets");
    let status = clean_cargo()
        .args([
            "build",
            "--locked",
            "--quiet",
            "--release",
            "--bins",
            "--target",
            TRIPLE,
            "--target-dir",
        ])
        .arg(folder())
        .env("RUSTFLAGS", FLAGS)
        .current_dir(crate::workspace_root().join("fuzz"))
        .status()
        .context("starting cargo")?;
    if !status.success() {
        bail!("the fuzz targets could not be built, see above");
    }
    Ok(())
}

/// Runs targets, two at a time; the first failure of each ends it, and is told when all are through.
fn these(targets: &[String], effort: Effort) -> Result<()> {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = one(target, effort)
                        && let Ok(mut failures) = failures.lock()
                    {
                        failures.push(format!("{error:#}"));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_default();
    if !failures.is_empty() {
        bail!("{}", failures.join("\n\n"));
    }
    Ok(())
}

fn one(target: &str, effort: Effort) -> Result<()> {
    let artifacts = folder().join("artifacts").join(target);
    let kept = folder().join("corpus").join(target);
    let seeds = crate::workspace_root().join("fuzz/corpus").join(target);
    let fresh = tempfile::tempdir()?;
    let found: &Path = if effort.repeatable { fresh.path() } else { &kept };
    for folder in [&artifacts, found] {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let mut command = Command::new(binary(target));
    command
        .arg(found)
        .args(seeds.is_dir().then_some(&seeds))
        .arg(format!("-max_total_time={}", effort.seconds))
        .arg(format!("-timeout={TIMEOUT}"))
        .arg(format!("-rss_limit_mb={MEMORY}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-print_final_stats=1", "-max_len=131072"])
        .args(effort.repeatable.then_some("-seed=20260822"))
        .args(effort.runs.map(|runs| format!("-runs={runs}")))
        .stdin(Stdio::null());
    let output = command
        .output()
        .with_context(|| format!("starting the fuzz target {target}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        eprintln!("fuzz: {target}: {} inputs, no failure", executed(&text));
        return Ok(());
    }
    let input = text
        .lines()
        .find_map(|line| {
            line.split_once("Test unit written to ")
                .map(|(_, path)| path.trim())
        })
        .unwrap_or("an input that could not be written");
    bail!(
        "the fuzz target {target} failed on {input}\nrepeat it with: cargo xtask fuzz {target} --input {input}\n{}",
        crate::command::tail(&reason(&text))
    );
}

/// How many inputs were run, from libFuzzer's own words.
fn executed(text: &str) -> &str {
    text.lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))
        .map_or("some", str::trim)
}

/// What a target said, without libFuzzer's progress, dictionaries and stacks.
fn reason(text: &str) -> String {
    let noise = |line: &str| {
        let line = line.trim_start();
        line.starts_with('#')
            || line.starts_with("stat::")
            || line.starts_with("INFO:")
            || line.contains(" # Uses: ")
    };
    let lines: Vec<&str> = text.lines().filter(|line| !noise(line)).collect();
    let from = lines
        .iter()
        .position(|line| {
            line.contains("panicked at")
                || line.contains("memory allocation of")
                || line.contains("ERROR: libFuzzer")
        })
        .unwrap_or_default();
    lines
        .into_iter()
        .skip(from)
        .take(12)
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_without_the_progress() {
        let text = "INFO: Seed: 1\n#2 INITED cov: 3\nthread 'main' panicked at src/x.rs:1:2:\nno good\n#3 NEW\nstat::peak_rss_mb: 4\n\
            stat::number_of_executed_units: 17\n";
        assert_eq!(reason(text), "thread 'main' panicked at src/x.rs:1:2:\nno good");
        assert_eq!(executed(text), "17");
    }

    #[test]
    fn every_target_has_seeds_and_is_a_program() {
        let manifest = std::fs::read_to_string(crate::workspace_root().join("fuzz/Cargo.toml")).unwrap();
        let targets = targets().unwrap();
        assert!(targets.len() > 5);
        for target in targets {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
            let seeds = crate::workspace_root().join("fuzz/corpus").join(&target);
            assert!(
                std::fs::read_dir(&seeds).is_ok_and(|mut seeds| seeds.next().is_some()),
                "{target}"
            );
        }
    }
}
