//! A process among others on its node: one suture for each pool (`only_one`), asked by signals to end or to read its
//! configuration again (`orders`), and known to the service manager that started it (`manager`). What it does about all
//! of this is the agent's.

mod manager;
mod only_one;
mod orders;

pub use manager::Manager;
pub use only_one::{FOLDER, OnlyOne, OnlyOneError};
pub use orders::{ENDS_WITHIN, Ending, Order, Orders};
