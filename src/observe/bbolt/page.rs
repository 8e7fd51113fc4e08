//! The shapes on disk (bbolt `internal/common/{page,meta,bucket}.go`), decoded from bytes.
//!
//! bbolt writes its structures in the byte order of the machine; here it is little-endian, as on every machine that
//! suture supports. Each number that leads somewhere is checked against the bytes at hand before it is followed.

use super::super::little_endian::{u16_at, u32_at, u64_at};

/// Bytes of a page header: id u64, flags u16, count u16, overflow u32.
pub(crate) const HEADER: usize = 16;
/// Bytes of the meta structure behind the page header, checksum included.
pub(crate) const META: usize = 64;
/// Bytes of a bucket's own header in a leaf value: root u64, sequence u64.
pub(crate) const BUCKET: usize = 16;
/// Smallest page size that bbolt's probe tries (`db.go`, `getPageSizeFromSecondMeta`).
pub(crate) const SMALLEST_PAGE: u32 = 1024;
/// How often that probe doubles the size, so the largest is 16 MiB.
pub(crate) const PAGE_DOUBLINGS: u32 = 14;

/// Bytes of a branch element (pos u32, ksize u32, pgid u64) and of a leaf element (flags, pos, ksize, vsize: u32 each).
pub(crate) const ELEMENT: usize = 16;
pub(crate) const BRANCH: u16 = 0x01;
pub(crate) const LEAF: u16 = 0x02;
/// Page flags of the list of free pages.
pub(crate) const FREELIST: u16 = 0x10;
/// In a meta's `freelist` when the free pages are not written down (`NoFreelistSync`; `common.PgidNoFreelist`).
pub(crate) const NO_FREELIST: u64 = u64::MAX;
pub(crate) const MAGIC: u32 = 0xED0C_DAED;
pub(crate) const VERSION: u32 = 2;
/// Bytes of the meta structure that its checksum covers.
pub(crate) const META_SUMMED: usize = 56;
/// Set in a leaf element's flags when its value is a bucket.
pub(crate) const BUCKET_ELEMENT: u32 = 1;

/// A `u32` length or position as an index; no supported machine has a smaller `usize`.
fn index(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// 64-bit FNV-1a, Go's `hash/fnv.New64a`, with which bbolt seals a meta page.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The root of one transaction. Transaction N is written to page N % 2, so the one before it stays intact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Bytes per page.
    pub(crate) page_size: u32,
    /// Zero in every known version of bbolt.
    pub(crate) flags: u32,
    /// Page of the root bucket.
    pub(crate) root: u64,
    /// Sequence of the root bucket.
    pub(crate) sequence: u64,
    /// Page of the list of free pages, or [`NO_FREELIST`].
    pub(crate) freelist: u64,
    /// First page number that was never handed out.
    pub(crate) high_water: u64,
    /// Which transaction.
    pub(crate) txid: u64,
}

/// Why 64 bytes are no meta structure. Ordered by how much they look like one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoMeta {
    #[error("the file ends there")]
    Short,
    #[error("no bbolt magic number")]
    Magic,
    #[error("written on a machine of the other byte order")]
    ByteOrder,
    #[error("format version {0}, known is {VERSION}")]
    Version(u32),
    #[error("checksum does not match")]
    Checksum,
    #[error("page size {0} is not a power of two from {SMALLEST_PAGE} bytes to 16 MiB")]
    PageSize(u32),
}

