//! `--yield`: this node's lineage is given up for another one of the same cluster, by its operator.
//!
//! One cluster that was recovered on two members is two, which refuse each other, and neither can say which is to stay.
//! Of the one that goes each node is led here: a member of the one that stays says that it gave this store up, and from
//! then on this node is as any that was removed. A node that is of that lineage already needs nothing, and the flag may
//! stay: once this node has yielded, the peer that it names need not be there for a start.

use anyhow::Context as _;
use rand::RngExt as _;
use sibyl_core::id::NodeId;
use sibyl_core::joining::{Told, Wish};
use sibyl_core::message;
use sibyl_core::registry::{Document, Held, Partitions};
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
    let yielded = match before {
        Some(note) if note.store == store => return Ok(None),
        note => has_yielded(note, &document, address),
    };
    if yielded == Yielded::Here {
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
    let (head, _) = match peer::knock(address, ask).await {
        Ok(told) => told,
        Err(error) if yielded == Yielded::Perhaps => {
            tracing::warn!(%address, %error, "--yield: nobody there to ask, and this node may have yielded before");
            return Ok(None);
        }
        Err(error) => {
            return Err(error).with_context(|| format!("--yield: cannot ask {address}"));
        }
    };
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

/// What a node's note says of what it is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Yielded {
    /// It did not do so.
    No,
    /// Whoever is asked knows: it did so for another address, or has gone on from there to another lineage, or its own
    /// document names a member there. If that one is of a later lineage, this node hears so while it runs.
    Perhaps,
    /// It did so, and is still of the lineage that it yielded to.
    Here,
}

fn has_yielded(note: Option<&Fenced>, document: &Document, address: &String) -> Yielded {
    let to = note.and_then(|note| Some((note, note.lineage?)));
    let mut members = document.layout.members.values();
    let is_named = members.any(|member| member.peer_addr == *address);
    match to {
        Some((note, to)) if document.lineage() == Some(to) => {
            match note.members == std::slice::from_ref(address) {
                true => Yielded::Here,
                false => Yielded::Perhaps,
            }
        }
        Some((_, to)) if document.follows_from(to) => Yielded::Perhaps,
        _ if is_named => Yielded::Perhaps,
        _ => Yielded::No,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sibyl_core::id::{Actor, Digest};
    use sibyl_core::registry::{First, Secret, Secrets, first_document, second_document};

    use super::*;

    #[test]
    fn once_it_has_yielded_the_flag_asks_for_nothing() {
        let name = |number: u64| format!("n{number}").parse::<NodeId>().expect("a good name");
        let members: BTreeMap<_, _> = (1..=2)
            .map(|number| {
                let peer_addr = format!("127.0.0.1:{number}");
                (
                    name(number),
                    First {
                        peer_addr,
                        zone: None,
                    },
                )
            })
            .collect();
        let first = first_document("test", &members, 16, 4).expect("a good document");
        let stores = (1..=2)
            .map(|number| (name(number), Actor(number)))
            .collect();
        let secret = Secret([1; 32]);
        let secrets = Secrets {
            context_key: secret,
            cluster_key: secret,
        };
        let formed = second_document(&first, &stores, &secrets).expect("a good document");
        let kept = formed.recovered(&name(1), Actor(1), 9).expect("allowed");
        let later = kept.recovered(&name(1), Actor(1), 9).expect("allowed");
        let note = |lineage| Fenced {
            node: name(2),
            cluster_id: "test".to_owned(),
            lineage,
            store: Actor(2),
            number: kept.number,
            members: vec!["127.0.0.1:1".to_owned()],
            done: Partitions::default(),
            tally: Tally::default(),
            over: true,
        };
        let check = |lineage: Option<Digest>, document: &Document, address: &str, expected| {
            let note = note(lineage);
            let yielded = has_yielded(Some(&note), document, &address.to_owned());
            assert_eq!(yielded, expected, "{address}");
        };
        check(kept.lineage(), &kept, "127.0.0.1:1", Yielded::Here);
        // Another word of its operator has to be asked for.
        check(kept.lineage(), &kept, "127.0.0.1:9", Yielded::Perhaps);
        check(kept.lineage(), &later, "127.0.0.1:9", Yielded::Perhaps);
        check(later.lineage(), &kept, "127.0.0.1:9", Yielded::No);
        check(None, &kept, "127.0.0.1:9", Yielded::No);
        check(None, &formed, "127.0.0.1:1", Yielded::Perhaps);
    }
}
