//! Two transactions side by side: which entries came, changed and went.

use std::{cmp::Ordering, collections::HashSet, sync::Arc};

use super::{
    Entry, Folded, Tables,
    cache::{Leaf, Page, Raw, State, Table},
    step::{Step, TableStep},
};
use crate::model::TxId;

type Entries<'e> = Vec<(&'e [u8], Raw<'e>)>;

/// Everything that a step changes. Each entry is decoded, also those that are only counted: what can not be decoded is
/// never remembered.
pub(super) fn changes<T: Tables>(
    before: Option<&State>,
    step: &Step,
    tables: &T,
    limit: usize,
) -> Result<Folded<T::Change>, T::Error> {
    let mut folded = Folded {
        from: before.map(|state| TxId(state.meta.txid)),
        to: TxId(step.meta.txid),
        changes: Vec::new(),
        more: 0,
    };
    let mut tell =
        |table: &[u8], key: &[u8], from: Option<Entry<'_>>, to: Option<Entry<'_>>| -> Result<(), T::Error> {
            let change = tables.change(table, key, from, to)?;
            if folded.changes.len() < limit {
                folded.changes.push(change);
            } else {
                folded.more += 1;
            }
            Ok(())
        };
    for (name, table_step) in &step.tables {
        let old = before.and_then(|state| state.table(name));
        let (from, to) = sides(old, table_step);
        merge(&from, &to, |key, from, to| tell(name, key, from, to))?;
    }
    let gone = before
        .into_iter()
        .flat_map(|state| &state.tables)
        .filter(|(name, _)| !step.tables.iter().any(|(still, _)| still == name));
    for (name, table) in gone {
        let from = entries(table.leaves());
        merge(&from, &Vec::new(), |key, from, to| tell(name, key, from, to))?;
    }
    Ok(folded)
}

/// The entries that may differ, before and after.
fn sides<'e>(old: Option<&'e Table>, step: &'e TableStep) -> (Entries<'e>, Entries<'e>) {
    match step {
        TableStep::Same => (Vec::new(), Vec::new()),
        TableStep::Partly { fresh, dropped, .. } => {
            let was = dropped.iter().filter_map(|page| old?.leaf(*page));
            let is = fresh.values().filter_map(|page| match page {
                Page::Leaf(leaf) => Some(leaf),
                Page::Branch(_) => None,
            });
            (entries(was), entries(is))
        }
        TableStep::Whole(table) => {
            // Leaves that did not change are shared.
            let shared: HashSet<_> = table.leaves().map(Arc::as_ptr).collect();
            let was: Vec<_> = old.into_iter().flat_map(Table::leaves).collect();
            let before: HashSet<_> = was.iter().map(|leaf| Arc::as_ptr(leaf)).collect();
            let was = was
                .into_iter()
                .filter(|leaf| !shared.contains(&Arc::as_ptr(leaf)));
            let is = table.leaves().filter(|leaf| !before.contains(&Arc::as_ptr(leaf)));
            (entries(was), entries(is))
        }
    }
}

fn entries<'e>(leaves: impl Iterator<Item = &'e Arc<Leaf>>) -> Entries<'e> {
    let mut all: Entries<'_> = leaves.flat_map(|leaf| leaf.entries()).collect();
    all.sort_unstable_by_key(|(key, _)| *key);
    all
}

/// Walks two sorted lists and tells each key where they differ.
fn merge<E>(
    from: &Entries<'_>,
    to: &Entries<'_>,
    mut tell: impl FnMut(&[u8], Option<Entry<'_>>, Option<Entry<'_>>) -> Result<(), E>,
) -> Result<(), E> {
    let (mut from, mut to) = (from.iter().peekable(), to.iter().peekable());
    loop {
        let order = match (from.peek(), to.peek()) {
            (Some((was, _)), Some((is, _))) => was.cmp(is),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return Ok(()),
        };
        let was = if order.is_le() { from.next() } else { None };
        let is = if order.is_ge() { to.next() } else { None };
        if let (Some((_, was)), Some((_, is))) = (was, is)
            && was == is
        {
            continue;
        }
        let Some((key, _)) = was.or(is) else { return Ok(()) };
        tell(
            key,
            was.map(|(_, raw)| raw.entry()),
            is.map(|(_, raw)| raw.entry()),
        )?;
    }
}