impl Meta {
    /// Decodes the meta structure: what follows the header of page 0 or 1. Same checks as `Meta.Validate`.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, NoMeta> {
        let word = |offset| u32_at(bytes, offset).ok_or(NoMeta::Short);
        let long = |offset| u64_at(bytes, offset).ok_or(NoMeta::Short);
        match word(0)? {
            MAGIC => {}
            other if other == MAGIC.swap_bytes() => return Err(NoMeta::ByteOrder),
            _ => return Err(NoMeta::Magic),
        }
        let version = word(4)?;
        if version != VERSION {
            return Err(NoMeta::Version(version));
        }
        if long(META_SUMMED)? != fnv1a(bytes.get(..META_SUMMED).ok_or(NoMeta::Short)?) {
            return Err(NoMeta::Checksum);
        }
        let page_size = word(8)?;
        let largest = SMALLEST_PAGE << PAGE_DOUBLINGS;
        if !page_size.is_power_of_two() || !(SMALLEST_PAGE..=largest).contains(&page_size) {
            return Err(NoMeta::PageSize(page_size));
        }
        Ok(Self {
            page_size,
            flags: word(12)?,
            root: long(16)?,
            sequence: long(24)?,
            freelist: long(32)?,
            high_water: long(40)?,
            txid: long(48)?,
        })
    }
}

/// The first bytes of a page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    /// The page's own number.
    pub(crate) id: u64,
    pub(crate) flags: u16,
    pub(crate) count: u16,
    /// How many pages follow that belong to this one.
    pub(crate) overflow: u32,
}

impl Header {
    pub(crate) fn decode(page: &[u8]) -> Option<Self> {
        Some(Self {
            id: u64_at(page, 0)?,
            flags: u16_at(page, 8)?,
            count: u16_at(page, 10)?,
            overflow: u32_at(page, 12)?,
        })
    }
}

/// An entry of a branch page: the subtree that holds keys from `key` on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BranchElement<'p> {
    pub(crate) key: &'p [u8],
    pub(crate) page: u64,
}

/// An entry of a leaf page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeafElement<'p> {
    pub(crate) key: &'p [u8],
    pub(crate) value: &'p [u8],
    pub(crate) bucket: bool,
}

/// A page of a bucket's tree.
#[derive(Debug)]
pub(crate) enum Node<'p> {
    Branch(Vec<BranchElement<'p>>),
    Leaf(Vec<LeafElement<'p>>),
}

impl<'p> Node<'p> {
    /// Decodes a page with all its overflow. Keys are strictly increasing in the result, and none is empty.
    pub(crate) fn decode(page: &'p [u8]) -> Result<Self, String> {
        let page = Checked::of(page)?;
        Ok(if page.is_leaf {
            Self::Leaf(page.leaf_elements().collect())
        } else {
            Self::Branch(page.branch_elements().collect())
        })
    }

    /// First and last key, when there is any.
    pub(crate) fn edges(&self) -> Option<(&'p [u8], &'p [u8])> {
        match self {
            Self::Branch(elements) => Some((elements.first()?.key, elements.last()?.key)),
            Self::Leaf(elements) => Some((elements.first()?.key, elements.last()?.key)),
        }
    }
}

/// A page with all its overflow, found to be what bbolt writes. Its elements are decoded as they are asked for: room for them
/// would cost as much as all else, once for each of a hundred thousand rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checked<'p> {
    page: &'p [u8],
    count: usize,
    pub(crate) is_leaf: bool,
}

impl<'p> Checked<'p> {
    /// Looks at every element. Keys are strictly increasing, and none is empty.
    pub(crate) fn of(page: &'p [u8]) -> Result<Self, String> {
        let header = Header::decode(page).ok_or("shorter than a page header")?;
        let count = usize::from(header.count);
        let end_of_elements = HEADER + count * ELEMENT;
        if end_of_elements > page.len() {
            return Err(format!("{count} elements do not fit in {} bytes", page.len()));
        }
        let is_leaf = match header.flags {
            BRANCH if count == 0 => return Err("a branch page without elements".to_owned()),
            BRANCH => false,
            LEAF => true,
            other => {
                return Err(format!(
                    "page flags {other:#06x} where a branch (0x01) or leaf (0x02) belongs"
                ));
            }
        };
        let mut room = Room {
            page,
            next: end_of_elements,
        };
        let mut before: &[u8] = &[];
        let mut order = Ok(());
        for (slot, at) in element_places(count).enumerate() {
            let key = if is_leaf {
                room.leaf(at).map(|element| element.key).ok_or("flags or bounds")
            } else {
                room.branch(at).map(|element| element.key).ok_or("bounds")
            };
            let key = key.map_err(|what| format!("element {slot} has {what} that bbolt never writes"))?;
            // The first key has nothing before it; that it is empty is the same comparison.
            if key <= before && order.is_ok() {
                order = Err(slot);
            }
            before = key;
        }
        room.nothing_left()?;
        match order {
            Ok(()) => Ok(Self { page, count, is_leaf }),
            Err(0) => Err("a key of no bytes, which bbolt never writes".to_owned()),
            Err(slot) => Err(format!(
                "the key of element {slot} is not above the one before it"
            )),
        }
    }

