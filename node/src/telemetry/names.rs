//! Every span, attribute and event name this node puts on the wire, once.
//!
//! Dashboards, alerts and saved TraceQL queries depend on these strings: they are an interface, and
//! `observability/TRACES.md` documents each one (a test compares the two). Keys and values of users never
//! become attributes: a key shows up only as its hash.

/// Span names. Requests are named after their method and route template, for instance
/// `PUT /v1/buckets/{bucket}/keys/{key}`; remote calls after their [`Rpc`](super::Rpc).
pub mod span {
    /// A request carried to a node that is in the key's preference list.
    pub const FORWARD: &str = "coordinator.forward";
    /// Writing to all owners and waiting for W of them.
    pub const QUORUM_WRITE: &str = "quorum.write";
    /// Reading from owners until R answered.
    pub const QUORUM_READ: &str = "quorum.read";
    /// One read from the local store, recorded only when slow.
    pub const STORAGE_READ: &str = "storage.read";
    /// One write to the local store.
    pub const STORAGE_WRITE: &str = "storage.write";
    /// Joining the copies that answered and making the view.
    pub const SIBLINGS_RECONCILE: &str = "siblings.reconcile";
    /// One call of a user's resolver.
    pub const RESOLVER_RESOLVE: &str = "resolver.resolve";
    /// Writing the joined copy back to owners that lacked it.
    pub const READ_REPAIR: &str = "read.repair";
    /// Having a fallback keep a write for an owner that cannot take it.
    pub const HINT_STORE: &str = "hint.store";
    /// Delivering a batch of what was kept for a node.
    pub const HINT_REPLAY: &str = "hint.replay";
    /// Choosing the next registry document.
    pub const REGISTRY_PROPOSE: &str = "registry.propose";
    /// A heartbeat told to a few, or a look for one member.
    pub const GOSSIP_ROUND: &str = "gossip.round";
    /// Fetching a module that the registry names and this node lacks.
    pub const RESOLVER_FETCH: &str = "resolver.fetch";
    /// Finding out which laws a version keeps.
    pub const RESOLVER_CHECK: &str = "resolver.check";
    /// Comparing one partition with one peer.
    pub const MERKLE_SYNC: &str = "merkle.sync";
    /// What the comparison found.
    pub const MERKLE_DIFF: &str = "merkle.diff";
    /// Fetching what this node is to own.
    pub const RING_TRANSFER: &str = "ring.transfer";
    /// Fetching a record that cannot be read here from other owners.
    pub const RECORD_HEAL: &str = "record.heal";
    /// All owners forget what they sealed of a partition.
    pub const REAP_FORGET: &str = "reap.forget";
    /// Taking over what a removed node brought.
    pub const SALVAGE_TAKE: &str = "salvage.take";
    /// Left behind by an unsampled request that met a conflict.
    pub const CONFLICT_DETECTED: &str = "conflict.detected";
    /// Left behind by an unsampled request that missed its quorum.
    pub const QUORUM_FAILED: &str = "quorum.failed";
}

