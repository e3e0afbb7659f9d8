//! The fake's control plane: buckets, resolvers, the cluster and itself.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use sibyl_core::id::{Digest, NodeId};
use sibyl_core::registry::{Bucket, ChangeError, Expect};

use super::super::super::{
    AdminError, AntiEntropyPeer, AntiEntropyRunning, AntiEntropyTotals, AntiEntropyView,
    BucketChanged, Buckets, CandidateView, Certificate, CheckView, CheckWish, Checked, ClusterView,
    DeleteBucket, GivenUpView, HandoffView, Health, HintsView, LogLine, MemberState, MemberView,
    Module, MoveView, Operation, OwnerChangeView, OwnerWish, OwnersChanged, Pending, Pieces,
    PutBucket, ReapingView, Recovered, RegistryMember, RegistryView, ResolverView, Resolvers,
    RingNode, RingView, ShareView, SyncView, Trial, Tried, TriedOutcome, Upload, Uploaded,
};
use super::{FakeCall, node, ready};
use crate::coordinator::{GuestLine, GuestLog};
use crate::resolver::Level;

impl Buckets for FakeCall {
    fn buckets(&self) -> Result<BTreeMap<String, Bucket>, AdminError> {
        let state = self.fake.state();
        state.admin()?;
        Ok(state.buckets.clone())
    }

    fn bucket(&self, name: &str) -> Result<Bucket, AdminError> {
        let state = self.fake.state();
        state
            .find(name)
            .ok_or_else(|| ChangeError::NoBucket(name.to_owned()).into())
    }

    fn put_bucket(&self, change: PutBucket) -> Pending<'_, Result<BucketChanged, AdminError>> {
        let mut state = self.fake.state();
        let present = state.find(&change.name);
        let fits = match change.expect {
            Expect::Anything => true,
            Expect::Absent => present.is_none(),
            Expect::Revision(revision) => present
                .as_ref()
                .is_some_and(|bucket| bucket.revision == revision),
        };
        let n = present.as_ref().map(|bucket| bucket.config.n);
        ready(match (state.admin(), fits, n) {
            (Err(error), ..) => Err(error),
            (_, false, _) => Err(AdminError::Precondition("not so".to_owned())),
            (_, _, Some(n)) if n != change.config.n => Err(ChangeError::FixedN {
                name: change.name,
                n,
            }
            .into()),
            _ => Ok(state.insert_bucket(&change.name, change.config)),
        })
    }

    fn delete_bucket(&self, change: DeleteBucket) -> Pending<'_, Result<(), AdminError>> {
        let mut state = self.fake.state();
        let Some(bucket) = state.find(&change.name) else {
            return ready(Err(ChangeError::NoBucket(change.name).into()));
        };
        if change.name == "default" {
            return ready(Err(ChangeError::DefaultBucket.into()));
        }
        let holds = state
            .objects
            .keys()
            .any(|(place, _)| *place == bucket.incarnation.0);
        if holds && !change.purge {
            let detail = "the bucket holds keys: delete them, or use ?purge=true".to_owned();
            return ready(Err(AdminError::Conflict {
                code: "bucket_not_empty",
                detail,
            }));
        }
        state.buckets.remove(&change.name);
        ready(Ok(()))
    }
}

