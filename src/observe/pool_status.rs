//! What the kernel says of a thin pool and of a thin device in the one line that a table or a status has for each
//! (`pool_status` and `thin_status`, drivers/md/dm-thin.c), taken apart. Nothing is asked here; a line that makes no
//! sense is none.

use crate::model::{DeviceNumber, PoolMode, PoolUsage, Sectors, ThinId};

/// Mode and `needs_check` from a pool's status line; nothing where it makes no sense, or ends too early to tell.
#[must_use]
pub fn mode(status: &str) -> Option<(PoolMode, bool)> {
    let mut words = status.split_ascii_whitespace();
    match status.trim_ascii() {
        "Fail" => return Some((PoolMode::Failed, false)),
        "Error" => return Some((PoolMode::Unknown, false)),
        _ => counts(&mut words)?,
    };
    let mode = match words.next()? {
        "rw" => PoolMode::ReadWrite,
        "ro" => PoolMode::ReadOnly,
        "out_of_data_space" => PoolMode::OutOfDataSpace,
        _ => return None,
    };
    // What becomes of discards (`ignore_discard` among it), and of writes without space: nothing here rests on them.
    let (_discards, _no_space) = (words.next()?, words.next()?);
    match words.next()? {
        "-" => Some((mode, false)),
        "needs_check" => Some((mode, true)),
        _ => None,
    }
}

/// What a pool's status line counts; nothing where it makes no sense, or the kernel counts nothing because the pool failed.
/// `block` is the size of the pool's data blocks, which its table tells.
#[must_use]
pub fn usage(status: &str, block: Option<Sectors>) -> Option<PoolUsage> {
    let counts = counts(&mut status.split_ascii_whitespace())?;
    Some(PoolUsage {
        metadata_used: counts.metadata.0,
        metadata_total: counts.metadata.1,
        data_used: counts.data.0,
        data_total: counts.data.1,
        block_size: block?.bytes(),
        held_root: counts.held_root,
    })
}

/// The metadata device that a pool's table names first (`pool_ctr`); the kernel writes it as a number.
#[must_use]
pub fn metadata_device(table: &str) -> Option<DeviceNumber> {
    table.split_ascii_whitespace().next()?.parse().ok()
}

/// The thin device that a line of a table maps, if it is one of that pool: `<pool> <thin id> [<external origin>]`
/// (`thin_ctr`).
#[must_use]
pub fn thin_id(pool: Option<DeviceNumber>, kind: &str, parameters: &str) -> Option<ThinId> {
    let mut words = parameters.split_ascii_whitespace();
    let on: DeviceNumber = words.next()?.parse().ok()?;
    let id = u32::try_from(number(words.next()?)?).ok().map(ThinId)?;
    (kind == "thin" && Some(on) == pool && id <= ThinId::MAX).then_some(id)
}

struct Counts {
    /// Used and total.
    metadata: (u64, u64),
    /// Used and total.
    data: (u64, u64),
    held_root: Option<u64>,
}

/// The words that the line begins with: transaction id, metadata used/total, data used/total, and the root of the reserved
/// snapshot, or `-`.
fn counts<'w>(words: &mut impl Iterator<Item = &'w str>) -> Option<Counts> {
    number(words.next()?)?;
    let mut pair = || {
        let (used, total) = words.next()?.split_once('/')?;
        Some((number(used)?, number(total)?))
    };
    Some(Counts {
        metadata: pair()?,
        data: pair()?,
        held_root: match words.next()? {
            "-" => None,
            root => Some(number(root)?),
        },
    })
}

/// Digits and nothing else: `parse` alone would also take a `+`.
fn number(word: &str) -> Option<u64> {
    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| word.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_tells_how_full_the_pool_is() {
        let read = |status: &str| usage(status, Some(Sectors(128)));
        // Lines that a kernel 6.1 wrote.
        let free = read("0 11/1024 3/2048 - rw discard_passdown queue_if_no_space - 1024").unwrap();
        let expected = PoolUsage {
            metadata_used: 11,
            metadata_total: 1024,
            data_used: 3,
            data_total: 2048,
            block_size: crate::model::Bytes(65536),
            held_root: None,
        };
        assert_eq!(free, expected);
        let held =
            read("7 12/1024 3/2048 37 ro discard_passdown queue_if_no_space needs_check 1024").unwrap();
        assert_eq!((held.held_root, held.metadata_used), (Some(37), 12));
        for broken in [
            "",
            "0",
            "0 11 3/2048 -",
            "0 11/1024 3/2048",
            "0 x/1024 3/2048 -",
            "0 1/2 3/4 +",
            "0 1/2 3/+4 -",
            "x 1/2 3/4 -",
            "0 1/99999999999999999999 3/4 -",
        ] {
            assert_eq!(read(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_status_line_tells_the_mode() {
        let line = |mode: &str, check: &str| {
            format!("0 144/16384 512/32768 - {mode} no_discard_passdown queue_if_no_space {check} 1024")
        };
        assert_eq!(mode(&line("rw", "-")), Some((PoolMode::ReadWrite, false)));
        assert_eq!(mode(&line("ro", "needs_check")), Some((PoolMode::ReadOnly, true)));
        assert_eq!(
            mode(&line("out_of_data_space", "-")),
            Some((PoolMode::OutOfDataSpace, false))
        );
        assert_eq!(mode("Fail"), Some((PoolMode::Failed, false)));
        assert_eq!(mode("Error"), Some((PoolMode::Unknown, false)));
        for broken in [
            &line("something-new", "-"),
            &line("rw", "something-new"),
            "",
            "Failure",
            // Cut before it is told whether a check is needed.
            "0 144/16384 512/32768 - rw no_discard_passdown queue_if_no_space",
            "0 144 512/32768 - rw no_discard_passdown queue_if_no_space - 1024",
        ] {
            assert_eq!(mode(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_pool_that_ignores_discards_is_as_good_as_any() {
        let line = "0 11/1024 3/2048 - rw ignore_discard error_if_no_space - 1024";
        assert_eq!(mode(line), Some((PoolMode::ReadWrite, false)));
    }

    #[test]
    fn a_thin_device_is_known_by_its_pools_number() {
        let pool = Some(DeviceNumber { major: 253, minor: 2 });
        assert_eq!(thin_id(pool, "thin", "253:2 59"), Some(ThinId(59)));
        assert_eq!(thin_id(pool, "thin", "253:2 59 8:1"), Some(ThinId(59)));
        for (kind, parameters) in [
            ("linear", "253:2 59"),
            ("thin", "253:3 59"),
            ("thin", "253:2 16777216"),
            ("thin", "253:2 -1"),
            ("thin", "253:2"),
            ("thin", ""),
        ] {
            assert_eq!(thin_id(pool, kind, parameters), None, "{kind} {parameters}");
        }
        assert_eq!(thin_id(None, "thin", "253:2 59"), None);
        assert_eq!(
            metadata_device("253:0 253:1 128 32768 1 skip_block_zeroing"),
            Some(DeviceNumber { major: 253, minor: 0 })
        );
        assert_eq!(metadata_device("/dev/x 253:1"), None);
        assert_eq!(metadata_device(""), None);
    }
}
