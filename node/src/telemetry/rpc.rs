//! The calls nodes make to each other, as spans and metrics name them.
//!
//! The list is closed, so the `method` label has a known size. The wire protocol lives in `peer`; nothing
//! here travels.

macro_rules! calls {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// One kind of remote call.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Rpc {
            $($(#[$doc])* $variant,)*
        }

        impl Rpc {
            /// Every call.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in spans and labels: the service, a slash, the method.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

calls! {
    /// Store a write.
    ReplicaPut = "Replica/Put",
    /// Fetch an object.
    ReplicaGet = "Replica/Get",
    /// Fetch an object's digest.
    ReplicaDigest = "Replica/Digest",
    /// Join a repaired object.
    ReplicaRepair = "Replica/Repair",
    /// Keep a write for an owner that cannot take it.
    ReplicaHint = "Replica/Hint",
    /// Deliver what was kept.
    ReplicaHandoff = "Replica/Handoff",
    /// Ask a node for what it keeps for this one.
    ReplicaCollect = "Replica/Collect",
    /// List keys of a partition.
    ReplicaList = "Replica/List",
    /// Coordinate a request on behalf of another node.
    CoordinatorForward = "Coordinator/Forward",
    /// Paxos phase 1.
    RegistryPrepare = "Registry/Prepare",
    /// Paxos phase 2.
    RegistryAccept = "Registry/Accept",
    /// Tell a chosen document.
    RegistryLearn = "Registry/Learn",
    /// Ask for documents that are missing here.
    RegistryFetch = "Registry/Fetch",
    /// Copy a resolver's bytes to a node.
    ResolverStore = "Resolver/Store",
    /// Ask a node for a resolver's bytes.
    ResolverFetch = "Resolver/Fetch",
    /// Compare what is known of members.
    GossipDigest = "Gossip/Digest",
    /// Tell what a member lacked.
    GossipDelta = "Gossip/Delta",
    /// Ask a member whether it is there.
    GossipPing = "Gossip/Ping",
    /// Ask a member whether another one is there.
    GossipPingReq = "Gossip/PingReq",
    /// Keep writes out of a bucket that is about to be deleted.
    BucketClose = "Bucket/Close",
    /// Ask for the root of a Merkle tree.
    MerkleRoot = "Merkle/Root",
    /// Ask for a level of it, below what differs.
    MerkleLevel = "Merkle/Level",
    /// Ask for the keys of leaves that differ.
    MerkleKeys = "Merkle/Keys",
    /// Ship objects both ways.
    MerkleExchange = "Merkle/Exchange",
    /// Say and hear what is cleared of which reaping epoch.
    ReapEpoch = "Reap/Epoch",
    /// Ask whether an owner sealed the same objects.
    ReapSeals = "Reap/Seals",
    /// Have an owner forget what all sealed.
    ReapForget = "Reap/Forget",
    /// Ask when a partition was last reaped.
    ReapHorizon = "Reap/Horizon",
    /// Ask to be taken in. The node that asks has no spans yet.
    NodeKnock = "Node/Knock",
    /// Ask a node how it is.
    NodeStatus = "Node/Status",
}
