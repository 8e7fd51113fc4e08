//! Writes what is told: lines for people, or JSON lines for programs. A live suture and a replay write the same.

use std::io::{self, Write};

use serde::Serialize;

use crate::{brain::Report, model::Timestamp, words::clock_time};

/// How to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Lines for people.
    Text,
    /// One JSON value a line.
    Json,
}

/// A JSON line: the report and the time that it is about.
#[derive(Serialize)]
struct Line<'a> {
    time: Timestamp,
    #[serde(flatten)]
    report: &'a Report,
}

/// Tells on some output.
#[derive(Debug)]
pub struct Reporter<W> {
    format: Format,
    out: W,
}

impl Reporter<io::Stdout> {
    /// Tells on standard output.
    #[must_use]
    pub fn stdout(format: Format) -> Self {
        Self::new(format, io::stdout())
    }
}

impl<W: Write> Reporter<W> {
    /// Tells on `out`.
    #[must_use]
    pub fn new(format: Format, out: W) -> Self {
        Self { format, out }
    }

    /// Tells one thing about a moment; fails when nobody can be told.
    pub fn tell(&mut self, at: Timestamp, report: &Report) -> io::Result<()> {
        match self.format {
            Format::Text => writeln!(self.out, "{} {report}", clock_time(at))?,
            Format::Json => {
                serde_json::to_writer(&mut self.out, &Line { time: at, report })?;
                writeln!(self.out)?;
            }
        }
        self.out.flush()
    }
}
