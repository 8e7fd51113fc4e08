//! Cutting the power at a word.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Cuts the power of a VM as soon as a text appears in its console or in the output of a program that the host
/// started. See [`super::VmBuilder::cut_power_on`].
#[derive(Clone)]
pub struct CutOn {
    inner: Arc<Inner>,
}

struct Inner {
    text: Vec<u8>,
    /// By stream: its last bytes, since the text may come in two pieces.
    tails: Mutex<HashMap<Source, Vec<u8>>>,
    fired: AtomicBool,
}

/// Where something was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    Console,
    Program { request: u64, is_err: bool },
}

impl CutOn {
    /// Waits for this text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let inner = Inner {
            text: text.as_bytes().to_vec(),
            tails: Mutex::default(),
            fired: AtomicBool::new(false),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Whether the text has appeared.
    #[must_use]
    pub fn has_fired(&self) -> bool {
        self.inner.fired.load(Ordering::SeqCst)
    }

    /// Whether the text is complete with this piece. Says so once.
    pub(super) fn feed(&self, source: Source, piece: &[u8]) -> bool {
        let Inner { text, tails, fired } = &*self.inner;
        if text.is_empty() || self.has_fired() {
            return false;
        }
        let mut tails = tails.lock().unwrap_or_else(PoisonError::into_inner);
        let tail = tails.entry(source).or_default();
        tail.extend_from_slice(piece);
        let found = tail.windows(text.len()).any(|window| window == text);
        let over = tail.len().saturating_sub(text.len() - 1);
        tail.drain(..over);
        found && !fired.swap(true, Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: Source = Source::Program {
        request: 1,
        is_err: false,
    };

    #[test]
    fn a_text_in_two_pieces_is_found_once() {
        let cut = CutOn::new("half way");
        assert!(!cut.feed(OUT, b"we are half"));
        assert!(cut.feed(OUT, b" way there"));
        assert!(!cut.feed(OUT, b"half way"));
        assert!(cut.has_fired());
    }

    #[test]
    fn streams_are_not_mixed() {
        let cut = CutOn::new("ab");
        assert!(!cut.feed(OUT, b"a"));
        assert!(!cut.feed(Source::Console, b"b"));
        assert!(!cut.has_fired());
    }
}
