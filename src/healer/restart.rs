//! Stopping containerd for a repair, and starting it again whatever happens. It is done by a process that systemd watches over:
//! if suture, or that process, is killed in the middle, systemd starts containerd all the same.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use procfs::process::Process;

use crate::model::Incarnation;

/// The hidden word of the command line that does it.
pub(crate) const WORD: &str = "restart-and-repair";
/// The name of the unit under which it is done: only one of it can be there.
const UNIT: &str = "suture-restart-and-repair";
/// How long containerd may take to stop; then it is not repaired, and started again.
const STOP: Duration = Duration::from_mins(1);
/// How long the repair may take.
const REPAIR: Duration = Duration::from_secs(30);
/// The whole of it; then systemd ends it, and starts containerd.
const WHOLE: Duration = Duration::from_secs(150);

/// What to restart, and what to repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    /// containerd's unit.
    pub unit: String,
    /// The pool's name.
    pub pool: String,
    /// Folder of the databases.
    pub root: PathBuf,
    /// The ledger, which has the plans that were approved.
    pub ledger: PathBuf,
    /// suture's own configuration, where it is not the one in its usual place: the repair goes by the same one.
    pub config: Option<PathBuf>,
}

/// The unit that containerd runs in; nothing where it is not systemd that runs it, and would start it again.
#[must_use]
pub fn unit_of(who: &Incarnation) -> Option<String> {
    let process = Process::new(i32::try_from(who.pid).ok()?).ok()?;
    let groups = process.cgroups().ok()?;
    groups.0.iter().find_map(|group| unit_in(&group.pathname))
}

/// The service in the path of a control group: `/system.slice/containerd.service`.
fn unit_in(path: &str) -> Option<String> {
    let named = |part: &&str| {
        let plain = |one: char| one.is_ascii_alphanumeric() || "-_.@:\\".contains(one);
        part.ends_with(".service") && part.chars().all(plain)
    };
    path.split('/').rev().find(named).map(str::to_owned)
}

impl Restart {
    /// The command that has systemd begin it. `this` is suture's own program.
    ///
    /// It does not wait (`--wait`): for that it would need a message bus, and a node may have none; without, root talks to
    /// systemd itself.
    pub(super) fn command(&self, this: &Path) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("systemd-run");
        command
            .args(["--quiet", "--service-type=exec"])
            .arg(format!("--unit={UNIT}"))
            .arg(format!("--property=RuntimeMaxSec={}", WHOLE.as_secs()))
            .arg(format!("--property=ExecStopPost=systemctl start {}", self.unit))
            .arg("--")
            .arg(this)
            .arg(WORD)
            .args(["--unit", &self.unit, "--pool", &self.pool])
            .arg("--root-path")
            .arg(&self.root)
            .arg("--ledger")
            .arg(&self.ledger);
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// The command that asks systemd how far it is; [`Restart::ended`] understands the answer.
    pub(super) fn question() -> tokio::process::Command {
        let mut command = tokio::process::Command::new("systemctl");
        command
            .args([
                "show",
                UNIT,
                "--property=ActiveState",
                "--property=ExecMainStatus",
            ])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// The command that has systemd forget how an earlier one failed: while it remembers, there can be no other one. One that
    /// is under way stays.
    pub(super) fn forget() -> tokio::process::Command {
        let mut command = tokio::process::Command::new("systemctl");
        command
            .args(["reset-failed", UNIT])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Its exit code, once it ended. One that ended well, systemd forgets at once, and knows no code of.
    pub(super) fn ended(answer: &str) -> Option<i32> {
        let value = |key: &str| {
            answer
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        };
        match value("ActiveState")? {
            "inactive" | "failed" => Some(value("ExecMainStatus")?.parse().unwrap_or(-1)),
            _ => None,
        }
    }

    /// How often to ask.
    pub(super) const ASK: Duration = Duration::from_millis(500);
    /// How long to wait for all of it.
    pub(super) const WAIT: Duration = Duration::from_mins(4);

    /// Does it. The exit code is that of the repair; nothing where it was not made. What went wrong is told.
    #[must_use]
    pub fn carry_out(&self) -> Option<u8> {
        let tell = |why: String| eprintln!("suture: {why}");
        let stopped = systemctl("stop", &self.unit, STOP);
        let code = stopped
            .map_err(|why| format!("nothing is repaired: {why}"))
            .and_then(|()| self.repair())
            .map_err(tell);
        // systemd does so once more when this process is gone (ExecStopPost).
        let _ = systemctl("start", &self.unit, STOP).map_err(tell);
        code.ok()
    }

    fn repair(&self) -> Result<u8, String> {
        let status = self
            .repair_command()
            .status()
            .map_err(|error| format!("starting the repair: {error}"))?;
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        code.ok_or_else(|| format!("the repair ended with {status}"))
    }

    /// The repair, in suture's own program.
    fn repair_command(&self) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["repair", "--offline", "--pool", &self.pool])
            .arg("--root-path")
            .arg(&self.root)
            .arg("--ledger")
            .arg(&self.ledger)
            .arg("--deadline")
            .arg(REPAIR.as_secs().to_string());
        if let Some(config) = &self.config {
            command.arg("--policy").arg(config);
        }
        command.stdin(Stdio::null());
        command
    }
}

