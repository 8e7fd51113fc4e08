//! On whose behalf a device-mapper call was made.

use std::{collections::BTreeMap, time::Duration};

use crate::model::{
    Incarnation, Timestamp,
    dm::{Caller, Process},
    kernel::Ending,
};

/// A dmsetup that outlives its containerd by more than this is not believed to be its child: the pid may be somebody
/// else's by now. dmsetup's own retries of a busy device end after 25 x 200 ms (libdm).
const OUTLIVES: Duration = Duration::from_secs(10);
/// containerds remembered after their death.
const MAX_REMEMBERED: usize = 64;

/// What is known of one containerd.
#[derive(Debug, Clone, Copy, Default)]
struct Life {
    gone: Option<Timestamp>,
    /// How it ended, where a probe told.
    ending: Option<Ending>,
}

/// Whether a containerd runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Running {
    /// One does.
    Yes,
    /// None does.
    No,
    /// Nobody has looked yet.
    Unknown,
}

/// Every containerd that was seen holding the pool's database.
#[derive(Debug, Clone, Default)]
pub(super) struct Containerds {
    known: BTreeMap<Incarnation, Life>,
    looked: bool,
}

impl Containerds {
    pub(super) fn up(&mut self, who: &Incarnation) {
        self.known.insert(who.clone(), Life::default());
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
        self.known.entry(who.clone()).or_default().gone.get_or_insert(at);
    }

    /// How the containerd of this pid ended. Its end may be noticed before or after that.
    pub(super) fn ended(&mut self, pid: u32, at: Timestamp, ending: Ending) {
        let by_pid = self.known.iter_mut().filter(|(who, _)| who.pid == pid);
        // Of several with this pid, the one that lives or died last; nobody who died long before.
        let life = by_pid
            .map(|(_, life)| life)
            .filter(|life| life.gone.is_none_or(|gone| at <= gone.plus(OUTLIVES)))
            .max_by_key(|life| life.gone.is_none());
        if let Some(life) = life {
            life.ending.get_or_insert(ending);
        }
    }

    /// How it ended, where that is known.
    pub(super) fn ending_of(&self, who: &Incarnation) -> Option<Ending> {
        self.known.get(who).and_then(|life| life.ending)
    }

    /// When it died, where it did.
    pub(super) fn death_of(&self, who: &Incarnation) -> Option<Timestamp> {
        self.known.get(who).and_then(|life| life.gone)
    }

    /// Notes that somebody has looked: who is not known to run does not.
    pub(super) fn looked(&mut self) {
        self.looked = true;
    }

    pub(super) fn running(&self) -> Running {
        if self.known.values().any(|life| life.gone.is_none()) {
            Running::Yes
        } else if self.looked || !self.known.is_empty() {
            Running::No
        } else {
            Running::Unknown
        }
    }

    /// When a containerd was last found gone.
    pub(super) fn last_death(&self) -> Option<Timestamp> {
        self.known.values().filter_map(|life| life.gone).max()
    }

    pub(super) fn alive(&self, who: &Incarnation) -> bool {
        self.known.get(who).is_some_and(|life| life.gone.is_none())
    }

    /// The one that runs, or else the one that died last.
    pub(super) fn holder(&self) -> Option<&Incarnation> {
        let newest = |(_, life): &(&Incarnation, &Life)| (life.gone.is_none(), life.gone);
        self.known.iter().max_by_key(newest).map(|(who, _)| who)
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
