//! Ends of a containerd in the middle of its work: around a program that it starts, or between two of its commits.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Containerd;
use crate::vm::Process;

/// First on containerd's `PATH`: programs in here stand in for the real ones.
pub(super) const BREAK_FOLDER: &str = "/opt/break";

/// While this file is there, the next wrapper that finds it breaks something, and removes it.
const ARMED: &str = "/run/break-armed";

/// For how long whoever has synced a database is held.
const HELD: Duration = Duration::from_millis(400);

/// On which side of a program's work containerd dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The program does nothing.
    Before,
    /// The program has succeeded.
    After,
}

impl Containerd<'_> {
    /// Kills containerd, once, right after a `dmsetup create` of its own has succeeded: a device node has appeared,
    /// and the database transaction that would say so is not written.
    pub fn kill_after_dmsetup_create(&self) -> Result<()> {
        self.kill_at_dmsetup(Side::After, "create *")
    }

    /// Kills containerd, once, before or after it calls `dmsetup` with arguments that match a pattern of the shell's,
    /// such as `message tp 0 delete *`.
    pub fn kill_at_dmsetup(&self, side: Side, arguments: &str) -> Result<()> {
        self.install_wrapper("dmsetup", "/usr/sbin/dmsetup", side, arguments)
    }

    /// Kills containerd, once, right after `mkfs.ext4` on a new device has succeeded.
    pub fn kill_after_mkfs(&self) -> Result<()> {
        self.install_wrapper("mkfs.ext4", "/usr/sbin/mkfs.ext4", Side::After, "*")
    }

    /// Makes `mkfs.ext4` on the next new device wait for ever once it has succeeded; then [`Self::STOPPED`] is there.
    pub fn stop_after_mkfs(&self) -> Result<()> {
        let script = format!(
            "#!/bin/sh\n/usr/sbin/mkfs.ext4 \"$@\"\ncode=$?\nsync\ntouch {}\nsleep 600\nexit $code\n",
            Self::STOPPED
        );
        self.write_wrapper("mkfs.ext4", &script)
    }

    /// There once [`Self::stop_after_mkfs`] has stopped a `mkfs`.
    pub const STOPPED: &'static str = "/run/mkfs-stopped";

    /// Lets containerd find the real programs again.
    pub fn remove_wrappers(&self) -> Result<()> {
        self.vm.sh(&format!(
            "rm -f {BREAK_FOLDER}/* {ARMED} {stopped}",
            stopped = Self::STOPPED
        ))?;
        Ok(())
    }

    /// Puts a script of one's own before a program on containerd's `PATH`.
    pub fn write_wrapper(&self, name: &str, script: &str) -> Result<()> {
        self.vm
            .write_file(&format!("{BREAK_FOLDER}/{name}"), script, 0o755)
    }

    /// Kills containerd in the middle of a commit: at its `count`th `fdatasync` in one thread from now on.
    pub fn kill_at_fdatasync(&mut self, count: u32) -> Result<()> {
        let inject = format!("inject=fdatasync:signal=KILL:when={count}");
        self.trace(&["-e", "trace=fdatasync", "-e", &inject])?;
        Ok(())
    }

    /// Kills containerd in its next commit to one of its databases, before that takes effect.
    pub fn kill_at_commit(&mut self, database: &str) -> Result<()> {
        let inject = "inject=fdatasync:signal=KILL:when=1";
        self.trace(&["-e", "trace=fdatasync", "-P", database, "-e", inject])?;
        Ok(())
    }

    /// Kills containerd as soon as its `count`th commit to one of its databases from now on has taken effect, and before it
    /// does anything more.
    pub fn kill_after_commits(&mut self, database: &str, count: u32) -> Result<()> {
        // A commit syncs twice: its pages, then its meta page. Who has synced is held for a moment, in which the reader of
        // the trace has time to kill.
        let reader = format!(
            "|n=0; while read -r line; do case \"$line\" in *fdatasync*' = 0'*) n=$((n + 1)); \
             if [ $n = {} ]; then kill -KILL {}; fi;; esac; done",
            2 * count,
            self.pid()?
        );
        let hold = format!("inject=fdatasync:delay_exit={}", HELD.as_micros());
        self.trace(&[
            "-o",
            &reader,
            "-e",
            "trace=fdatasync",
            "-P",
            database,
            "-e",
            &hold,
        ])?;
        Ok(())
    }

    /// Kills containerd when it is about to unmount something.
    pub fn kill_at_unmount(&mut self) -> Result<()> {
        self.trace(&["-e", "trace=umount2", "-e", "inject=umount2:signal=KILL:when=1"])?;
        Ok(())
    }

    /// Runs a shell's commands, once, in place of a `dmsetup` of containerd's with arguments that match a pattern of the
    /// shell's, and kills containerd: as if that `dmsetup` had died half way. `$@` are its arguments.
    pub fn die_in_dmsetup(&self, arguments: &str, commands: &str) -> Result<()> {
        let pattern = arguments.replace(' ', "\\ ");
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in {pattern}) if rm {ARMED} 2>/dev/null; then\n{commands}\nkill -KILL $PPID; exit 1\n\
             fi;; esac\nexec /usr/sbin/dmsetup \"$@\"\n"
        );
        self.write_wrapper("dmsetup", &script)?;
        self.vm.write_file(ARMED, "", 0o644)
    }

    /// From now on each of containerd's writes to the pool database is on show for so long before it goes on: what a
    /// transaction wrote can be read twice as long, before the next one replaces it. Ends with containerd.
    pub fn slow_commits(&mut self, delay: Duration) -> Result<()> {
        let database = self.options.pool_db();
        let inject = format!("inject=fdatasync:delay_exit={}", delay.as_micros());
        self.trace(&["-e", "trace=fdatasync", "-P", &database, "-e", &inject])?;
        Ok(())
    }

    /// Attaches a strace to containerd.
    fn trace(&mut self, arguments: &[&str]) -> Result<Process> {
        let pid = self.pid()?.to_string();
        let argv = ["strace", "-f", "-p", &pid];
        let mut strace = self.vm.spawn(argv.iter().chain(arguments).copied(), &[])?;
        strace
            .wait_for_line(|line| line.contains("attached"), Duration::from_secs(30))
            .context("attaching strace to containerd")?;
        Ok(strace)
    }

    /// Puts a program before a real one on containerd's `PATH` that kills its parent, containerd, once, when its
    /// arguments match.
    fn install_wrapper(&self, name: &str, real: &str, side: Side, arguments: &str) -> Result<()> {
        // Blanks end a pattern of the shell's, and the brackets that keep them are taken literally inside quotes.
        let pattern = arguments.replace(' ', "\\ ");
        let kill = format!(
            "case \"$*\" in {pattern}) if rm {ARMED} 2>/dev/null; then kill -KILL $PPID; exit 1; fi;; esac\n"
        );
        let script = match side {
            Side::Before => format!("#!/bin/sh\n{kill}exec {real} \"$@\"\n"),
            Side::After => {
                format!("#!/bin/sh\n{real} \"$@\"\ncode=$?\n[ $code = 0 ] || exit $code\n{kill}exit 0\n")
            }
        };
        self.write_wrapper(name, &script)?;
        self.vm.write_file(ARMED, "", 0o644)
    }
}
