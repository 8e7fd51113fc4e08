//! The compiler for BPF: Debian's `rustc-web` with its ready-made core library for that target, unpacked but not
//! installed. No nightly toolchain and no `-Zbuild-std` is needed with it.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::apt::{Package, is_for_prefix};
use super::step::{Step, Workshop, remove_folder};
use super::{unpack, write_wrapper};
use crate::command::output;

const COMPILER: &str = "rustc-web";
const BPF_CORE: &str = "libstd-rust-web-dev-bpf";

/// Gives the folder with the compiler, and writes its wrapper.
pub(super) fn ensure(workshop: &Workshop) -> Result<PathBuf> {
    let step = Step {
        name: "bpf-compiler",
        recipe: "3",
        about: "the compiler for BPF (125 MB to fetch)",
    };
    let folder = step.ensure(
        workshop,
        || {
            let everything = workshop.apt.closure(&[COMPILER, BPF_CORE])?;
            // The C compiler that it would bring is left out: the machine has one. Of the libraries, those that LLVM
            // needs.
            let llvm = everything
                .iter()
                .find(|package| package.name.starts_with("libllvm"))
                .context("Debian's rustc-web no longer depends on libllvm; the set-up needs a look")?;
            let mut wanted: Vec<Package> = everything
                .iter()
                .filter(|package| package.name.contains("rust-web") || package.name == COMPILER)
                .cloned()
                .collect();
            wanted.extend(
                workshop
                    .apt
                    .closure(&[&llvm.name])?
                    .into_iter()
                    .filter(|package| is_for_prefix(package, &[])),
            );
            Ok(wanted)
        },
        |folder, packages| {
            unpack(&workshop.apt, packages, folder)?;
            remove_folder(&folder.join("usr/share"))?;
            let libraries = folder.join("usr/lib/x86_64-linux-gnu");
            // What the linker is linked against: a folder with `lib/libLLVM.so`.
            let lib = folder.join("llvm/lib");
            std::fs::create_dir_all(&lib)?;
            let llvm = super::find_file(&libraries, |name| {
                name.starts_with("libLLVM") && name.contains(".so")
            })?;
            std::os::unix::fs::symlink(
                format!("../../usr/lib/x86_64-linux-gnu/{llvm}"),
                lib.join("libLLVM.so"),
            )?;
            Ok(())
        },
    )?;
    write_wrapper("bpf-rustc", "bpf-compiler", "bpf-compiler/usr/bin/rustc")?;
    Ok(folder)
}

/// The major version of the LLVM inside, as `rustc -vV` says.
pub(super) fn llvm_major() -> Result<String> {
    let rustc = super::setup_dir().join("bin/bpf-rustc");
    let text = output(
        std::process::Command::new(rustc).arg("-vV"),
        "asking the BPF compiler for its version",
    )?;
    text.lines()
        .find_map(|line| line.strip_prefix("LLVM version: ")?.split('.').next())
        .map(str::to_owned)
        .context("the BPF compiler does not tell its LLVM version")
}
