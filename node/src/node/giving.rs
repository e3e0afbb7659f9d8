//! Gives away what the store of a removed node holds: performs `sibyl_core::salvage::Giving` on a disk and sockets.
//!
//! One member is asked at a time, on a connection that begins with a knock. What was given is noted partition by
//! partition, so that a restart goes on where it was. Meanwhile the node serves its health and how far it is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt as _;
use sibyl_core::id::Digest;
use sibyl_core::joining::{Told, Wish};
use sibyl_core::message;
use sibyl_core::registry::{Document, Held};
use sibyl_core::salvage::{Answer, Ask, Effect, Event, Fenced, Giving, SLACK};

use super::fenced::{knock, shown, write};
use super::waiting::Waiting;
use crate::config::{Config, Forming, Salvage};
use crate::http;
use crate::outside;
use crate::peer::{self, MAX_BODY_BYTES, Visit};
use crate::replica::salvage::remains;
use crate::store::{self, IMAGE, Space};
use crate::tasks::reap::EPOCH;
use crate::tasks::registry::CHOSEN;

/// Gives everything that is left, however long that takes.
pub(super) async fn give_all(config: &Config, fenced: &mut Fenced) -> anyhow::Result<()> {
    let folder = config.data_dir.join("data");
    let first = http::Waiting {
        reasons: vec![reason(fenced, None)],
        salvage: Some(shown(fenced, 0, None)),
    };
    let waiting = Waiting::start(config, first).await?;
    let opened = store::open(&folder, || outside::rng().random())?;
    if opened.actor == fenced.store {
        let giver = Giver::new(config, &opened, fenced)?;
        giver.run(config, fenced, &waiting).await?;
    } else {
        tracing::error!(
            "the store of the removed node cannot be opened any more: nothing of it is given to anybody"
        );
    }
    // The folder is given free before it is opened again.
    drop(opened);
    waiting.end().await
}

fn reason(fenced: &Fenced, waits_for: Option<&str>) -> String {
    let Fenced { node, number, .. } = fenced;
    let waits = waits_for.map_or_else(String::new, |why| format!("; it waits: {why}"));
    format!(
        "salvage: {node} was removed by document {number} and gives what it holds to the owners of now{waits}"
    )
}

/// Performs the flow.
struct Giver<'a> {
    store: &'a store::Opened,
    /// What is said first, and if that is not enough.
    asks: Vec<Bytes>,
    flow: Giving,
    /// The member that is asked, as long as it is the same one.
    visit: Option<(String, Visit)>,
}

impl<'a> Giver<'a> {
    fn new(config: &Config, opened: &'a store::Opened, fenced: &Fenced) -> anyhow::Result<Self> {
        let kept = |key: &str| opened.store.get(Space::Meta, key.as_bytes());
        let chosen: Option<Held> = kept(CHOSEN)?
            .map(|bytes| Held::decode(&bytes))
            .transpose()?;
        let count = chosen
            .as_ref()
            .map_or(config.partitions, |held| held.document.layout.partitions);
        let number = |bytes: Bytes| {
            bytes
                .as_ref()
                .try_into()
                .map(u64::from_le_bytes)
                .unwrap_or(0)
        };
        let epoch = kept(EPOCH)?.map_or(0, number);
        // A state that is older than its store was never held against what had been forgotten before; and it is no
        // member's to the end, for which a recovery knows an easier rule.
        let older = |image| number(image).min(epoch).saturating_sub(SLACK + 1);
        let mut epoch = kept(IMAGE)?.map_or(epoch, older);
        let own = chosen.as_ref().map(|held| &held.document);
        let lineage = own.and_then(Document::lineage);
        if config.yield_to.is_some() {
            // Epochs of two lineages that went on apart say nothing to each other: where they parted they were one.
            let parted = own.and_then(Document::recovery);
            epoch = parted.map_or(epoch, |recovery| recovery.epoch.min(epoch));
        }
        let wishes = wishes(lineage, fenced.lineage, config.yield_to.is_some());
        let ask = |wish| knock(fenced, wish, &config.peer_advertise, &config.advertise);
        let mut left = remains::partitions(opened.store.as_ref(), count);
        left.retain(|at| !fenced.done.contains(*at));
        let all = config.salvage == Salvage::All;
        let mut members = fenced.members.clone();
        if let Forming::Join { addresses, .. } = &config.forming {
            members.extend(
                addresses
                    .iter()
                    .filter(|at| !fenced.members.contains(at))
                    .cloned(),
            );
        }
        tracing::info!(partitions = left.len(), epoch, "salvage begins");
        Ok(Self {
            store: opened,
            asks: wishes.into_iter().map(ask).collect(),
            flow: Giving::new(epoch, all, members, left),
            visit: None,
        })
    }

