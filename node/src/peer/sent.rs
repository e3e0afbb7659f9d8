//! What was sent to one peer and may still be acted on there.
//!
//! A message with a body is over when the peer answered it, however late. What was not answered when its connection
//! ended is *adrift*: the peer may have read it, and may be about to act on it. It is over when the peer says, on a
//! newer connection, that nothing of earlier ones is left with it. So is what an earlier process of this node sent,
//! of which nothing is known any more.

use std::collections::HashMap;

/// Messages to one peer.
#[derive(Debug)]
pub(super) struct Sent {
    /// Those written to the standing connection and not answered, with the epoch they belong to. As many as the
    /// peer takes at once, and what lies in the socket's buffers.
    open: HashMap<u64, u64>,
    /// The oldest epoch of those of earlier connections.
    adrift: Option<u64>,
}

impl Default for Sent {
    /// An earlier process may have sent anything.
    fn default() -> Self {
        let open = HashMap::new();
        let adrift = Some(0);
        Self { open, adrift }
    }
}

impl Sent {
    /// A message is written.
    pub(super) fn written(&mut self, id: u64, epoch: u64) {
        self.open.insert(id, epoch);
    }

    /// Its answer came.
    pub(super) fn answered(&mut self, id: u64) {
        self.open.remove(&id);
    }

    /// The connection is over.
    pub(super) fn ended(&mut self) {
        let oldest = self.open.drain().map(|(_, epoch)| epoch).min();
        self.adrift = self.adrift.into_iter().chain(oldest).min();
    }

    /// The peer says that nothing of earlier connections is left with it.
    pub(super) fn settled(&mut self) {
        self.adrift = None;
    }

    /// The oldest epoch of what may still be acted on.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.open.values().copied().chain(self.adrift).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_over_when_it_is_answered_or_its_connection_is_settled() {
        let mut sent = Sent::default();
        assert_eq!(sent.oldest(), Some(0), "of an earlier process");
        sent.settled();
        assert_eq!(sent.oldest(), None);
        sent.written(7, 3);
        sent.written(8, 4);
        sent.answered(7);
        assert_eq!(sent.oldest(), Some(4));
        sent.ended();
        sent.answered(8);
        assert_eq!(
            sent.oldest(),
            Some(4),
            "its connection is gone, it may not be"
        );
        sent.written(9, 5);
        sent.settled();
        assert_eq!(sent.oldest(), Some(5));
    }
}
