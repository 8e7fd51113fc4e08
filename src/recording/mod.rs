//! Recordings: what suture took in, in a file, and the same brain over it again, on any machine. docs/recording.md has the
//! format, byte for byte. `blocks` is the container, `entry` what is in it, `world` how worlds are told by what changed;
//! `writer` and `reader` put that together, `recorder` keeps the files of a running suture, `replay` thinks it over.

mod blocks;
mod entry;
mod error;
mod reader;
#[cfg(feature = "node")]
mod recorder;
mod replay;
#[cfg(feature = "node")]
#[cfg(test)]
mod rotation_tests;
#[cfg(test)]
mod tests;
mod world;
mod writer;

pub use entry::Header;
pub use error::{Damage, NotARecording, WriteError};
pub use reader::{Reader, Step};
#[cfg(feature = "node")]
pub use recorder::{RecordError, Recorder, RecordingOptions};
pub use replay::{ReplayOptions, replay};
pub use writer::Writer;

/// The first bytes of every recording. The first one is no text, and the last one tells when a tool changed line ends.
const MAGIC: [u8; 8] = *b"\x89SUTURE\n";
/// The version of the format that is written, and the only one that is read.
pub const VERSION: u32 = 1;
/// Longest record in bytes; a longer one is not written, and damage where it is read. Half a million thin devices fit.
const LONGEST_RECORD: usize = 64 << 20;
/// Most bytes of pages of both databases together.
const MOST_PAGES: usize = 256 << 20;
