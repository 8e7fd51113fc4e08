//! How much was done in the last hour, and whether there is room for one more.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    policy::{Limits, PolicyParts},
    time::Elapsed,
};
use crate::model::{Bytes, PoolName};

const HOUR: Duration = Duration::from_hours(1);

/// One remedy that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    at: Elapsed,
    pool: PoolName,
    bytes: Bytes,
}

/// What was begun in the last hour. One that was refused or failed counts: it was an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Spending(Vec<Spent>);

/// Why there is no room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// There is after this time.
    Until(Duration, String),
    /// There never is.
    Never(String),
}

impl Spending {
    /// Forgets what is more than an hour ago.
    pub(super) fn forget(&mut self, now: Elapsed) {
        self.0.retain(|one| now.since(one.at) < HOUR);
    }

    /// Takes in that a remedy is begun.
    pub(super) fn book(&mut self, now: Elapsed, pool: &PoolName, bytes: Bytes) {
        self.0.push(Spent {
            at: now,
            pool: pool.clone(),
            bytes,
        });
    }

    /// Whether a remedy has room in both budgets.
    pub(super) fn room(
        &self,
        policy: &PolicyParts,
        now: Elapsed,
        pool: &PoolName,
        bytes: Bytes,
    ) -> Result<(), NoRoom> {
        let all = self.0.iter().filter(|one| now.since(one.at) < HOUR);
        let of_pool = all.clone().filter(|one| one.pool == *pool);
        within(policy.node, all, now, bytes, "the node")?;
        within(policy.pool, of_pool, now, bytes, "the pool")
    }
}

fn within<'a>(
    limits: Limits,
    spent: impl Iterator<Item = &'a Spent>,
    now: Elapsed,
    bytes: Bytes,
    whose: &str,
) -> Result<(), NoRoom> {
    if limits.actions == 0 {
        return Err(NoRoom::Never(format!(
            "the budget of {whose} allows no action at all"
        )));
    }
    if bytes > limits.bytes {
        return Err(NoRoom::Never(format!(
            "it frees up to {bytes} bytes, and the budget of {whose} allows {} an hour: raise `bytes-per-hour`, or have it done with `suture repair`",
            limits.bytes
        )));
    }
    let mut spent: Vec<_> = spent.collect();
    spent.sort_by_key(|one| one.at);
    let mut actions = u32::try_from(spent.len()).unwrap_or(u32::MAX);
    let mut freed = spent
        .iter()
        .fold(0_u64, |sum, one| sum.saturating_add(one.bytes.0));
    let mut until = None;
    for one in spent {
        if actions < limits.actions && freed.saturating_add(bytes.0) <= limits.bytes.0 {
            break;
        }
        actions = actions.saturating_sub(1);
        freed = freed.saturating_sub(one.bytes.0);
        until = Some(now.left_of(HOUR, one.at));
    }
    match until {
        None => Ok(()),
        Some(left) => Err(NoRoom::Until(
            left,
            format!("the budget of {whose} for this hour is used up"),
        )),
    }
}
