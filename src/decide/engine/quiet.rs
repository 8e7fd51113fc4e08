//! Quiet hours: times of the week in which nothing is changed.

use std::{fmt, time::Duration};

use crate::model::Timestamp;

const MINUTES_A_DAY: i64 = 1440;
const NANOSECONDS_A_MINUTE: i64 = 60_000_000_000;

/// A time of day in minutes, from 00:00 to 24:00.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeOfDay(u16);

impl TimeOfDay {
    /// From `HH:MM`; nothing where it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (hours, minutes) = text.split_once(':')?;
        let number = |part: &str| {
            let digits = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| part.parse::<u16>().ok()).flatten()
        };
        let (hours, minutes) = (number(hours)?, number(minutes)?);
        let all = hours * 60 + minutes;
        (minutes < 60 && all <= 1440).then_some(Self(all))
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

impl Day {
    /// All of them, in their order.
    pub const ALL: [Self; 7] = [
        Self::Mon,
        Self::Tue,
        Self::Wed,
        Self::Thu,
        Self::Fri,
        Self::Sat,
        Self::Sun,
    ];

    /// Its name, as the configuration says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mon => "mon",
            Self::Tue => "tue",
            Self::Wed => "wed",
            Self::Thu => "thu",
            Self::Fri => "fri",
            Self::Sat => "sat",
            Self::Sun => "sun",
        }
    }

    /// Of a day counted from 1 January 1970, which was a Thursday.
    fn of(day: i64) -> Self {
        match (day + 3).rem_euclid(7) {
            0 => Self::Mon,
            1 => Self::Tue,
            2 => Self::Wed,
            3 => Self::Thu,
            4 => Self::Fri,
            5 => Self::Sat,
            _ => Self::Sun,
        }
    }
}

/// One quiet time. One that ends before it begins goes on into the next day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    from: TimeOfDay,
    to: TimeOfDay,
    days: Vec<Day>,
}

impl Window {
    /// A quiet time that begins on these days; nothing where it would have no length, or no day.
    #[must_use]
    pub fn new(from: TimeOfDay, to: TimeOfDay, mut days: Vec<Day>) -> Option<Self> {
        days.sort_unstable();
        days.dedup();
        let empty = from == to || from.0 == 1440 || days.is_empty();
        (!empty).then_some(Self { from, to, days })
    }

    /// When it begins.
    #[must_use]
    pub fn from(&self) -> TimeOfDay {
        self.from
    }

    /// When it ends.
    #[must_use]
    pub fn to(&self) -> TimeOfDay {
        self.to
    }

    /// On which days it begins.
    #[must_use]
    pub fn days(&self) -> &[Day] {
        &self.days
    }

    /// Its length in minutes.
    fn length(&self) -> i64 {
        let length = i64::from(self.to.0) - i64::from(self.from.0);
        if length > 0 {
            length
        } else {
            length + MINUTES_A_DAY
        }
    }

    /// When the one that this minute lies in is over, in minutes of local time.
    fn end_around(&self, minute: i64) -> Option<i64> {
        let today = minute.div_euclid(MINUTES_A_DAY);
        [today, today - 1].into_iter().find_map(|day| {
            let begin = day * MINUTES_A_DAY + i64::from(self.from.0);
            let end = begin + self.length();
            let within = (begin..end).contains(&minute);
            (within && self.days.contains(&Day::of(day))).then_some(end)
        })
    }
}

/// By whose clock quiet hours are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Zone {
    /// The machine's, which whoever asks reads ([`Facts::local_offset`](super::Facts)).
    #[default]
    Local,
    /// A fixed offset from UTC, in minutes to the east.
    Offset(i16),
}

impl Zone {
    /// From `local` or `+HH:MM`; nothing where it is neither, or further from UTC than any zone is.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "local" {
            return Some(Self::Local);
        }
        let (sign, rest) = match text.split_at_checked(1)? {
            ("+", rest) => (1, rest),
            ("-", rest) => (-1, rest),
            _ => return None,
        };
        let minutes = TimeOfDay::parse(rest)?.0;
        let minutes = i16::try_from(minutes)
            .ok()
            .filter(|minutes| *minutes <= 18 * 60)?;
        Some(Self::Offset(sign * minutes))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Offset(minutes) => {
                let sign = if *minutes < 0 { '-' } else { '+' };
                let all = minutes.unsigned_abs();
                write!(f, "{sign}{:02}:{:02}", all / 60, all % 60)
            }
        }
    }
}

/// All quiet times.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QuietHours {
    /// By whose clock.
    pub zone: Zone,
    /// They.
    pub windows: Vec<Window>,
}