/// Attribute keys. Low cardinality unless the comment says otherwise.
pub mod attribute {
    /// The node that made the span.
    pub const NODE_ID: &str = "sibyl.node.id";
    /// The other node of a remote call.
    pub const PEER_ID: &str = "sibyl.peer.id";
    /// The bucket.
    pub const BUCKET: &str = "sibyl.bucket";
    /// The bucket again, under its semantic-convention name.
    pub const DB_COLLECTION: &str = "db.collection.name";
    /// First 8 bytes of the key's ring hash, hexadecimal. High cardinality.
    pub const KEY_HASH: &str = "sibyl.key.hash";
    /// The partition of the key.
    pub const PARTITION: &str = "sibyl.partition";
    /// Keys that were forgotten.
    pub const REAP_KEYS: &str = "sibyl.reap.keys";
    /// Objects that a removed node brought.
    pub const SALVAGE_OBJECTS: &str = "sibyl.salvage.objects";
    /// Those of them that were not known.
    pub const SALVAGE_IMPORTED: &str = "sibyl.salvage.imported";
    /// Copies of the key.
    pub const QUORUM_N: &str = "sibyl.quorum.n";
    /// Replies a read needs.
    pub const QUORUM_R: &str = "sibyl.quorum.r";
    /// Acks a write needs.
    pub const QUORUM_W: &str = "sibyl.quorum.w";
    /// Replies or acks that came.
    pub const QUORUM_ACKS: &str = "sibyl.quorum.acks";
    /// Replicas that failed or refused.
    pub const QUORUM_FAILURES: &str = "sibyl.quorum.failures";
    /// Whether fallbacks counted.
    pub const QUORUM_SLOPPY: &str = "sibyl.quorum.sloppy";
    /// Whether the quorum was reached.
    pub const QUORUM_MET: &str = "sibyl.quorum.met";
    /// Milliseconds until the quorum was reached or lost.
    pub const QUORUM_WAIT_MS: &str = "sibyl.quorum.wait_ms";
    /// Whether the replicas' digests differed.
    pub const QUORUM_DIGESTS_DIFFER: &str = "sibyl.quorum.digests_differ";
    /// The answer came after the quorum was already settled.
    pub const QUORUM_LATE: &str = "sibyl.quorum.late";
    /// Entries in the causal context.
    pub const CONTEXT_DOTS: &str = "sibyl.context.dots";
    /// Siblings before joining or resolving.
    pub const SIBLINGS_BEFORE: &str = "sibyl.siblings.before";
    /// Siblings afterwards.
    pub const SIBLINGS_AFTER: &str = "sibyl.siblings.after";
    /// More than one live sibling was found.
    pub const CONFLICT: &str = "sibyl.conflict";
    /// The resolver's name.
    pub const RESOLVER_NAME: &str = "sibyl.resolver.name";
    /// The tier that a law check found.
    pub const RESOLVER_CERTIFICATE: &str = "sibyl.resolver.certificate";
    /// The resolver's digest.
    pub const RESOLVER_VERSION: &str = "sibyl.resolver.version";
    /// Fuel the call burnt.
    pub const RESOLVER_FUEL: &str = "sibyl.resolver.fuel_used";
    /// Peak memory of the call, bytes.
    pub const RESOLVER_MEMORY: &str = "sibyl.resolver.memory_peak_bytes";
    /// ok, trap, fuel, timeout or invalid.
    pub const RESOLVER_OUTCOME: &str = "sibyl.resolver.outcome";
    /// Bytes read or written.
    pub const STORAGE_BYTES: &str = "sibyl.storage.bytes";
    /// Whether the write waited for the disk.
    pub const STORAGE_SYNCED: &str = "sibyl.storage.synced";
    /// blocking or async.
    pub const REPAIR_MODE: &str = "sibyl.repair.mode";
    /// The partition that is compared.
    pub const MERKLE_PARTITION: &str = "sibyl.merkle.partition";
    /// How deep the comparison had to go; the leaves are at 3.
    pub const MERKLE_DEPTH: &str = "sibyl.merkle.depth";
    /// Hashes that were compared.
    pub const MERKLE_NODES_COMPARED: &str = "sibyl.merkle.nodes_compared";
    /// Leaves that differed.
    pub const MERKLE_LEAVES_DIFFER: &str = "sibyl.merkle.leaves_differ";
    /// Objects sent.
    pub const MERKLE_KEYS_SENT: &str = "sibyl.merkle.keys_sent";
    /// Objects received.
    pub const MERKLE_KEYS_RECEIVED: &str = "sibyl.merkle.keys_received";
    /// Bytes of objects, both ways.
    pub const MERKLE_BYTES: &str = "sibyl.merkle.bytes";
    /// The owner a hint is for.
    pub const HINT_TARGET: &str = "sibyl.hint.target";
    /// How long the oldest hint of a batch had waited, milliseconds.
    pub const HINT_AGE_MS: &str = "sibyl.hint.age_ms";
    /// Hints in a batch.
    pub const HINT_BATCH_SIZE: &str = "sibyl.hint.batch.size";
    /// What became of it: stored, refused, failed, delivered.
    pub const HINT_RESULT: &str = "sibyl.hint.result";
    /// The registry document a proposal is for.
    pub const REGISTRY_NUMBER: &str = "sibyl.registry.number";
    /// Partitions that were missing here when owners changed.
    pub const TRANSFER_PARTITIONS: &str = "sibyl.transfer.partitions";
    /// Objects that came.
    pub const TRANSFER_KEYS: &str = "sibyl.transfer.keys";
    /// Bytes of objects that were moved for it.
    pub const TRANSFER_BYTES: &str = "sibyl.transfer.bytes";
    /// What a node that knocked was told: named, waiting, refused.
    pub const KNOCK_RESULT: &str = "sibyl.knock.result";
    /// Ballots a proposal needed.
    pub const REGISTRY_BALLOTS: &str = "sibyl.registry.ballots";
    /// Acceptors that accepted.
    pub const REGISTRY_ACKS: &str = "sibyl.registry.acks";
    /// Whether the proposal was chosen.
    pub const REGISTRY_CHOSEN: &str = "sibyl.registry.chosen";
    /// Which heartbeat a round tells of. High cardinality.
    pub const GOSSIP_ROUND: &str = "sibyl.gossip.round";
    /// Members a round is told to.
    pub const GOSSIP_FANOUT: &str = "sibyl.gossip.fanout";
    /// pull or ping.
    pub const GOSSIP_KIND: &str = "sibyl.gossip.kind";
    /// Records sent in a round.
    pub const GOSSIP_UPDATES_SENT: &str = "sibyl.gossip.updates_sent";
    /// Records received in a round.
    pub const GOSSIP_UPDATES_RECEIVED: &str = "sibyl.gossip.updates_received";
    /// The incarnation of the member that changed.
    pub const GOSSIP_INCARNATION: &str = "sibyl.gossip.incarnation";
    /// How a member was seen before.
    pub const GOSSIP_STATE_FROM: &str = "sibyl.gossip.state_from";
    /// How it is seen now.
    pub const GOSSIP_STATE_TO: &str = "sibyl.gossip.state_to";
    /// The span was kept whatever the ratio says.
    pub const TRACE_FORCE: &str = "sibyl.trace.force";
    /// What a link means; see [`LinkKind`](crate::telemetry::LinkKind).
    pub const LINK_KIND: &str = "sibyl.link.kind";
    /// GET, PUT, …
    pub const HTTP_METHOD: &str = "http.request.method";
    /// The route template.
    pub const HTTP_ROUTE: &str = "http.route";
    /// The answer's status.
    pub const HTTP_STATUS: &str = "http.response.status_code";
    /// Always `sibyl` on remote calls.
    pub const RPC_SYSTEM: &str = "rpc.system.name";
    /// `Replica/Put`, `Registry/Accept`, …
    pub const RPC_METHOD: &str = "rpc.method";
    /// Why a span failed: a stable word, or the HTTP status.
    pub const ERROR_TYPE: &str = "error.type";
    /// In events: milliseconds since the span began.
    pub const ELAPSED_MS: &str = "elapsed_ms";
    /// In events: the replica.
    pub const PEER: &str = "peer";
    /// In events: who was to take it, or a state before.
    pub const FROM: &str = "from";
    /// In events: who takes it instead, or a state now.
    pub const TO: &str = "to";
    /// In events: a member's incarnation.
    pub const INCARNATION: &str = "incarnation";
    /// In events: acks so far.
    pub const ACKS: &str = "acks";
    /// In events: siblings before.
    pub const BEFORE: &str = "before";
    /// In events: siblings after.
    pub const AFTER: &str = "after";
    /// In events: a stable word for what went wrong.
    pub const REASON: &str = "reason";
    /// Of a line that a resolver logged.
    pub const LEVEL: &str = "level";
    /// What it says.
    pub const MESSAGE: &str = "message";
}

