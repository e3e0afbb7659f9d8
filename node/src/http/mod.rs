//! The HTTP API: routes, limits, problem documents and the OpenAPI document that describes them.
//!
//! The only place that knows axum, hyper and utoipa. It decides nothing about keys: what a request means goes
//! through [`Api`] to the node, and the answer comes back as plain values. The route table in `router` and
//! the served document are one thing, held against `design/http-api.md` by a test. On the plain data path no
//! JSON is made and a value is never copied.

mod api;
mod asked;
pub mod backend;
mod backup;
pub mod baseline;
mod batch;
mod binding_config;
mod body;
mod bucket_config;
mod buckets;
mod certificates;
mod cluster;
mod conflicts;
mod document;
mod edge;
mod error;
mod explain;
mod form;
mod guest_logs;
mod handoff;
mod header;
mod json;
mod keys;
mod list;
mod moment;
mod multipart;
mod node;
mod openapi;
mod owners;
mod path;
mod plain;
mod problem;
mod query;
mod reading;
mod recover;
mod resolver_shapes;
mod resolvers;
mod router;
mod server;
mod siblings;
mod stall;
#[cfg(test)]
mod tests;
mod waiting;

pub use self::api::{
    AdminError, Api, Arrival, BucketChanged, BucketRefused, Buckets, Call, Check, CheckWish,
    ContextRefused, DeleteBucket, Departure, Form, Health, Keys, LogLine, Module, Operation,
    OwnerWish, Pending, Pieces, PutBucket, Resolvers, Trial, TrialSibling, Tried, TriedOutcome,
    Upload, Uploaded,
};
pub use self::certificates::{
    Certificate, CheckView, Checked, CostJson, LawResult, SettingCertificate, Tier,
};
pub use self::cluster::{
    AntiEntropyPeer, AntiEntropyRebuilding, AntiEntropyRunning, AntiEntropyTotals, AntiEntropyView,
    ClusterView, MemberState, MemberView, ReapingView, RegistryMember, RegistryView, RingNode,
    RingView,
};
pub use self::handoff::{HandoffView, HintsView, SyncView, TransferView};
pub use self::owners::{CandidateView, MoveView, OwnerChangeView, OwnersChanged, ShareView};
pub use self::recover::{GivenUpView, Recovered};
pub use self::resolver_shapes::{ModuleKind, Readiness, ResolverView, VersionView};
pub use self::router::{Options, Surface, router};
pub use self::server::{Limits, Server};
pub use self::waiting::{SalvageView, Waiting, waiting};