    /// The elements; none where this is no leaf page.
    pub(crate) fn leaf_elements(self) -> impl Iterator<Item = LeafElement<'p>> {
        let places = element_places(if self.is_leaf { self.count } else { 0 });
        places.filter_map(move |at| self.room(at)?.leaf(at))
    }

    /// The elements; none where this is no branch page.
    pub(crate) fn branch_elements(self) -> impl Iterator<Item = BranchElement<'p>> {
        let places = element_places(if self.is_leaf { 0 } else { self.count });
        places.filter_map(move |at| self.room(at)?.branch(at))
    }

    /// First and last key, when there is any.
    pub(crate) fn edges(self) -> Option<(&'p [u8], &'p [u8])> {
        let last = HEADER + self.count.checked_sub(1)? * ELEMENT;
        let key = |at: usize| {
            let mut room = self.room(at)?;
            if self.is_leaf {
                room.leaf(at).map(|element| element.key)
            } else {
                room.branch(at).map(|element| element.key)
            }
        };
        Some((key(HEADER)?, key(last)?))
    }

    /// The page from where the element at this place has its data.
    fn room(self, at: usize) -> Option<Room<'p>> {
        let pos = u32_at(self.page, if self.is_leaf { at + 4 } else { at })?;
        Some(Room {
            page: self.page,
            next: at.checked_add(index(pos))?,
        })
    }
}

/// Where the elements of a page are.
fn element_places(count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(|slot| HEADER + slot * ELEMENT)
}

/// First and last key of a leaf page that was decoded before; nothing where it has none. Only these two are looked at.
pub(crate) fn leaf_edges(page: &[u8]) -> Option<(&[u8], &[u8])> {
    let key = |slot: usize| {
        let at = HEADER + slot * ELEMENT;
        let start = at.checked_add(index(u32_at(page, at + 4)?))?;
        page.get(start..start.checked_add(index(u32_at(page, at + 8)?))?)
    };
    let last = usize::from(Header::decode(page)?.count).checked_sub(1)?;
    Some((key(0)?, key(last)?))
}

/// A page's bytes, and where the data of the next element begin: bbolt writes them one behind the other, without a gap
/// (`internal/common/inode.go`, `WriteInodeToPage`; `node.write` before 1.4). That every byte belongs to one element at
/// most keeps a small file from unfolding into a large answer, and that none is left over shows when an element is lost.
struct Room<'p> {
    page: &'p [u8],
    next: usize,
}

