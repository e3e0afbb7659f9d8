//! The document that a node begins with: made from its flags, kept by its store, or handed over once it is named.
//!
//! A node that joins serves health and nothing else until then; afterwards it starts like any other.

use std::collections::BTreeMap;

use sibyl_core::id::NodeId;
use sibyl_core::joining::Wish;
use sibyl_core::registry::{self, Document, First};
use sibyl_core::salvage::Fenced;
use tokio::sync::watch;

use super::waiting::Waiting;
use crate::config::{Config, Forming};
use crate::http;
use crate::tasks::registry::joining;

/// Document 1 by the flags: a cluster of one is its own only member. A node that joins begins with a later document,
/// which its store then holds.
///
/// A node that was removed has no first document of its own any more: it asks to be taken in, or waits to be.
pub(super) async fn first_document(config: &Config, me: &NodeId) -> anyhow::Result<Document> {
    let fenced = super::fenced::settle(config).await?;
    if let Some(ground) = newcomer(config, me, fenced.as_ref()) {
        return later_document(config, ground, fenced.as_ref()).await;
    }
    let alone = || First {
        peer_addr: config.peer_advertise.clone(),
        zone: config.zone.clone(),
    };
    let (cluster, members) = match &config.forming {
        Forming::Alone { cluster_id } => {
            let name = cluster_id.clone().unwrap_or_else(|| "alone".to_owned());
            (name, BTreeMap::from([(me.clone(), alone())]))
        }
        Forming::Join { .. } => anyhow::bail!("a node that joins makes no document"),
        Forming::Members {
            cluster_id,
            members,
        } => {
            let first = |member: &crate::config::Member| {
                let first = First {
                    peer_addr: member.address.clone(),
                    zone: member.zone.clone(),
                };
                member.node_id.parse::<NodeId>().map(|id| (id, first))
            };
            (
                cluster_id.clone(),
                members.iter().map(first).collect::<Result<_, _>>()?,
            )
        }
    };
    Ok(registry::first_document(
        &cluster,
        &members,
        config.partitions,
        config.tokens,
    )?)
}

/// How a node asks to be taken in: as its flags say, or, if it was removed and they say nothing, as a spare.
fn newcomer(config: &Config, me: &NodeId, fenced: Option<&Fenced>) -> Option<joining::Ground> {
    let (cluster_id, addresses, wish) = match (&config.forming, fenced) {
        (
            Forming::Join {
                cluster_id,
                addresses,
                spare,
            },
            _,
        ) => {
            let wish = if *spare { Wish::Wait } else { Wish::Join };
            (cluster_id.clone(), addresses.clone(), wish)
        }
        (_, Some(fenced)) => {
            let cluster_id = Some(fenced.cluster_id.clone());
            (cluster_id, fenced.members.clone(), Wish::Wait)
        }
        (_, None) => return None,
    };
    Some(joining::Ground {
        me: me.clone(),
        cluster_id,
        addresses,
        wish,
        peer_addr: config.peer_advertise.clone(),
        url: config.advertise.clone(),
        zone: config.zone.clone(),
        tokens: config.tokens,
    })
}

/// The document that a node which joins begins with: what its store holds, else what it is handed once it is named.
/// Until then it serves health and nothing else.
async fn later_document(
    config: &Config,
    ground: joining::Ground,
    fenced: Option<&Fenced>,
) -> anyhow::Result<Document> {
    super::disk::refuse_unfinished(&config.data_dir)?;
    let folder = config.data_dir.join("data");
    if let Some(document) = joining::joined(&folder)? {
        tracing::info!(cluster = %document.cluster_id, "this node has joined before: --join is ignored");
        return Ok(document);
    }
    let first = http::Waiting {
        reasons: vec!["joining: nobody has answered yet".to_owned()],
        salvage: fenced.map(|fenced| super::fenced::shown(fenced, 0, None)),
    };
    let (reasons, told) = watch::channel(first.reasons.clone());
    let waiting = Waiting::start(config, first).await?;
    waiting.follow(told);
    tracing::info!(node = %ground.me, addresses = ?ground.addresses, "joining");
    let document = joining::join(&ground, &folder, &reasons).await?;
    waiting.end().await?;
    Ok(document)
}
