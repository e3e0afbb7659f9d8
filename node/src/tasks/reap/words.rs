//! What members say to each other about epochs.
//!
//! A question carries the asker's word and is answered with the peer's, so one round in each direction is enough. The
//! answer also says whether anything of the asker's earlier sessions is left: only then what it had sent in them is
//! over.

use sibyl_core::id::NodeId;
use sibyl_core::message::{Failure, Reply, Request};
use sibyl_core::reap::{Event, Word};
use tokio::task::JoinSet;

use super::{Reaping, members};
use crate::telemetry::Rpc;

impl Reaping {
    /// Speaks to every other member, and hears it.
    pub(super) async fn talk(&self) {
        let ground = self.ground();
        let view = ground.registry.view();
        let others = view.document().layout.members.keys();
        let mut talks = JoinSet::new();
        for member in others.filter(|member| **member != ground.me) {
            let (this, member) = (self.clone(), member.clone());
            talks.spawn(async move { this.talk_to(&member).await });
        }
        // Whoever does not answer in time is asked again in the next round.
        while talks.join_next().await.is_some() {}
    }

    async fn talk_to(&self, member: &NodeId) {
        let ground = self.ground();
        let session = ground.net.session(member);
        let word = self.state().machine.word();
        let request = Request::Epoch(word);
        let body = bytes::Bytes::new();
        let asked = self.ask(None, Rpc::ReapEpoch, member, (&request, body), word.number);
        let Some((Reply::Epoch { word, settled }, _)) = asked.await else {
            return;
        };
        if let Some(session) = session.filter(|_| settled) {
            ground.net.settle(member, session);
        }
        self.heard(member, word);
    }

    fn heard(&self, from: &NodeId, word: Word) {
        let view = self.ground().registry.view();
        let members = members(&view);
        let mut state = self.state();
        let (number, members) = (view.number(), &members);
        self.tell(&mut state, Event::Layout { number, members });
        self.tell(&mut state, Event::Heard { from, word });
    }

    /// A member spoke, in this session.
    pub fn hear(&self, from: &NodeId, session: u64, word: Word) -> Reply {
        let ground = self.ground();
        if ground.interval.is_none() {
            return Reply::Failed(Failure::NotReaping);
        }
        self.heard(from, word);
        let settled = ground.net.has_only(from, session);
        let word = self.state().machine.word();
        Reply::Epoch { word, settled }
    }
}
