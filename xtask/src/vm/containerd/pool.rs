//! The thin pool on loop devices.

use anyhow::{Context, Result};

use super::Options;
use crate::vm::Vm;

/// Sectors of 512 bytes per MiB.
const SECTORS: u64 = 2048;

/// Brings the pool up; gives its metadata device.
pub(super) fn bring_up(vm: &Vm, options: &Options) -> Result<String> {
    let Options {
        pool_folder,
        pool,
        data_mib,
        metadata_mib,
        pool_features,
        root,
        ..
    } = options;
    let sectors = data_mib * SECTORS;
    let features = format!("{} {}", pool_features.len(), pool_features.join(" "));
    // Zeroes at its start tell the kernel to format the metadata: a sparse file is a fresh pool.
    let devices = vm.sh(&format!(
        "mkdir -p {pool_folder} {root}/devmapper
        [ -e {pool_folder}/metadata ] || truncate -s {metadata_mib}M {pool_folder}/metadata
        [ -e {pool_folder}/data ] || truncate -s {data_mib}M {pool_folder}/data
        metadata=$(losetup -f --show {pool_folder}/metadata)
        data=$(losetup -f --show {pool_folder}/data)
        dmsetup create {pool} --table \"0 {sectors} thin-pool $metadata $data 128 32768 {features}\"
        echo $metadata"
    ))?;
    Ok(devices.trim().to_owned())
}

/// The pool's thin ids, in their order.
pub(super) fn thin_ids(vm: &Vm, pool: &str, metadata_device: &str) -> Result<Vec<u64>> {
    // The snapshot is released also when the reading failed, or the next one would be refused.
    let text = vm.sh(&format!(
        "dmsetup message {pool} 0 reserve_metadata_snap
        code=0; thin_ls -m --no-headers -o DEV {metadata_device} || code=$?
        dmsetup message {pool} 0 release_metadata_snap
        exit $code"
    ))?;
    let ids = text
        .split_whitespace()
        .map(|word| word.parse().with_context(|| format!("thin_ls said `{word}`")));
    ids.collect()
}
