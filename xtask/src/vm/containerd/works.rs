//! The whole life of an image and a container, as the proof that a containerd works.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Containerd;

/// How long containerd may take to collect what nobody needs.
const COLLECTION: Duration = Duration::from_mins(1);

impl Containerd<'_> {
    /// Lets containerd collect the garbage, also where nothing made it think that there is any.
    pub fn collect_garbage(&self) -> Result<()> {
        self.ctr(["leases", "create", "--id", "collect"])?.ok()?;
        self.ctr(["leases", "delete", "--sync", "collect"])?.ok()?;
        Ok(())
    }

    /// The same, for what an earlier life of containerd left: its collection looks at a snapshotter only once something
    /// of it was removed in this life (`dirtySS`, core/metadata/db.go).
    pub fn collect_after_a_removal(&self) -> Result<()> {
        self.prepare("dirty", None)?.ok()?;
        self.remove("dirty")?.ok()?;
        self.collect_garbage()
    }

    /// Imports an image, runs a container of it, removes both, and a snapshot too, and lets containerd collect the
    /// garbage: afterwards it has the snapshots that it had before.
    pub fn works(&self) -> Result<()> {
        let before = self.ls()?;
        let image = self.import_image(2).context("importing an image")?;
        let said = self
            .ctr([
                "run",
                "--snapshotter",
                "devmapper",
                "--rm",
                &image,
                "proof",
                "/bin/cat",
                "/layer-1",
            ])?
            .ok()
            .context("running a container")?
            .stdout;
        ensure!(said.contains("layer 1"), "the container said `{said}`");
        self.prepare("proof-of-removal", None)?.ok()?;
        self.remove("proof-of-removal")?
            .ok()
            .context("removing a snapshot")?;
        self.ctr(["images", "rm", "--sync", &image])?
            .ok()
            .context("removing an image")?;
        self.vm
            .wait_until("containerd has collected the garbage", COLLECTION, || {
                Ok(self.ls()? == before)
            })
    }
}
