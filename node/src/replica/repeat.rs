//! The writer's side of writes that their clients may repeat: look first, then mint.
//!
//! What a read found is joined into the copy, or into the hint of a stand-in, before anything is decided; then
//! the copy says whether it knows the write (`core: object/receipts.rs`). One thread writes, so of two retries
//! through this node one mints and the other finds. A retry that is recognised ships the whole object: it must
//! end with W copies, whatever the first try ended with.

use sibyl_core::codec;
use sibyl_core::id::Dot;
use sibyl_core::message::Failure;
use sibyl_core::object::{Caps, Object, Recall, Receipt, Write, Written};
use sibyl_core::registry::Durability;

use super::writer::{Fatal, Writer};
use super::{Asked, Command, Minted, Replica, Slot, StandIn, Terms};

/// A write that its client may repeat.
#[derive(Clone, Debug)]
pub struct Once {
    /// By what it is minted.
    pub terms: Terms,
    /// The write.
    pub write: Write,
    /// What a read found at other replicas.
    pub found: Object,
    /// Set if this node mints in the owners' place.
    pub stands_in: Option<StandIn>,
}

impl Replica {
    /// Mints a write if neither this copy nor what was found knows it; told as by [`Replica::mint`].
    pub fn mint_once(
        &self,
        slot: Slot,
        once: Once,
        caps: Caps,
        durability: Durability,
        minted: impl FnOnce(Result<Minted, Failure>) + Send + 'static,
        counts: impl FnOnce(Result<(), Failure>) + Send + 'static,
    ) {
        self.submit(Command::Mint(Asked {
            slot,
            terms: once.terms,
            write: Box::new(once.write),
            caps,
            durability,
            stands_in: once.stands_in,
            once: Some(Box::new(once.found)),
            minted: Box::new(minted),
            counts: Box::new(counts),
        }));
    }
}

impl Writer {
    /// Joins what was found into the copy, and says what that knows of the write; nothing for a write that its
    /// client will not repeat.
    pub(super) fn look_back(
        &self,
        asked: &Asked,
        held: &mut Object,
    ) -> Result<Option<Recall>, Fatal> {
        let Some(found) = &asked.once else {
            return Ok(None);
        };
        self.check_memory(found.context())?;
        held.join(found);
        Ok(held.recall(asked.write.content.write_id))
    }
}

/// A write that was minted; it is remembered if its client may repeat it.
pub(super) fn minted(held: &mut Object, dot: Dot, written: Written, once: bool) -> Minted {
    let mut shipment = written.shipment;
    let content = shipment.siblings().first().map(|sibling| &sibling.content);
    let modified_at = content.map_or(0, |content| content.modified_at);
    let receipt = content.filter(|_| once).map(|content| Receipt {
        at: modified_at,
        write_id: content.write_id,
        dot,
    });
    if let Some(receipt) = receipt {
        held.remember(receipt);
        shipment.remember(receipt);
    }
    Minted {
        dot,
        shipment: codec::encode(&shipment),
        modified_at,
        answer: written.answer,
        live: held.live().count(),
        repeated: false,
    }
}

/// A write that was there before.
pub(super) fn repeated(held: &Object, (dot, modified_at): (Dot, u64), write: Write) -> Minted {
    let written = held.repeat(dot, write.context);
    Minted {
        dot,
        shipment: codec::encode(&written.shipment),
        modified_at,
        answer: written.answer,
        live: held.live().count(),
        repeated: true,
    }
}
