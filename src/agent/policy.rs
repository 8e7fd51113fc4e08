//! The policy, read again when its file changes and when somebody asks for it. One that is not understood changes
//! nothing.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, sleep_until};

use super::{Agent, Healing, now};
use crate::{
    brain::{Input, Report},
    config::{self, Config},
    decide::HealingPolicy,
    words::explain,
};

/// How often it is looked whether the file changed.
const LOOK: Duration = Duration::from_secs(5);

/// What tells one state of the file from another; nothing where there is none.
type Stamp = Option<(SystemTime, u64, u64)>;

/// Tells when the policy is to be read again.
pub(super) struct PolicyWatch {
    /// None where there is no policy.
    file: Option<PathBuf>,
    known: Stamp,
    /// The kill switch of that policy, and whether it was there.
    kill_switch: PathBuf,
    switched_off: bool,
    look_at: Instant,
}

/// Why it is to be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changed {
    /// The file changed.
    File,
    /// Somebody sent SIGHUP.
    Asked,
    /// Not the policy, but its kill switch: somebody made or removed it.
    KillSwitch,
}

impl PolicyWatch {
    /// Watches a file that was read a moment ago, or is not there, and the kill switch that it names.
    pub(super) fn start(file: &Path, kill_switch: &Path) -> Self {
        Self {
            switched_off: config::kill_switch(kill_switch).is_some(),
            kill_switch: kill_switch.to_owned(),
            known: stamp(file),
            file: Some(file.to_owned()),
            look_at: Instant::now() + LOOK,
        }
    }

    /// There is no policy.
    pub(super) fn never() -> Self {
        Self {
            file: None,
            kill_switch: PathBuf::new(),
            switched_off: false,
            known: None,
            look_at: Instant::now(),
        }
    }

    /// Waits until the file, or the kill switch, has changed.
    pub(super) async fn changed(&mut self) -> Changed {
        let Some(file) = &self.file else {
            return std::future::pending().await;
        };
        loop {
            sleep_until(self.look_at).await;
            self.look_at = Instant::now() + LOOK;
            let now = stamp(file);
            if now != self.known {
                self.known = now;
                return Changed::File;
            }
            let off = config::kill_switch(&self.kill_switch).is_some();
            if off != self.switched_off {
                self.switched_off = off;
                return Changed::KillSwitch;
            }
        }
    }
}

fn stamp(file: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

impl Healing {
    /// What it says, with what the command line says.
    pub(super) fn policy(&self) -> HealingPolicy {
        policy(&self.config, self.grace)
    }
}

/// The policy of a configuration; a grace that the command line says holds for every class.
fn policy(config: &Config, grace: Option<Duration>) -> HealingPolicy {
    let Some(grace) = grace else {
        return config.policy.clone();
    };
    let mut parts = config.policy.clone().into_parts();
    parts.classes.values_mut().for_each(|class| class.grace = grace);
    // Only a grace was changed, and one that the command line takes is never too long.
    HealingPolicy::new(parts).unwrap_or_else(|_| config.policy.clone())
}

impl Agent {
    /// Reads the policy again. One that is not understood changes nothing, and is told. Where it is only the kill switch that
    /// changed, decides again.
    pub(super) fn read_policy(&mut self, changed: Changed) {
        let (Some(healing), Some(rounds)) = (self.options.healing.as_mut(), self.rounds.as_mut()) else {
            return;
        };
        if changed == Changed::KillSwitch {
            // What waited for that, or has to be told as kept back now.
            rounds.soon();
            self.take(&Input::Reconsider { at: now() });
            self.publish();
            return;
        }
        let file = healing.file.clone();
        match Config::read_used(&file).map_err(|error| explain(&error)) {
            Ok(config) if config == healing.config && changed == Changed::File => return,
            Ok(config) => {
                healing.config = config;
                let policy = healing.policy();
                self.policy.kill_switch.clone_from(&policy.kill_switch);
                rounds.engine.set_policy(policy);
                rounds.soon();
                self.keep_as_configured();
                self.tell(&Report::PolicyRead { file });
                self.take(&Input::Reconsider { at: now() });
            }
            Err(why) => self.tell(&Report::PolicyRefused { file, why }),
        }
        self.publish();
    }
}
