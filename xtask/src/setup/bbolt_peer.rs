//! The real bbolt as a program (`xtask/peers/bbolt/main.go`), for tests and benchmarks to hold suture's reader and writer
//! against. Debian has the Go compiler and bbolt's source; neither is installed, and nothing else is fetched.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::step::{Step, Workshop, remove_folder, stamp};
use super::{short_hash, unpack};
use crate::command::output;

const PROGRAM: &str = include_str!("../../peers/bbolt/main.go");
const GENERATOR: &str = include_str!("../../peers/pool/generate.go");
/// The compiler by its versioned name (the plain one is only links to it), and bbolt.
const PACKAGES: [&str; 2] = ["golang-1.19-go", "golang-github-coreos-bbolt-dev"];

/// Gives the program.
pub(super) fn ensure(workshop: &Workshop) -> Result<PathBuf> {
    program(workshop, "bbolt-peer", "the real bbolt, to compare with", PROGRAM)
}

/// Gives the program that writes the databases of large pools (`xtask/peers/pool/generate.go`).
pub(super) fn ensure_generator(workshop: &Workshop) -> Result<PathBuf> {
    program(
        workshop,
        "pool-generator",
        "the generator of large pools",
        GENERATOR,
    )
}

fn program(workshop: &Workshop, name: &str, about: &str, source: &str) -> Result<PathBuf> {
    let go = go(workshop)?;
    // Made anew when the program changes, and when its compiler or bbolt does.
    let recipe = short_hash(&format!("1\n{source}\n{}", stamp(&go)?));
    let folder = Step {
        name,
        recipe: &recipe,
        about,
    }
    .ensure(
        workshop,
        || Ok(Vec::new()),
        |folder, _| build(folder, &go, name, source),
    )?;
    Ok(folder.join(name))
}

/// Debian's Go with the packages that the program imports.
fn go(workshop: &Workshop) -> Result<PathBuf> {
    Step {
        name: "go",
        recipe: "1",
        about: "the Go compiler",
    }
    .ensure(
        workshop,
        || {
            let mut packages = workshop.apt.closure(&PACKAGES)?;
            // What a Go program without C needs is all written in Go.
            packages.retain(|package| package.name.starts_with("golang-"));
            Ok(packages)
        },
        |folder, packages| unpack(&workshop.apt, packages, folder),
    )
}

fn build(folder: &Path, go: &Path, name: &str, text: &str) -> Result<()> {
    let work = folder.join("work");
    let source = work.join("main.go");
    std::fs::create_dir(&work)?;
    std::fs::write(&source, text)?;
    let root = go.join("usr/lib/go-1.19");
    let mut compiler = Command::new(root.join("bin/go"));
    compiler
        .env("GOROOT", &root)
        .env("GOPATH", go.join("usr/share/gocode"))
        .env("GOCACHE", work.join("cache"))
        .env("GOENV", "off")
        .env("GOFLAGS", "")
        // Without modules: imports are folders below GOPATH, and there is nothing to fetch.
        .env("GO111MODULE", "off")
        .env("GOTOOLCHAIN", "local")
        .env("CGO_ENABLED", "0")
        .args(["build", "-trimpath", "-o"])
        .arg(folder.join(name))
        .arg(&source);
    output(&mut compiler, "building the program on the real bbolt")
        .with_context(|| format!("{name} does not build with Debian's Go"))?;
    remove_folder(&work)
}