impl Resolvers for FakeCall {
    fn upload(&self, upload: Upload) -> Pending<'_, Result<Uploaded, AdminError>> {
        let mut state = self.fake.state();
        if let Err(error) = state.admin() {
            return ready(Err(error));
        }
        if !upload.bytes.starts_with(b"(") && !upload.bytes.starts_with(b"\0asm") {
            let detail = "this is not WebAssembly".to_owned();
            return ready(Err(AdminError::NotWasm {
                code: "not_wasm",
                detail,
            }));
        }
        let digest = Digest::of(&upload.bytes);
        let name = upload.name.clone();
        let version = state.version(&name, digest, &upload);
        let versions = state.resolvers.entry(name).or_default();
        let created = versions.iter().all(|(known, _)| *known != digest);
        if created {
            versions.push((digest, upload));
        }
        ready(Ok(Uploaded { version, created }))
    }

    fn resolvers(&self) -> Pending<'_, Result<Vec<ResolverView>, AdminError>> {
        let state = self.fake.state();
        let all = state
            .resolvers
            .keys()
            .map(|name| state.resolver(name))
            .collect();
        ready(all)
    }

    fn resolver(&self, name: &str) -> Pending<'_, Result<ResolverView, AdminError>> {
        ready(self.fake.state().resolver(name))
    }

    fn module(&self, name: &str, version: Digest) -> Pending<'_, Result<Module, AdminError>> {
        let state = self.fake.state();
        let found = state
            .resolvers
            .get(name)
            .and_then(|all| all.iter().find(|(digest, _)| *digest == version));
        ready(match found {
            Some((_, upload)) => Ok(Module {
                form: upload.form,
                bytes: upload.bytes.clone(),
            }),
            None => Err(no_version()),
        })
    }

    fn delete_version(&self, name: &str, version: Digest) -> Pending<'_, Result<(), AdminError>> {
        let mut state = self.fake.state();
        let bound = match state.resolver(name) {
            Ok(view) => view
                .versions
                .into_iter()
                .find(|known| known.digest == version.to_string()),
            Err(error) => return ready(Err(error)),
        };
        match bound {
            None => ready(Err(no_version())),
            Some(known) if !known.bound.is_empty() => {
                let bound = ChangeError::Bound {
                    name: name.to_owned(),
                    digest: version,
                    buckets: known.bound,
                };
                ready(Err(bound.into()))
            }
            Some(_) => {
                state
                    .resolvers
                    .entry(name.to_owned())
                    .or_default()
                    .retain(|(digest, _)| *digest != version);
                ready(Ok(()))
            }
        }
    }

    fn check(&self, wish: CheckWish) -> Pending<'_, Result<Checked, AdminError>> {
        let view = match self.fake.state().resolver(&wish.name) {
            Ok(view) => view,
            Err(error) => return ready(Err(error)),
        };
        let newest = view.versions.last().map(|version| version.digest.clone());
        if wish.deletes {
            return ready(Err(AdminError::Laws {
                code: "laws_unknown",
                detail: "only 3 cases could be tried".to_owned(),
                certificate: None,
            }));
        }
        ready(Ok(Checked {
            digest: wish
                .version
                .map(|it| it.to_string())
                .or(newest)
                .unwrap_or_default(),
            certificate: Certificate {
                seed: Some(wish.seed.to_string()),
                reason: Some(format!("{} samples", wish.samples.len())),
                ..Certificate::unchecked()
            },
            costs: Vec::new(),
        }))
    }

    fn checking(&self, name: &str, version: Digest) -> Result<Option<CheckView>, AdminError> {
        let view = self.fake.state().resolver(name)?;
        let known = view
            .versions
            .into_iter()
            .find(|it| it.digest == version.to_string());
        let known = known.ok_or_else(no_version)?;
        Ok((known.bytes > 7).then_some(CheckView {
            state: "running",
            law: "regrouping",
            cases: 17,
            of: 4_096,
            detail: None,
        }))
    }

    fn guest_log(&self, name: &str) -> Result<GuestLog, AdminError> {
        self.fake.state().resolver(name)?;
        let line = GuestLine {
            at_ms: 0,
            version: Digest::of(b"(module)"),
            bucket: "b".to_owned(),
            level: Level::Warn,
            message: "seen".to_owned(),
            trace_id: [1; 16],
        };
        let mut log = GuestLog::default();
        log.lines.push_back(line);
        Ok(log)
    }

    fn try_resolver(&self, trial: Trial) -> Pending<'_, Result<Tried, AdminError>> {
        let state = self.fake.state();
        if let Err(error) = state.resolver(&trial.name) {
            return ready(Err(error));
        }
        let outcome = match trial.siblings[0].value.clone() {
            Some(value) => TriedOutcome::Merged(value),
            None => TriedOutcome::Failed {
                kind: "declined".to_owned(),
                message: "a person must decide".to_owned(),
            },
        };
        let log = vec![LogLine {
            level: "info".to_owned(),
            message: "hello".to_owned(),
        }];
        ready(Ok(Tried {
            outcome,
            fuel: 391,
            memory_bytes: 65_536,
            duration: Duration::from_micros(9),
            log,
        }))
    }
}

