//! The registry: one numbered document about the cluster, its successor chosen by majority.
//!
//! How a shell uses it. At start it builds document 1 from its flags ([`first_document`]) and opens a
//! [`Machine`] with it and with what the two slots held ([`Machine::open`]); an error means amnesia. If the
//! machine is forming it feeds [`Event::Form`] with drawn secrets. From then on one task owns the
//! machine, feeds it every [`Event`] and performs the [`Effect`]s in order, syncing at each persist. On
//! [`Effect::Chosen`] it publishes that document to the rest of the node. It compares
//! [`Document::first`] and, once formed, [`Document::lineage`] in every handshake, and feeds
//! [`Event::Seen`] when a frame carries a higher number, [`Event::Reached`] and [`Event::Unreachable`] when
//! a peer comes and goes. Lamport, "Paxos Made Simple"; `design/cluster.md`, *The registry*.

mod acceptor;
mod bucket;
mod certificate;
mod change;
mod document;
mod event;
mod forming;
mod held;
mod machine;
mod message;
mod moving;
mod owners;
mod partitions;
mod plan;
mod proposer;
mod recovery;
mod restored;
mod rounds;
mod rules;
mod zoo;

pub use acceptor::{Acceptor, Vote};
pub use bucket::{
    BadConfig, Binding, Bucket, BucketConfig, Deletes, Durability, Laws, Limits, MAX_FUEL, MAX_N,
    MAX_OBJECT_BYTES, MAX_RESOLVER_CONFIG_BYTES, MAX_RESOLVER_MEMORY_BYTES, MAX_SIBLINGS,
    MAX_VALUE_BYTES, Mode,
};
pub use certificate::{Certificate, Law, MAX_CERTIFICATES, MAX_REPORT_BYTES, Setting, Tier, Tried};
pub use change::{Change, ChangeError, Expect, bound};
pub use document::{
    BadDocument, Beginning, ContextKey, Document, FORMAT, Kind, Layout, Lineage, MAX_ADDRESS_BYTES,
    MAX_BUCKETS, MAX_CONTEXT_KEYS, MAX_DESCRIPTION_BYTES, MAX_DOCUMENT_BYTES, MAX_FORMER,
    MAX_MEMBERS, MAX_RESOLVERS, MAX_VERSIONS, Member, Resolver, Secret, Version,
};
pub use event::{Alarm, Effect, Event, OpenError, Slot};
pub use forming::{
    DEFAULT_BUCKET, First, Secrets, describe_difference, first_document, follows, second_document,
};
pub use held::{Held, Learned};
pub use machine::Machine;
pub use message::{Abstention, BadProof, Ballot, LearnError, Message, Proof, votes, votes_needed};
pub use moving::Joiner;
pub use owners::{Farewell, Former, MAX_DEPARTED, OwnerChange, Owners, Seat};
pub use partitions::Partitions;
pub use plan::{Move, Share};
pub use proposer::{Answer, Proposer, Step, Wish};
pub use recovery::{GivenUp, MAX_PAST, RecoverError, Recovery};
pub use rounds::{
    ANSWER_MS, BACKOFF_MS, MAX_BACKOFF_MS, MAX_QUEUE, MAX_ROUNDS, MAX_SILENT_ROUNDS, Outcome,
};
pub use rules::{Malformed, check_name};
pub use zoo::Faults;

#[cfg(test)]
mod tests;
