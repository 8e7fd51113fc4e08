//! Outlines of the databases: their numbers, without making a value of each record and row. Where there is anything that they
//! could not say, there is none.

mod pool_db;
mod rows;

#[cfg(test)]
mod tests;

pub use pool_db::pool_outline;
pub use rows::rows_outline;