fn no_version() -> AdminError {
    AdminError::NotFound {
        code: "no_version",
        detail: "there is no such version".to_owned(),
    }
}

impl Operation for FakeCall {
    fn node_id(&self) -> NodeId {
        node()
    }

    fn cluster(&self) -> ClusterView {
        let member = MemberView {
            node_id: "n1".to_owned(),
            state: MemberState::Alive,
            incarnation: 1,
            heartbeat: None,
            heartbeat_age_ms: None,
            heartbeat_at: None,
            clock_ahead_ms: None,
            reachable: true,
            suspected_age_ms: None,
            suspected_by: Vec::new(),
            listen: None,
            peer_listen: Some("127.0.0.1:7170".to_owned()),
            zone: None,
            tokens: 64,
            leaving: false,
            gone_with: None,
        };
        ClusterView {
            cluster_id: "c".to_owned(),
            node_id: "n1".to_owned(),
            registry: 7,
            healthy: true,
            reasons: Vec::new(),
            reaping: ReapingView {
                active: true,
                epoch: 7,
                epoch_age_ms: 1200,
                waits_for: vec!["n2 cannot be reached".to_owned()],
                sealed: 3,
                reaped: 12,
                aside: 0,
            },
            was_suspected: None,
            members: vec![member],
            owner_change: Some(OwnerChangeView {
                began: 6,
                missing: BTreeMap::from([("n4".to_owned(), 57)]),
            }),
            candidates: vec![CandidateView {
                node_id: "n4".to_owned(),
                store: "0000000000000104".to_owned(),
                listen: "http://127.0.0.1:7073".to_owned(),
                peer_listen: "127.0.0.1:7173".to_owned(),
                zone: None,
                tokens: 64,
                spare: true,
                heard_age_ms: 900,
            }],
        }
    }

    fn anti_entropy(&self) -> AntiEntropyView {
        AntiEntropyView {
            totals: AntiEntropyTotals {
                exchanges: 9,
                keys_repaired: 3,
                failed: 1,
                object_bytes: 700,
                alarms: 0,
            },
            peers: vec![AntiEntropyPeer {
                node_id: "n2".to_owned(),
                last_success_ms_ago: Some(40),
                dirty_partitions: 2,
            }],
            running: vec![AntiEntropyRunning {
                node_id: "n2".to_owned(),
                partition: 5,
            }],
            unclean_partitions: 0,
            damaged_records: 0,
            rebuilding: None,
        }
    }

    fn start_anti_entropy(&self) -> Result<AntiEntropyView, AdminError> {
        self.fake.state().admin()?;
        Ok(self.anti_entropy())
    }

    fn ring(&self) -> Result<RingView, AdminError> {
        self.fake.state().admin()?;
        let node = RingNode {
            node_id: "n1".to_owned(),
            tokens: vec![u64::MAX],
            owned: 1,
        };
        Ok(RingView {
            registry: 7,
            partitions: 1,
            nodes: vec![node],
            owners: vec![vec!["n1".to_owned()]],
        })
    }

    fn registry(&self) -> RegistryView {
        let member = RegistryMember {
            node_id: "n1".to_owned(),
            peer_listen: "127.0.0.1:7170".to_owned(),
            store: None,
            leaving: true,
        };
        RegistryView {
            number: 7,
            hash: Digest::of(b"").to_string(),
            members: vec![member],
            pending: None,
            owner_change: None,
        }
    }

