//! Text in columns, in one pass for the widths and one to print: a pool may have 100,000 devices.

use std::fmt::Write as _;

use crate::cli::paper::{Ink, Paper};

/// A cell: what it says, and in which colour.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    ink: Option<Ink>,
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, ink: None }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl Cell {
    pub(super) fn inked(text: String, ink: Option<Ink>) -> Self {
        Self { text, ink }
    }
}

/// A column's title, and whether it holds numbers.
pub(super) type Title = (&'static str, bool);

/// The table. On a terminal lines end where it ends.
pub(super) fn columns(titles: &[Title], rows: &[Vec<Cell>], paper: Paper) -> String {
    let mut widths: Vec<usize> = titles.iter().map(|(title, _)| title.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.chars().count());
        }
    }
    let head: Vec<Cell> = titles
        .iter()
        .map(|(title, _)| Cell::inked((*title).to_owned(), Some(Ink::Bold)))
        .collect();
    let mut out = String::new();
    for row in std::iter::once(&head).chain(rows) {
        let mut used = 0;
        for (place, ((cell, width), (_, is_number))) in row.iter().zip(&widths).zip(titles).enumerate() {
            if place > 0 {
                out.push_str("  ");
                used += 2;
            }
            let room = paper.table.map_or(usize::MAX, |room| room.saturating_sub(used));
            let is_last = place + 1 == row.len();
            let shown = cut(&cell.text, if is_last { room } else { (*width).min(room) }, paper);
            let pad = " ".repeat(if is_last {
                0
            } else {
                width.saturating_sub(shown.chars().count()).min(room)
            });
            used += width;
            let shown = match cell.ink {
                Some(ink) if !shown.is_empty() => paper.ink(ink, shown),
                _ => shown,
            };
            let _ = if *is_number {
                write!(out, "{pad}{shown}")
            } else {
                write!(out, "{shown}{pad}")
            };
        }
        let end = out.trim_end_matches(' ').len();
        out.truncate(end);
        out.push('\n');
    }
    out
}

fn cut(text: &str, room: usize, paper: Paper) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let end = if paper.unicode { "…" } else { "~" };
    let kept: String = text.chars().take(room.saturating_sub(1)).collect();
    if room == 0 { String::new() } else { kept + end }
}
