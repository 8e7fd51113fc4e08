//! Where a field lies in a structure of the running kernel, from the type information that the kernel carries (BTF,
//! Documentation/bpf/btf.rst). A module's types build on those of the kernel itself (`split` BTF), which the library
//! that loads the probes does not read.
//!
//! The types are walked once, in place: nothing is built from them but the answer.

use std::path::Path;

use super::super::little_endian::{u16_at, u32_at};

/// Where the kernel shows its own types and its modules'.
const FOLDER: &str = "/sys/kernel/btf";
const MAGIC: u16 = 0xeb9f;
/// A kernel's own types are some 5 MB; a file that is larger by much is none.
const LARGEST: u64 = 64 << 20;
/// `struct btf_type`.
const TYPE: usize = 12;
/// `struct btf_member`.
const MEMBER: usize = 12;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;

/// Types of the kernel or of one of its modules.
pub(super) struct Types {
    bytes: Vec<u8>,
    definitions: std::ops::Range<usize>,
    strings: std::ops::Range<usize>,
    /// Length of the strings of what these types build on: theirs are counted on from there.
    base_strings: usize,
}

impl Types {
    /// The kernel's own; nothing where it carries none.
    pub(super) fn of_kernel() -> Option<Self> {
        Self::read(&Path::new(FOLDER).join("vmlinux"), 0)
    }

    /// A module's; nothing where it is not loaded, is built in, or carries none.
    pub(super) fn of_module(name: &str, kernel: &Self) -> Option<Self> {
        Self::read(&Path::new(FOLDER).join(name), kernel.strings.len())
    }

    fn read(path: &Path, base_strings: usize) -> Option<Self> {
        if std::fs::metadata(path).ok()?.len() > LARGEST {
            return None;
        }
        Self::parse(std::fs::read(path).ok()?, base_strings)
    }

    /// `struct btf_header`.
    fn parse(bytes: Vec<u8>, base_strings: usize) -> Option<Self> {
        if u16_at(&bytes, 0)? != MAGIC {
            return None;
        }
        let number = |at| u32_at(&bytes, at).and_then(|value| usize::try_from(value).ok());
        let header = number(4)?;
        let section = |offset: usize, length: usize| {
            let start = header.checked_add(offset)?;
            let range = start..start.checked_add(length)?;
            bytes.get(range.clone()).map(|_| range)
        };
        let definitions = section(number(8)?, number(12)?)?;
        let strings = section(number(16)?, number(20)?)?;
        Some(Self {
            bytes,
            definitions,
            strings,
            base_strings,
        })
    }

    /// The name at an offset; of names that a module shares with the kernel, the kernel's strings know it.
    fn name<'n>(&'n self, offset: u32, base: Option<&'n Self>) -> Option<&'n [u8]> {
        let offset = usize::try_from(offset).ok()?;
        let (holder, offset) = match offset.checked_sub(self.base_strings) {
            Some(own) => (self, own),
            None => (base?, offset),
        };
        let strings = holder.bytes.get(holder.strings.clone())?;
        strings.get(offset..)?.split(|byte| *byte == 0).next()
    }

    /// Offset in bytes of a field that lies directly in a structure of that name. `base` is the kernel's own types,
    /// for a module. Several structures may have one name: the first that has the field counts.
    pub(super) fn offset(&self, structure: &str, field: &str, base: Option<&Self>) -> Option<u32> {
        let types = self.bytes.get(self.definitions.clone())?;
        let mut at = 0;
        while let Some(name) = u32_at(types, at) {
            let info = u32_at(types, at + 4)?;
            let (members, kind) = (usize::try_from(info & 0xffff).ok()?, (info >> 24) & 0x1f);
            let behind = at + TYPE;
            if kind == KIND_STRUCT && self.name(name, base) == Some(structure.as_bytes()) {
                let bits_have_sizes = info >> 31 == 1;
                for member in 0..members {
                    let member = behind + member * MEMBER;
                    if self.name(u32_at(types, member)?, base) == Some(field.as_bytes()) {
                        let bits = u32_at(types, member + 8)?;
                        let bits = if bits_have_sizes { bits & 0x00ff_ffff } else { bits };
                        return Some(bits / 8);
                    }
                }
            }
            at = behind.checked_add(extra(kind, members)?)?;
        }
        None
    }
}