/// systemctl waits for the unit; `timeout` of coreutils for systemctl.
fn systemctl(verb: &str, unit: &str, within: Duration) -> Result<(), String> {
    let status = Command::new("timeout")
        .arg(within.as_secs().to_string())
        .args(["systemctl", verb, unit])
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("starting `systemctl {verb} {unit}`: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("`systemctl {verb} {unit}` ended with {status}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_innermost_service_of_the_control_group() {
        for (path, unit) in [
            ("/system.slice/containerd.service", Some("containerd.service")),
            (
                "/system.slice/k3s.service/containerd.service",
                Some("containerd.service"),
            ),
            (
                "/system.slice/system-containerd.slice/containerd@1.service",
                Some("containerd@1.service"),
            ),
            ("/user.slice/user-0.slice/session-1.scope", None),
            ("/system.slice/bad name.service", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(unit_in(path).as_deref(), unit, "{path}");
        }
    }

    #[test]
    fn it_has_ended_when_systemd_says_so() {
        for (answer, code) in [
            ("ActiveState=active\nExecMainStatus=0\n", None),
            ("ActiveState=deactivating\nExecMainStatus=0\n", None),
            ("ActiveState=inactive\nExecMainStatus=0\n", Some(0)),
            ("ExecMainStatus=8\nActiveState=failed\n", Some(8)),
            ("", None),
        ] {
            assert_eq!(Restart::ended(answer), code, "{answer}");
        }
    }

    fn restart(config: Option<&str>) -> Restart {
        Restart {
            unit: "containerd.service".to_owned(),
            pool: "tp".to_owned(),
            root: "/var/lib/containerd/dm".into(),
            ledger: "/var/lib/suture/ledger.db".into(),
            config: config.map(PathBuf::from),
        }
    }

    fn words(command: &Command) -> Vec<String> {
        let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
        words.collect()
    }

    #[test]
    fn the_repair_goes_by_the_configuration_that_the_sidecar_goes_by() {
        for (config, told) in [(Some("/srv/suture.toml"), true), (None, false)] {
            let restart = restart(config);
            let command = restart.command(Path::new("/usr/bin/suture"));
            let begun = words(command.as_std());
            let repair = words(&restart.repair_command());
            let has = |words: &[String], pair: [&str; 2]| words.windows(2).any(|two| two == pair);
            assert_eq!(has(&begun, ["--config", "/srv/suture.toml"]), told, "{begun:?}");
            assert_eq!(has(&repair, ["--policy", "/srv/suture.toml"]), told, "{repair:?}");
            assert_eq!(repair.iter().any(|word| word == "--policy"), told, "{repair:?}");
            assert!(
                has(&repair, ["--ledger", "/var/lib/suture/ledger.db"]),
                "{repair:?}"
            );
        }
    }

    #[test]
    fn systemd_starts_containerd_again_whatever_becomes_of_it() {
        let restart = restart(None);
        let command = restart.command(Path::new("/usr/bin/suture"));
        let words = words(command.as_std());
        assert!(
            words.contains(&"--property=ExecStopPost=systemctl start containerd.service".to_owned()),
            "{words:?}"
        );
        assert!(
            words
                .iter()
                .any(|word| word.starts_with("--property=RuntimeMaxSec=")),
            "{words:?}"
        );
        assert!(!words.contains(&"--wait".to_owned()), "it needs a bus: {words:?}");
        let own = words.iter().position(|word| word == WORD).unwrap();
        assert_eq!(words[own - 1], "/usr/bin/suture");
        assert!(
            words[own..].windows(2).any(|pair| pair == ["--pool", "tp"]),
            "{words:?}"
        );
    }
}
