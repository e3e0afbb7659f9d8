//! A node that was removed: it finds out, gives what it holds to the owners of now, and starts empty.
//!
//! What a running node finds out it notes in a small file beside its store, and starts again; from then on that file
//! says what the node is, until its store is put aside and it is a newcomer. Every step can be cut off and is taken up
//! by the next start. Nothing is deleted: the old store stays in the data folder. What is given to whom, and what
//! becomes of it, `sibyl_core::salvage` decides.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt as _;
use sibyl_core::id::{Actor, NodeId};
use sibyl_core::joining::{Knock, Told, Wish};
use sibyl_core::message;
use sibyl_core::registry::{Farewell, Former, Joiner, Partitions};
use sibyl_core::salvage::{Fenced, Tally};
use tokio::sync::watch;

use super::giving::give_all;
use crate::config::{Config, Salvage};
use crate::coordinator::Coordinator;
use crate::http;
use crate::outside;
use crate::peer;
use crate::store::{self, disk};
use crate::tasks::registry::View;

/// The note, beside the folder of the store.
const NOTE: &str = "fenced";
/// The least time between two looks of a running node at who refuses it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The most: a look reads a list, and knocks only at who refused this node.
const LOOK_ONCE_MORE: Duration = Duration::from_secs(10);
/// The most members that are asked in one look: any one of them knows.
const MOST_ASKED: usize = 3;

/// Becomes true once this node finds that it was removed.
pub(super) async fn follow(
    coordinator: &Coordinator,
    config: &Config,
) -> anyhow::Result<watch::Receiver<bool>> {
    let folder = config.data_dir.clone();
    remember(coordinator, read(&folder)?.as_ref()).await?;
    let (found, fenced) = watch::channel(false);
    tokio::spawn(watch(coordinator.clone(), folder, found));
    Ok(fenced)
}