/// Bytes behind a type's head, by its kind (include/uapi/linux/btf.h); nothing for a kind that is not known, behind
/// which nothing can be found.
fn extra(kind: u32, members: usize) -> Option<usize> {
    Some(match kind {
        // Pointer, forward, typedef, volatile, const, restrict, function, float, type tag.
        2 | 7..=12 | 16 | 18 => 0,
        // Integer, variable, declaration tag.
        1 | 14 | 17 => 4,
        // Array.
        3 => 12,
        KIND_STRUCT | KIND_UNION => members * MEMBER,
        // Enumeration, function prototype.
        6 | 13 => members * 8,
        // Data section, enumeration of 64 bits.
        15 | 19 => members * 12,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Types as the kernel writes them: an integer, then a structure with two fields.
    fn sample(base_strings: u32, names: &[u8], structure: u32, fields: [(u32, u32); 2]) -> Vec<u8> {
        let mut types = Vec::new();
        let mut word = |value: u32| types.extend(value.to_le_bytes());
        for value in [base_strings, 1 << 24, 4, 0] {
            word(value);
        }
        for value in [structure, 4 << 24 | 2, 24] {
            word(value);
        }
        for (name, bits) in fields {
            for value in [name, 1, bits] {
                word(value);
            }
        }
        let mut bytes = MAGIC.to_le_bytes().to_vec();
        bytes.extend([1, 0]);
        let lengths = [types.len(), names.len()].map(|length| u32::try_from(length).unwrap());
        for value in [24, 0, lengths[0], lengths[0], lengths[1]] {
            bytes.extend(u32::to_le_bytes(value));
        }
        bytes.extend(types);
        bytes.extend(names);
        bytes
    }

    #[test]
    fn a_field_is_found_by_the_kernels_and_by_a_modules_types() {
        let kernel = Types::parse(sample(0, b"\0disk\0bdev\0md\0", 1, [(6, 64), (11, 128)]), 0).unwrap();
        assert_eq!(kernel.offset("disk", "bdev", None), Some(8));
        assert_eq!(kernel.offset("disk", "md", None), Some(16));
        assert_eq!(kernel.offset("disk", "nothing", None), None);
        assert_eq!(kernel.offset("bdev", "md", None), None);

        // The module's own strings begin where the kernel's end (14 bytes); "bdev" is the kernel's.
        let module = Types::parse(sample(14, b"\0pool\0own\0", 15, [(6, 320), (20, 64)]), 14).unwrap();
        assert_eq!(module.offset("pool", "bdev", Some(&kernel)), Some(40));
        assert_eq!(module.offset("pool", "own", Some(&kernel)), Some(8));
        assert_eq!(module.offset("pool", "bdev", None), None);
    }

    #[test]
    fn this_machines_kernel_tells_of_its_tasks() {
        // A kernel without type information tells nothing, which is an answer too.
        if let Some(kernel) = Types::of_kernel() {
            let offset = kernel.offset("task_struct", "exit_code", None).unwrap();
            assert!((8..16384).contains(&offset), "{offset}");
            assert!(Types::of_module("no such module", &kernel).is_none());
        }
    }

    proptest! {
        #[test]
        fn damage_is_no_answer_and_no_panic(mut bytes in Just(sample(0, b"\0disk\0bdev\0md\0", 1, [(6, 64), (11, 128)])), at in 0_usize..94, value: u8, cut in 0_usize..94) {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            if let Some(types) = Types::parse(bytes.clone(), 0) {
                let _ = types.offset("disk", "md", None);
            }
            bytes.truncate(cut);
            if let Some(types) = Types::parse(bytes, 0) {
                let _ = types.offset("disk", "md", None);
            }
        }

        #[test]
        fn nonsense_ends(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Some(types) = Types::parse(bytes, 7) {
                let _ = types.offset("disk", "md", None);
            }
        }
    }
}
