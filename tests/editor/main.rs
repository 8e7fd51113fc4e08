//! The writer of bbolt files, held against the real bbolt: what either wrote, the other reads and goes on writing to;
//! with the power cut at any point of a write, with damage on every page, and with other hands on the file.

#[cfg(test)]
#[path = "../shared/bbolt_file.rs"]
#[expect(
    dead_code,
    reason = "the model and the dump are used here; the writer of the readers' tests is not"
)]
mod bbolt_file;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod dice;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod file;
#[cfg(test)]
mod free_list;
#[cfg(test)]
mod histories;
#[cfg(test)]
mod peer;
#[cfg(test)]
mod power;
