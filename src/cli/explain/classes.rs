//! What is true of every finding of a class: what it is, when something is one, and what a person can do without suture.
//! The predicates are those of docs/findings.md.

use std::fmt::Write as _;

use crate::{
    cli::paper::{Ink, Paper},
    model::FindingClass,
};

/// What there is to say of a class.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClassText {
    pub(super) definition: &'static str,
    pub(super) predicates: &'static [&'static str],
    /// What follows where nothing is done.
    pub(super) consequence: &'static str,
    /// What suture does about it, and when.
    pub(super) repair: &'static str,
    pub(super) by_hand: &'static str,
}

const RESTORE: &str = "With a backup of the databases from the same time: stop containerd and put both back together. A single device can be looked at read-only: `dmsetup create look --readonly --table '0 SECTORS thin /dev/mapper/POOL ID'`, then mount it read-only.";
const REPULL: &str =
    "Remove the image or container that uses it (`crictl rmi`, `ctr images rm`) and pull it again.";
const KERNEL_LOG: &str =
    "Read the kernel's log (`dmesg | grep -e thin -e device-mapper`) for what happened first.";

#[expect(clippy::too_many_lines, reason = "it is a table of texts")]
pub(super) fn of(class: FindingClass) -> ClassText {
    match class {
        FindingClass::LeakedThin => ClassText {
            definition: "containerd made a thin device, was stopped half way, and marked its id faulty at its next start. The next snapshot overwrote the record, and with it the only name that the device had. containerd never draws that id again and never deletes the device.",
            predicates: &[
                "the pool's metadata have the thin device",
                "no record carries its id, and device_ids say faulty",
                "suture saw containerd make it and abandon it, and it is still that very device: its mappings begin at the same block, in the same activation of the pool",
            ],
            consequence: "Its space is never given back; with enough of these the pool runs full.",
            repair: "`suture repair` deletes it, while containerd runs or while it is stopped; so does `suture run --act` by itself.",
            by_hand: "Where you are sure that it is waste: `dmsetup message POOL 0 'delete ID'`. The kernel refuses while anybody has it open.",
        },
        FindingClass::ForeignThin => ClassText {
            definition: "A thin device that no record of containerd's names, and that nobody can prove containerd made. It may be waste of an interrupted operation. It may as well be an administrator's volume, or all that is left of snapshots whose database was lost.",
            predicates: &[
                "the pool's metadata have the thin device",
                "no record carries its id",
                "suture has not seen containerd make and abandon it. That device_ids say faulty proves nothing: containerd marks an id so also when the pool answered `file exists`, because the device was somebody else's",
            ],
            consequence: "Its space stays taken. Where containerd has still to give out its number, each prepare that draws it fails with `file exists`.",
            repair: "Never deletes it unless it is named, with `suture repair --delete-thin ID`. While containerd is stopped, and where it is asked for with `--only foreign-thin`, it keeps containerd from drawing its number.",
            by_hand: "Look at it before anything else: `dmsetup create look --readonly --table '0 SECTORS thin /dev/mapper/POOL ID'`, then mount it read-only. Where it is waste: `suture repair --delete-thin ID`.",
        },
        FindingClass::OrphanRecord => ClassText {
            definition: "A record of a device whose snapshot is gone. containerd's clean-up handles one state only, and looks at no other record again, so the thin device keeps its space for ever.",
            predicates: &[
                "a record bears a number that was given out: the snapshot was once complete, so containerd made the device",
                "no snapshot has that number any more",
                "the thin device is in the pool, or its dm device is there",
                "it does not wait for containerd's own clean-up (state Removed with async_remove)",
                "it stood still, and nobody is at work on it",
            ],
            consequence: "Its space is never given back; with enough of these the pool runs full.",
            repair: "`suture repair` removes its dm device and its thin device, also while containerd runs; the record goes while containerd is stopped.",
            by_hand: "`dmsetup remove NAME` where it is there and not in use, then `dmsetup message POOL 0 'delete ID'`. The record that stays stops nobody.",
        },
        FindingClass::Wedge => ClassText {
            definition: "containerd stores the number of a snapshot together with the snapshot, and the record of its device before that. It was stopped in between. Now it draws the same number each time, finds the record, and refuses: `already exists`, or for a pull `target snapshot not found` (containerd#5646). No start of containerd's heals it.",
            predicates: &[
                "a record bears the next number: one more than the last that was given out",
                "no snapshot has that number",
                "its state is Activated or later, and not Faulty: containerd overwrites only faulty ones",
                "it stood still, and nobody is at work on it: a prepare that makes its file system looks the same while it runs",
            ],
            consequence: "No new snapshot can be made: every pull and every new container on the node fails.",
            repair: "Only while containerd is stopped: `suture repair --offline` marks the record faulty, and undoes the half-made snapshot where nothing can be lost.",
            by_hand: "Only an edit of the pool database while containerd is stopped ends it without losing every image: that edit is what `suture repair --offline` makes. Without it: remove the dm device, delete the thin device with a message to the pool, and start containerd twice.",
        },
        FindingClass::FaultyNext => ClassText {
            definition: "The record of the next snapshot is faulty, or will be at containerd's next start. containerd overwrites such a record and draws a new id; whatever thin device the old id has loses its only name.",
            predicates: &[
                "a record bears the next number, and no snapshot has it",
                "its state is Faulty; or it is before Activated while containerd is stopped",
            ],
            consequence: "The next snapshot works; but not where the record has a dm device without a live table: then every one fails until that is removed. Where the thin device is there still, its space is never given back.",
            repair: "Such a dm device is removed at once. The rest only while containerd is stopped: `suture repair --offline` takes the record back, with whatever is left of its device.",
            by_hand: "`dmsetup remove` of a dm device without a live table. Else nothing has to be done: the next snapshot overwrites the record.",
        },
        FindingClass::FaultyLive => ClassText {
            definition: "containerd was stopped while it suspended, resumed or deactivated a device, and marked its record faulty at its next start. The layer is good and in use. Faulty is not garbage: whoever deletes faulty devices deletes such layers.",
            predicates: &[
                "the record's state is Faulty",
                "a snapshot has its number",
                "the thin device is in the pool",
            ],
            consequence: "None by itself. It looks like garbage, and is good data.",
            repair: "Only while containerd is stopped: `suture repair --offline` gives the record back its state. It is never deleted.",
            by_hand: "Nothing has to be done, and it must not be deleted.",
        },
        FindingClass::SuspendedDevice => ClassText {
            definition: "A dm device of the snapshotter's is suspended. containerd suspends a device for moments while it makes a snapshot of it, was stopped meanwhile, and never resumes it at its start. Whoever opens it hangs and can not be killed.",
            predicates: &[
                "a dm device of the snapshotter's name, or on a thin device of its, is suspended",
                "it stood so, and nobody is at work on it",
            ],
            consequence: "Whoever opens it hangs: containers on it, and programs that look at all block devices.",
            repair: "`suture repair` resumes it, while containerd runs or while it is stopped.",
            by_hand: "`dmsetup resume NAME`.",
        },
        FindingClass::RowWithoutRecord => ClassText {
            definition: "A snapshot whose device has no record: a removal got as far as forgetting the record and was stopped before the snapshot was. Each further removal fails on the missing record, for the snapshot and for every layer below it; with async_remove the clean-up of the whole snapshotter stops.",
            predicates: &[
                "a snapshot is there",
                "no record bears its number",
                "it stood still, and nobody is at work on it",
            ],
            consequence: "It can not be removed, nor can the layers below it: space only grows.",
            repair: "Only while containerd is stopped: `suture repair --offline` gives it a record that containerd can remove.",
            by_hand: RESTORE,
        },
        FindingClass::RowWithoutThin => ClassText {
            definition: "A snapshot and its record are there, and the thin device is not in the pool: its data are lost. Whatever is made from it fails with `no data available`.",
            predicates: &[
                "a snapshot and the record of its device are there",
                "the pool's metadata do not have its thin device",
                "it stood still, and nobody is at work on it",
            ],
            consequence: "Containers of it fail, and what is made from it fails. In some states containerd does not load the snapshotter at its next start.",
            repair: "Nothing brings the data back, so it is told. Where containerd would not start because of it, `suture repair --offline` marks its record faulty.",
            by_hand: REPULL,
        },
        FindingClass::OrphanNode => ClassText {
            definition: "A dm device of the snapshotter's name that no record knows. It holds no data of its own. When containerd comes to that number, making the dm device fails with `device or resource busy`.",
            predicates: &[
                "a dm device is named as a snapshot's",
                "no record has that name and no snapshot that number",
                "it is not one that the kernel removes after its last use",
                "it stood still, and nobody is at work on it",
            ],
            consequence: "When containerd comes to its number, a prepare fails with `device or resource busy`.",
            repair: "`suture repair` removes it, while containerd runs or while it is stopped, where nobody has it open or mounted.",
            by_hand: "End who has it open or mounted, then `dmsetup remove NAME`; never with --force, which gives its user I/O errors.",
        },
        FindingClass::BurnedId => ClassText {
            definition: "A number of which nothing is left but that it may not be drawn: its device is gone, or was never made.",
            predicates: &[
                "device_ids say faulty and no record carries the id; or a record of a snapshot that is gone is left over",
                "the pool's metadata do not have the thin device",
            ],
            consequence: "None: a number is used up.",
            repair: "Only while containerd is stopped: `suture repair --offline` gives the number back.",
            by_hand: "Nothing has to be done: there are 16.7 million numbers.",
        },
        FindingClass::StuckCleanup => ClassText {
            definition: "containerd's clean-up failed on this device while containerd ran, noted the error in its record, and never tries again: it looks only at records in state Removed.",
            predicates: &[
                "a record bears a number that was given out, and no snapshot has it",
                "its state is Deactivating or Removing, and it has an error noted",
                "it stood still, and nobody is at work on it",
            ],
            consequence: "Its space is never given back; with enough of these the pool runs full.",
            repair: "`suture repair` removes its dm device and its thin device, also while containerd runs; the record goes while containerd is stopped.",
            by_hand: "End what the error names, then `dmsetup remove NAME` and `dmsetup message POOL 0 'delete ID'`.",
        },
        FindingClass::ErrorTable => ClassText {
            definition: "The table of a dm device was replaced by the `error` target. `dmsetup remove --force`, which containerd uses, does that before it removes; of a device in use the error table stays. It is no failure of a disk.",
            predicates: &[
                "a dm device of a record has the target `error`",
                "nobody is at work on it",
            ],
            consequence: "Every read and write on it fails, for whoever has it open or mounted.",
            repair: "Never touches it while somebody may use it: it is told. Where it is suspended too, `suture repair` resumes it.",
            by_hand: "End who uses it, and remove the container. The thin device below is as it was.",
        },
        FindingClass::BlockErrors => ClassText {
            definition: "Reads or writes fail on a device that the pool rests on, or on one of its thin devices.",
            predicates: &["suture's probes saw the kernel report the errors"],
            consequence: "What is on the blocks that fail can not be read, or was not written.",
            repair: "Nothing: a disk is not mended by software. It is told, with what it hits.",
            by_hand: KERNEL_LOG,
        },
        FindingClass::PoolOutOfSpace => ClassText {
            definition: "The pool has no free data blocks. Writes wait for a minute and then fail; what is written already stays.",
            predicates: &["the kernel's status line of the pool says so"],
            consequence: "Containers that write get I/O errors, and new ones can not be made.",
            repair: "Nothing to the pool itself. What is leaked is deleted by `suture repair` also now, because that is what gives space back.",
            by_hand: "Extend the pool's data device (`lvextend` and the like), or remove containers and images that are not needed. What is leaked is given back by a repair.",
        },
        FindingClass::PoolMetadataNearlyFull => ClassText {
            definition: "The device that holds the pool's metadata is nearly full. Once it is, the pool turns read-only and wants a check.",
            predicates: &["nine tenths of its blocks are used, or fewer than 256 are free"],
            consequence: "When they are full the pool turns read-only, and every container that writes fails.",
            repair: "Nothing: it is told.",
            by_hand: "Extend the metadata device before it is full: `lvextend --poolmetadatasize +1G VG/POOL`, or the like.",
        },
        FindingClass::PoolReadOnly => ClassText {
            definition: "The pool takes no writes of metadata: no device can be made or deleted, and writes to new blocks fail.",
            predicates: &["the kernel's status line of the pool says so"],
            consequence: "Containers that write get I/O errors; nothing can be made or deleted.",
            repair: "Nothing: it is told, and nothing is deleted meanwhile.",
            by_hand: KERNEL_LOG,
        },
        FindingClass::PoolFailed => ClassText {
            definition: "The pool takes nothing at all: reads fail too.",
            predicates: &["the kernel's status line of the pool says so"],
            consequence: "Every container on the pool fails.",
            repair: "Nothing: it is told, and nothing is deleted meanwhile.",
            by_hand: KERNEL_LOG,
        },
        FindingClass::PoolNeedsCheck => ClassText {
            definition: "The kernel could not write the pool's metadata and wants them checked before they are written again. This stays until it is done, through every reboot.",
            predicates: &["the kernel's status line of the pool says so"],
            consequence: "The pool does not come back into write mode by itself.",
            repair: "Nothing: it is told, and nothing is deleted meanwhile.",
            by_hand: "Stop containerd, deactivate the pool, run `thin_check` on its metadata device, and where that says so `thin_repair` into another one.",
        },
        FindingClass::MetadataSnapshotHeld => ClassText {
            definition: "Somebody holds a snapshot of the pool's metadata, as thin_ls and cAdvisor do for moments. There can be only one, and it pins blocks.",
            predicates: &[
                "the kernel's status line names it, and has done so for as long as something must stand still",
            ],
            consequence: "Blocks of the metadata stay in use as long as it is held, and nobody else can reserve one.",
            repair: "Nothing: suture releases only what a suture reserved.",
            by_hand: "Where nobody reads it any more: `dmsetup message POOL 0 release_metadata_snap`. suture does not, because it can not tell whose it is.",
        },
        FindingClass::FailingCreate => ClassText {
            definition: "containerd tries to make, load, suspend or resume a device, and the kernel refuses, at this moment. Only a running suture sees it: it is told when it begins, counted while it lasts, and over when the call goes well, when what was in the way is gone, or after ten quiet minutes.",
            predicates: &[
                "suture's probes saw a dmsetup of containerd's fail: the pool has the number already (EEXIST), is read-only or has failed (EOPNOTSUPP), or does not have the parent (ENODATA)",
                "or it failed twice for another reason, such as a dm device of that name that is in the way (EBUSY)",
            ],
            consequence: "New containers and image pulls fail as long as it lasts, and most tries use up a thin id.",
            repair: "Nothing by itself: what is in the way is a finding of its own, which has the remedy.",
            by_hand: "Its decision in `suture findings` says which finding that is, or what else to do.",
        },
        FindingClass::FailingRemove => ClassText {
            definition: "containerd tries to remove or delete a device, and the kernel refuses, at this moment. Only a running suture sees it: it is told when it begins, counted while it lasts, and over when the call goes well, when the device is gone, or after ten quiet minutes.",
            predicates: &[
                "suture's probes saw a dmsetup of containerd's fail for five seconds because somebody has the device open (EBUSY), or after it gave the device the error table",
                "or the pool is read-only or has failed (EOPNOTSUPP), or it failed twice for another reason",
            ],
            consequence: "containerd tries on for minutes, and no other snapshot can be made or removed meanwhile; of the device nothing is given back.",
            repair: "Nothing by itself: a device that is in use is left alone. What a removal leaves behind in the end is a finding of its own.",
            by_hand: "End who has it open or mounted (`suture inspect NAME` tells who); never remove it with --force, which gives its user I/O errors.",
        },
    }
}

