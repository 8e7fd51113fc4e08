//! `bpf-linker`, built from its published source against the LLVM that came with the compiler.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::apt::Package;
use super::compiler::llvm_major;
use super::step::{Step, Workshop, remove_folder};
use super::write_wrapper;
use crate::command::{clean_cargo, output};

/// The version that is known to work with the BPF crate's pinned dependencies.
const VERSION: &str = "0.13.0";

/// Builds the linker if it is missing or was built against another compiler, and writes its wrapper.
pub(super) fn ensure(workshop: &Workshop, compiler: &Path) -> Result<PathBuf> {
    let made_from = super::step::stamp(compiler)?;
    // The compiler's versions are part of the recipe, since the linker is linked against its LLVM.
    let recipe = format!("1 {VERSION} {}", super::short_hash(&made_from));
    let step = Step {
        name: "bpf-linker",
        recipe: &recipe,
        about: "the linker for BPF (one to five minutes of compiling)",
    };
    let folder = step.ensure(
        workshop,
        || {
            Ok(vec![Package {
                name: "bpf-linker".into(),
                version: VERSION.into(),
            }])
        },
        |folder, _| build(compiler, folder),
    )?;
    write_wrapper("bpf-linker", "bpf-compiler", "bpf-linker/bin/bpf-linker")?;
    Ok(folder)
}

fn build(compiler: &Path, folder: &Path) -> Result<()> {
    let major = llvm_major()?;
    // Inside, so that what a stopped run leaves behind is removed by the next one.
    let target = folder.join("target");
    let mut cargo = clean_cargo();
    cargo
        .args(["install", "bpf-linker", "--locked", "--no-default-features", "--no-track"])
        .arg(format!("--version={VERSION}"))
        .arg(format!("--features=llvm-{major}"))
        .arg("--root")
        .arg(folder)
        .arg("--target-dir")
        .arg(&target)
        // Outside of the workspace, so that its `.cargo/config.toml` and toolchain file have no say.
        .current_dir(std::env::temp_dir())
        .env("LLVM_PREFIX", compiler.join("llvm"))
        .env("LD_LIBRARY_PATH", compiler.join("usr/lib/x86_64-linux-gnu"))
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    output(&mut cargo, "building bpf-linker")
        .with_context(|| format!("bpf-linker {VERSION} could not be built against LLVM {major}"))?;
    remove_folder(&target)
}
