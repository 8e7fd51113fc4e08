//! On whose behalf a device-mapper call was made.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::model::{
    Incarnation, Timestamp,
    dm::{Caller, Process},
    pairs,
};

/// A dmsetup that outlives its containerd by more than this is not believed to be its child: the pid may be somebody
/// else's by now. dmsetup's own retries of a busy device end after 25 x 200 ms (libdm).
const OUTLIVES: Duration = Duration::from_secs(10);
/// containerds remembered after their death.
const MAX_REMEMBERED: usize = 64;

/// What is known of one containerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Life {
    gone: Option<Timestamp>,
}

/// Every containerd that was seen holding the pool's database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Containerds {
    #[serde(with = "pairs")]
    known: BTreeMap<Incarnation, Life>,
}

impl Containerds {
    pub(super) fn up(&mut self, who: &Incarnation) {
        self.known.insert(who.clone(), Life { gone: None });
        while self.known.len() > MAX_REMEMBERED {
            let oldest = self
                .known
                .iter()
                .filter_map(|(who, life)| Some((life.gone?, who)))
                .min();
            let Some((_, oldest)) = oldest else { break };
            let oldest = oldest.clone();
            self.known.remove(&oldest);
        }
    }

    pub(super) fn gone(&mut self, who: &Incarnation, at: Timestamp) {
        self.known
            .entry(who.clone())
            .or_insert(Life { gone: None })
            .gone
            .get_or_insert(at);
    }

    /// When it died, where it did.
    pub(super) fn death_of(&self, who: &Incarnation) -> Option<Timestamp> {
        self.known.get(who).and_then(|life| life.gone)
    }

    pub(super) fn alive(&self, who: &Incarnation) -> bool {
        self.known.get(who).is_some_and(|life| life.gone.is_none())
    }

    /// The containerd that made the call: it forked the caller, or forked a `dmsetup` (a wrapper script, say) that did.
    /// A shell, a shim or a runtime in between breaks the chain: what a container does is not containerd's doing.
    pub(super) fn behind(&self, caller: &Caller, entered: Timestamp) -> Option<&Incarnation> {
        if !is_dmsetup(&caller.process) {
            return None;
        }
        let forked_by = caller.ancestors.iter().find(|one| !is_dmsetup(one))?;
        self.known
            .iter()
            .filter(|(who, _)| who.pid == forked_by.pid)
            .find(|(_, life)| life.gone.is_none_or(|gone| entered <= gone.plus(OUTLIVES)))
            .map(|(who, _)| who)
    }
}

fn is_dmsetup(process: &Process) -> bool {
    process.is_called("dmsetup")
}
