//! Block 0: the root of the last committed transaction (`struct thin_disk_superblock`, drivers/md/dm-thin-metadata.c).

use super::super::little_endian::{u32_at, u64_at};
use super::source::Block;

/// Added to the checksum of a superblock (`SUPERBLOCK_CSUM_XOR`, dm-thin-metadata.c).
const SALT: u32 = 160_774;
const MAGIC: u64 = 27_022_010;
/// Versions that this layout holds for (`THIN_VERSION` 2; thin-provisioning-tools also reads 1).
const VERSIONS: std::ops::RangeInclusive<u32> = 1..=2;
/// Bit 0 of `flags` (`THIN_METADATA_NEEDS_CHECK_FLAG`, dm-thin-metadata.h).
const NEEDS_CHECK: u32 = 1;
/// The only metadata block size the kernel opens, in sectors.
const BLOCK_SECTORS: u32 = 8;

/// Checksum of a metadata block: CRC-32C of all but the first four bytes, not inverted at its end, xor a number per
/// kind of block (`dm_bm_checksum`, drivers/md/persistent-data/dm-block-manager.c).
pub(super) fn checksum(block: &Block, salt: u32) -> u32 {
    let (_, summed) = block.split_at(4);
    // The crate inverts at the end, as most users of CRC-32C do; device-mapper does not.
    !crc32c::crc32c(summed) ^ salt
}

/// The fields that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) needs_check: bool,
    pub(super) time: u32,
    pub(super) transaction_id: u64,
    pub(super) held_root: Option<u64>,
    pub(super) data_mapping_root: u64,
    pub(super) details_root: u64,
    pub(super) data_block_size: u32,
    /// Blocks of the pool's data device (`struct disk_sm_root`, dm-space-map-common.h); nothing in a reserved snapshot,
    /// whose space maps are wiped.
    pub(super) data_blocks: Option<u64>,
}

impl Superblock {
    /// Decodes block `number` (0, or a reserved snapshot's), with the kernel's checks (`sb_check`,
    /// `__check_incompat_features`); says what is wrong otherwise.
    pub(super) fn decode(block: &Block, number: u64) -> Result<Self, String> {
        let word = |offset| u32_at(block, offset).ok_or("block too short");
        let long = |offset| u64_at(block, offset).ok_or("block too short");
        let (magic, version) = (long(32)?, word(40)?);
        if magic != MAGIC {
            return Err(format!("magic number {magic} where {MAGIC} belongs"));
        }
        if word(0)? != checksum(block, SALT) {
            return Err("the superblock's checksum does not match".to_owned());
        }
        if long(8)? != number {
            return Err(format!("the superblock says it is block {}", long(8)?));
        }
        if !VERSIONS.contains(&version) {
            return Err(format!("metadata version {version}; known are 1 and 2"));
        }
        if word(340)? != BLOCK_SECTORS {
            return Err(format!(
                "metadata blocks of {} sectors; known is {BLOCK_SECTORS}",
                word(340)?
            ));
        }
        let incompatible = word(360)?;
        if incompatible != 0 {
            return Err(format!("unknown incompatible features {incompatible:#x}"));
        }
        let held_root = long(56)?;
        let data_blocks = long(64)?;
        Ok(Self {
            needs_check: word(4)? & NEEDS_CHECK != 0,
            time: word(44)?,
            transaction_id: long(48)?,
            held_root: (held_root != 0).then_some(held_root),
            data_mapping_root: long(320)?,
            details_root: long(328)?,
            data_block_size: word(336)?,
            data_blocks: (data_blocks != 0).then_some(data_blocks),
        })
    }
}
