//! Answers the exchanges that peers begin. Remembers nothing of them.
//!
//! Store reads happen on threads that may block, few at a time; beyond that a question is shed and its asker
//! tries again later. What is given is joined as everything else, synced before the answer.

use bytes::Bytes;
use sibyl_core::codec;
use sibyl_core::flow::exchange::{Delivery, Parcel};
use sibyl_core::id::Incarnation;
use sibyl_core::merkle::{Node, Tree};
use sibyl_core::message::{self, Failure, Place, Reply, Request};

use super::{AntiEntropy, copies};
use crate::outside;

impl AntiEntropy {
    /// What a peer's question leads to; `Malformed` for a question that is not about trees.
    pub async fn answer(&self, request: Request, body: Bytes) -> (Reply, Bytes) {
        let answered = match request {
            Request::MerkleNodes {
                tree,
                level,
                parents,
            } => self.answer_nodes(tree, level, parents).await,
            Request::MerkleKeys { tree, leaves, from } => {
                self.answer_keys(tree, leaves, from).await
            }
            Request::MerkleExchange { tree } => self.answer_parcel(tree, body).await,
            _ => Err(Failure::Malformed("answered elsewhere".into())),
        };
        answered.unwrap_or_else(|failure| (Reply::Failed(failure), Bytes::new()))
    }

    async fn answer_nodes(
        &self,
        tree: Tree,
        level: u8,
        parents: Vec<u16>,
    ) -> Result<(Reply, Bytes), Failure> {
        self.own_tree(tree)?;
        // Asked before the tree is read: what is filled later was not in it.
        let counts = self.ground().registry.vouches(tree.partition) && self.has_all(tree.partition);
        let nodes = self
            .scan(move |this| this.own_nodes(tree, level, &parents))
            .await?;
        Ok((Reply::MerkleNodes { counts }, pack(&nodes)))
    }

    async fn answer_keys(
        &self,
        tree: Tree,
        leaves: Vec<u16>,
        from: Option<Place>,
    ) -> Result<(Reply, Bytes), Failure> {
        self.own_tree(tree)?;
        let page = self
            .scan(move |this| this.own_page(tree, &leaves, from.as_ref()))
            .await?;
        Ok((Reply::MerkleKeys, message::encode(&page)))
    }

    async fn answer_parcel(&self, tree: Tree, body: Bytes) -> Result<(Reply, Bytes), Failure> {
        self.own_tree(tree)?;
        let parcel: Parcel =
            message::decode(&body).map_err(|error| Failure::Malformed(error.to_string()))?;
        if !parcel.give.is_empty() && self.is_paused() {
            return Err(Failure::DiskFull);
        }
        let mut objects = Vec::with_capacity(parcel.give.len());
        for (place, bytes) in parcel.give {
            self.belongs(tree, &place)?;
            let object =
                codec::decode(&bytes).map_err(|error| Failure::Malformed(error.to_string()))?;
            objects.push((place, object));
        }
        for place in &parcel.want {
            self.belongs(tree, place)?;
        }
        // What cannot be joined is named, and keeps the exchange from being whole; the rest goes on.
        let failed = self.join(tree, objects).await;
        let mut delivery: Delivery = match parcel.want.is_empty() {
            true => Delivery::default(),
            false => {
                self.scan(move |this| Ok(this.ground().replica.pack(tree, parcel.want)))
                    .await?
            }
        };
        delivery.without.extend(failed);
        Ok((Reply::MerkleExchanged, message::encode(&delivery)))
    }

    /// Whether this node holds copies of the tree's partition.
    fn own_tree(&self, tree: Tree) -> Result<(), Failure> {
        let view = self.ground().registry.view();
        let me = &self.ground().me;
        if !self.ground().replica.is_judged(tree.partition) {
            return Err(Failure::Rebuilding);
        }
        match view.placed.holds(me, tree.partition, tree.n) {
            true => Ok(()),
            false => Err(Failure::NotOwner),
        }
    }

    fn belongs(&self, tree: Tree, place: &Place) -> Result<(), Failure> {
        let view = self.ground().registry.view();
        let n = |bucket: Incarnation| copies(&view).get(&bucket).copied();
        if n(place.bucket) != Some(tree.n) {
            return Err(Failure::Bucket);
        }
        match view.ring().partition(place.bucket, &place.key) == tree.partition {
            true => Ok(()),
            false => Err(Failure::NotOwner),
        }
    }

    async fn scan<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Self) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let permit = self
            .inner
            .scans
            .try_acquire()
            .map_err(|_| Failure::Overloaded)?;
        let this = self.clone();
        let read = outside::aside(move || read(&this)).await;
        drop(permit);
        read.unwrap_or_else(|_| Err(Failure::Unreadable("the reader panicked".into())))
    }
}

fn pack(nodes: &[Node]) -> Bytes {
    nodes.concat().into()
}
