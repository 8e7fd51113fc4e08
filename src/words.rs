//! How errors and times are put into words for people.

use std::{error::Error, fmt::Write as _};

use crate::model::Timestamp;

/// An error with its sources in one line: what was being done, then why it failed.
#[must_use]
pub fn explain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries repeat their source in their own message.
        if !text.ends_with(&cause_text) {
            let _ = write!(text, ": {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// The trace id inside a `traceparent` of the W3C (`00-<trace>-<span>-01`), for people to look up.
#[must_use]
pub fn trace_id(traceparent: &str) -> &str {
    traceparent.split('-').nth(1).unwrap_or(traceparent)
}

/// Time of day in the local zone with milliseconds.
#[must_use]
pub fn clock_time(at: Timestamp) -> String {
    let zoned = jiff::Timestamp::from(at).to_zoned(jiff::tz::TimeZone::system());
    zoned.strftime("%H:%M:%S%.3f").to_string()
}

/// Local date and time to the second.
#[must_use]
pub fn date_time(at: Timestamp) -> String {
    let zoned = jiff::Timestamp::from(at).to_zoned(jiff::tz::TimeZone::system());
    zoned.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("opening the door")]
    struct Outer(#[source] std::io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("reading: {0}")]
    struct Repeats(#[source] std::io::Error);

    #[test]
    fn an_error_is_told_with_its_cause_and_a_repeated_cause_only_once() {
        let cause = || std::io::Error::other("it is locked");
        assert_eq!(explain(&Outer(cause())), "opening the door: it is locked");
        assert_eq!(explain(&Repeats(cause())), "reading: it is locked");
    }
}
