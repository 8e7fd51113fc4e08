//! Nodes of device-mapper's B-trees (drivers/md/persistent-data/dm-btree-internal.h), as far as the tree of device
//! details needs them: 64-bit keys, values of one size.

use super::super::little_endian::{u32_at, u64_at};
use super::source::{BLOCK_SIZE, Block};
use super::superblock::checksum;

/// Xor-ed to the checksum of a node (`BTREE_CSUM_XOR`, dm-btree-spine.c).
const SALT: u32 = 121_107;
const INTERNAL: u32 = 1;
const LEAF: u32 = 2;
/// Bytes of `struct node_header`: csum, flags, blocknr u64, then counts of entries and of room, value size, padding.
const HEADER: usize = 32;
const KEY: usize = 8;
/// Bytes of a value in an internal node: the number of a block.
const CHILD: usize = 8;

/// A node, checked: its entries fit and its keys are strictly increasing.
#[derive(Debug)]
pub(super) enum Node<'b> {
    /// Keys and the blocks of the subtrees that hold keys from there on.
    Internal(Vec<(u64, u64)>),
    /// Keys and values.
    Leaf(Vec<(u64, &'b [u8])>),
}

impl<'b> Node<'b> {
    /// Decodes block `number` as a node whose leaves hold values of `value_size` bytes (`node_check`, dm-btree-spine.c).
    pub(super) fn decode(block: &'b Block, number: u64, value_size: usize) -> Result<Self, String> {
        let word = |offset| u32_at(block, offset).ok_or("block too short");
        let long = |offset| u64_at(block, offset).ok_or("block too short");
        if word(0)? != checksum(block, SALT) {
            return Err("its checksum does not match".to_owned());
        }
        if long(8)? != number {
            return Err(format!("it says it is block {}", long(8)?));
        }
        let leaf = match word(4)? {
            INTERNAL => false,
            LEAF => true,
            flags => {
                return Err(format!(
                    "flags {flags:#x} are neither of an internal node (1) nor of a leaf (2)"
                ));
            }
        };
        let size = |offset| word(offset).map(|value| usize::try_from(value).unwrap_or(usize::MAX));
        let (entries, room, found) = (size(16)?, size(20)?, size(24)?);
        let expected = if leaf { value_size } else { CHILD };
        if found != expected {
            return Err(format!("values of {found} bytes where {expected} belong"));
        }
        let fits = room
            .checked_mul(KEY + found)
            .is_some_and(|bytes| bytes <= BLOCK_SIZE - HEADER);
        if !fits || entries > room {
            return Err(format!(
                "{entries} of {room} entries of {} bytes do not fit",
                KEY + found
            ));
        }
        let body = block.get(HEADER..).ok_or("block too short")?;
        // Values begin after the room for all keys, used or not.
        let values = body.get(room * KEY..).ok_or("block too short")?;
        let keys = body
            .chunks_exact(KEY)
            .take(entries)
            .map_while(|key| u64_at(key, 0));
        let pairs: Vec<_> = keys.zip(values.chunks_exact(found)).collect();
        if let Some(((before, _), (key, _))) =
            pairs.iter().zip(pairs.iter().skip(1)).find(|(a, b)| a.0 >= b.0)
        {
            return Err(format!("key {key} follows key {before}"));
        }
        if leaf {
            return Ok(Self::Leaf(pairs));
        }
        if pairs.is_empty() {
            return Err("an internal node without entries".to_owned());
        }
        Ok(Self::Internal(
            pairs
                .into_iter()
                .filter_map(|(key, child)| Some((key, u64_at(child, 0)?)))
                .collect(),
        ))
    }

    /// First and last key, when there is any.
    pub(super) fn edges(&self) -> Option<(u64, u64)> {
        match self {
            Self::Internal(entries) => Some((entries.first()?.0, entries.last()?.0)),
            Self::Leaf(entries) => Some((entries.first()?.0, entries.last()?.0)),
        }
    }
}
