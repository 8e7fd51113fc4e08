//! Crash windows: after which durable step of an operation containerd died, and what that means.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Declares the windows with their names.
macro_rules! windows {
    ($(#[doc = $doc:literal] $name:ident = $text:literal),+ $(,)?) => {
        /// The last durable step of an operation that was done when its containerd died. B makes an empty snapshot (or one
        /// of a parent that is not loaded), S one of a loaded parent, C commits, R removes at once, A removes later
        /// (`async_remove`), X takes back what failed, U activates a device at containerd's start. A dash after the number
        /// is in the name: R's windows have it, and so have those of a dm device that is only half made.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub enum Window {
            $(#[doc = $doc] $name,)+
        }

        impl Window {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name, as docs/operations.md lists it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// What was done last there, as docs/operations.md tells it: "The pool made the thin device."
            fn done(self) -> &'static str {
                match self {
                    $(Self::$name => $doc,)+
                }
            }
        }
    };
}

windows! {
    /// Record added, thin id drawn.
    B1 = "B1",
    /// Record Creating.
    B2 = "B2",
    /// The pool made the thin device.
    B3 = "B3",
    /// Record Created.
    B4 = "B4",
    /// Record Activating.
    B5 = "B5",
    /// The dm device was created, and is not live.
    B6Half = "B6'",
    /// The dm device is live.
    B6 = "B6",
    /// Record Activated.
    B7 = "B7",
    /// The file system is made.
    B8 = "B8",
    /// `lost+found` is removed from it.
    B9 = "B9",
    /// The snapshot's row is stored.
    B10 = "B10",
    /// The client's name for it is stored: it is finished.
    B11 = "B11",
    /// Parent's record Suspending.
    S1 = "S1",
    /// The parent is suspended.
    S2 = "S2",
    /// Parent's record Suspended.
    S3 = "S3",
    /// Record added, thin id drawn.
    S4 = "S4",
    /// Record Creating.
    S5 = "S5",
    /// The pool made the thin device.
    S6 = "S6",
    /// Record Created.
    S7 = "S7",
    /// Record Activating.
    S8 = "S8",
    /// The dm device was created, and is not live.
    S9Half = "S9'",
    /// The dm device is live.
    S9 = "S9",
    /// Record Activated.
    S10 = "S10",
    /// Parent's record Resuming.
    S11 = "S11",
    /// The parent is resumed.
    S12 = "S12",
    /// Parent's record Resumed.
    S13 = "S13",
    /// `lost+found` is removed.
    S14 = "S14",
    /// The snapshot's row is stored.
    S15 = "S15",
    /// Record Suspending.
    C1 = "C1",
    /// The device is suspended.
    C2 = "C2",
    /// Record Suspended.
    C3 = "C3",
    /// Record Resuming.
    C4 = "C4",
    /// The device is resumed.
    C5 = "C5",
    /// Record Resumed.
    C6 = "C6",
    /// Record Deactivating.
    C7 = "C7",
    /// The dm device is removed, or will be when it is closed.
    C8 = "C8",
    /// Record Deactivated.
    C9 = "C9",
    /// The row says Committed.
    C10 = "C10",
    /// Record Deactivating.
    R1 = "R1'",
    /// The dm device is removed.
    R2 = "R2'",
    /// Record Deactivated.
    R3 = "R3'",
    /// Record Removing.
    R4 = "R4'",
    /// The thin device is deleted.
    R5 = "R5'",
    /// Record Removed.
    R6 = "R6'",
    /// The record is gone.
    R7 = "R7'",
    /// The row is gone: it is finished.
    R8 = "R8'",
    /// Record Removed, to be cleaned up later.
    A1 = "A1",
    /// The row is gone.
    A2 = "A2",
    /// Record Deactivating.
    A3 = "A3",
    /// The dm device is removed.
    A4 = "A4",
    /// Record Deactivated.
    A5 = "A5",
    /// Record Removing.
    A6 = "A6",
    /// The thin device is deleted.
    A7 = "A7",
    /// Record Removed, with nothing behind it.
    A8 = "A8",
    /// The record is gone: it is finished.
    A9 = "A9",
    /// Record Removing: the dm device could not be made.
    X1 = "X1",
    /// The thin device is deleted.
    X2 = "X2",
    /// Record Removed.
    X3 = "X3",
    /// Record Deactivating.
    X4 = "X4",
    /// The dm device is removed.
    X5 = "X5",
    /// Record Deactivated.
    X6 = "X6",
    /// Record Removing.
    X7 = "X7",
    /// The thin device is deleted.
    X8 = "X8",
    /// Record Removed.
    X9 = "X9",
    /// The record is gone: all is taken back.
    X10 = "X10",
    /// Record Activating.
    U1 = "U1",
    /// The dm device was created, and is not live.
    U2Half = "U2'",
    /// The dm device is live.
    U2 = "U2",
    /// Record Activated: it is finished.
    U3 = "U3",
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Window> for String {
    fn from(window: Window) -> Self {
        window.name().to_owned()
    }
}

/// A text that is no window's name.
#[derive(Debug, thiserror::Error)]
#[error("`{}` is no crash window; docs/operations.md lists them", .0.escape_debug())]
pub struct NoWindow(String);

impl TryFrom<String> for Window {
    type Error = NoWindow;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let known = Self::ALL.iter().find(|window| window.name() == text);
        known.copied().ok_or(NoWindow(text))
    }
}

