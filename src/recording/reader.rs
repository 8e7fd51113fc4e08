//! Reads one recording.

use std::io::{self, Read};

use super::{
    LONGEST_RECORD, MAGIC, VERSION,
    blocks::BlockReader,
    entry::{Entry, Header, PAGES_HEADER, RECORD_HEADER, RecordKind},
    error::{Damage, NotARecording},
    world::{Database, Known, Run},
};
use crate::{
    brain::{Brain, Input},
    model::{Timestamp, World},
};

/// A recording being read.
#[derive(Debug)]
pub struct Reader<R> {
    header: Header,
    blocks: BlockReader<R>,
    known: Known,
    entries: u64,
    /// A world was read, so there is one to judge.
    has_world: bool,
    ended: bool,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// What suture knew at the beginning: always the first.
    Brain(Box<Brain>),
    /// Something happened.
    Input(Box<Input>),
    /// The world was read.
    World(Box<World>),
    /// The last world was judged; there is one.
    Judge {
        /// When.
        at: Timestamp,
    },
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    pub fn open(mut from: R) -> Result<Self, NotARecording> {
        let mut magic = [0; MAGIC.len()];
        let mut version = [0; 4];
        let begun = from
            .read_exact(&mut magic)
            .and_then(|()| from.read_exact(&mut version));
        match begun {
            Ok(()) if magic == MAGIC => {}
            Ok(()) => return Err(NotARecording::Magic),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(NotARecording::Magic),
            Err(error) => return Err(NotARecording::Read(error)),
        }
        let found = u32::from_le_bytes(version);
        if found != VERSION {
            return Err(NotARecording::Version { found });
        }
        let mut blocks = BlockReader::new(from);
        let header = match read_record(&mut blocks) {
            Ok(Some((RecordKind::Json, bytes))) => serde_json::from_slice(&bytes).map_err(Damage::from),
            Ok(Some(_)) => Err(Damage::Record {
                problem: "is there instead of the header",
            }),
            Ok(None) => Err(Damage::Cut),
            Err(damage) => Err(damage),
        };
        Ok(Self {
            header: header.map_err(NotARecording::Header)?,
            blocks,
            known: Known::default(),
            entries: 0,
            has_world: false,
            ended: false,
        })
    }

    /// What it is of.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How many entries were read so far.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The next entry; nothing after the end mark. After damage there is nothing more to be had.
    pub fn step(&mut self) -> Result<Option<Step>, Damage> {
        if self.ended {
            return Ok(None);
        }
        let step = self.read_step();
        self.ended = !matches!(step, Ok(Some(_)));
        step
    }

    fn read_step(&mut self) -> Result<Option<Step>, Damage> {
        let wrong = |problem| Err(Damage::Record { problem });
        let entry = loop {
            match read_record(&mut self.blocks)? {
                None => return Err(Damage::Cut),
                Some((RecordKind::Pages, bytes)) => self.known.stage(pages(&bytes)?)?,
                Some((RecordKind::Json, bytes)) => break serde_json::from_slice(&bytes)?,
            }
        };
        let step = match entry {
            Entry::End { .. } if self.blocks.is_at_end()? => return Ok(None),
            Entry::End { .. } => return wrong("comes after the end mark"),
            Entry::Brain(brain) if self.entries == 0 => Step::Brain(Box::new(brain.into_owned())),
            Entry::Brain(_) => return wrong("holds a second beginning"),
            _ if self.entries == 0 => return wrong("is there before the beginning"),
            Entry::Input(input) => Step::Input(Box::new(input.into_owned())),
            Entry::World(record) => {
                let world = self.known.apply(*record)?;
                self.has_world = true;
                Step::World(Box::new(world))
            }
            Entry::Judge { at } if self.has_world => Step::Judge { at },
            Entry::Judge { .. } => return wrong("judges a world that is not there"),
        };
        self.entries = self.entries.saturating_add(1);
        Ok(Some(step))
    }
}

/// The next record; nothing where the file ends just here.
fn read_record<R: Read>(blocks: &mut BlockReader<R>) -> Result<Option<(RecordKind, Vec<u8>)>, Damage> {
    let Some(header) = blocks.take(RECORD_HEADER)? else {
        return Ok(None);
    };
    let [kind, length @ ..] = header.as_slice() else {
        return Err(Damage::Cut);
    };
    let kind = RecordKind::of(*kind).ok_or(Damage::Record {
        problem: "is of no known kind",
    })?;
    let length = length.try_into().map_or(u32::MAX, u32::from_le_bytes);
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length <= LONGEST_RECORD)
        .ok_or(Damage::Record {
            problem: "claims to be longer than any",
        })?;
    if length == 0 {
        return Err(Damage::Record { problem: "is empty" });
    }
    match blocks.take(length)? {
        Some(bytes) => Ok(Some((kind, bytes))),
        None => Err(Damage::Cut),
    }
}

fn pages(record: &[u8]) -> Result<Run, Damage> {
    let read = || {
        let (header, bytes) = record.split_at_checked(PAGES_HEADER)?;
        let (database, page) = header.split_first()?;
        Some(Run {
            database: Database::of(*database)?,
            page: u64::from_le_bytes(page.try_into().ok()?),
            bytes: bytes.to_vec(),
        })
    };
    read().ok_or(Damage::Record {
        problem: "holds pages of no known database",
    })
}
