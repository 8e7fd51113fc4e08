//! The engine over real diagnoses, and the twin of each rule: what is let through, and what is kept back.

mod actions;
mod clocks;
mod offline;
mod one;
mod people;
mod policies;
mod property;

use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::{decide::Handling, model::FindingClass};
use crate::{
    diagnose,
    model::{
        Bytes, ContainerdState, CoreDb, DeviceState, FindingId, IdState, Knowledge, Mode, OperationId,
        PoolUsage, RepairOutcome, ThinDetails, ThinId, survey::Claim,
    },
    testing::{self, Fill},
};

/// Data of a thin device that is deleted in these tests.
const DATA: u64 = 1 << 20;
const BLOCK: u64 = 1 << 16;

/// An engine with a node to look at and clocks to set.
struct Bench {
    engine: Engine,
    survey: Survey,
    knowledge: Knowledge,
    monotonic: Duration,
    boot: &'static str,
    wall: Timestamp,
    kill_switch: Option<String>,
    gap: Option<String>,
    no_ledger: Option<String>,
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn with(change: impl FnOnce(&mut PolicyParts)) -> HealingPolicy {
    let mut parts = PolicyParts::default();
    change(&mut parts);
    HealingPolicy::new(parts).unwrap()
}

fn bench(policy: HealingPolicy) -> Bench {
    let world = testing::world(1);
    let survey = Survey {
        begun: testing::at(1),
        usage: Some(PoolUsage {
            metadata_used: 300,
            metadata_total: 4096,
            data_used: 10,
            data_total: 1000,
            block_size: Bytes(BLOCK),
            held_root: None,
        }),
        core: Some(CoreDb::default().into()),
        containerd: ContainerdState::Running {
            who: testing::containerd(),
            at_work: Vec::new(),
        },
        async_remove: Some(false),
        ..Survey::of_world(&world)
    };
    let mut bench = Bench {
        engine: Engine::new(policy),
        survey,
        knowledge: Knowledge::default(),
        monotonic: seconds(1_000),
        boot: "this boot",
        wall: testing::at(1_790_000_000),
        kill_switch: None,
        gap: None,
        no_ledger: None,
    };
    bench.survey.snapshots.sequence = 1_000;
    bench.survey.pool_db.id_sequence = 1_000;
    bench
}

impl Bench {
    /// Puts something of a world into the survey.
    fn put(&mut self, fill: impl FnOnce(World) -> World) {
        let world = fill(testing::world(1));
        self.survey.pool_db.devices.extend(world.pool_db.devices);
        self.survey.pool_db.device_ids.extend(world.pool_db.device_ids);
        self.survey.snapshots.snapshots.extend(world.snapshots.snapshots);
        self.survey.mapping_roots.extend(world.mapping_roots);
        self.survey.nodes.extend(world.nodes);
        let thin = self.survey.thin.get_or_insert_default();
        for (id, details) in world.thin {
            let mapped_blocks = DATA / BLOCK;
            thin.insert(
                id,
                ThinDetails {
                    mapped_blocks,
                    ..details
                },
            );
        }
    }

    fn claim(&mut self, id: u32) {
        let claim = Claim {
            operation: OperationId::new(testing::at(1), ThinId(id)),
            mark: self.survey.mark_of(ThinId(id)).unwrap(),
        };
        self.knowledge.claims.insert(ThinId(id), claim);
    }

    /// A thin device that suture saw containerd make and abandon.
    fn leak(&mut self, id: u32) -> FindingId {
        self.put(|world| world.thin(id).id(id, IdState::Faulty));
        self.claim(id);
        FindingId(format!("leaked-thin/tp/{id}"))
    }

    /// A record of a snapshot that is gone.
    fn orphan_record(&mut self, id: u32) -> FindingId {
        let name = format!("tp-snap-{id}");
        self.put(|world| {
            world
                .thin(id)
                .id(id, IdState::Faulty)
                .record(&name, id, DeviceState::Faulty)
        });
        FindingId(format!("orphan-record/tp/{name}"))
    }

