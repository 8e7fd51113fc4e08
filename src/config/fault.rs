//! What is wrong or odd in a configuration, with its place in the text, and how that is shown.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;

/// Something in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where: bytes of the text.
    pub span: Range<usize>,
    /// What, in a plain sentence that names the word.
    pub what: String,
    /// What was expected there; nothing where `what` says all.
    pub expected: Option<String>,
}

/// A fault with its line, for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The character in it, from 1.
    pub column: usize,
    /// What, and what was expected.
    pub what: String,
}

impl Fault {
    pub(super) fn new(span: Range<usize>, what: impl Into<String>) -> Self {
        Self {
            span,
            what: what.into(),
            expected: None,
        }
    }

    pub(super) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// What, and what was expected, in one line.
    #[must_use]
    pub fn text(&self) -> String {
        match &self.expected {
            None => self.what.clone(),
            Some(expected) => format!("{}; expected {expected}", self.what),
        }
    }

    /// Its line and column.
    #[must_use]
    pub fn place(&self, text: &str) -> Place {
        let before = text.get(..self.span.start).unwrap_or(text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        Place {
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
            what: self.text(),
        }
    }

    /// In one line, as an error message carries it.
    #[must_use]
    pub fn line(&self, text: &str) -> String {
        let place = self.place(text);
        format!("line {}: {}", place.line, place.what.replace('\n', " "))
    }

    /// For people: the line itself, with the word underlined. `is_error` or a warning.
    #[must_use]
    pub fn shown(&self, text: &str, path: &str, is_error: bool) -> String {
        let level = if is_error { Level::ERROR } else { Level::WARNING };
        let mark = AnnotationKind::Primary.span(self.within(text));
        let mark = mark.label(
            self.expected
                .as_ref()
                .map(|expected| format!("expected {expected}")),
        );
        let snippet = Snippet::source(text).path(path).annotation(mark);
        let report = [level.primary_title(self.what.as_str()).element(snippet)];
        Renderer::plain().render(&report)
    }

    /// The span, cut to what the text has, and to its first line: a table that is wrong as a whole is not printed whole.
    fn within(&self, text: &str) -> Range<usize> {
        let start = self.span.start.min(text.len());
        let end = self.span.end.clamp(start, text.len());
        let first = text.get(start..end).and_then(|part| part.split('\n').next());
        start..start + first.map_or(0, str::len)
    }
}
