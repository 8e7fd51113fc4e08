//! Writes one recording.

use std::{borrow::Cow, io::Write};

use serde::Serialize;

use super::{
    LONGEST_RECORD, MAGIC, VERSION,
    blocks::BlockWriter,
    entry::{Entry, Header, RecordKind},
    error::WriteError,
    world::Known,
};
use crate::{
    brain::{Brain, Input},
    model::{Timestamp, World},
    observe::pages::DatabasePages,
};

/// A recording being written. What is written is handed to the operating system by [`Writer::flush`], or when a block is
/// full.
#[derive(Debug)]
pub struct Writer<W> {
    pub(super) blocks: BlockWriter<W>,
    known: Known,
}

impl<W: Write> Writer<W> {
    /// Begins one: from here on the brain is to be told of everything that it takes in, in order.
    pub fn begin(mut out: W, header: &Header, brain: &Brain) -> Result<Self, WriteError> {
        let mut beginning = MAGIC.to_vec();
        beginning.extend_from_slice(&VERSION.to_le_bytes());
        out.write_all(&beginning)?;
        let mut writer = Self {
            blocks: BlockWriter::new(out, beginning.len()),
            known: Known::default(),
        };
        writer.json(header)?;
        // The header is a block of its own: it is readable whatever becomes of the rest.
        writer.flush()?;
        writer.json(&Entry::Brain(Box::new(Cow::Borrowed(brain))))?;
        writer.flush()?;
        Ok(writer)
    }

    /// Something happened.
    pub fn input(&mut self, input: &Input) -> Result<(), WriteError> {
        self.json(&Entry::Input(Box::new(Cow::Borrowed(input))))
    }

    /// The world was read, from these pages.
    pub fn world(&mut self, world: &World, pages: DatabasePages) -> Result<(), WriteError> {
        let (runs, record) = self.known.delta(world, pages)?;
        for run in runs {
            let mut bytes = vec![run.database.byte()];
            bytes.extend_from_slice(&run.page.to_le_bytes());
            bytes.extend_from_slice(&run.bytes);
            self.record(RecordKind::Pages, &bytes)?;
        }
        self.json(&Entry::World(Box::new(record)))
    }

    /// The last world was judged.
    pub fn judged(&mut self, at: Timestamp) -> Result<(), WriteError> {
        self.json(&Entry::Judge { at })
    }

    /// Ends it in order, and gives back what it was written to; `continued` says that another file goes on from here.
    pub fn end(mut self, continued: bool) -> Result<W, WriteError> {
        self.json(&Entry::End { continued })?;
        self.flush()?;
        Ok(self.blocks.into_output())
    }

    /// Hands everything to the operating system, so that a killed suture loses nothing of it.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        Ok(self.blocks.flush()?)
    }

    /// Whether something waits to be flushed.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.blocks.waits()
    }

    /// Bytes in the file, with what waits counted as it would be without compression.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.blocks.size()
    }

    fn json<T: Serialize>(&mut self, value: &T) -> Result<(), WriteError> {
        let bytes = serde_json::to_vec(value)?;
        self.record(RecordKind::Json, &bytes)
    }

    fn record(&mut self, kind: RecordKind, bytes: &[u8]) -> Result<(), WriteError> {
        let length = u32::try_from(bytes.len())
            .ok()
            .filter(|_| bytes.len() <= LONGEST_RECORD)
            .ok_or(WriteError::TooLarge {
                what: "an entry",
                most: LONGEST_RECORD,
            })?;
        self.blocks.push(&[kind.byte()])?;
        self.blocks.push(&length.to_le_bytes())?;
        Ok(self.blocks.push(bytes)?)
    }
}