    /// Ends when everything was given; until then it is what the operator asked for.
    async fn run(
        mut self,
        config: &Config,
        fenced: &mut Fenced,
        waiting: &Waiting,
    ) -> anyhow::Result<()> {
        let mut event = Event::Woken;
        loop {
            let effect = self.flow.handle(event);
            let waits_for = self.flow.waits_for();
            waiting.tell(http::Waiting {
                reasons: vec![reason(fenced, waits_for)],
                salvage: Some(shown(fenced, self.flow.left(), waits_for)),
            });
            event = match effect {
                Effect::End => return Ok(()),
                Effect::Pause(least_ms, most_ms) => {
                    // A member that waits for the next question is not kept from others meanwhile.
                    self.visit = None;
                    let pause_ms = outside::rng().random_range(least_ms..=most_ms);
                    tracing::info!(waits_for = waits_for.unwrap_or_default(), "salvage waits");
                    tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                    Event::Woken
                }
                Effect::Read(at, after) => {
                    let store = Arc::clone(&self.store.store);
                    let read =
                        move || remains::page(store.as_ref(), at, after.as_ref(), MAX_BODY_BYTES);
                    let page = outside::aside(read).await?;
                    Event::Read {
                        records: page.records,
                        damaged: page.damaged,
                        next: page.next,
                    }
                }
                Effect::SetAside(ids) => {
                    remains::set_aside(self.store.store.as_ref(), &ids)?;
                    store::commit(self.store.store.as_ref(), &self.store.watermark)?;
                    Event::Kept
                }
                Effect::Done(at, tally) => {
                    fenced.done.insert(at);
                    fenced.tally.add(&tally);
                    write(&config.data_dir, fenced)?;
                    Event::Kept
                }
                Effect::Ask(address, ask) => match self.ask(address, &ask, fenced).await {
                    Ok(answer) => Event::Answered(answer),
                    Err(why) => {
                        self.visit = None;
                        Event::Failed(why)
                    }
                },
            };
        }
    }

    async fn ask(&mut self, address: String, ask: &Ask, fenced: &Fenced) -> Result<Answer, String> {
        if self.visit.as_ref().is_none_or(|(at, _)| *at != address) {
            self.visit = None;
            let visit = self.knock(&address, fenced).await;
            let visit = visit.map_err(|why| format!("{address}: {why}"))?;
            self.visit = Some((address.clone(), visit));
        }
        let Some((_, visit)) = &mut self.visit else {
            return Err("nobody is asked".into());
        };
        let (head, body) = ask.encode();
        let answered = visit.ask(head, body).await;
        let (head, _) = answered.map_err(|error| format!("{address}: {error}"))?;
        message::decode(&head).map_err(|error| format!("{address}: {error}"))
    }

    async fn knock(&self, address: &str, fenced: &Fenced) -> Result<Visit, String> {
        let mut asks = self.asks.iter().peekable();
        while let Some(ask) = asks.next() {
            let knocked = peer::visit(address, ask.clone()).await;
            let ((head, _), visit) = knocked.map_err(|error| error.to_string())?;
            let is_last = asks.peek().is_none();
            return match message::decode(&head).map_err(|error| error.to_string())? {
                Told::Bring { lineage, .. } if is_last || lineage == fenced.lineage => Ok(visit),
                Told::Bring { .. } => continue,
                Told::Wait { why, .. } | Told::Refused(why) => Err(why),
                Told::Named => Err("it says that this node is a member".into()),
            };
        }
        Err("there is nothing to ask".into())
    }
}

/// How to ask a member, one after the other, until one of the lineage that this store was sent away by says to bring
/// it. That may have been recovered since: then whoever says so to the last of these follows from it, for a member that
/// does not refuses to hear of a return.
fn wishes(own: Option<Digest>, sent_by: Option<Digest>, led: bool) -> Vec<Wish> {
    // Who was led here by hand follows from nothing.
    let first = match own.filter(|_| !led) {
        Some(own) => Wish::Return(own),
        None => Wish::Salvage,
    };
    let last = sent_by.map(Wish::Return);
    let last = last.filter(|last| *last != first);
    [Some(first), last].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recovered_since_is_asked_for_as_what_it_was() {
        let [own, later] = [1, 2].map(|byte| Digest([byte; 32]));
        let check = |own, sent_by, led, expected: &[Wish]| {
            assert_eq!(wishes(own, sent_by, led), expected);
        };
        // Removed by its own lineage, which may have been given up since.
        check(Some(own), Some(own), false, &[Wish::Return(own)]);
        // Sent away by a recovery, which may have been followed by another one.
        let both = [Wish::Return(own), Wish::Return(later)];
        check(Some(own), Some(later), false, &both);
        // Led there by hand: it follows from nothing.
        let led = [Wish::Salvage, Wish::Return(later)];
        check(Some(own), Some(later), true, &led);
        check(None, Some(later), false, &led);
    }
}
