//! What a scenario's containerd and pool are like.

/// What the scenario's containerd and pool are like. Everything below `root` and `pool_folder` is kept with the VM's
/// disks if it lies below `/persist`.
#[derive(Debug, Clone)]
pub struct Options {
    /// containerd's root folder.
    pub root: String,
    /// The folder of the files that the pool's loop devices are made of.
    pub pool_folder: String,
    /// The name of the thin pool.
    pub pool: String,
    /// The size of the pool's data device, in MiB; the file is sparse.
    pub data_mib: u64,
    /// The size of each snapshot's file system, as containerd's configuration has it.
    pub base_image_size: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            root: "/persist/containerd".into(),
            pool_folder: "/persist/pool".into(),
            pool: "tp".into(),
            data_mib: 2048,
            base_image_size: "64MB".into(),
        }
    }
}

impl Options {
    /// The text of containerd's configuration file. What cannot work in the VM is switched off.
    pub(super) fn configuration(&self) -> String {
        let Options {
            root,
            pool,
            base_image_size,
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
  async_remove = false
  discard_blocks = false
"#
        )
    }
}
