//! How values are written: times, sizes, words. Each can be read back from what it prints.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

use crate::{
    decide::Handling,
    model::{Bytes, FindingClass, Mode, Severity},
};

/// How times are written, for messages.
pub(super) const A_TIME: &str = "a time such as \"15s\", \"10m\", \"24h\" or \"90d\"";
/// How sizes are written, for messages.
pub(super) const A_SIZE: &str = "a size such as \"512MiB\" or \"256GiB\"";

const UNITS: [(&str, u64); 6] = [
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// A time; why it is none.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let span: Span = text.parse().map_err(|_| format!("{text:?} is not a time"))?;
    if span.is_negative() {
        return Err(format!("{text:?} is negative"));
    }
    let relative = SpanRelativeTo::days_are_24_hours();
    // Months and years have no fixed length.
    let time = span
        .to_duration(relative)
        .map_err(|_| format!("{text:?} has no fixed length"))?;
    Duration::try_from(time).map_err(|_| format!("{text:?} is negative"))
}

/// How a time is written.
pub(super) fn show_time(time: Duration) -> String {
    let seconds = time.as_secs();
    if time.subsec_millis() > 0 {
        return format!("{}ms", time.as_millis());
    }
    match seconds {
        0 => "0s".to_owned(),
        _ if seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
        _ if seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

/// A size; why it is none.
pub(super) fn size(text: &str) -> Result<Bytes, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = UNITS.iter().find(|(name, _)| *name == unit.trim());
    let bytes = number
        .parse::<u64>()
        .ok()
        .zip(unit)
        .and_then(|(number, (_, unit))| number.checked_mul(*unit));
    bytes.map(Bytes).ok_or_else(|| format!("{text:?} is not a size"))
}

/// How a size is written.
pub(super) fn show_size(size: Bytes) -> String {
    let fits = |(_, unit): &&(&str, u64)| size.0 >= *unit && size.0.is_multiple_of(*unit);
    match UNITS.iter().find(fits) {
        Some((name, unit)) => format!("{}{name}", size.0 / unit),
        None => format!("{}B", size.0),
    }
}

/// A word of a few.
pub(super) trait Word: Copy + 'static {
    /// All of them.
    fn all() -> Vec<Self>;
    /// How it is written.
    fn word(self) -> &'static str;
}

impl Word for Mode {
    fn all() -> Vec<Self> {
        Self::ALL.to_vec()
    }

    fn word(self) -> &'static str {
        self.name()
    }
}

impl Word for FindingClass {
    fn all() -> Vec<Self> {
        Self::ALL.to_vec()
    }

    fn word(self) -> &'static str {
        self.name()
    }
}

impl Word for Handling {
    fn all() -> Vec<Self> {
        vec![Self::Observe, Self::Auto]
    }

    fn word(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Auto => "auto",
        }
    }
}

impl Word for Severity {
    fn all() -> Vec<Self> {
        vec![Self::Outage, Self::Damage, Self::Stuck, Self::Space, Self::Notice]
    }

    fn word(self) -> &'static str {
        self.name()
    }
}

impl Word for crate::decide::engine::Day {
    fn all() -> Vec<Self> {
        Self::ALL.to_vec()
    }

    fn word(self) -> &'static str {
        self.name()
    }
}

/// The value of a word; what there is, where it is none of them.
pub(super) fn word<W: Word>(text: &str) -> Result<W, String> {
    let all = W::all();
    let found = all.iter().find(|one| one.word() == text);
    found
        .copied()
        .ok_or_else(|| one_of(all.iter().map(|one| one.word()), text))
}

/// What there is, the nearest to what was written first.
pub(super) fn one_of<'a>(known: impl Iterator<Item = &'a str>, written: &str) -> String {
    let known: Vec<_> = known.collect();
    let nearest = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(name, written), *name))
        .min()
        .filter(|(distance, name)| *distance <= 3 && *distance < name.len());
    match nearest {
        Some((_, name)) => format!("`{name}`, or another of {}", known.join(", ")),
        None => format!("one of {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_it_is_printed() {
        for (text, milliseconds) in [
            ("0s", 0),
            ("1500ms", 1500),
            ("15s", 15_000),
            ("10m", 600_000),
            ("90s", 90_000),
        ] {
            assert_eq!(time(text).unwrap(), Duration::from_millis(milliseconds));
            assert_eq!(show_time(Duration::from_millis(milliseconds)), text);
        }
        for (text, hours) in [("24h", 24), ("90d", 90 * 24), ("1h", 1)] {
            assert_eq!(time(text).unwrap(), Duration::from_hours(hours));
        }
        assert_eq!(show_time(Duration::from_hours(24)), "1d");
        assert_eq!(time("1h30m").unwrap(), Duration::from_mins(90));
        for text in [
            "",
            "15",
            "s",
            "-15s",
            "15 parsecs",
            "1y",
            "1mo",
            "99999999999999d",
        ] {
            assert!(time(text).is_err(), "{text}");
        }
        assert!(time("-15s").unwrap_err().contains("negative"));
    }

    #[test]
    fn a_size_is_read_as_it_is_printed() {
        for (text, bytes) in [
            ("0B", 0),
            ("1B", 1),
            ("1KiB", 1024),
            ("256GiB", 1 << 38),
            ("1025B", 1025),
        ] {
            assert_eq!(size(text).unwrap(), Bytes(bytes));
            assert_eq!(show_size(Bytes(bytes)), text);
        }
        assert_eq!(size("2 MiB").unwrap(), Bytes(1 << 21));
        for text in ["", "1", "GiB", "-1B", "1GB", "1.5GiB", "99999999PiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_word_that_is_nearly_right_is_told_the_right_one() {
        assert_eq!(word::<Mode>("auto"), Ok(Mode::Auto));
        let said = word::<FindingClass>("leaked-thing").unwrap_err();
        assert!(said.starts_with("`leaked-thin`"), "{said}");
        let said = word::<Mode>("everything").unwrap_err();
        assert_eq!(said, "one of observe, plan, approve, auto");
    }
}
