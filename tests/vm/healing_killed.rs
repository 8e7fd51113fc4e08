//! The running sidecar, or the process that acts for it, killed between intent, act and outcome.

use anyhow::{Result, ensure};

use crate::{healing::*, preload::preload, stage::*, support::PATIENCE};

/// Kills suture's worker, once, at the removal of a dm device: before the kernel is
/// asked, or after it has answered; and the sidecar with it where it is told so. The removal is a system call of its own, so
/// a filter (seccomp) traps it.
const KILL_AT_REMOVAL: &str = r#"
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define DM_DEV_REMOVE 0xc138fd04u
#define PASS 0x5355u

static const char *when, *whom;

static void trapped(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    int once = open("/run/healing/killed", O_CREAT | O_EXCL | O_WRONLY, 0600);
    if (once >= 0 && !strcmp(when, "after"))
        syscall(SYS_ioctl, registers[REG_RDI], registers[REG_RSI], registers[REG_RDX], 0, 0, PASS);
    if (once >= 0) {
        if (!strcmp(whom, "sidecar")) kill(getppid(), SIGKILL);
        kill(getpid(), SIGKILL);
    }
    long result = syscall(SYS_ioctl, registers[REG_RDI], registers[REG_RSI], registers[REG_RDX], 0, 0, PASS);
    registers[REG_RAX] = result < 0 ? -6 : result;
}

__attribute__((constructor)) static void begin(void) {
    char line[256] = {0};
    int file = open("/proc/self/cmdline", O_RDONLY);
    long length = read(file, line, sizeof line - 1);
    close(file);
    when = getenv("KILL_AT_REMOVAL");
    whom = getenv("KILL_WHOM");
    if (!when || !whom || length <= 0 || !memmem(line, length, "heal-worker", 11)) return;
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO};
    sigaction(SIGSYS, &action, 0);
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 5),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, DM_DEV_REMOVE, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[5])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PASS, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) abort();
}
"#;

/// Its remedy is tried again soon after it failed.
const SOON_AGAIN: &str = "[policy.back-off]\nfirst = \"1s\"\n";

fn killed_at_the_removal(when: &str, whom: &str) -> Result<()> {
    on_stage(|stage| {
        preload(stage.vm, "/opt/kill-at-removal.so", &[KILL_AT_REMOVAL])?;
        stage.vm.sh("rm -rf /run/healing; mkdir -p /run/healing")?;
        write_policy(stage.vm, SOON_AGAIN)?;
        let mut suture = sidecar_again(
            stage.vm,
            &[
                ("LD_PRELOAD", "/opt/kill-at-removal.so"),
                ("KILL_AT_REMOVAL", when),
                ("KILL_WHOM", whom),
            ],
        )?;
        let name = make_orphan(stage, 1)?;
        if whom == "worker" && when == "before" {
            // Nothing is begun again before what it left is settled.
            stage.vm.wait_until("the worker is killed", PATIENCE, || {
                Ok(stage
                    .vm
                    .run(["test", "-e", "/run/healing/killed"])?
                    .status
                    .success())
            })?;
            ensure!(node_is_there(stage.vm, &name)?, "it was killed too late");
        }
        if whom == "sidecar" {
            let code = suture.end()?;
            ensure!(code == 137, "it should have been killed, it ended with {code}");
            ensure!(
                node_is_there(stage.vm, &name)? == (when == "before"),
                "it was killed at another moment"
            );
            let repairs = repairs_in_ledger(stage.vm)?;
            ensure!(
                repairs.len() == 1 && repairs[0]["outcome"].is_null(),
                "the intent is there, the outcome is not: {repairs:?}"
            );
            suture = sidecar_again(stage.vm, &[])?;
        }
        let settled = suture.expect_ever("repair_settled", |_| true)?;
        let how = if when == "before" {
            "settled-not-done"
        } else {
            "settled-done"
        };
        ensure!(settled["outcome"]["outcome"] == how, "{settled}");
        if when == "before" {
            suture.expect_repair("orphan-node", "done")?;
        }
        suture.expect_ever("resolved", |report| report["finding"]["class"] == "orphan-node")?;
        ensure!(!node_is_there(stage.vm, &name)?);
        // Each try is in the ledger once, with its end.
        let repairs = repairs_in_ledger(stage.vm)?;
        let ends: Vec<_> = repairs
            .iter()
            .map(|repair| repair["outcome"].as_str().unwrap_or("none"))
            .collect();
        let expected = if when == "before" {
            vec![how, "done"]
        } else {
            vec![how]
        };
        ensure!(ends == expected, "{repairs:?}");
        ensure!(
            stage
                .vm
                .run(["test", "-e", "/run/healing/killed"])?
                .status
                .success()
        );
        suture.stop()?;
        stage.expect_works()
    })
}

#[test]
fn worker_killed_between_act_and_outcome_is_settled_and_nothing_more_done() -> Result<()> {
    killed_at_the_removal("after", "worker")
}

#[test]
fn worker_killed_before_its_act_is_settled_and_the_next_one_does_it() -> Result<()> {
    killed_at_the_removal("before", "worker")
}

#[test]
fn sidecar_killed_after_the_act_and_before_its_outcome_is_stored_settles_and_does_nothing_more() -> Result<()>
{
    killed_at_the_removal("after", "sidecar")
}

#[test]
fn sidecar_killed_while_its_worker_acts_settles_and_does_the_act() -> Result<()> {
    killed_at_the_removal("before", "sidecar")
}
