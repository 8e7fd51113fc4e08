//! How text is laid out for people: width, colours and characters as the output can bear them.

use std::{
    env,
    fmt::Display,
    io::{self, IsTerminal as _},
};

use comfy_table::Table;

use crate::model::Severity;
pub(super) use crate::words::{counted, thousands};

/// Width of what does not go to a terminal: it is read in a terminal later.
const WIDTH: usize = 80;
/// Longer lines are harder to read, however wide the terminal is.
const WIDEST: usize = 110;

/// What the output can bear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Paper {
    /// Characters in a line of running text.
    pub(super) width: usize,
    /// Characters in a line of a table; nothing where lines may be as long as they are.
    pub(super) table: Option<usize>,
    /// Whether colours are shown.
    pub(super) colours: bool,
    /// Whether box-drawing characters are shown.
    pub(super) unicode: bool,
}

/// A colour of the terminal's own palette.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
    Red,
    Yellow,
    Green,
    Cyan,
    Bold,
    Dim,
}

impl Paper {
    /// What standard output can bear.
    pub(super) fn stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        let set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        let width = Table::new().width().map(usize::from).filter(|width| *width >= 40);
        Self {
            width: width.unwrap_or(WIDTH).min(WIDEST),
            table: terminal.then_some(width.unwrap_or(WIDTH)),
            // https://no-color.org
            colours: terminal && !dumb && !set("NO_COLOR"),
            unicode: is_utf8(|name| env::var(name).ok()),
        }
    }

    /// The text in a colour.
    pub(super) fn ink(self, ink: Ink, text: impl Display) -> String {
        if !self.colours {
            return text.to_string();
        }
        let code = match ink {
            Ink::Red => "1;31",
            Ink::Yellow => "33",
            Ink::Green => "32",
            Ink::Cyan => "36",
            Ink::Bold => "1",
            Ink::Dim => "2",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// Running text with its lines broken between words; each line after the first begins with `indent` spaces, and the
    /// first is taken to begin there already. What is longer than a line stays whole, so that it can be copied.
    pub(super) fn wrap(self, text: &str, indent: usize) -> String {
        let room = self.width.saturating_sub(indent).max(20);
        let mut out = String::new();
        let mut used = 0;
        for word in text.split_whitespace() {
            let length = word.chars().count();
            if used > 0 && used + 1 + length > room {
                out.push('\n');
                out.push_str(&" ".repeat(indent));
                used = 0;
            } else if used > 0 {
                out.push(' ');
                used += 1;
            }
            out.push_str(word);
            used += length;
        }
        out
    }
}

/// Whether the locale's characters are UTF-8, as locale(7) finds it out.
fn is_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let set = |name: &&str| variable(name).is_some_and(|value| !value.is_empty());
    let names = ["LC_ALL", "LC_CTYPE", "LANG"];
    let locale = names
        .iter()
        .find(|name| set(name))
        .and_then(|name| variable(name));
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// The colour of a severity.
pub(super) fn ink_of(severity: Severity) -> Ink {
    match severity {
        Severity::Outage | Severity::Damage => Ink::Red,
        Severity::Stuck | Severity::Space => Ink::Yellow,
        Severity::Notice => Ink::Cyan,
    }
}

/// A mark that tells severities apart without colours.
pub(super) fn mark_of(severity: Severity) -> &'static str {
    match severity {
        Severity::Outage | Severity::Damage => "!!",
        Severity::Stuck | Severity::Space => "! ",
        Severity::Notice => "* ",
    }
}

/// A name from outside, safe to print.
pub(super) fn safe(text: &str) -> String {
    let harmless = |one: char| !one.is_control() && !is_invisible(one);
    if text.chars().all(harmless) {
        return text.to_owned();
    }
    let escaped = text.chars().map(|one| {
        if harmless(one) {
            one.to_string()
        } else {
            one.escape_unicode().to_string()
        }
    });
    escaped.collect()
}

/// Characters that change how others are shown, or are not seen: marks of direction, spaces without width, separators of
/// lines.
fn is_invisible(one: char) -> bool {
    matches!(one, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
}

/// A name, with the long digests in it cut as people know them from other tools.
pub(super) fn short(name: &str) -> String {
    const SHOWN: usize = 12;
    let digest = name
        .rsplit_once("sha256:")
        .filter(|(_, hex)| hex.len() > SHOWN && hex.chars().all(|one| one.is_ascii_hexdigit()));
    let all_hex = name.len() == 64 && name.chars().all(|one| one.is_ascii_hexdigit());
    let cut = |hex: &str| hex.chars().take(SHOWN).collect::<String>();
    safe(&match digest {
        Some((before, hex)) => format!("{before}sha256:{}", cut(hex)),
        None if all_hex => cut(name),
        None => name.to_owned(),
    })
}

/// A size as people read it, in units of 1024.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut whole = bytes;
    let mut rest = 0;
    let mut unit = 0;
    while whole >= 1024 && unit + 1 < UNITS.len() {
        rest = whole % 1024;
        whole /= 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 || whole >= 100 {
        format!("{whole} {name}")
    } else {
        format!("{whole}.{} {name}", rest * 10 / 1024)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Paper = Paper {
        width: 40,
        table: None,
        colours: false,
        unicode: false,
    };

    #[test]
    fn lines_are_broken_between_words_and_long_words_stay_whole() {
        let text = PLAIN.wrap("one two three four five six seven eight nine", 10);
        assert_eq!(text, "one two three four five six\n          seven eight nine");
        let long = "x".repeat(100);
        assert_eq!(PLAIN.wrap(&format!("a {long} b"), 2), format!("a\n  {long}\n  b"));
    }

    #[test]
    fn colours_are_used_only_where_they_are_shown() {
        assert_eq!(PLAIN.ink(Ink::Red, "x"), "x");
        let coloured = Paper {
            colours: true,
            ..PLAIN
        };
        assert_eq!(coloured.ink(Ink::Red, "x"), "\u{1b}[1;31mx\u{1b}[0m");
    }

    #[test]
    fn the_locale_is_found_as_the_c_library_finds_it() {
        let locale = |all: &'static str, lang: &'static str| {
            is_utf8(move |name| match name {
                "LC_ALL" => Some(all.to_owned()),
                "LANG" => Some(lang.to_owned()),
                _ => None,
            })
        };
        assert!(locale("", "en_US.UTF-8") && locale("C.utf8", "C"));
        assert!(!locale("C", "en_US.UTF-8") && !locale("", "") && !is_utf8(|_| None));
    }

    #[test]
    fn names_from_outside_drive_no_terminal() {
        assert_eq!(safe("ok é 漢"), "ok é 漢");
        assert_eq!(safe("\u{1b}[31m\n\u{202e}"), "\\u{1b}[31m\\u{a}\\u{202e}");
        let digest = "ab".repeat(32);
        assert_eq!(short(&format!("sha256:{digest}")), "sha256:abababababab");
        assert_eq!(short(&digest), "abababababab");
        assert_eq!(
            short(&format!("extract-1 sha256:{digest}")),
            "extract-1 sha256:abababababab"
        );
        assert_eq!(short("web"), "web");
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(65_536), "64.0 KiB");
        assert_eq!(size(1_610_612_736), "1.5 GiB");
        assert_eq!(size(u64::MAX), "16383 PiB");
    }
}
