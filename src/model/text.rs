//! Text that came from outside (dm names, messages, process names): shown without ever driving a terminal.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bytes from user memory in a form that is safe to print: printable ASCII stays as it is, a backslash is doubled,
/// everything else becomes `\xNN`, `\n` and the like. Two different byte strings never look alike, so comparing the
/// printable form compares the bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Untrusted(String);

impl Untrusted {
    /// Takes the bytes as they are.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut text = String::with_capacity(bytes.len());
        for &byte in bytes {
            match byte {
                b'\\' => text.push_str("\\\\"),
                b' '..=b'~' => text.push(char::from(byte)),
                other => text.extend(std::ascii::escape_default(other).map(char::from)),
            }
        }
        Self(text)
    }

    /// Takes the bytes up to the first NUL, or all of them where there is none.
    #[must_use]
    pub fn from_c_string(bytes: &[u8]) -> Self {
        Self::from_bytes(bytes.split(|byte| *byte == 0).next().unwrap_or_default())
    }

    /// The printable form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_comes_in_only_printable_ascii_comes_out(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let text = Untrusted::from_bytes(&bytes);
            prop_assert!(text.as_str().bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        }

        #[test]
        fn different_bytes_never_look_alike(one in proptest::collection::vec(any::<u8>(), 0..6), other in proptest::collection::vec(any::<u8>(), 0..6)) {
            prop_assert_eq!(one == other, Untrusted::from_bytes(&one) == Untrusted::from_bytes(&other));
        }
    }

    #[test]
    fn a_terminal_escape_is_spelled_out() {
        assert_eq!(
            Untrusted::from_c_string(b"tp\x1b[31m\nx\0rest").as_str(),
            "tp\\x1b[31m\\nx"
        );
        assert_ne!(Untrusted::from_bytes(b"\\x1b"), Untrusted::from_bytes(b"\x1b"));
    }
}
