//! What the guest's kernel says on its serial port.

use std::io::Read;
use std::sync::{Mutex, PoisonError};

/// Gets every piece of the console's output as it comes.
pub type ConsoleSink = Box<dyn FnMut(&[u8]) + Send>;

/// How much is kept, in bytes; more than any healthy boot says.
const KEPT: usize = 1024 * 1024;

/// Keeps the last part of the output.
#[derive(Default)]
pub(super) struct Console {
    text: Mutex<Vec<u8>>,
}

impl Console {
    /// Takes a piece in.
    pub(super) fn add(&self, piece: &[u8]) {
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        text.extend_from_slice(piece);
        let over = text.len().saturating_sub(KEPT);
        text.drain(..over);
    }

    /// What is kept.
    pub(super) fn text(&self) -> String {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text).replace('\r', "")
    }
}

/// Gives all that `from` says to `take`, until its end.
pub(super) fn follow(mut from: impl Read, mut take: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 4096];
    while let Ok(length) = from.read(&mut buffer) {
        match buffer.get(..length) {
            None | Some([]) => return,
            Some(piece) => take(piece),
        }
    }
}