    /// A good layer whose dm device is suspended.
    fn suspended(&mut self, id: u32) -> FindingId {
        let name = format!("tp-snap-{id}");
        self.put(|world| {
            let mut world = world
                .thin(id)
                .id(id, IdState::Taken)
                .record(&name, id, DeviceState::Activated)
                .snapshot(u64::from(id))
                .node(&name, id);
            world.nodes[0].suspended = true;
            world
        });
        FindingId(format!("suspended-device/tp/{name}"))
    }

    /// What keeps every further snapshot from being made.
    fn wedge(&mut self) -> FindingId {
        self.put(|world| {
            world
                .thin(1001)
                .id(1001, IdState::Taken)
                .record("tp-snap-1001", 1001, DeviceState::Activated)
        });
        FindingId("wedge/tp/tp-snap-1001".to_owned())
    }

    fn pass(&mut self, time: Duration) {
        self.monotonic += time;
        self.wall = self.wall.plus(time);
        self.survey.begun = self.wall;
    }

    fn diagnoses(&self) -> Diagnoses {
        diagnose::survey(&self.survey, &self.knowledge)
    }

    /// Asks the engine about what is there now.
    fn ask<T>(&mut self, question: impl FnOnce(&mut Engine, &Diagnoses, &Facts<'_>, Timestamp) -> T) -> T {
        let diagnoses = self.diagnoses();
        let facts = Facts {
            survey: &self.survey,
            monotonic: self.monotonic,
            boot: self.boot,
            local_offset: 0,
            kill_switch: self.kill_switch.clone(),
            gap: self.gap.clone(),
            no_ledger: self.no_ledger.clone(),
        };
        question(&mut self.engine, &diagnoses, &facts, self.wall)
    }

    fn round(&mut self) -> Vec<(FindingId, Verdict)> {
        self.ask(Engine::round)
    }

    fn verdict(&mut self, finding: &FindingId) -> Verdict {
        let found = self.round();
        let known: Vec<_> = found.iter().map(|(id, _)| id.to_string()).collect();
        let mut of = found.into_iter().filter(|(id, _)| id == finding);
        of.next()
            .unwrap_or_else(|| panic!("{finding} is not in {known:?}"))
            .1
    }

    /// The verdict after the shipped grace.
    fn ripe(&mut self, finding: &FindingId) -> Verdict {
        self.round();
        self.pass(seconds(15));
        self.verdict(finding)
    }

    fn came(&mut self, verdict: &Verdict, outcome: &RepairOutcome) {
        let (_, id) = verdict.plan().unwrap();
        self.engine.outcome(id, outcome, self.wall);
    }

    fn pause(&mut self, until: Option<Timestamp>) {
        let pause = Command::Pause {
            who: "root".to_owned(),
            why: "a look at the disk".to_owned(),
            until,
        };
        self.engine.command(pause, self.wall).unwrap();
    }

    fn resume(&mut self) -> Effect {
        let who = "root".to_owned();
        self.engine.command(Command::Resume { who }, self.wall).unwrap()
    }

    fn approve(&mut self, id: &PlanId) -> Result<Effect, Refusal> {
        let (id, who) = (id.clone(), "root".to_owned());
        self.engine.command(Command::Approve { id, who }, self.wall)
    }

    fn reject(&mut self, id: &PlanId) -> Result<Effect, Refusal> {
        let reject = Command::Reject {
            id: id.clone(),
            who: "root".to_owned(),
            why: "the data are needed".to_owned(),
        };
        self.engine.command(reject, self.wall)
    }
}

use crate::model::World;

fn is_act(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Act { .. })
}

fn waits_for(verdict: &Verdict, word: &str) -> bool {
    matches!(verdict, Verdict::Wait { why, .. } if why.contains(word))
}

fn blocked_by(verdict: &Verdict, word: &str) -> bool {
    matches!(verdict, Verdict::Blocked { why } if why.contains(word))
}

fn failed() -> RepairOutcome {
    RepairOutcome::Failed {
        why: "the kernel said no".to_owned(),
    }
}

fn refused() -> RepairOutcome {
    RepairOutcome::Refused {
        why: "not-open".to_owned(),
    }
}
