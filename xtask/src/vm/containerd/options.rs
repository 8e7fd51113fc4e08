//! What a scenario's containerd and pool are like.

/// What the scenario's containerd and pool are like. Everything below `root` and `pool_folder` is kept with the VM's
/// disks if it lies below `/persist`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// containerd's root folder.
    pub root: String,
    /// The folder of the files that the pool's loop devices are made of.
    pub pool_folder: String,
    /// The name of the thin pool.
    pub pool: String,
    /// The size of the pool's data device, in MiB; the file is sparse, and in memory unless there are disks. A thin pool writes
    /// to all of its data device before it comes back to what was freed: what does not fit into memory fails some day.
    pub data_mib: u64,
    /// The size of the pool's metadata device, in MiB; the file is sparse.
    pub metadata_mib: u64,
    /// More arguments of the pool's table, such as `error_if_no_space`.
    pub pool_features: Vec<String>,
    /// The size of each snapshot's file system, as containerd's configuration has it.
    pub base_image_size: String,
    /// Whether a removal only marks the device, and the garbage collection does the work.
    pub async_remove: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            root: "/persist/containerd".into(),
            pool_folder: "/persist/pool".into(),
            pool: "tp".into(),
            data_mib: 512,
            metadata_mib: 64,
            pool_features: vec!["skip_block_zeroing".into()],
            base_image_size: "64MB".into(),
            async_remove: false,
        }
    }
}

impl Options {
    /// The pool database.
    #[must_use]
    pub fn pool_db(&self) -> String {
        format!("{}/devmapper/{}.db", self.root, self.pool)
    }

    /// The database of the snapshots.
    #[must_use]
    pub fn snapshot_db(&self) -> String {
        format!("{}/devmapper/metadata.db", self.root)
    }

    /// containerd's own database.
    #[must_use]
    pub fn core_db(&self) -> String {
        format!("{}/io.containerd.metadata.v1.bolt/meta.db", self.root)
    }

    /// The text of containerd's configuration file. What cannot work in the VM is switched off.
    pub(super) fn configuration(&self) -> String {
        let Options {
            root,
            pool,
            base_image_size,
            async_remove,
            ..
        } = self;
        format!(
            r#"version = 2
root = "{root}"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.native",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing",
]

[plugins."io.containerd.snapshotter.v1.devmapper"]
  root_path = "{root}/devmapper"
  pool_name = "{pool}"
  base_image_size = "{base_image_size}"
  fs_type = "ext4"
  async_remove = {async_remove}
  discard_blocks = false
"#
        )
    }
}
