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

/// A number with its thousands apart: `1,234,567`.
#[must_use]
pub fn thousands(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or(u64::MAX).to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// So many of a thing whose plural ends in s: `1 record`, `2,000 records`.
#[must_use]
pub fn counted(number: impl TryInto<u64>, thing: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    format!(
        "{} {thing}{}",
        thousands(number),
        if number == 1 { "" } else { "s" }
    )
}

/// How often: `once`, `3 times`.
#[must_use]
pub fn times(number: impl TryInto<u64>) -> String {
    match number.try_into() {
        Ok(1) => "once".to_owned(),
        number => counted(number.unwrap_or(u64::MAX), "time"),
    }
}

/// The word for one where it is one, else the other: verbs, pronouns, and plurals of their own.
#[must_use]
pub fn one_or<'a>(number: impl TryInto<u64>, one: &'a str, more: &'a str) -> &'a str {
    if number.try_into().is_ok_and(|number| number == 1) {
        one
    } else {
        more
    }
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

    #[test]
    fn one_thing_is_not_several() {
        assert_eq!(
            ["0", "999", "1,000", "1,234,567"],
            [0_u64, 999, 1000, 1_234_567]
                .map(thousands)
                .each_ref()
                .map(String::as_str)
        );
        assert_eq!(counted(0, "finding"), "0 findings");
        assert_eq!(counted(1, "finding"), "1 finding");
        assert_eq!(counted(2000, "finding"), "2,000 findings");
        assert_eq!([times(0), times(1), times(2)], ["0 times", "once", "2 times"]);
        assert_eq!(
            [
                one_or(1, "is", "are"),
                one_or(2, "is", "are"),
                one_or(0, "is", "are")
            ],
            ["is", "are", "are"]
        );
    }

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
