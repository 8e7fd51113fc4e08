//! Builds the BPF object and puts it where `include_bytes!` finds it.
//!
//! The programs are compiled by a compiler that has a libcore for `bpfel-unknown-none` (Debian ships one; rustup does
//! not), in a target folder of their own, so that debug, release and clippy builds of the agent share one object.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const TARGET: &str = "bpfel-unknown-none";
const SET_UP: &str = "run `cargo xtask setup` once (it needs no root for this part)";

fn main() -> ExitCode {
    // Without the node's parts nothing is embedded, and no other compiler is needed.
    if env::var_os("CARGO_FEATURE_NODE").is_none() {
        println!("cargo::rerun-if-changed=build.rs");
        return ExitCode::SUCCESS;
    }
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            println!("cargo::error={sentence}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let root =
        PathBuf::from(env::var("CARGO_MANIFEST_DIR").map_err(|_| "cargo did not say where the package is")?);
    let out = PathBuf::from(env::var("OUT_DIR").map_err(|_| "cargo did not say where to build")?);
    for input in [
        "build.rs",
        "ebpf/src",
        "ebpf/Cargo.toml",
        "ebpf/Cargo.lock",
        "ebpf/events",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    let rustc = tool(
        &root,
        "bpf-rustc",
        "SUTURE_BPF_RUSTC",
        "a Rust compiler with a libcore for BPF",
    )?;
    let linker = tool(&root, "bpf-linker", "SUTURE_BPF_LINKER", "bpf-linker")?;

    let architecture =
        env::var("CARGO_CFG_TARGET_ARCH").map_err(|_| "cargo did not say the target architecture")?;
    let flags = [
        format!("--cfg=bpf_target_arch=\"{architecture}\""),
        // Debug information is where the linker gets BTF from; without BTF the kernel's verifier names no line.
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("--remap-path-prefix={}=.", root.display()),
    ];
    let folder = root.join("target/ebpf");
    let cargo = env::var_os("CARGO").ok_or("cargo did not say where it is")?;
    let mut command = Command::new(cargo);
    command
        .args(["build", "--release", "--locked", "--quiet", "--target", TARGET, "--manifest-path"])
        .arg(root.join("ebpf/Cargo.toml"))
        .arg("--target-dir")
        .arg(&folder)
        .env("RUSTC", rustc)
        // aya-ebpf needs `asm_experimental_arch`. Naming that crate alone leaves every other crate on stable rules.
        .env("RUSTC_BOOTSTRAP", "aya_ebpf")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker);
    // What the outer cargo, clippy or a coverage tool set for the agent does not hold for the other compiler.
    for outer in [
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_BUILD_TARGET",
        "RUSTDOC",
        "CARGO_TARGET_DIR",
    ] {
        command.env_remove(outer);
    }
    let output = command
        .output()
        .map_err(|error| format!("cargo could not be started to build the BPF programs: {error}"))?;
    if !output.status.success() {
        for line in String::from_utf8_lossy(&output.stderr).lines() {
            println!("cargo::warning={line}");
        }
        return Err("the BPF programs in ebpf/ did not build; the lines above say why".to_owned());
    }
    let object = folder.join(TARGET).join("release/suture-ebpf");
    std::fs::copy(&object, out.join("suture-ebpf"))
        .map_err(|error| format!("the BPF object {} could not be copied: {error}", object.display()))?;
    Ok(())
}

/// A tool named in the environment, or put into `target/setup/bin` by the set-up.
fn tool(root: &Path, name: &str, variable: &str, what: &str) -> Result<PathBuf, String> {
    println!("cargo::rerun-if-env-changed={variable}");
    if let Some(path) = env::var_os(variable) {
        return Ok(PathBuf::from(path));
    }
    let path = root.join("target/setup/bin").join(name);
    println!("cargo::rerun-if-changed={}", path.display());
    if path.is_file() {
        Ok(path)
    } else {
        Err(format!(
            "the BPF programs can not be built: {what} is missing; {SET_UP}, or name one in {variable}"
        ))
    }
}
