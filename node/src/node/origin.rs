//! The document that a node begins with: made from its flags, kept by its store, or handed over once it is named.
//!
//! A node that joins serves health and nothing else until then; afterwards it starts like any other.

use std::collections::BTreeMap;

use sibyl_core::id::NodeId;
use sibyl_core::joining::Wish;
use sibyl_core::registry::{self, Document, First};
use tokio::sync::watch;

use super::bind;
use crate::config::{Config, Forming};
use crate::http;
use crate::tasks::registry::joining;

/// Document 1 by the flags: a cluster of one is its own only member. A node that joins begins with a later document,
/// which its store then holds.
pub(super) async fn first_document(config: &Config, me: &NodeId) -> anyhow::Result<Document> {
    let alone = || First {
        peer_addr: config.peer_advertise.clone(),
        zone: config.zone.clone(),
    };
    let (cluster, members) = match &config.forming {
        Forming::Join {
            cluster_id,
            addresses,
            spare,
        } => {
            let ground = joining::Ground {
                me: me.clone(),
                cluster_id: cluster_id.clone(),
                addresses: addresses.clone(),
                wish: if *spare { Wish::Wait } else { Wish::Join },
                peer_addr: config.peer_advertise.clone(),
                url: config.advertise.clone(),
                zone: config.zone.clone(),
                tokens: config.tokens,
            };
            return later_document(config, ground).await;
        }
        Forming::Alone { cluster_id } => {
            let name = cluster_id.clone().unwrap_or_else(|| "alone".to_owned());
            (name, BTreeMap::from([(me.clone(), alone())]))
        }
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

/// The document that a node which joins begins with: what its store holds, else what it is handed once it is named.
/// Until then it serves health and nothing else.
async fn later_document(config: &Config, ground: joining::Ground) -> anyhow::Result<Document> {
    super::disk::refuse_unfinished(&config.data_dir)?;
    let folder = config.data_dir.join("data");
    if let Some(document) = joining::joined(&folder)? {
        tracing::info!(cluster = %document.cluster_id, "this node has joined before: --join is ignored");
        return Ok(document);
    }
    // Taken now, so that somebody else's port is said at once.
    drop(bind(config.peer_listen, "peer-listen").await?);
    let (reasons, told) = watch::channel(vec!["joining: nobody has answered yet".to_owned()]);
    let (stop, _) = watch::channel(false);
    let mut servers = Vec::new();
    for (address, flag) in [
        (Some(config.listen), "listen"),
        (config.admin_listen, "admin-listen"),
    ] {
        let Some(address) = address else { continue };
        let server = http::Server {
            listener: bind(address, flag).await?,
            router: http::waiting(told.clone()),
            limits: http::Limits::default(),
        };
        let mut stopped = stop.subscribe();
        servers.push(tokio::spawn(server.serve(async move {
            // Closed: joining failed, and the node ends.
            let _gone = stopped.wait_for(|stopped| *stopped).await;
        })));
    }
    tracing::info!(node = %ground.me, addresses = ?ground.addresses, "joining");
    let document = joining::join(&ground, &folder, &reasons).await?;
    stop.send_replace(true);
    for server in servers {
        let _cut: usize = server.await?;
    }
    Ok(document)
}