/// What follows from a death in a window, in whole sentences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Forecast {
    /// What is left behind.
    pub remains: &'static str,
    /// What containerd's next start does about it.
    pub containerd: &'static str,
    /// What suture does about it.
    pub suture: &'static str,
}

const NOTHING: &str = "suture has nothing to do.";
const AGAIN: &str = "Its next start marks the record faulty, and the next snapshot overwrites it.";
const WEDGED: &str = "It never heals that: each further snapshot fails with \"already exists\", for ever.";
const UNDO: &str = "suture marks the record faulty while containerd is stopped, and takes back what was made where nothing can be lost.";
const DELETE: &str = "suture deletes the thin device, which it saw containerd make and abandon.";
const REST: &str = "suture removes what is left of it.";

const RESTORE: &str =
    "suture can give the record back its state while containerd is stopped; it never deletes the data.";

impl Window {
    /// What was done last there, as the rest of a sentence: `the pool made the thin device`.
    #[must_use]
    pub fn step(self) -> String {
        let text = self.done().trim().trim_end_matches('.');
        let mut letters = text.chars();
        let first = letters.next().map(|letter| letter.to_ascii_lowercase());
        first.into_iter().chain(letters).collect()
    }

    /// The window after it in the same operation; nothing where it is the last.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        let next = Self::ALL.iter().skip_while(|one| **one != self).nth(1).copied();
        next.filter(|next| next.family() == self.family())
    }

    /// The letter of its operation.
    fn family(self) -> Option<char> {
        self.name().chars().next()
    }

    /// Whether the operation is over with it. What is left after A2 is the clean-up's.
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(
            self,
            Self::B11 | Self::R8 | Self::A2 | Self::A9 | Self::X10 | Self::U3
        )
    }

    /// What follows from a death there, by a kill. After a reboot no dm device is left, whatever this says.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "it is a table, with a line for each window")]
    pub fn forecast(self) -> Forecast {
        use Window as W;
        let (remains, containerd, suture) = match self {
            W::B1 | W::B2 => (
                "A record of a device that was never made, and a used-up number.",
                AGAIN,
                NOTHING,
            ),
            W::B3 | W::B4 | W::B5 => (
                "A thin device that nobody will use, and its record.",
                "Its next start marks the record faulty, the next snapshot overwrites it, and the thin device has lost its only name.",
                DELETE,
            ),
            W::B6Half | W::B6 => (
                "A thin device that nobody will use, its dm device, and its record.",
                "Its next start marks the record faulty; the next snapshot fails once because the dm device is in the way, and the one after overwrites the record.",
                "suture removes the dm device when nobody has it open, and deletes the thin device, which it saw containerd make and abandon.",
            ),
            W::B7 | W::B8 | W::B9 => (
                "A device whose record says Activated, and no snapshot that it belongs to.",
                WEDGED,
                UNDO,
            ),
            W::B10 | W::S15 => (
                "A complete snapshot that no client knows of.",
                "Its garbage collection removes the snapshot the next time that any snapshot is removed.",
                NOTHING,
            ),
            W::B11 | W::U3 => ("A complete snapshot.", "It is finished.", NOTHING),
            W::S1 | W::S11 | W::S12 => forecast_of_parent(self),
            W::S2 | W::S3 => (
                "A suspended parent: whoever opens it hangs.",
                "It does not resume the parent, not even at its next start.",
                "suture resumes the parent once nobody is at work on it.",
            ),
            W::S4 | W::S5 => (
                "A suspended parent, and a record of a device that was never made.",
                "Its next start marks the record faulty, and does not resume the parent.",
                "suture resumes the parent once nobody is at work on it.",
            ),
            W::S6 | W::S7 | W::S8 => (
                "A suspended parent, a thin device that nobody will use, and its record.",
                "Its next start marks the record faulty, the next snapshot overwrites it, and the parent stays suspended.",
                "suture resumes the parent once nobody is at work on it, and deletes the thin device, which it saw containerd make and abandon.",
            ),
            W::S9Half | W::S9 => (
                "A suspended parent, a thin device that nobody will use, its dm device, and its record.",
                "Its next start marks the record faulty; the next snapshot fails once because the dm device is in the way, and the parent stays suspended.",
                "suture resumes the parent, removes the dm device when nobody has it open, and deletes the thin device, which it saw containerd make and abandon.",
            ),
            W::S10 => (
                "A suspended parent, a device whose record says Activated, and no snapshot that it belongs to.",
                WEDGED,
                "suture resumes the parent, marks the record faulty while containerd is stopped, and takes back what was made where nothing can be lost.",
            ),
            W::S13 | W::S14 => (
                "A device whose record says Activated, and no snapshot that it belongs to; the parent is well.",
                WEDGED,
                UNDO,
            ),
            W::C1 | W::C4 | W::C5 | W::C7 => (
                "A snapshot that is not committed yet, with a record between two states; its data are fine.",
                "Its next start marks the record faulty although the data are fine; the client commits again, or starts anew.",
                RESTORE,
            ),
            W::C2 | W::C3 => (
                "A suspended device: whoever uses it hangs. Its data are fine.",
                "It does not resume the device, not even at its next start.",
                "suture resumes the device once nobody is at work on it.",
            ),
            W::C6 => (
                "A snapshot that is not committed yet; its data are fine.",
                "The client commits again.",
                NOTHING,
            ),
            W::C8 | W::C9 => (
                "A snapshot that is not committed yet, without its dm device.",
                "Its commit can not succeed any more; the client starts anew, and garbage collection removes this one.",
                NOTHING,
            ),
            W::C10 => (
                "A committed snapshot that containerd's own database may know by its earlier name.",
                "Its garbage collection removes the snapshot, and the client makes it anew.",
                NOTHING,
            ),
            W::R1 | W::R2 | W::R3 | W::R4 | W::R5 | W::R6 => (
                "A snapshot that is half removed, with its row.",
                "Its garbage collection removes the snapshot once more, and that goes well.",
                NOTHING,
            ),
            W::R7 => (
                "A snapshot's row without a record of its device.",
                "It never heals that: the snapshot can not be removed, nor can any of its parents.",
                "suture gives containerd a record that it can remove, while containerd is stopped.",
            ),
            W::R8 | W::A9 => ("Nothing.", "It is finished.", NOTHING),
            W::A1 => (
                "A snapshot whose record says Removed, with its row.",
                "Its garbage collection removes the snapshot once more, and that goes well.",
                NOTHING,
            ),
            W::A2 | W::A8 => (
                "A record that waits for the clean-up.",
                "Its next clean-up finishes it.",
                NOTHING,
            ),
            W::A3 => (
                "A record, a thin device and a dm device of a snapshot that is gone.",
                "It marks the record faulty at its next start and never cleans it up: everything is leaked.",
                REST,
            ),
            W::A4 | W::A6 => (
                "A record and a thin device of a snapshot that is gone.",
                "It marks the record faulty at its next start and never cleans it up: the thin device is leaked.",
                REST,
            ),
            W::A5 => (
                "A record and a thin device of a snapshot that is gone; the record looks like a healthy layer's.",
                "It never looks at the record again: the thin device is leaked.",
                REST,
            ),
            W::A7 => (
                "A record of a snapshot that is gone, with nothing behind it.",
                "It marks the record faulty at its next start and never cleans it up.",
                "suture can take the number back while containerd is stopped.",
            ),
            W::X1 | W::X4 | W::X5 | W::X7 => (
                "A record of a snapshot that failed and was being taken back, perhaps with its thin device.",
                "Its next start marks the record faulty, and the next snapshot overwrites it; a thin device that is still there has lost its only name.",
                DELETE,
            ),
            W::X2 | W::X8 => (
                "A record of a snapshot that failed, with nothing behind it.",
                AGAIN,
                NOTHING,
            ),
            W::X3 | W::X6 | W::X9 => (
                "A record of a snapshot that failed, in a state that containerd's start passes over.",
                WEDGED,
                UNDO,
            ),
            W::X10 => ("Nothing.", "All is taken back.", NOTHING),
            W::U1 | W::U2Half | W::U2 => (
                "A snapshot whose device was being activated at containerd's start; its data are fine.",
                "Its next start marks the record faulty although the data are fine.",
                RESTORE,
            ),
        };
        Forecast {
            remains,
            containerd,
            suture,
        }
    }
}

