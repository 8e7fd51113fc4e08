//! Every device in one line, what is wrong first.

use super::{
    columns::{Cell, Title, columns},
    join::Device,
    words,
};
use crate::{
    cli::paper::{Ink, Paper, counted, ink_of, safe, size},
    model::{Space, Survey},
};

/// The table; ends with a line end.
pub(super) fn table(devices: &[&Device<'_>], survey: &Survey, space: Option<&Space>, paper: Paper) -> String {
    let mut titles: Vec<Title> = vec![
        ("  ", false),
        ("state", false),
        ("device", false),
        ("thin", true),
        ("record", false),
        ("id", false),
        ("row", false),
        ("dm", false),
    ];
    match space {
        None => titles.push(("mapped", true)),
        Some(_) => titles.extend([("mapped", true), ("exclusive", true), ("shared", true)]),
    }
    titles.push(("used by", false));
    let rows: Vec<_> = devices.iter().map(|device| row(device, survey, space)).collect();
    columns(&titles, &rows, paper)
}

fn row(device: &Device<'_>, survey: &Survey, space: Option<&Space>) -> Vec<Cell> {
    let ink = device
        .worst()
        .map(ink_of)
        .or(device.in_flight.then_some(Ink::Dim));
    let dash = || "-".to_owned();
    let mut cells: Vec<Cell> = vec![
        Cell::inked(words::mark(device).to_owned(), ink),
        Cell::inked(words::state(device), ink),
        safe(&device.title()).into(),
        device.thin_id.map_or_else(dash, |id| id.to_string()).into(),
        device
            .record
            .map_or_else(dash, |record| record.state.to_string())
            .into(),
        device
            .id_state
            .map_or_else(dash, |state| state.to_string())
            .into(),
        device
            .row
            .map_or_else(dash, |(_, row)| words::kind(row.kind))
            .into(),
        node(device).into(),
    ];
    match space {
        None => cells.push(mapped(device, survey).into()),
        Some(space) => {
            let of = device.thin_id.and_then(|id| space.devices.get(&id)).copied();
            let bytes = |blocks: u64| size(blocks.saturating_mul(space.data_block.0));
            cells.push(of.map_or_else(dash, |of| bytes(of.mapped)).into());
            cells.push(of.map_or_else(dash, |of| bytes(of.exclusive)).into());
            cells.push(of.map_or_else(dash, |of| bytes(of.shared())).into());
        }
    }
    cells.push(words::users(device).into());
    cells
}

fn node(device: &Device<'_>) -> String {
    if device.nodes.is_empty() {
        return "-".to_owned();
    }
    let nodes: Vec<_> = device.nodes.iter().map(|node| words::node(node)).collect();
    nodes.join("; ")
}

/// What the thin device maps; `gone` where the pool has no such device, `?` where nobody could look.
fn mapped(device: &Device<'_>, survey: &Survey) -> String {
    match (device.thin, &survey.thin, device.thin_id) {
        (Some(thin), ..) => match block_size(survey) {
            Some(block) => size(thin.mapped_blocks.saturating_mul(block)),
            None => counted(thin.mapped_blocks, "block"),
        },
        (None, Some(_), Some(_)) => "gone".to_owned(),
        (None, None, Some(_)) => "?".to_owned(),
        (None, _, None) => "-".to_owned(),
    }
}

/// Bytes of a data block.
pub(super) fn block_size(survey: &Survey) -> Option<u64> {
    let counted = survey.usage.map(|usage| usage.block_size.0);
    counted.or_else(|| Some(survey.pool.as_ref()?.data_block_sectors()?.saturating_mul(512)))
}
