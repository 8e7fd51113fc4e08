//! The real bbolt as a program (`xtask/peers/bbolt/main.go`), for tests and benchmarks to hold suture's reader and writer
//! against. Debian has the Go compiler and bbolt's source; neither is installed, and nothing else is fetched.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::step::{Step, Workshop, remove_folder, stamp};
use super::{short_hash, unpack};
use crate::command::output;

const PROGRAM: &str = include_str!("../../peers/bbolt/main.go");
/// The compiler by its versioned name (the plain one is only links to it), and bbolt.
const PACKAGES: [&str; 2] = ["golang-1.19-go", "golang-github-coreos-bbolt-dev"];

/// Gives the program.
pub(super) fn ensure(workshop: &Workshop) -> Result<PathBuf> {
    let go = go(workshop)?;
    // Made anew when the program changes, and when its compiler or bbolt does.
    let recipe = short_hash(&format!("1\n{PROGRAM}\n{}", stamp(&go)?));
    let folder = Step {
        name: "bbolt-peer",
        recipe: &recipe,
        about: "the real bbolt, to compare with",
    }
    .ensure(workshop, || Ok(Vec::new()), |folder, _| build(folder, &go))?;
    Ok(folder.join("bbolt-peer"))
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

fn build(folder: &Path, go: &Path) -> Result<()> {
    let work = folder.join("work");
    let source = work.join("main.go");
    std::fs::create_dir(&work)?;
    std::fs::write(&source, PROGRAM)?;
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
        .arg(folder.join("bbolt-peer"))
        .arg(&source);
    output(&mut compiler, "building the program on the real bbolt")
        .context("xtask/peers/bbolt/main.go does not build with Debian's Go")?;
    remove_folder(&work)
}
