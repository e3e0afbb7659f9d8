//! The chosen document that a node holds, and what it takes to replace it.
//!
//! A successor must descend from what is held: by hash if it is the next one, by lineage if documents
//! in between were missed. So a node that was away learns the latest document in one step, and two
//! clusters never mix.

use super::document::{BadDocument, Document};
use super::forming::follows;
use super::message::{LearnError, Proof};
use crate::id::Digest;

/// A chosen document with its hash and proof. Document 1 needs no proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The document.
    pub document: Document,
    /// Its hash.
    pub digest: Digest,
    /// Why it is chosen.
    pub proof: Option<Proof>,
}

/// Whether something was learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// The document is held now.
    New,
    /// It, or a later one, was held before.
    Known,
}

impl Held {
    /// Holds a document that needs no proof: the first one.
    pub fn first(document: Document) -> Self {
        Self {
            digest: document.digest(),
            document,
            proof: None,
        }
    }

    /// Takes a chosen document, if it is newer, belongs here and is proven.
    pub fn learn(&mut self, document: &Document, proof: &Proof) -> Result<Learned, LearnError> {
        let number = document.number;
        if number > self.document.number {
            let before = (number == self.document.number + 1).then_some(&self.document);
            proof.check(number, before)?;
        }
        self.learn_unproven(document, proof)
    }

    /// The same without checking the proof; only the zoo does so.
    pub(super) fn learn_unproven(
        &mut self,
        document: &Document,
        proof: &Proof,
    ) -> Result<Learned, LearnError> {
        let (number, digest) = (document.number, document.digest());
        if number == self.document.number && digest != self.digest {
            return Err(LearnError::Fork {
                number,
                mine: self.digest,
                theirs: digest,
            });
        }
        if number <= self.document.number {
            return Ok(Learned::Known);
        }
        if !self.leads_to(document) {
            return Err(LearnError::OtherLineage(number));
        }
        document.check()?;
        *self = Self {
            document: document.clone(),
            digest,
            proof: Some(proof.clone()),
        };
        Ok(Learned::New)
    }

    /// The bytes to keep on disk.
    pub fn encode(&self) -> Vec<u8> {
        let head = (&self.document.encode(), &self.proof);
        postcard::to_extend(&head, Vec::new()).expect("writing to memory cannot fail")
    }

    /// Reads them back.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadDocument> {
        let (document, proof): (Vec<u8>, Option<Proof>) =
            postcard::from_bytes(bytes).map_err(|_| BadDocument::Garbled)?;
        let digest = Digest::of(&document);
        Ok(Self {
            document: Document::decode(&document)?,
            digest,
            proof,
        })
    }

    fn leads_to(&self, later: &Document) -> bool {
        if later.number == self.document.number + 1 {
            return follows(&self.document, later);
        }
        later.cluster_id == self.document.cluster_id
            && later.layout.partitions == self.document.layout.partitions
            && later.first() == self.document.first()
            && (self.document.number == 1 || later.lineage() == self.document.lineage())
    }
}