/// Event names.
pub mod event {
    /// The ring was asked who owns the key.
    pub const RING_LOOKUP: &str = "ring.lookup";
    /// A replica answered.
    pub const REPLICA_ACK: &str = "replica.ack";
    /// A replica did not answer in time.
    pub const REPLICA_TIMEOUT: &str = "replica.timeout";
    /// A replica refused or failed.
    pub const REPLICA_FAILED: &str = "replica.failed";
    /// R or W was reached.
    pub const QUORUM_REACHED: &str = "quorum.reached";
    /// A fallback is asked to stand in for an owner.
    pub const FALLBACK_CHOSEN: &str = "fallback.chosen";
    /// A hint is on its target's disk.
    pub const HINT_DELIVERED: &str = "hint.delivered";
    /// A hint could not be delivered; it stays.
    pub const HINT_FAILED: &str = "hint.failed";
    /// Copies were joined.
    pub const SIBLINGS_MERGED: &str = "siblings.merged";
    /// More than one live sibling was found.
    pub const CONFLICT_DETECTED: &str = "conflict.detected";
    /// A member is seen otherwise than before.
    pub const MEMBER_STATE_CHANGED: &str = "member.state_changed";
    /// A line that a resolver logged.
    pub const RESOLVER_LOG: &str = "resolver.log";
    /// A resolver failed; the siblings stay.
    pub const RESOLVER_FAILED: &str = "resolver.failed";
}
