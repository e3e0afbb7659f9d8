//! `--yield`: this node's lineage is given up for another one of the same cluster, by its operator.
//!
//! One cluster that was recovered on two members is two, which refuse each other, and neither can say which is to stay.
//! Of the one that goes each node is led here: a member of the one that stays says that it gave this store up, and from
//! then on this node is as any that was removed. A node that is of that lineage already needs nothing.

use anyhow::Context as _;
use rand::RngExt as _;
use sibyl_core::id::NodeId;
use sibyl_core::joining::{Told, Wish};
use sibyl_core::message;
use sibyl_core::registry::{Held, Partitions};
use sibyl_core::salvage::{Fenced, Tally};

use super::fenced::{knock, write};
use crate::config::Config;
use crate::outside;
use crate::peer;
use crate::store::{self, Space};
use crate::tasks::registry::CHOSEN;

/// The note of a store that is given up by this flag; none if there is nothing to give up, or no such flag.
pub(super) async fn noted(
    config: &Config,
    before: Option<&Fenced>,
) -> anyhow::Result<Option<Fenced>> {
    let Some(address) = &config.yield_to else {
        return Ok(None);
    };
    let opened = store::open(&config.data_dir.join("data"), || outside::rng().random())?;
    let chosen = opened.store.get(Space::Meta, CHOSEN.as_bytes())?;
    let chosen = chosen.map(|bytes| Held::decode(&bytes)).transpose()?;
    let store = opened.actor;
    drop(opened);
    let Some(Held { document, .. }) = chosen else {
        return Ok(None);
    };
    if before.is_some_and(|note| note.store == store) {
        return Ok(None);
    }
    let node: NodeId = config.node_id.parse()?;
    let mut fenced = Fenced {
        node,
        cluster_id: document.cluster_id.clone(),
        lineage: document.lineage(),
        store,
        number: document.number,
        members: vec![address.clone()],
        done: Partitions::default(),
        tally: Tally::default(),
        over: false,
    };
    let ask = knock(
        &fenced,
        Wish::Salvage,
        &config.peer_advertise,
        &config.advertise,
    );
    let (head, _) = peer::knock(address, ask)
        .await
        .with_context(|| format!("--yield: cannot ask {address}"))?;
    match message::decode::<Told>(&head)? {
        Told::Bring {
            lineage, former, ..
        } => {
            tracing::warn!(
                %address,
                number = former.number,
                "--yield: this node's lineage is given up for that one"
            );
            (fenced.lineage, fenced.number) = (lineage, former.number);
            write(&config.data_dir, &fenced)?;
            Ok(Some(fenced))
        }
        Told::Named => Ok(None),
        Told::Wait { lineage, .. } if lineage == document.lineage() => Ok(None),
        Told::Wait { why, .. } | Told::Refused(why) => {
            anyhow::bail!("--yield: {address} does not take what this node holds: {why}")
        }
    }
}
