//! A text in which `*` stands for anything.

use std::fmt;

/// A text in which `*` stands for any run of characters, none included.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(String);

impl Pattern {
    /// As it is written.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Whether a text is of this shape.
    #[must_use]
    pub fn fits(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else {
            return false;
        };
        let Some(last) = parts.next_back() else {
            return rest.is_empty();
        };
        for part in parts {
            // The first place leaves the most for what comes after.
            match rest.split_once(part) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        rest.ends_with(last)
    }

    /// Whether all that fits another pattern fits this one too. A star of the other's can only be met by a star, because
    /// nothing else stands for anything.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.fits(&other.0)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_stands_for_anything_and_nothing_else_does() {
        for (pattern, fitting, others) in [
            ("k8s.io", vec!["k8s.io"], vec!["k8s.io2", "xk8s.io", ""]),
            ("*", vec!["", "a"], vec![]),
            ("a*", vec!["a", "ab"], vec!["ba", ""]),
            ("*a", vec!["a", "ba"], vec!["ab"]),
            ("a*a", vec!["aa", "aba"], vec!["a", "ab"]),
            ("a*b*c", vec!["abc", "axbxbc"], vec!["ac", "abcd", "acb"]),
            ("**", vec!["", "x"], vec![]),
            ("", vec![""], vec!["x"]),
        ] {
            let pattern = Pattern::new(pattern);
            for text in fitting {
                assert!(pattern.fits(text), "{pattern} {text}");
            }
            for text in others {
                assert!(!pattern.fits(text), "{pattern} {text}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_covered_fits(one in "[ab*]{0,5}", other in "[ab*]{0,5}", text in "[ab]{0,6}") {
            let (one, other) = (Pattern::new(&one), Pattern::new(&other));
            if one.covers(&other) && other.fits(&text) {
                prop_assert!(one.fits(&text));
            }
        }
    }
}