impl<'p> Room<'p> {
    fn branch(&mut self, at: usize) -> Option<BranchElement<'p>> {
        let key = self.take(at, u32_at(self.page, at)?, index(u32_at(self.page, at + 4)?))?;
        Some(BranchElement {
            key,
            page: u64_at(self.page, at + 8)?,
        })
    }

    fn leaf(&mut self, at: usize) -> Option<LeafElement<'p>> {
        let bucket = match u32_at(self.page, at)? {
            0 => false,
            BUCKET_ELEMENT => true,
            _ => return None,
        };
        let key_size = index(u32_at(self.page, at + 8)?);
        let both = key_size.checked_add(index(u32_at(self.page, at + 12)?))?;
        let (key, value) = self
            .take(at, u32_at(self.page, at + 4)?, both)?
            .split_at_checked(key_size)?;
        Some(LeafElement { key, value, bucket })
    }

    /// The `size` bytes that an element's `pos` leads to; `pos` counts from the element itself.
    fn take(&mut self, element: usize, pos: u32, size: usize) -> Option<&'p [u8]> {
        let start = element.checked_add(index(pos))?;
        if start != self.next {
            return None;
        }
        self.next = start.checked_add(size)?;
        self.page.get(start..self.next)
    }

    /// What is left is zeros: bbolt makes every page in fresh or cleared memory (`tx.go`, `write`, clears what it gives
    /// back to its pool). Anything else there is data that a smaller count, or a shorter last value, leaves out.
    fn nothing_left(&self) -> Result<(), String> {
        let rest = self.page.get(self.next..).unwrap_or_default();
        if rest.iter().fold(0, |all, byte| all | byte) == 0 {
            return Ok(());
        }
        Err("there are data behind its last element".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The meta structure of the fixture pool.db, page 0, written by containerd's own code.
    fn real_meta() -> [u8; META] {
        let mut bytes = [0; META];
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4] = 2;
        bytes[8..12].copy_from_slice(&4096_u32.to_le_bytes());
        bytes[16] = 4;
        bytes[32] = 5;
        bytes[40] = 6;
        bytes[48] = 0x12;
        bytes[56..].copy_from_slice(&[0x7e, 0xd5, 0x0f, 0xdb, 0x0a, 0xde, 0xa5, 0xde]);
        bytes
    }

    #[test]
    fn a_real_meta_page_decodes() {
        let meta = Meta {
            page_size: 4096,
            flags: 0,
            root: 4,
            sequence: 0,
            freelist: 5,
            high_water: 6,
            txid: 18,
        };
        assert_eq!(Meta::decode(&real_meta()), Ok(meta));
    }

    #[test]
    fn every_bit_of_a_meta_page_counts() {
        for bit in 0..META * 8 {
            let mut bytes = real_meta();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Meta::decode(&bytes).is_err(), "bit {bit}");
        }
        for length in 0..META {
            assert!(Meta::decode(&real_meta()[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn an_unusable_page_size_is_refused_even_under_a_good_checksum() {
        for size in [0, 1, 512, 1023, 4097, 1 << 25, u32::MAX] {
            let mut bytes = real_meta();
            bytes[8..12].copy_from_slice(&size.to_le_bytes());
            let sum = fnv1a(&bytes[..META_SUMMED]);
            bytes[META_SUMMED..].copy_from_slice(&sum.to_le_bytes());
            assert_eq!(Meta::decode(&bytes), Err(NoMeta::PageSize(size)));
        }
    }

    #[test]
    fn elements_can_not_share_bytes() {
        // Two leaf elements, both claiming the same 40 of the page's 60 free bytes.
        let mut page = vec![0; HEADER + 2 * ELEMENT + 60];
        page[8] = 0x02;
        page[10] = 2;
        for (at, pos, key) in [(HEADER, 32_u8, 1_u8), (HEADER + ELEMENT, 16, 2)] {
            page[at + 4] = pos;
            page[at + 8] = key;
            page[at + 12] = 40 - key;
        }
        assert!(Node::decode(&page).is_err());
        // Alone, either is fine.
        page[10] = 1;
        page[HEADER + 4] = 16;
        page[HEADER + ELEMENT..HEADER + 2 * ELEMENT].fill(0);
        assert!(Node::decode(&page).is_ok());
        // With one byte of anything behind, something was lost.
        *page.last_mut().unwrap() = 1;
        assert!(Node::decode(&page).unwrap_err().contains("behind its last"));
    }
}
