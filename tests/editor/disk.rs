//! A file in memory that remembers how it was written, so that the power can be cut at any point of it.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use suture::observe::bbolt::{Database, PageSource};
use suture::remedy::bbolt_editor::Storage;

use crate::bbolt_file::{Tree, dump_all};
use crate::dice::Dice;

/// What a disk writes as a whole or not at all.
const SECTOR: usize = 512;

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Write(usize, Vec<u8>),
    Grow(usize),
    Sync,
}

#[derive(Default)]
struct State {
    bytes: RefCell<Vec<u8>>,
    steps: RefCell<Vec<Step>>,
    /// So many steps succeed before one fails.
    fails_after: Cell<Option<usize>>,
}

#[derive(Clone, Default)]
pub(crate) struct Disk(Rc<State>);

/// Without its bytes, which nobody wants to read in a failed test.
impl std::fmt::Debug for Disk {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Disk of {} bytes", self.0.bytes.borrow().len())
    }
}

impl Disk {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let disk = Self::default();
        disk.0.bytes.replace(bytes);
        disk
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.bytes.borrow().clone()
    }

    pub(crate) fn steps(&self) -> Vec<Step> {
        self.0.steps.borrow().clone()
    }

    pub(crate) fn fail_after(&self, steps: usize) {
        self.0.fails_after.set(Some(steps));
    }

    fn step(&self, step: Step) -> io::Result<()> {
        if let Some(left) = self.0.fails_after.get() {
            let left = left.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
            self.0.fails_after.set(Some(left));
        }
        let mut bytes = self.0.bytes.borrow_mut();
        apply(&mut bytes, &step, None);
        self.0.steps.borrow_mut().push(step);
        Ok(())
    }
}

impl PageSource for Disk {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.bytes.borrow().read_at(offset, buf)
    }

    fn size(&self) -> io::Result<u64> {
        self.0.bytes.borrow().size()
    }

    fn is_current(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn name(&self) -> String {
        "pool.db".to_owned()
    }
}

impl Storage for Disk {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.step(Step::Write(usize::try_from(offset).unwrap(), bytes.to_vec()))
    }

    fn grow(&self, size: u64) -> io::Result<()> {
        self.step(Step::Grow(usize::try_from(size).unwrap()))
    }

    fn sync(&self) -> io::Result<()> {
        self.step(Step::Sync)
    }
}

/// Does a step; with `survives`, only that of a write's sectors, by number, and of growing.
fn apply(bytes: &mut Vec<u8>, step: &Step, survives: Option<&mut dyn FnMut() -> bool>) {
    match (step, survives) {
        (Step::Sync, _) => {}
        (Step::Grow(size), None) => bytes.resize(*size, 0),
        (Step::Grow(size), Some(survives)) => {
            if survives() {
                bytes.resize(*size, 0);
            }
        }
        (Step::Write(offset, data), None) => write(bytes, *offset, data),
        (Step::Write(offset, data), Some(survives)) => {
            let mut at = 0;
            while at < data.len() {
                // Up to the end of the sector that this byte lies in.
                let end = (at + SECTOR - (offset + at) % SECTOR).min(data.len());
                if survives() {
                    write(bytes, offset + at, &data[at..end]);
                }
                at = end;
            }
        }
    }
}

fn write(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

/// What may be on the disk after the power was cut during `steps`, which began with `before` on it: everything up to
/// some sync, and of what came after it any part.
pub(crate) fn power_cuts(before: &[u8], steps: &[Step], dice: &mut Dice) -> Vec<Vec<u8>> {
    let mut images = Vec::new();
    let mut durable = before.to_vec();
    for epoch in steps.split_inclusive(|step| matches!(step, Step::Sync)) {
        // In any order, torn between any two sectors.
        for share in [2, 2, 2, 3, 5, 20] {
            for lost in [true, false] {
                let mut image = durable.clone();
                for step in epoch {
                    apply(&mut image, step, Some(&mut || dice.one_in(share) != lost));
                }
                images.push(image);
            }
        }
        // In order, torn between any two bytes: every byte of a short write, some of a long one.
        let mut image = durable.clone();
        for step in epoch {
            if let Step::Write(offset, data) = step {
                let cuts: Vec<usize> = match data.len() {
                    ..100 => (0..=data.len()).collect(),
                    length => (0..3).map(|_| dice.below(length)).collect(),
                };
                for cut in cuts {
                    let mut torn = image.clone();
                    write(&mut torn, *offset, &data[..cut]);
                    images.push(torn);
                }
            }
            apply(&mut image, step, None);
        }
        durable = image;
    }
    images.push(durable);
    images
}

/// What our reader, which takes no lock, reads.
pub(crate) fn read(bytes: &[u8]) -> (Tree, u64) {
    let (tree, txid) = Database::new(bytes.to_vec()).snapshot(dump_all).unwrap();
    (tree, txid.0)
}
