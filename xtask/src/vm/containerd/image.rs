//! A small image as an archive in the OCI layout, made of a busybox.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Gives the archive of an image of so many layers.
pub(super) fn make(name: &str, layers: usize) -> Result<Vec<u8>> {
    let busybox = crate::setup::setup_dir().join("rootfs/busybox");
    let busybox = std::fs::read(&busybox).with_context(|| format!("reading {}", busybox.display()))?;
    let mut archive = Archive::new();
    let (mut descriptions, mut digests) = (Vec::new(), Vec::new());
    for number in 0..layers.max(1) {
        let layer = layer(number, &busybox)?;
        // Not compressed, so the digest of the contents is the blob's.
        digests.push(digest(&layer));
        descriptions.push(archive.add_blob("application/vnd.oci.image.layer.v1.tar", &layer)?);
    }
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": { "Env": ["PATH=/bin"], "Cmd": ["/bin/sh"] },
        "rootfs": { "type": "layers", "diff_ids": digests },
    });
    let config = archive.add_blob(
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    )?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": descriptions,
    });
    let mut manifest = archive.add_blob(
        "application/vnd.oci.image.manifest.v1+json",
        manifest.to_string().as_bytes(),
    )?;
    if let Some(fields) = manifest.as_object_mut() {
        fields.insert("annotations".into(), json!({ "io.containerd.image.name": name }));
    }
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    archive.add("index.json", index.to_string().as_bytes(), 0o644)?;
    archive.add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    archive.finish()
}

/// The first layer has the programs, each other one a file of its own.
fn layer(number: usize, busybox: &[u8]) -> Result<Vec<u8>> {
    let mut layer = Archive::new();
    if number == 0 {
        for program in ["busybox", "sh", "ls", "cat", "sleep", "echo"] {
            match program {
                "busybox" => layer.add("bin/busybox", busybox, 0o755)?,
                link => layer.add_link(&format!("bin/{link}"), "busybox")?,
            }
        }
    }
    layer.add(
        &format!("layer-{number}"),
        format!("layer {number}\n").as_bytes(),
        0o644,
    )?;
    layer.finish()
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn add(&mut self, path: &str, contents: &[u8], mode: u32) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(mode);
        self.0
            .append_data(&mut header, path, contents)
            .with_context(|| format!("adding {path} to an archive"))
    }

    fn add_link(&mut self, path: &str, target: &str) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o777);
        header.set_entry_type(tar::EntryType::Symlink);
        self.0
            .append_link(&mut header, path, target)
            .with_context(|| format!("adding {path} to an archive"))
    }

    /// Adds a blob under its digest, and gives its description.
    fn add_blob(&mut self, media_type: &str, contents: &[u8]) -> Result<Value> {
        let digest = digest(contents);
        self.add(&format!("blobs/{}", digest.replace(':', "/")), contents, 0o644)?;
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": contents.len() }))
    }

    fn finish(self) -> Result<Vec<u8>> {
        self.0.into_inner().context("finishing an archive")
    }
}