impl QuietHours {
    /// When the quiet time that this moment lies in is over; nothing where it lies in none. Quiet times that follow each
    /// other are one. `local_offset` is the machine's, in seconds to the east of UTC.
    #[must_use]
    pub fn until(&self, now: Timestamp, local_offset: i32) -> Option<Timestamp> {
        let offset = match self.zone {
            Zone::Local => i64::from(local_offset) * 1_000_000_000,
            Zone::Offset(minutes) => i64::from(minutes) * NANOSECONDS_A_MINUTE,
        };
        let now_utc = i64::try_from(now.nanoseconds()).unwrap_or(i64::MAX);
        let begin = now_utc.saturating_add(offset).div_euclid(NANOSECONDS_A_MINUTE);
        let mut minute = begin;
        // A week of quiet is as good as for ever: it is asked again.
        while minute - begin < 7 * MINUTES_A_DAY {
            let ends = self.windows.iter().filter_map(|window| window.end_around(minute));
            match ends.max() {
                Some(end) => minute = end,
                None => break,
            }
        }
        let end = minute.saturating_mul(NANOSECONDS_A_MINUTE).saturating_sub(offset);
        let end = u64::try_from(end).unwrap_or_default();
        // At least a moment, so that whoever waits does not spin.
        let least = now.plus(Duration::from_secs(1));
        (minute != begin).then(|| Timestamp::from_nanoseconds(end).max(least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 21 September 2026 is a Monday.
    fn utc(text: &str) -> Timestamp {
        let time: jiff::Timestamp = text.parse().unwrap();
        std::time::SystemTime::from(time).into()
    }

    fn window(from: &str, to: &str, days: &[Day]) -> Window {
        let time = |text| TimeOfDay::parse(text).unwrap();
        Window::new(time(from), time(to), days.to_vec()).unwrap()
    }

    fn hours(zone: &str, windows: Vec<Window>) -> QuietHours {
        QuietHours {
            zone: Zone::parse(zone).unwrap(),
            windows,
        }
    }

    #[test]
    fn a_quiet_time_begins_and_ends_to_the_minute() {
        let quiet = hours("+00:00", vec![window("08:00", "18:30", &[Day::Mon])]);
        let end = Some(utc("2026-09-21T18:30:00Z"));
        for (now, expected) in [
            ("2026-09-21T07:59:59.999Z", None),
            ("2026-09-21T08:00:00Z", end),
            ("2026-09-21T18:29:58Z", end),
            ("2026-09-21T18:30:00Z", None),
            ("2026-09-22T12:00:00Z", None),
            ("2026-09-20T12:00:00Z", None),
        ] {
            assert_eq!(quiet.until(utc(now), 0), expected, "{now}");
        }
    }

    #[test]
    fn one_over_midnight_belongs_to_the_day_on_which_it_begins() {
        let quiet = hours("+00:00", vec![window("22:00", "06:00", &[Day::Sun])]);
        assert_eq!(
            quiet.until(utc("2026-09-21T03:00:00Z"), 0),
            Some(utc("2026-09-21T06:00:00Z"))
        );
        assert_eq!(quiet.until(utc("2026-09-21T23:00:00Z"), 0), None);
        assert_eq!(quiet.until(utc("2026-09-20T03:00:00Z"), 0), None);
    }

    #[test]
    fn the_zone_shifts_them_and_local_is_what_the_caller_says() {
        let windows = || vec![window("00:00", "01:00", &Day::ALL)];
        let now = utc("2026-09-20T22:30:00Z");
        let end = Some(utc("2026-09-20T23:00:00Z"));
        assert_eq!(hours("+02:00", windows()).until(now, 0), end);
        assert_eq!(hours("-02:00", windows()).until(now, 0), None);
        assert_eq!(hours("local", windows()).until(now, 7200), end);
        assert_eq!(hours("local", windows()).until(now, 0), None);
    }

    #[test]
    fn those_that_follow_each_other_are_one_and_quiet_for_ever_has_an_end() {
        let day = window("00:00", "24:00", &[Day::Mon]);
        let night = window("22:00", "06:00", &[Day::Sun]);
        let quiet = hours("+00:00", vec![night, day.clone()]);
        assert_eq!(
            quiet.until(utc("2026-09-20T23:00:00Z"), 0),
            Some(utc("2026-09-22T00:00:00Z"))
        );
        let always = hours("+00:00", vec![window("00:00", "24:00", &Day::ALL)]);
        let now = utc("2026-09-21T12:00:00Z");
        let until = always.until(now, 0).unwrap();
        assert!(until.since(now) >= Duration::from_hours(24), "{until}");
    }

    #[test]
    fn what_is_no_time_no_zone_and_no_quiet_time_is_refused() {
        for text in [
            "25:00", "24:01", "8:00", "12:60", "-1:00", "noon", "12", "+1:00", "1２:00",
        ] {
            assert_eq!(TimeOfDay::parse(text), None, "{text}");
        }
        for text in ["", "UTC", "+19:00", "+1", "01:00", "Local"] {
            assert_eq!(Zone::parse(text), None, "{text}");
        }
        for text in ["00:00", "09:05", "24:00"] {
            assert_eq!(TimeOfDay::parse(text).unwrap().to_string(), text);
        }
        for text in ["local", "+00:00", "-03:30", "+18:00"] {
            assert_eq!(Zone::parse(text).unwrap().to_string(), text);
        }
        let time = |text| TimeOfDay::parse(text).unwrap();
        assert_eq!(Window::new(time("08:00"), time("08:00"), Day::ALL.to_vec()), None);
        assert_eq!(Window::new(time("24:00"), time("08:00"), Day::ALL.to_vec()), None);
        assert_eq!(Window::new(time("08:00"), time("09:00"), Vec::new()), None);
    }
}
