//! Repairs beside a running containerd: only what the kernel does, and never with containerd's lock.

use super::{Item, RepairError, Repairer, Results, results};
use crate::model::{PoolActivation, RepairMode, RepairPlan};

impl Repairer<'_> {
    /// Carries out plans that were made in this life of the pool.
    pub fn online(
        &mut self,
        plans: Vec<RepairPlan>,
        life: Option<&PoolActivation>,
    ) -> Result<Results, RepairError> {
        let mut items: Vec<Item> = plans.into_iter().map(Item::new).collect();
        for item in items
            .iter_mut()
            .filter(|item| item.plan.acts.iter().any(crate::model::Act::is_edit))
        {
            item.end(
                "containerd-stopped: an edit needs containerd stopped".to_owned(),
                true,
            );
        }
        self.kernel_part(&mut items, RepairMode::Online, life, None)?;
        Ok(Results {
            plans: results(items),
            ..Results::default()
        })
    }
}