/// All that is true of every finding of a class; ends with a line end.
pub(super) fn text(class: FindingClass, paper: Paper) -> String {
    let text = of(class);
    let title = |title: &str| format!("\n{}\n", paper.ink(Ink::Bold, title));
    let part = |head: &str, body: &str| format!("{}  {}\n", title(head), paper.wrap(body, 2));
    let note = "This is what the class means; there is no finding of it to tell of.";
    let mut out = format!("{}\n{}\n", paper.ink(Ink::Bold, class), paper.wrap(note, 0));
    out.push_str(&part("What it is", text.definition));
    out.push_str(&title("It is one when all of these hold"));
    for predicate in text.predicates {
        let _ = writeln!(out, "  - {}", paper.wrap(predicate, 4));
    }
    out.push_str(&part("If nothing is done", text.consequence));
    out.push_str(&part("What suture does", text.repair));
    out.push_str(&part("By hand", text.by_hand));
    out.push_str("\nMore: docs/findings.md\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_whole_sentences() {
        for class in FindingClass::ALL {
            let text = of(class);
            assert!(
                text.definition.ends_with('.') && text.by_hand.ends_with('.'),
                "{class}"
            );
            assert!(
                text.consequence.ends_with('.') && text.repair.ends_with('.'),
                "{class}"
            );
            assert!(!text.predicates.is_empty(), "{class}");
        }
    }
}
