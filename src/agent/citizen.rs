//! How the agent heeds its orders and what it tells the service manager: ready once the world was read or could not be,
//! its state in a sentence, that its loop turns, and its end in bounded time.

use std::{pin::pin, time::Duration};

use tokio::time::{Instant, timeout};

use super::{Agent, AgentError, policy::Changed};
use crate::{
    brain::Report,
    citizen::{Ending, Manager, Orders},
    model::{
        Status,
        status::{Mode, ReadResult},
    },
    words::counted,
};

/// When suture is to end, how long what is being done may still take. What is dropped then was not begun, or is settled by
/// looking at the next start.
const FINISH: Duration = Duration::from_secs(2);
/// A look waits for nothing without a deadline, and all of them together are less than this. Beyond it the loop hangs, and
/// the service manager hears nothing more.
const LONGEST_LOOK: Duration = Duration::from_mins(3);
/// A world that containerd always writes to while it is read keeps suture from being ready for no more looks than this.
const LOOKS_UNTIL_READY: u32 = 3;

/// What the agent knows of its place among other processes.
#[derive(Debug, Default)]
pub(super) struct Citizen {
    manager: Option<Manager>,
    ending: Option<Ending>,
    looks: u32,
    is_ready: bool,
}

impl Citizen {
    /// Is done when the service manager is to hear that the loop turns.
    pub(super) async fn alive_due(&self) {
        match &self.manager {
            Some(manager) => manager.alive_due().await,
            None => std::future::pending().await,
        }
    }
}

impl Agent {
    /// From now on the orders hold.
    pub(super) fn heed(&mut self, orders: &Orders) {
        self.citizen.ending = Some(orders.ending());
        self.citizen.manager = Manager::of_environment()
            .inspect_err(|error| {
                let what = format!("the service manager is told nothing: starting a thread: {error}");
                self.tell(&Report::Trouble { what });
            })
            .ok();
    }

    /// Whether suture is to end: then nothing is begun that changes the world.
    pub(super) fn is_ending(&self) -> bool {
        self.citizen.ending.as_ref().is_some_and(Ending::has_begun)
    }

    /// The loop turns.
    pub(super) fn alive(&mut self) {
        if let Some(manager) = &mut self.citizen.manager {
            manager.alive();
        }
    }

    /// One look, while which orders are heeded too; says whether to end.
    pub(super) async fn look_and_listen(&mut self, orders: &mut Orders) -> Result<bool, AgentError> {
        let begun = Instant::now();
        // Apart from the agent, which is looking.
        let mut manager = self.citizen.manager.take();
        let looked = {
            let mut look = pin!(self.look());
            loop {
                let alive = async {
                    match &manager {
                        Some(manager) if begun.elapsed() < LONGEST_LOOK => manager.alive_due().await,
                        _ => std::future::pending().await,
                    }
                };
                tokio::select! {
                    looked = &mut look => break looked.map(|()| false),
                    () = orders.end() => {
                        break match timeout(FINISH, &mut look).await {
                            Ok(looked) => looked.map(|()| true),
                            Err(_) => Ok(true),
                        };
                    }
                    () = alive => {}
                }
                if let Some(manager) = &mut manager {
                    manager.alive();
                }
            }
        };
        self.citizen.manager = manager;
        self.looked();
        looked
    }

    /// A first look is over: whoever waited for suture may go on, whatever came of it.
    fn looked(&mut self) {
        let citizen = &mut self.citizen;
        citizen.looks = citizen.looks.saturating_add(1);
        let results = &self.pulse.status.world.results;
        let told = results.keys().any(|result| *result != ReadResult::Busy);
        if !citizen.is_ready && (told || citizen.looks >= LOOKS_UNTIL_READY) {
            citizen.is_ready = true;
            if let Some(manager) = &mut citizen.manager {
                manager.ready();
                manager.alive();
            }
        }
        self.tell_manager();
    }

    /// Tells the service manager the state that was last published.
    pub(super) fn tell_manager(&mut self) {
        if let Some(manager) = &mut self.citizen.manager {
            manager.status(&sentence(&self.pulse.status));
        }
    }

    /// Reads the configuration again.
    pub(super) fn reload(&mut self) {
        if let Some(manager) = &mut self.citizen.manager {
            manager.reloading();
        }
        self.read_policy(Changed::Asked);
        if let Some(manager) = &mut self.citizen.manager {
            // Before the first look this says it too early; a manager sends no such order before.
            manager.ready();
        }
    }

    /// The end begins.
    pub(super) fn stopping(&mut self) {
        if let Some(manager) = &mut self.citizen.manager {
            manager.stopping();
        }
    }

    /// All there is to keep is kept.
    pub(super) fn is_kept(&self) {
        if let Some(ending) = &self.citizen.ending {
            ending.is_kept();
        }
    }
}

/// How suture is, for `systemctl status`.
fn sentence(status: &Status) -> String {
    let mode = match status.mode {
        Mode::Heals => "heals what is proven safe",
        Mode::OnlyTells => "only tells",
    };
    let open: u64 = status.finding_counts.values().sum();
    let stands = match open {
        0 => "no finding stands".to_owned(),
        1 => "1 finding stands".to_owned(),
        _ => format!("{} stand", counted(open, "finding")),
    };
    let text = format!("watches pool {}; {mode}; {stands}", status.pool);
    match status.overall.reasons.as_slice() {
        [] => text,
        [only] => format!("DEGRADED: {text}; {only}"),
        [first, rest @ ..] => {
            let others = counted(rest.len(), "more reason");
            format!("DEGRADED: {text}; {first} (and {others}: `suture status`)")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{FindingClass, status::Overall},
        testing::status,
    };

    #[test]
    fn the_sentence_says_what_a_person_asks_first() {
        let mut status = status();
        status.finding_counts.clear();
        status.overall = Overall::because(Vec::new());
        assert_eq!(
            sentence(&status),
            "watches pool tp; heals what is proven safe; no finding stands"
        );
        status.finding_counts.insert(FindingClass::LeakedThin, 1);
        status.overall = Overall::because(vec!["the world can not be read: no pool".to_owned()]);
        assert_eq!(
            sentence(&status),
            "DEGRADED: watches pool tp; heals what is proven safe; 1 finding stands; the world can not be read: no pool"
        );
        status.finding_counts.insert(FindingClass::Wedge, 1);
        status.mode = Mode::OnlyTells;
        status.overall = Overall::because(vec!["one".to_owned(), "two".to_owned(), "three".to_owned()]);
        assert_eq!(
            sentence(&status),
            "DEGRADED: watches pool tp; only tells; 2 findings stand; one (and 2 more reasons: `suture status`)"
        );
    }
}