/// Waits until this node finds that it was removed, and notes it.
async fn watch(coordinator: Coordinator, data_dir: std::path::PathBuf, found: watch::Sender<bool>) {
    let mut changes = coordinator.net().changes();
    let mut views = coordinator.registry().watch();
    loop {
        if let Some(fenced) = look(&coordinator).await {
            tracing::warn!(
                number = fenced.number,
                "this node was removed: it starts again to give what it holds to the owners of now"
            );
            match write(&data_dir, &fenced) {
                Ok(()) => {
                    found.send_replace(true);
                    return;
                }
                Err(error) => tracing::error!(%error, "the removal of this node cannot be noted"),
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        let gone = tokio::select! {
            changed = changes.changed() => changed.is_err(),
            changed = views.changed() => changed.is_err(),
            // Whoever was asked may have been about to stop.
            () = tokio::time::sleep(LOOK_ONCE_MORE) => false,
        };
        if gone {
            return;
        }
    }
}

/// Whether this store was sent away, by the document in force or by the word of a member of the same lineage.
async fn look(coordinator: &Coordinator) -> Option<Fenced> {
    let (view, store) = (coordinator.registry().view(), coordinator.replica().actor());
    let document = view.document();
    let note = |former: &Former| noted(&view, former, coordinator.me(), store);
    if let Some(former) = document.layout.former.get(&store) {
        return note(former);
    }
    let own = document.layout.members.get(coordinator.me())?;
    let url = coordinator.net().identity().url;
    // As if it were so: whoever is asked judges by the store alone.
    let asked = note(&Former {
        node: coordinator.me().clone(),
        incarnation: own.incarnation,
        why: Farewell::Removed,
        number: document.number,
    })?;
    let peers = coordinator.net().peers();
    let refusals = peers.iter().filter(|peer| {
        let refused = peer.refused.as_deref();
        refused.is_some_and(|why| why.starts_with("not_admitted"))
    });
    for peer in refusals.take(MOST_ASKED) {
        let ask = knock(&asked, &own.peer_addr, &url);
        let Ok((head, _)) = peer::knock(&peer.addr, ask).await else {
            continue;
        };
        if let Ok(Told::Bring {
            cluster_id,
            lineage,
            former,
        }) = message::decode(&head)
            && cluster_id == document.cluster_id
            && lineage == document.lineage()
            && former.number > document.number
        {
            return note(&former);
        }
    }
    None
}

/// How this store asks whether it was removed, and to give what it holds.
pub(super) fn knock(fenced: &Fenced, peer_addr: &str, url: &str) -> Bytes {
    message::encode(&Knock {
        cluster_id: Some(fenced.cluster_id.clone()),
        joiner: Joiner {
            node: fenced.node.clone(),
            store: fenced.store,
            peer_addr: peer_addr.to_owned(),
            zone: None,
            tokens: 1,
        },
        url: url.to_owned(),
        wish: Wish::Salvage,
    })
}

/// The note of a removal; none if the node left, and so handed everything over before.
fn noted(view: &View, former: &Former, me: &NodeId, store: Actor) -> Option<Fenced> {
    let document = view.document();
    let others = document.layout.members.iter();
    let others = others.filter(|(node, _)| *node != me);
    (former.why == Farewell::Removed).then(|| Fenced {
        node: me.clone(),
        cluster_id: document.cluster_id.clone(),
        lineage: document.lineage(),
        store,
        number: former.number,
        members: others.map(|(_, member)| member.peer_addr.clone()).collect(),
        done: Partitions::default(),
        tally: Tally::default(),
        over: false,
    })
}

/// Lets an operator of a node that was removed once, and is a member again, know what nobody took.
async fn remember(coordinator: &Coordinator, fenced: Option<&Fenced>) -> anyhow::Result<()> {
    let Some(count) = fenced.map(|fenced| fenced.tally.quarantined) else {
        return Ok(());
    };
    coordinator.replica().note_quarantined(count).await?;
    let why = format!(
        "salvage: {count} objects that this node held when it was removed were taken by nobody, for they may have been deleted since: they lie in its data folder, set aside"
    );
    let note = (count > 0).then_some(why);
    coordinator.registry().note("salvage", note);
    Ok(())
}

fn read(data_dir: &Path) -> anyhow::Result<Option<Fenced>> {
    let path = data_dir.join(NOTE);
    match std::fs::read(&path) {
        Ok(bytes) => match Fenced::decode(&bytes) {
            Ok(fenced) => Ok(Some(fenced)),
            Err(error) => anyhow::bail!(
                "{} cannot be read ({error}): remove it, and the node finds out once more",
                path.display()
            ),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// In one piece, and durable when it returns.
pub(super) fn write(data_dir: &Path, fenced: &Fenced) -> std::io::Result<()> {
    let next = data_dir.join("fenced.new");
    let mut file = std::fs::File::create(&next)?;
    file.write_all(&fenced.encode())?;
    file.sync_all()?;
    std::fs::rename(&next, data_dir.join(NOTE))?;
    disk::sync_folder(data_dir)
}

/// A removal as it is shown.
pub(super) fn shown(fenced: &Fenced, left: usize, waits_for: Option<&str>) -> http::SalvageView {
    let Tally {
        imported,
        known,
        quarantined,
        gone,
        damaged,
    } = fenced.tally;
    http::SalvageView {
        node_id: fenced.node.to_string(),
        cluster_id: fenced.cluster_id.clone(),
        removed_by: fenced.number,
        over: fenced.over,
        partitions_left: left,
        imported,
        known,
        quarantined,
        gone,
        damaged,
        waits_for: waits_for.map(str::to_owned),
    }
}

/// If this node was removed: gives what it holds, puts its store aside, and says so. What was noted, if anything was.
pub(super) async fn settle(config: &Config) -> anyhow::Result<Option<Fenced>> {
    let Some(mut fenced) = read(&config.data_dir)? else {
        return Ok(None);
    };
    let folder = config.data_dir.join("data");
    if !fenced.over {
        if config.salvage == Salvage::Nothing {
            tracing::warn!("--salvage=nothing: nothing of the removed store is given to anybody");
        } else {
            give_all(config, &mut fenced).await?;
        }
        fenced.over = true;
        write(&config.data_dir, &fenced)?;
    }
    if let Some(aside) = store::renew(&folder, fenced.store, || outside::rng().random())? {
        let Tally {
            imported,
            known,
            quarantined,
            gone,
            damaged,
        } = fenced.tally;
        tracing::warn!(
            imported, known, quarantined, gone, damaged,
            aside = %aside.display(),
            "the store of the removed node is put aside, and this node starts empty"
        );
    }
    Ok(Some(fenced))
}
