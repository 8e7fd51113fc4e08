//! How the commands that mend and check end: as fsck(8) does.

/// Nothing worse than a notice is there, and nothing had to be done.
pub(super) const CLEAN: u8 = 0;
/// Everything was corrected.
pub(super) const CORRECTED: u8 = 1;
/// Something worse than a notice is left as it is.
pub(super) const LEFT: u8 = 4;
/// It could not be done, or what was read does not tell.
pub(super) const OPERATIONAL: u8 = 8;
/// A wrong word on the command line.
pub(super) const USAGE: u8 = 16;

/// Subcommands that end so; in the others 1 and 2 mean something else.
pub(super) const AS_FSCK: [&str; 5] = ["check", "inspect", "explain", "repair", "config"];