    /// As in a cluster of n1, n2 and n3, of which n2 answers, and where n4 asks to be taken in.
    fn change_owners(
        &self,
        wish: OwnerWish,
        plan: bool,
    ) -> Pending<'_, Result<OwnersChanged, AdminError>> {
        if let Err(error) = self.fake.state().admin() {
            return ready(Err(error));
        }
        let asks = |node: &NodeId| match node.as_str() {
            "n4" => Ok(()),
            other => Err(AdminError::NotFound {
                code: "no_candidate",
                detail: format!("no node called {other} asks to be taken in"),
            }),
        };
        let is_member = |node: &NodeId| match node.as_str() {
            "n1" | "n2" | "n3" => Ok(()),
            _ => Err(AdminError::from(ChangeError::NoMember(node.clone()))),
        };
        let (allowed, to) = match &wish {
            OwnerWish::Join(node) => (asks(node), "n4"),
            OwnerWish::Leave(node) => (is_member(node), "n1"),
            OwnerWish::Remove(node) if node.as_str() == "n2" => {
                let detail = "n2 answers: let it leave, or stop it first".to_owned();
                let code = "member_answers";
                (Err(AdminError::Conflict { code, detail }), "n1")
            }
            OwnerWish::Remove(node) => (is_member(node), "n1"),
            OwnerWish::Replace { node, with } => (is_member(node).and_then(|()| asks(with)), "n4"),
        };
        ready(allowed.map(|()| OwnersChanged {
            registry: if plan { 7 } else { 8 },
            plan,
            moves: vec![MoveView {
                partition: 12,
                to: to.to_owned(),
                from: vec!["n3".to_owned()],
            }],
            summary: vec![ShareView {
                node: to.to_owned(),
                gains: 1,
                gives: 0,
            }],
        }))
    }

    /// As where a majority answers, but to a plan.
    fn recover(&self, plan: bool, accept_loss: bool) -> Pending<'_, Result<Recovered, AdminError>> {
        if let Err(error) = self.fake.state().admin() {
            return ready(Err(error));
        }
        let conflict = |code, detail: &str| AdminError::Conflict {
            code,
            detail: detail.to_owned(),
        };
        ready(match (plan, accept_loss) {
            (true, _) => Ok(Recovered {
                registry: 7,
                plan,
                lineage: format!("sha256:{}", "5".repeat(64)),
                given_up: vec![GivenUpView {
                    node_id: "n2".to_owned(),
                    store: Some("00000000000000aa".to_owned()),
                    state: MemberState::Suspect,
                    reachable: false,
                    registry: None,
                }],
                partitions_without_copy: 0,
                partitions: 256,
                notes: vec!["some may be lost".to_owned()],
            }),
            (false, false) => Err(conflict("loss_not_accepted", "look at the plan")),
            (false, true) => Err(conflict("majority_answers", "n1 and n2 answer")),
        })
    }

    fn health(&self) -> Health {
        let ready = !self.fake.state().faults.unready;
        Health {
            ready,
            reasons: if ready {
                Vec::new()
            } else {
                vec!["forming".to_owned()]
            },
        }
    }

    fn metrics(&self, openmetrics: bool) -> String {
        let end = if openmetrics { "# EOF\n" } else { "" };
        format!("# TYPE sibyl_build_info gauge\nsibyl_build_info 1\n{end}")
    }

    fn trace_ratio(&self) -> f64 {
        self.fake.state().ratio
    }

    fn set_trace_ratio(&self, ratio: f64) {
        self.fake.state().ratio = ratio;
    }

    fn log_filter(&self) -> String {
        self.fake.state().log_filter.clone()
    }

    fn set_log_filter(&self, filter: &str) -> Result<(), String> {
        if filter.contains("loudly") {
            return Err("the log filter is like info".into());
        }
        self.fake.state().log_filter = filter.into();
        Ok(())
    }

    fn handoff(&self) -> HandoffView {
        HandoffView {
            hints: vec![HintsView {
                target: "n3".to_owned(),
                count: 12,
                bytes: 40_960,
                oldest_age_ms: Some(9000),
                refused: 0,
            }],
            transfers: Vec::new(),
        }
    }

    fn backup(&self) -> Result<Pieces, AdminError> {
        self.fake.state().admin()?;
        let (pieces, taken) = tokio::sync::mpsc::channel(2);
        for piece in ["SIBYL", "BK"] {
            pieces
                .try_send(Ok(Bytes::from(piece)))
                .expect("there is room");
        }
        Ok(taken)
    }

    fn sync_handoff(&self, patience: Duration) -> Pending<'_, SyncView> {
        // As if the target came back within a second.
        let delivered = patience >= Duration::from_secs(1);
        let left = if delivered {
            HandoffView::default()
        } else {
            self.handoff()
        };
        Box::pin(std::future::ready(SyncView { delivered, left }))
    }

    fn cut(&self, peer: &NodeId, _cut: bool) -> Result<(), AdminError> {
        match peer.as_str() {
            "n2" => Ok(()),
            other => Err(AdminError::NotFound {
                code: "no_peer",
                detail: format!("{other} is not a member"),
            }),
        }
    }
}
