//! A node that was removed: it finds out, gives what it holds to the owners of now, and starts empty.
//!
//! What a running node finds out it notes in a small file beside its store, and starts again; from then on that file
//! says what the node is, until its store is put aside and it is a newcomer. Every step can be cut off and is taken up
//! by the next start. Nothing is deleted: the old store stays in the data folder. What is given to whom, and what
//! becomes of it, `sibyl_core::salvage` decides.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt as _;
use sibyl_core::id::{Actor, Digest, NodeId};
use sibyl_core::joining::{Elsewhere, Knock, Refusal, Told, Wish};
use sibyl_core::message;
use sibyl_core::registry::{Document, Farewell, Former, Joiner, Partitions};
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
    let mut elsewhere = Elsewhere::default();
    loop {
        if let Some(fenced) = look(&coordinator, &mut elsewhere).await {
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
            () = coordinator.registry().knocks().apart() => false,
            // Whoever was asked may have been about to stop.
            () = tokio::time::sleep(LOOK_ONCE_MORE) => false,
        };
        if gone {
            return;
        }
    }
}

/// Whether this store was sent away, by the document in force, by the word of a member of the same lineage, or by that
/// of a member of one that this lineage was given up for.
async fn look(coordinator: &Coordinator, elsewhere: &mut Elsewhere) -> Option<Fenced> {
    let (view, store) = (coordinator.registry().view(), coordinator.replica().actor());
    let document = view.document();
    let own_lineage = document.lineage()?;
    let note = |former: &Former, lineage| noted(&view, (former, lineage), coordinator.me(), store);
    if let Some(former) = document.layout.former.get(&store) {
        return note(former, own_lineage);
    }
    let own = document.layout.members.get(coordinator.me())?;
    let url = coordinator.net().identity().url;
    // As if it were so: whoever is asked judges by the store alone.
    let former = Former {
        node: coordinator.me().clone(),
        incarnation: own.incarnation,
        why: Farewell::Removed,
        number: document.number,
    };
    let asked = note(&former, own_lineage)?;
    let peers = coordinator.net().peers();
    let refusals = peers.iter().filter_map(|peer| {
        let refused = peer.refused.as_deref()?;
        let apart = refused.starts_with("wrong_lineage");
        (apart || refused.starts_with("not_admitted")).then_some((peer, apart))
    });
    let refusals = refusals.map(|(peer, apart)| (peer.node_id.clone(), peer.addr.clone(), apart));
    let refusals: Vec<_> = refusals.collect();
    let refuses = |at: &str| refusals.iter().any(|(_, address, _)| address == at);
    let members = &document.layout.members;
    let is_member = |at: &str| members.values().any(|member| member.peer_addr == at);
    elsewhere.forget(|at| is_member(at) && !refuses(at));
    let heard = coordinator.registry().knocks().take_apart();
    let heard = heard
        .into_iter()
        .map(|(node, address)| (node, address, true));
    let asks = refusals.iter().take(MOST_ASKED).cloned();
    let mut asks: Vec<_> = asks.chain(heard).chain(given_up(document)).collect();
    let mut before = BTreeSet::new();
    asks.retain(|(_, address, _)| before.insert(address.clone()));
    for (node, address, apart) in asks {
        let wish = match apart {
            true => Wish::Return(own_lineage),
            false => Wish::Salvage,
        };
        let ask = knock(&asked, wish, &own.peer_addr, &url);
        let Ok((head, _)) = peer::knock(&address, ask).await else {
            continue;
        };
        match message::decode(&head) {
            // Of another lineage only one says so that this one was given up for.
            Ok(Told::Bring {
                cluster_id,
                lineage: Some(lineage),
                former,
            }) if cluster_id == document.cluster_id
                && (apart || lineage == own_lineage)
                && former.number > document.number =>
            {
                return note(&former, lineage);
            }
            Ok(told) if apart => elsewhere.hear(&address, is_apart(document, &node, told)),
            _ => {}
        }
    }
    let note = elsewhere.note().map(str::to_owned);
    coordinator.registry().note("lineage", note);
    None
}

/// What an operator should know of a node of another lineage, if it is of one.
fn is_apart(document: &Document, node: &NodeId, told: Told) -> Option<String> {
    match told {
        Told::Wait {
            lineage: Some(theirs),
            ..
        } if document.follows_from(theirs) => Some(format!(
            "lineage: {node} is still of the lineage before this one, and gives what it holds once it reaches a member of this one; if it cannot, start it with --yield and a peer address of this one"
        )),
        Told::Wait {
            lineage: Some(theirs),
            ..
        } => {
            let ours = document.lineage().filter(|ours| *ours != theirs)?;
            let apart = Refusal::Apart { ours, theirs };
            Some(format!("lineage: {node} is elsewhere: {apart}"))
        }
        Told::Refused(why) => Some(format!("lineage: {node} says: {why}")),
        _ => None,
    }
}

/// A few of the members that a recovery gave up, where they were: one of them may have recovered as well, and nobody
/// else would ever tell. Where a member is now, nobody is looked for.
fn given_up(document: &Document) -> Vec<(NodeId, String, bool)> {
    let recovery = document.recovery();
    let others = recovery.into_iter().flat_map(|recovery| &recovery.others);
    let members = &document.layout.members;
    let is_taken = |at: &String| members.values().any(|member| member.peer_addr == *at);
    let lost = others.filter(|(_, address)| !is_taken(address));
    let mut lost: Vec<_> = lost
        .map(|(node, address)| (node.clone(), address.clone(), true))
        .collect();
    if !lost.is_empty() {
        let first = outside::rng().random_range(0..lost.len());
        lost.rotate_left(first);
    }
    lost.truncate(MOST_ASKED);
    lost
}

/// How this store asks whether it was removed, and to give what it holds.
pub(super) fn knock(fenced: &Fenced, wish: Wish, peer_addr: &str, url: &str) -> Bytes {
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
        wish,
    })
}

/// The note of a removal; none if the node left, and so handed everything over before.
fn noted(
    view: &View,
    (former, lineage): (&Former, Digest),
    me: &NodeId,
    store: Actor,
) -> Option<Fenced> {
    let document = view.document();
    let others = document.layout.members.iter();
    let others = others.filter(|(node, _)| *node != me);
    (former.why != Farewell::Left).then(|| Fenced {
        node: me.clone(),
        cluster_id: document.cluster_id.clone(),
        lineage: Some(lineage),
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
    let before = read(&config.data_dir)?;
    let led = super::yielding::noted(config, before.as_ref()).await?;
    let Some(mut fenced) = led.or(before) else {
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
