//! Operations as users make them when nothing is wrong, one after the other, and how long they take.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Containerd;

/// The layer that they stand on.
const LAYER: &str = "operations-layer";

/// Operations in one turn: a layer is made on another one, looked at, and removed.
const TURN: u32 = 5;

/// `$1` turns; the removals are over when it ends. Tells seconds.
const TURNS: &str = r#"
set -e
snapshots="ctr snapshots --snapshotter devmapper"
begun=$(cut -d' ' -f1 /proc/uptime)
turn=0
while [ $turn -lt $1 ]; do
    $snapshots prepare operations-active operations-layer > /dev/null
    $snapshots commit operations-committed operations-active
    $snapshots view operations-view operations-committed > /dev/null
    $snapshots rm operations-view
    $snapshots rm operations-committed
    turn=$((turn + 1))
done
ctr leases create --id operations > /dev/null
ctr leases delete --sync operations > /dev/null
echo $begun $(cut -d' ' -f1 /proc/uptime)
"#;

impl Containerd<'_> {
    /// Makes the layer that [`Self::operations`] stand on.
    pub fn prepare_for_operations(&self) -> Result<()> {
        self.prepare("operations-base", None)?.ok()?;
        self.commit(LAYER, "operations-base")?.ok()?;
        Ok(())
    }

    /// Prepares, commits, views and removes snapshots, so many operations in all, a multiple of five; gives the time that
    /// passed in the VM. Afterwards everything is as before.
    pub fn operations(&self, count: u32) -> Result<Duration> {
        ensure!(
            count.is_multiple_of(TURN),
            "{count} operations are no whole turns"
        );
        let turns = (count / TURN).to_string();
        let told = self
            .vm
            .run(["sh", "-c", TURNS, "operations", &turns])?
            .ok()?
            .stdout;
        let (begun, ended) = told.trim().split_once(' ').context("no two times")?;
        let seconds = |text: &str| text.parse::<f64>().with_context(|| format!("a time `{text}`"));
        Ok(Duration::from_secs_f64(seconds(ended)? - seconds(begun)?))
    }

    /// Removes the layer again.
    pub fn end_operations(&self) -> Result<()> {
        self.remove(LAYER)?.ok()?;
        self.collect_garbage()
    }
}
