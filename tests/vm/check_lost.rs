//! A database of containerd's that is lost while the other is there.

use anyhow::{Result, ensure};
use xtask::vm::Output;

use crate::stage::*;

/// Told, nothing done, and not called clean.
fn expect_told(output: &Output, parts: &[&str]) -> Result<()> {
    ensure!(output.status.code() == 8, "{output:?}");
    for part in parts {
        ensure!(output.stderr.contains(part), "`{part}` is not in {output:?}");
    }
    Ok(())
}

/// What is told of a lost pool database is so: containerd does with it what the words say, nothing is made worse, and a
/// containerd that was not restarted has the file still, as long as it runs.
#[test]
fn a_lost_pool_database_is_told_nothing_is_done_and_the_way_back_works() -> Result<()> {
    on_stage(|stage| {
        let database = stage.containerd.options().pool_db();
        for key in ["one", "two"] {
            stage.containerd.prepare(key, None)?.ok()?;
        }
        let thin = stage.containerd.thin_ids()?;

        // Deleted under a running containerd: what it has open still is the whole of it.
        stage.vm.sh(&format!("rm {database}"))?;
        let told = stage.vm.run(["suture", "check"])?;
        expect_told(&told, &["is gone", "still lists", "(deleted)"])?;
        stage.vm.sh(&format!(
            "for file in /proc/{}/fd/*; do
                case $(readlink $file) in '{database} (deleted)') cp $file /run/saved.db;; esac
            done
            test -s /run/saved.db",
            stage.containerd.pid()?
        ))?;
        stage.stop()?;

        // Nothing of it, an empty file, a stump.
        for (left, how) in [
            ("rm -f DB", "is gone"),
            (": > DB", "is empty"),
            ("head -c 4096 /run/saved.db > DB", "was cut short, to 4,096 bytes"),
        ] {
            stage.vm.sh(&left.replace("DB", &database))?;
            let before = stage.vm.sh(&format!("cksum {database} 2>&1 || true"))?;
            for command in [
                &["suture", "check"][..],
                &["suture", "repair", "--plan"],
                &["suture", "repair", "--offline"],
            ] {
                let output = stage.vm.run(command.iter().copied())?;
                expect_told(&output, &[how, "What can be saved"])?;
            }
            ensure!(stage.vm.sh(&format!("cksum {database} 2>&1 || true"))? == before);
            ensure!(stage.containerd.thin_ids()? == thin, "nothing is deleted");
        }
        ensure!(
            stage.containerd.start().is_err(),
            "a containerd with a stump of a database has no snapshotter"
        );
        let log = stage.containerd.log()?.join("\n");
        ensure!(log.contains("file size too small"), "{log}");
        stage.stop()?;

        // containerd goes on with an empty one, and fails as was told.
        stage.vm.sh(&format!("rm {database}"))?;
        stage.containerd.start()?;
        let failed = stage.containerd.prepare("three", None)?;
        ensure!(
            !failed.status.success() && failed.stderr.to_lowercase().contains("file exists"),
            "{failed:?}"
        );
        ensure!(stage.check()?.code == 4);
        stage.stop()?;
        stage.vm.sh(&format!("cp /run/saved.db {database}"))?;
        stage.expect_nothing()?;
        stage.containerd.start()?;
        stage.expect_works()
    })
}
