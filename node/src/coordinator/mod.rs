//! Carries requests: forwards a write to the node that mints it, asks replicas, joins, resolves, answers.
//!
//! The flows of `sibyl-core` decide; this performs their effects on peers and on the local replica. It
//! knows no HTTP and no disk. What a request asks and what it gets stands in `request`.

mod request;

pub use request::{
    Acks, Conflict, ConflictPage, Explained, GetError, GetRequest, Got, ListError, ListRequest,
    Listed, Owner, PutError, PutRequest, Resolved, ResolverNote, Stored,
};
