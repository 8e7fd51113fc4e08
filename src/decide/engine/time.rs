//! How much time has passed for sure. A wall clock may be set, so nothing that must last is measured by one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A reading of the engine's own clock: time since the engine was first made, never more than has really passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Elapsed(Duration);

impl Elapsed {
    /// Time since an earlier reading; zero when that one is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// What is left of a time that began at an earlier reading.
    #[must_use]
    pub fn left_of(self, lasting: Duration, earlier: Self) -> Duration {
        lasting.saturating_sub(self.since(earlier))
    }
}

/// Adds up what the kernel's monotonic clock says, over restarts of suture and of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct SureClock {
    reading: Elapsed,
    last: Option<Last>,
}

/// The last reading of the monotonic clock, and the life of the kernel that it is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Last {
    boot: String,
    monotonic: Duration,
}

impl SureClock {
    /// Takes in a reading of the kernel's clock. In another life of the kernel all of that life has passed since; how long
    /// the machine was off is not known, and counts as nothing.
    pub(super) fn advance(&mut self, boot: &str, monotonic: Duration) -> Elapsed {
        let (passed, at) = match &self.last {
            None => (Duration::ZERO, monotonic),
            Some(last) if last.boot == boot => (
                monotonic.saturating_sub(last.monotonic),
                // A clock that went back is not credited twice with the same time.
                monotonic.max(last.monotonic),
            ),
            Some(_) => (monotonic, monotonic),
        };
        self.reading = Elapsed(self.reading.0.saturating_add(passed));
        self.last = Some(Last {
            boot: boot.to_owned(),
            monotonic: at,
        });
        self.reading
    }

    /// The last reading.
    pub(super) fn reading(&self) -> Elapsed {
        self.reading
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_counts_what_the_kernel_counts_and_never_twice() {
        let mut clock = SureClock::default();
        let begun = clock.advance("one", seconds(1_000));
        assert_eq!(begun, Elapsed::default());
        assert_eq!(clock.advance("one", seconds(1_010)).since(begun), seconds(10));
        // Back, and forth again.
        assert_eq!(clock.advance("one", seconds(1_005)).since(begun), seconds(10));
        assert_eq!(clock.advance("one", seconds(1_012)).since(begun), seconds(12));
    }

    #[test]
    fn after_a_start_of_the_machine_only_the_new_life_counts() {
        let mut clock = SureClock::default();
        let begun = clock.advance("one", seconds(1_000));
        clock.advance("one", seconds(1_010));
        let kept = serde_json::to_string(&clock).unwrap();
        let mut clock: SureClock = serde_json::from_str(&kept).unwrap();
        assert_eq!(clock.advance("two", seconds(30)).since(begun), seconds(40));
        assert_eq!(clock.advance("two", seconds(31)).since(begun), seconds(41));
    }

    #[test]
    fn what_is_left_is_never_negative() {
        let mut clock = SureClock::default();
        let begun = clock.advance("one", seconds(0));
        let later = clock.advance("one", seconds(7));
        assert_eq!(later.left_of(seconds(10), begun), seconds(3));
        assert_eq!(later.left_of(seconds(5), begun), Duration::ZERO);
        assert_eq!(begun.left_of(seconds(5), later), seconds(5));
    }
}
