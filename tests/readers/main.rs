//! The readers of bbolt files and of thin-pool metadata: real files decoded to the byte, random files against a model,
//! commits falling into every possible moment of a read, and damage of every kind.

#[cfg(test)]
mod bbolt;
#[cfg(test)]
#[path = "../shared/bbolt_file.rs"]
mod bbolt_file;
#[cfg(test)]
mod core;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod damaged_world;
#[cfg(test)]
mod databases;
#[cfg(test)]
mod fold;
#[cfg(test)]
mod outline;
#[cfg(test)]
#[path = "../shared/page_map.rs"]
mod page_map;
#[cfg(test)]
mod recorded;
#[cfg(test)]
mod row_index;
#[cfg(test)]
mod small_world;
#[cfg(test)]
mod survey;
#[cfg(test)]
mod thin;
#[cfg(test)]
#[path = "../shared/thin_image.rs"]
mod thin_image;
#[cfg(test)]
mod thin_owners;
#[cfg(test)]
mod thin_space;
#[cfg(test)]
mod two_threads;
#[cfg(test)]
mod watch;
