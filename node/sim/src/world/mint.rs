//! Minting, as the one writer of a node does it, and what the ledger is told of it.
//!
//! On the own copy, or on the hint of a key in its owners' place. The dot and what is joined, shipped and answered are
//! the core's; known bugs of the zoo that concern these are here.

use sibyl_core::codec;
use sibyl_core::context::Context;
use sibyl_core::id::Dot;
use sibyl_core::message::Failure;
use sibyl_core::object::{Caps, Mint, Object, Write};

use super::command::{Counts, Group};
use super::coordinate::Minted;
use super::once::{Found, receipt_of};
use super::{Bytes, World};
use crate::checks::{dots, fenced, seen};
use crate::disk::Fenced;
use crate::oracle;
use crate::sight::Sight;
use crate::zoo::{self, Bug};

impl World {
    /// Mints on this node's copy, or on its hint in the owners' place.
    pub(super) fn mint_in(
        &mut self,
        node: usize,
        flow: u64,
        key: usize,
        (request, write, caps, stands_in, found): (usize, Write, Caps, bool, Option<Box<Found>>),
        group: &mut Group,
    ) -> Result<Minted, Failure> {
        if stands_in && found.is_some() {
            self.process(node).part.relay();
        }
        let hint = stands_in.then(|| self.load_hint(node, key, group));
        let mut held = match &hint {
            None => self.load(node, key, group).map_err(|_: Fenced| {
                self.sights.met(Sight::FencedMint);
                Failure::Fenced("its checksum does not match".into())
            })?,
            Some(hint) => hint.object.clone(),
        };
        let before = self.copy_of(key, &held);
        let result = match hint.is_some() && self.is_full(node, key, 256, group) {
            true => Err(Failure::HintsFull),
            false => match self.recall(request, &write, found.as_deref(), &mut held) {
                Some(repeated) => repeated,
                None => {
                    let once = found.is_some();
                    self.mint(node, key, (request, once), write, caps, &mut held)
                }
            },
        };
        if result.is_ok() {
            self.watch(node, key, before, &held);
            match hint {
                None => group.change(key, held),
                Some(hint) => self.keep_minted(node, key, hint, held, group),
            }
            group.counts.push(Counts::Write { flow });
        }
        result
    }

    fn mint(
        &mut self,
        node: usize,
        key: usize,
        (request, once): (usize, bool),
        write: Write,
        caps: Caps,
        held: &mut Object,
    ) -> Result<Minted, Failure> {
        let removed = self.sends_away(node, self.nodes[node].disk.actor);
        self.hold(fenced::mints(node, removed));
        let counter = self.process(node).counter;
        self.process(node).counter += 1;
        self.nodes[node].disk.reserve(counter);
        let process = self.process(node);
        let raised = process.lines.get(&key).copied().unwrap_or_default();
        let partition = self.keys[key].slot.partition;
        let again = self.bug == Some(Bug::Doomstone)
            && held.is_empty()
            && self.nodes[node].disk.horizon(partition) > 0;
        let counter = if again { 1 } else { counter };
        let process = self.process(node);
        let (dot, line) = (
            Dot {
                actor: process.actor,
                counter,
            },
            process.line.max(raised),
        );
        let covered = match &write.context {
            Some(_) => write.tombstones.clone(),
            None => held.tombstones(),
        };
        let payload = write.content.value.clone();
        let context = write.context.clone();
        let written = held
            .write(Mint { dot, line }, write, caps)
            .map_err(Failure::Refused)?;
        self.enter_mint(key, request, dot, payload, &covered, context.as_ref());
        let (mut shipment, mut answer) = (written.shipment, written.answer);
        let receipt = receipt_of(&shipment, dot).filter(|_| once);
        match self.bug {
            Some(Bug::PlainVectors) => {
                *held = zoo::as_vector(held, dot);
                shipment = held.clone();
            }
            Some(Bug::ObjectContextShipped) => {
                shipment = Object::from_parts(held.context().clone(), shipment.siblings().to_vec());
            }
            Some(Bug::ObjectContextAnswered) => answer = held.context().clone(),
            _ => {}
        }
        if let Some(receipt) = receipt {
            held.remember(receipt);
            if self.bug != Some(Bug::ReceiptNotShipped) {
                shipment.remember(receipt);
            }
        }
        let content = shipment.siblings().first().map(|sibling| &sibling.content);
        let modified_at = content.map_or(0, |content| content.modified_at);
        let live = held.live().count();
        Ok(Minted {
            dot,
            shipment: codec::encode(&shipment),
            answer,
            modified_at,
            live,
        })
    }

    /// Tells the ledger: who minted what, and what its client had seen.
    fn enter_mint(
        &mut self,
        key: usize,
        request: usize,
        dot: Dot,
        payload: Option<Bytes>,
        tombstones: &Context,
        context: Option<&Context>,
    ) {
        let buried = self.oracle.claimed(key, tombstones);
        if !buried.is_empty() && context.is_none() && payload.is_some() {
            self.sights.met(Sight::Buried);
        }
        let seen = self.requests[request].seen;
        if let Some(context) = context {
            self.hold(seen::handed(&self.oracle, key, context, seen));
        }
        let past = self.oracle.known(seen.and(buried));
        let covers = context.map(|context| self.oracle.claimed(key, context));
        let minted = oracle::Minted {
            dot,
            key,
            request,
            payload,
            past,
            covers: covers.unwrap_or_default(),
            promised: None,
            strict: false,
            destroyed: 0,
        };
        match dots::mint(&mut self.oracle, minted) {
            Ok(_) => self.requests[request].minted = true,
            Err(violation) => self.hold(Err(violation)),
        }
        self.note(&[5, dot.actor.0, dot.counter], || {
            format!("request {request} is minted as {dot} on k{key}")
        });
    }
}