/// Windows in which it is the parent's record that is between two states.
fn forecast_of_parent(window: Window) -> (&'static str, &'static str, &'static str) {
    match window {
        Window::S11 => (
            "A suspended parent whose record is between two states, and a device whose record says Activated without a snapshot.",
            "It never heals the second, does not resume the parent, and marks its record faulty although its data are fine.",
            "suture resumes the parent, marks the new device's record faulty while containerd is stopped, and can give the parent's its state back.",
        ),
        Window::S12 => (
            "A parent whose record is between two states, and a device whose record says Activated without a snapshot.",
            "It never heals the second, and marks the parent's record faulty although its data are fine.",
            "suture marks the new device's record faulty while containerd is stopped, and can give the parent's its state back.",
        ),
        _ => (
            "A parent whose record is between two states; its data are fine.",
            "Its next start marks the parent's record faulty although the data are fine.",
            RESTORE,
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_window_has_a_name_of_its_own_that_survives_json() {
        let names: BTreeSet<&str> = Window::ALL.iter().map(|window| window.name()).collect();
        assert_eq!(names.len(), Window::ALL.len());
        for window in Window::ALL {
            let json = serde_json::to_string(window).unwrap();
            assert_eq!(serde_json::from_str::<Window>(&json).unwrap(), *window);
        }
        assert!(serde_json::from_str::<Window>("\"B99\"").is_err());
    }

    #[test]
    fn every_window_but_an_operations_last_is_between_two_steps() {
        assert_eq!(Window::B5.step(), "record Activating");
        assert_eq!(Window::B5.next(), Some(Window::B6Half));
        assert_eq!(
            Window::B6.next().map(Window::step),
            Some("record Activated".to_owned())
        );
        assert_eq!(
            Window::B11.next(),
            None,
            "what comes after it in the list is another operation"
        );
        for window in Window::ALL {
            let step = window.step();
            assert!(
                !step.is_empty() && !step.ends_with('.') && !step.starts_with(' '),
                "{window}: {step}"
            );
        }
        let last = Window::ALL.iter().filter(|window| window.next().is_none());
        assert_eq!(last.count(), 7, "B, S, C, R, A, X and U");
    }

    #[test]
    fn every_window_says_what_follows_in_whole_sentences() {
        for window in Window::ALL {
            let Forecast {
                remains,
                containerd,
                suture,
            } = window.forecast();
            for text in [remains, containerd, suture] {
                assert!(text.ends_with('.'), "{window}: {text}");
            }
        }
    }
}
