//! What comes on connections that begin with a knock: a removed store is told so, and gives what it holds.
//!
//! Stands in for `peer/knock.rs` and `answers/salvage.rs`: there is no session for such a store, so nothing of it is
//! taken for a member's. It decides nothing.

use sibyl_core::salvage::{Answer, Ask};

use super::frames::{Frame, Says};
use super::salvage::body_of;
use super::{Bytes, World};

impl World {
    /// Whether somebody is there for this.
    pub(super) fn listens(&self, node: usize, says: &Says) -> bool {
        match says {
            Says::Took(_) => self.nodes[node].giver.is_some(),
            _ => self.nodes[node].process.is_some(),
        }
    }

    /// What comes on connections that begin with a knock.
    pub(super) fn deliver_to_door(&mut self, frame: Frame) {
        let Frame {
            from,
            to,
            store,
            call,
            says,
            ..
        } = frame;
        match says {
            // It may be said of the store before: the word names that.
            Says::Removed if self.nodes[to].lives == call >> 32 => self.found_out(to),
            Says::Brings(ask) => self.asked_to_take(to, (from, store), call, *ask),
            Says::Took(answer) => self.brought(to, call, answer),
            _ => {}
        }
    }

    /// A removed node asks a member.
    pub(crate) fn bring(&mut self, node: usize, to: usize, call: u64, ask: Ask) {
        let body = body_of(&ask);
        self.send(node, to, call, Says::Brings(Box::new(ask)), body);
    }

    /// A member answers a removed node.
    pub(crate) fn tell_giver(&mut self, node: usize, to: usize, call: u64, answer: Answer) {
        self.send(node, to, call, Says::Took(answer), Bytes::new());
    }
}
