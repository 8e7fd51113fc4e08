//! Image layers down to containers, as a tree. What is in no snapshot comes after it.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
};

use super::{
    join::{Device, children},
    words,
};
use crate::{
    cli::{
        look::Look,
        paper::{Ink, Paper, ink_of, safe, short},
    },
    model::databases::SnapshotRow,
};

/// Levels that are indented; what is deeper (no image has as many layers) stands as deep as this.
const DEEPEST: usize = 150;

/// The characters of the lines.
struct Lines {
    fork: &'static str,
    end: &'static str,
    through: &'static str,
}

const BOXES: Lines = Lines {
    fork: "├── ",
    end: "└── ",
    through: "│   ",
};
const ASCII: Lines = Lines {
    fork: "|-- ",
    end: "`-- ",
    through: "|   ",
};

/// All of it; ends with a line end.
pub(super) fn tree(devices: &[Device<'_>], look: &Look, paper: Paper) -> String {
    let snapshots = &look.survey.snapshots.snapshots;
    let children = children(&look.survey);
    let by_key: HashMap<&str, &Device<'_>> =
        devices.iter().filter_map(|one| Some((one.row?.0, one))).collect();
    let has_parent = |row: &SnapshotRow| {
        let parent = row.parent.as_deref().filter(|parent| !parent.is_empty());
        parent.is_some_and(|parent| snapshots.contains_key(parent))
    };
    let mut roots: Vec<(&str, &SnapshotRow)> =
        snapshots.iter().map(|(key, row)| (key.as_str(), row)).collect();
    // What is in a circle, which containerd never makes, has no root: it is drawn from any of its snapshots.
    roots.sort_by_key(|(_, row)| (has_parent(row), row.id));
    let mut drawing = Drawing {
        out: String::new(),
        drawn: HashSet::with_capacity(snapshots.len()),
        lines: if paper.unicode { BOXES } else { ASCII },
        paper,
    };
    for (key, _) in roots {
        drawing.draw(key, &children, &by_key);
    }
    let loose: Vec<_> = devices.iter().filter(|one| one.row.is_none()).collect();
    if !loose.is_empty() {
        let _ = writeln!(drawing.out, "\nin no snapshot:");
    }
    for device in loose {
        let _ = writeln!(drawing.out, "  {}", label(device, paper));
    }
    if drawing.out.is_empty() {
        drawing.out.push_str("no snapshots\n");
    }
    drawing.out
}

struct Drawing<'a> {
    out: String,
    drawn: HashSet<&'a str>,
    lines: Lines,
    paper: Paper,
}

impl<'a> Drawing<'a> {
    /// A snapshot and all that is built on it, unless it was drawn already. Keeps its own stack: the chain of parents may
    /// be as long as the database has rows.
    fn draw(
        &mut self,
        root: &'a str,
        children: &std::collections::BTreeMap<&'a str, Vec<(&'a str, &'a SnapshotRow)>>,
        devices: &HashMap<&str, &Device<'_>>,
    ) {
        // Key, level, and whether it is the last child of its parent.
        let mut ahead: Vec<(&'a str, usize, bool)> = vec![(root, 0, true)];
        // For each level above, whether its line goes on.
        let mut goes_on: Vec<bool> = Vec::new();
        while let Some((key, level, is_last)) = ahead.pop() {
            if !self.drawn.insert(key) {
                continue;
            }
            let level = level.min(DEEPEST);
            goes_on.truncate(level.saturating_sub(1));
            for line in &goes_on {
                self.out.push_str(if *line { self.lines.through } else { "    " });
            }
            if level > 0 {
                self.out
                    .push_str(if is_last { self.lines.end } else { self.lines.fork });
                goes_on.push(!is_last);
            }
            let text = match devices.get(key) {
                Some(device) => label(device, self.paper),
                None => safe(key),
            };
            self.out.push_str(&text);
            self.out.push('\n');
            let mut below: Vec<_> = children.get(key).into_iter().flatten().collect();
            below.sort_by_key(|(_, row)| row.id);
            for (place, (child, _)) in below.iter().enumerate().rev() {
                ahead.push((child, level + 1, place + 1 == below.len()));
            }
        }
    }
}

fn label(device: &Device<'_>, paper: Paper) -> String {
    let mut text = safe(&device.title());
    if let Some((_, row)) = device.row {
        let _ = write!(text, " {}", words::kind(row.kind));
    }
    for image in &device.images {
        let _ = write!(
            text,
            "  {}",
            paper.ink(Ink::Bold, format!("image {}", safe(image)))
        );
    }
    for container in &device.containers {
        let _ = write!(text, "  container {}", short(&container.id));
        if let Some(pod) = &container.pod {
            let _ = write!(text, " (pod {}/{})", safe(&pod.namespace), safe(&pod.name));
        }
    }
    if device.images.is_empty() && device.containers.is_empty() {
        let key = device
            .core
            .map(|core| short(&core.key))
            .or_else(|| device.row.map(|(key, _)| short(key)));
        if let Some(key) = key {
            let _ = write!(text, "  {}", paper.ink(Ink::Dim, key));
        }
    }
    if let Some(severity) = device.worst() {
        let state = format!("{} {}", words::mark(device).trim_end(), words::state(device));
        let _ = write!(text, "  {}", paper.ink(ink_of(severity), state));
    } else if words::state(device) != "ok" {
        let _ = write!(text, "  {}", words::state(device));
    }
    text
}
