//! What a node has to do with its disk: what lies there at start, how much room is left, what backups are taken of.
//!
//! Wiring, and a few sentences for an operator; the store decides what a folder proves. A folder in which a restore
//! did not end is refused: to the store it would look like that of a new node.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sibyl_core::id::NodeId;
use sibyl_core::registry::votes_needed;
use sibyl_core::room::Level;
use tokio::sync::watch;

use crate::backup;
use crate::config::Config;
use crate::coordinator::Coordinator;
use crate::replica::Replica;
use crate::resolver::Platform;
use crate::store::{self, Start, Watermark, disk};
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::AmnesiaCause;

/// How often the disk is looked at, beside the looks before every batch: somebody else may have made room.
const DISK_EVERY: Duration = Duration::from_secs(1);
/// How often the store is asked whether its files are damaged.
const DAMAGE_EVERY: Duration = Duration::from_secs(1);
/// What other nodes may use of this one's disk by hints: one part of so many.
const HINT_QUOTA_OF_DISK: u64 = 10;

/// Fails if a restore into this folder did not end.
pub(super) fn refuse_unfinished(data_dir: &Path) -> anyhow::Result<()> {
    if data_dir.join(backup::UNFINISHED).try_exists()? {
        anyhow::bail!(
            "a restore into {} did not end: empty the folder and restore again",
            data_dir.display()
        );
    }
    Ok(())
}

/// Says if a store was made of a backup.
pub(super) fn report_origin(replica: &Replica) {
    if matches!(replica.kept(backup::ORIGIN), Ok(Some(_))) {
        tracing::info!("this store was restored from a backup");
    }
}

/// What backups of this node are taken of.
pub(super) fn backups(
    me: &NodeId,
    replica: &Replica,
    watermark: &Arc<Watermark>,
    platform: &Platform,
) -> backup::Source {
    backup::Source {
        me: me.clone(),
        store: Arc::clone(replica.store()),
        watermark: Arc::clone(watermark),
        platform: platform.clone(),
    }
}

/// Says how a store began.
pub(super) fn report(start: &Start, telemetry: &Telemetry) {
    match start {
        Start::First => tracing::info!("a new store"),
        Start::Restarted => tracing::info!("the store is as it was left"),
        Start::Amnesia(cause) => {
            tracing::error!(%cause, "the store cannot prove what it remembers: a new one is begun, the old one kept aside");
            let cause = match cause {
                store::Cause::WatermarkMissing => AmnesiaCause::Missing,
                store::Cause::Watermark(_) | store::Cause::Unfinished => AmnesiaCause::Corrupt,
                store::Cause::Damaged { .. }
                | store::Cause::Engine(_)
                | store::Cause::Disowned
                | store::Cause::Restored => AmnesiaCause::Stale,
            };
            telemetry.metrics.amnesia(cause);
        }
    }
}

/// What knows how full the disk is.
pub(super) fn gauge(config: &Config) -> disk::Gauge {
    let low_water_bytes = config.low_water_bytes.unwrap_or(disk::LOW_WATER_BYTES);
    disk::Gauge::of(config.data_dir.clone(), low_water_bytes)
}

/// How many bytes of hints are taken in: what was set, else a tenth of the disk.
pub(super) fn hint_quota(config: &Config) -> u64 {
    config.hint_quota_bytes.unwrap_or_else(|| {
        let room = disk::room(&config.data_dir);
        let tenth = room.map(|room| room.total_bytes / HINT_QUOTA_OF_DISK);
        tenth.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot ask how large the disk is: hints are taken in without limit");
            u64::MAX
        })
    })
}

/// Keeps looking at the disk while nobody writes, and tells an operator when its level changes.
pub(super) async fn watch(coordinator: Coordinator) {
    let mut tick = tokio::time::interval(DISK_EVERY);
    let mut before = Level::Enough;
    loop {
        tick.tick().await;
        let gauge = coordinator.replica().gauge();
        let level = match gauge.look() {
            Ok(level) => level,
            Err(error) => {
                tracing::warn!(%error, "cannot ask how full the disk is");
                continue;
            }
        };
        if std::mem::replace(&mut before, level) == level {
            continue;
        }
        let (low_water, enough) = (gauge.marks().low_water_bytes, gauge.marks().enough_bytes());
        match level {
            Level::Enough => tracing::info!("the disk has room again: values are taken"),
            Level::Low => {
                tracing::error!(
                    low_water,
                    enough,
                    "the disk is below its low-water mark: values are refused, deletes go on"
                );
            }
            Level::Out => {
                tracing::error!(
                    low_water,
                    enough,
                    "the disk is below half of its low-water mark: nothing is taken"
                );
            }
        }
    }
}

/// A store with a damaged block cannot mend itself: whatever lies in there cannot be listed, compared or compacted.
/// Once enough others are there to name and fill a new one, the node gives it up.
pub(super) async fn watch_damage(coordinator: Coordinator) {
    let mut tick = tokio::time::interval(DAMAGE_EVERY);
    let mut said = false;
    loop {
        tick.tick().await;
        let Some(why) = coordinator.replica().store().damage() else {
            continue;
        };
        if !std::mem::replace(&mut said, true) {
            tracing::error!(%why, "the storage engine's files are damaged");
        }
        if can_be_renewed(&coordinator) {
            coordinator
                .replica()
                .fail(format!("the storage engine's files are damaged: {why}"));
            return;
        }
    }
}

/// What becomes of a node whose store failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It ends, and says why.
    Ends,
    /// It was told to end while it waited for others.
    Told,
    /// Its store is given up, and the next start begins a new one.
    Renewed,
}

/// Whether a store that failed is given up: if it is damaged, as soon as enough others are there, however long that
/// takes, unless the node is told to end. Ended before, it would only meet the same damage again.
pub(super) async fn will_be_renewed(
    coordinator: &Coordinator,
    told: &mut watch::Receiver<bool>,
) -> Fate {
    let view = coordinator.registry().view();
    let alone = view.document().layout.members.len() < 2;
    if coordinator.replica().store().damage().is_none() || alone || view.forming() {
        return Fate::Ends;
    }
    if !can_be_renewed(coordinator) {
        tracing::error!(
            "the damaged store takes nothing more: it is given up once a majority of the members can be reached without this node"
        );
    }
    let mut changes = coordinator.net().changes();
    loop {
        if can_be_renewed(coordinator) {
            return Fate::Renewed;
        }
        tokio::select! {
            _ = told.wait_for(|told| *told) => return Fate::Told,
            changed = changes.changed() => if changed.is_err() {
                return Fate::Ends;
            },
        }
    }
}

/// Gives a damaged store up: the next start begins a new one, with what can be read of this.
pub(super) fn give_up(data_dir: &Path, watermark: &Watermark) -> anyhow::Result<()> {
    store::salvage::mark(&data_dir.join("data"), watermark.actor())?;
    Ok(watermark.disown()?)
}

/// Whether the store is damaged, and a majority can be reached without this node: it is asked to name the new store,
/// and no partition has fewer owners to be filled from than after any other loss.
pub(super) fn can_be_renewed(coordinator: &Coordinator) -> bool {
    let view = coordinator.registry().view();
    let members = &view.document().layout.members;
    let present = coordinator.net().peers().into_iter();
    let present = present.filter(|peer| peer.reachable && members.contains_key(&peer.node_id));
    coordinator.replica().store().damage().is_some()
        && !view.forming()
        && present.count() >= votes_needed(view.number() + 1, members.len())
}
