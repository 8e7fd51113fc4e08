//! The same brain over a recording: the same inputs at the same times, so the same is told.

use std::{
    io::{self, Read},
    time::Duration,
};

use super::{Damage, Reader, Step};
use crate::{
    brain::{Brain, Input, Output, Report, Rules},
    decide::{Policy, guards},
    model::{Plan, Timestamp, World},
    words::explain,
};

/// In what a replay differs from what was.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReplayOptions {
    /// Another grace than the recorded one.
    pub grace: Option<Duration>,
    /// Decide as if acting had been allowed.
    pub act_as_if: bool,
    /// Tell of every operation, also where the recorded suture did not.
    pub verbose: bool,
}

/// Replays everything that can be read, and hands what it tells to `tell`, as it was told live. Gives the damage where the
/// recording is not whole; fails only when nobody can be told.
pub fn replay<R: Read>(
    mut reader: Reader<R>,
    options: ReplayOptions,
    mut tell: impl FnMut(Timestamp, &Report) -> io::Result<()>,
) -> io::Result<Option<Damage>> {
    let header = reader.header().clone();
    let mut last = header.began;
    tell(
        last,
        &Report::Replaying {
            pool: header.pool,
            suture: header.suture,
            kernel: header.kernel,
            began: header.began,
        },
    )?;
    let mut mind = None;
    let damage = loop {
        match reader.step() {
            Ok(Some(Step::Brain(brain))) => mind = Some(Mind::new(*brain, options)),
            Ok(Some(step)) => {
                let Some(mind) = &mut mind else { continue };
                for (at, report) in mind.follow(step) {
                    last = last.max(at);
                    tell(at, &report)?;
                }
            }
            Ok(None) => break None,
            Err(damage) => break Some(damage),
        }
    };
    tell(
        last,
        &Report::Replayed {
            entries: reader.entries(),
            damage: damage.as_ref().map(|damage| explain(damage)),
        },
    )?;
    Ok(damage)
}

struct Mind {
    brain: Brain,
    world: Option<World>,
    /// Whether nothing was done where the brain now says to act: then nothing in the recording says what came of it.
    only_as_if: bool,
}

impl Mind {
    fn new(mut brain: Brain, options: ReplayOptions) -> Self {
        let was = brain.rules();
        let only_as_if = options.act_as_if && !(was.policy.act && was.ledger);
        brain.set_rules(Rules {
            policy: Policy {
                act: was.policy.act || options.act_as_if,
                grace: options.grace.unwrap_or(was.policy.grace),
            },
            ledger: was.ledger || options.act_as_if,
            verbose: was.verbose || options.verbose,
        });
        Self {
            brain,
            world: None,
            only_as_if,
        }
    }

    fn follow(&mut self, step: Step) -> Vec<(Timestamp, Report)> {
        let outputs = match step {
            Step::Brain(_) => Vec::new(),
            Step::Input(input) => self.brain.take(&input),
            Step::World(world) => {
                let outputs = self.brain.world(&world);
                self.world = Some(*world);
                outputs
            }
            Step::Judge { at } => self.judge(at),
        };
        outputs.into_iter().filter_map(Output::untraced).collect()
    }

    fn judge(&mut self, at: Timestamp) -> Vec<Output> {
        let Some(world) = &self.world else {
            return Vec::new();
        };
        let mut outputs = self.brain.judge(world, at);
        if self.only_as_if
            && let Some(Output::Act(plan)) = outputs.pop_if(|last| matches!(last, Output::Act(_)))
        {
            let why = would_be(&plan, world, &self.brain);
            let plan = *plan;
            outputs.extend(self.brain.take(&Input::NotDone { at, plan, why }));
        }
        outputs
    }
}

/// What would have come of a plan, as far as its guards tell.
fn would_be(plan: &Plan, world: &World, brain: &Brain) -> String {
    match guards::first_refusal(&brain.guards(plan, world)) {
        Some(refusal) => format!("this is a replay; it would have been refused: {refusal}"),
        None => "this is a replay; every guard holds that can be read in it".to_owned(),
    }
}
