//! A node in memory: one copy of every object, the core's own writes and views, and faults on demand.

mod admin;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use sibyl_core::context::Context;
use sibyl_core::id::{Actor, Digest, Dot, Incarnation, NodeId, Trace, WriteId};
use sibyl_core::object::{Caps, Content, Mint, Object, Write};
use sibyl_core::registry::{Binding, Bucket, BucketConfig, ContextKey, Secret};
use sibyl_core::seal::{self, Place};
use sibyl_core::view::{self, Faces, View};
use tokio::sync::Semaphore;

use super::super::{
    AdminError, Api, Arrival, BucketChanged, BucketRefused, Call, Certificate, ContextRefused,
    Departure, Form, Keys, ModuleKind, Pending, Readiness, ResolverView, Upload, VersionView,
};
use crate::coordinator::{
    Acks, Conflict, ConflictPage, Explained, GetError, GetRequest, Got, ListError, ListRequest,
    Listed, Owner, PutError, PutRequest, ResolverNote, Stored,
};

const KEY: ContextKey = ContextKey {
    id: 1,
    secret: Secret([9; 32]),
};
const START_MS: u64 = 1_700_000_000_000;

/// What goes wrong, on demand.
#[derive(Default)]
pub(crate) struct Faults {
    pub(crate) get: Option<GetError>,
    pub(crate) put: Option<PutError>,
    pub(crate) list: Option<ListError>,
    pub(crate) admin: Option<AdminError>,
    pub(crate) bucket: Option<BucketRefused>,
    pub(crate) expired: bool,
    pub(crate) panics: bool,
    pub(crate) unready: bool,
    /// Partial reads find too few.
    pub(crate) unmet: bool,
    /// Writes wait until they are released.
    pub(crate) holds: bool,
    /// Reads never answer.
    pub(crate) hangs: bool,
    /// Reads take so long.
    pub(crate) delays: std::time::Duration,
    pub(crate) note: Option<ResolverNote>,
}

pub(crate) struct State {
    pub(crate) buckets: BTreeMap<String, Bucket>,
    objects: BTreeMap<(u64, Bytes), Object>,
    pub(crate) resolvers: BTreeMap<String, Vec<(Digest, Upload)>>,
    counter: u64,
    ratio: f64,
    log_filter: String,
    pub(crate) faults: Faults,
    pub(crate) ended: Vec<(String, Departure)>,
    pub(crate) last_put: Option<PutRequest>,
    pub(crate) last_get: Option<GetRequest>,
}

/// The fake node; clones are one.
#[derive(Clone)]
pub(crate) struct Fake(Arc<Mutex<State>>, Arc<[Semaphore; 2]>);

impl Fake {
    pub(crate) fn new() -> Self {
        let state = State {
            buckets: BTreeMap::new(),
            objects: BTreeMap::new(),
            resolvers: BTreeMap::new(),
            counter: 0,
            ratio: 1.0,
            log_filter: "info".into(),
            faults: Faults::default(),
            ended: Vec::new(),
            last_put: None,
            last_get: None,
        };
        let gates = [Semaphore::new(0), Semaphore::new(0)];
        let fake = Self(Arc::new(Mutex::new(state)), Arc::new(gates));
        fake.state()
            .insert_bucket("default", BucketConfig::default());
        fake
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0
            .lock()
            .expect("no test panics while it holds the state")
    }
}

impl Fake {
    /// Waits until a write is held.
    pub(crate) async fn held(&self) {
        self.1[0].acquire().await.expect("never closed").forget();
    }

    /// Lets every write go.
    pub(crate) fn release(&self) {
        self.state().faults.holds = false;
        self.1[1].add_permits(1000);
    }

    async fn pass(&self) {
        self.1[0].add_permits(1);
        self.1[1].acquire().await.expect("never closed").forget();
    }
}

impl State {
    fn insert_bucket(&mut self, name: &str, config: BucketConfig) -> BucketChanged {
        self.counter += 1;
        let revision = self.counter;
        let created = !self.buckets.contains_key(name);
        let bucket = self
            .buckets
            .entry(name.to_owned())
            .or_insert_with(|| Bucket {
                incarnation: Incarnation(revision),
                revision,
                epoch: 0,
                config: BucketConfig::default(),
            });
        (bucket.revision, bucket.config) = (revision, config);
        BucketChanged {
            bucket: bucket.clone(),
            created,
        }
    }

    fn find(&self, bucket: &str) -> Option<Bucket> {
        self.buckets.get(bucket).cloned()
    }

    fn admin(&self) -> Result<(), AdminError> {
        self.faults.admin.clone().map_or(Ok(()), Err)
    }

    fn got(&self, bucket: &Bucket, key: &Bytes) -> Got {
        let object = self
            .objects
            .get(&(bucket.incarnation.0, key.clone()))
            .cloned()
            .unwrap_or_default();
        let view = match view::faces(&object, bucket.config.deletes) {
            Faces::Gone => View::Gone,
            Faces::One(sibling) => View::One(sibling.content.clone()),
            Faces::Several(faces) => match view::unanimous(&faces) {
                Some(sibling) => View::One(sibling.content.clone()),
                None => View::Siblings(faces.into_iter().cloned().collect()),
            },
        };
        Got {
            view,
            siblings: object.siblings().to_vec(),
            live: object.live().count(),
            context: object.context().clone(),
            receipts: object.receipts().to_vec(),
            bucket: bucket.incarnation,
            etag: format!("\"{}\"", Digest::of(format!("{object:?}").as_bytes())),
            resolver: self.faults.note.clone(),
            acks: Acks {
                owners: 2,
                fallbacks: 0,
            },
            met: !self.faults.unmet,
        }
    }

    fn stored(&mut self, bucket: &Bucket, request: PutRequest) -> Result<Stored, PutError> {
        self.last_put = Some(request.clone());
        self.counter += 1;
        let n = self.counter;
        let config = &bucket.config;
        if let Some(value) = &request.value
            && value.len() as u64 > config.max_value_bytes
        {
            let cap = usize::try_from(config.max_value_bytes).expect("small");
            return Err(PutError::TooLarge {
                bytes: value.len(),
                cap,
            });
        }
        let dot = Dot {
            actor: Actor(7),
            counter: n,
        };
        let mut trace = [0; 26];
        trace[1..17].fill(0xab);
        let content = Content {
            value: request.value,
            content_type: request.content_type,
            attributes: request.attributes,
            modified_at: START_MS + n,
            write_id: WriteId(u128::from(n).to_be_bytes()),
            trace: Some(Trace(trace)),
        };
        let write = Write {
            context: request.context,
            tombstones: Context::new(),
            content,
        };
        let caps = Caps {
            siblings: config.max_siblings as usize,
            object_bytes: 1 << 24,
            context_intervals: 500,
        };
        let object = self
            .objects
            .entry((bucket.incarnation.0, request.key))
            .or_default();
        let written = object
            .write(Mint { dot, line: 0 }, write, caps)
            .map_err(|refused| {
                PutError::NotWritten(sibyl_core::message::Failure::Refused(refused))
            })?;
        Ok(Stored {
            dot,
            context: written.answer,
            bucket: bucket.incarnation,
            modified_at: START_MS + n,
            acks: Acks {
                owners: 2,
                fallbacks: 0,
            },
            live: object.live().count(),
            coordinator: node(),
            repeated: false,
        })
    }

    fn resolver(&self, name: &str) -> Result<ResolverView, AdminError> {
        let versions = self
            .resolvers
            .get(name)
            .ok_or_else(|| AdminError::NotFound {
                code: "no_resolver",
                detail: format!("there is no resolver {name:?}"),
            })?;
        let versions = versions
            .iter()
            .map(|(digest, upload)| self.version(name, *digest, upload))
            .collect();
        Ok(ResolverView {
            name: name.to_owned(),
            versions,
        })
    }

    fn version(&self, name: &str, digest: Digest, upload: &Upload) -> VersionView {
        let binds = |binding: &Binding| binding.name == name && binding.version == digest;
        let bound = self
            .buckets
            .iter()
            .filter(|(_, bucket)| bucket.config.resolver.as_ref().is_some_and(binds));
        VersionView {
            digest: digest.to_string(),
            bytes: upload.bytes.len() as u64,
            uploaded_at: "2026-01-01T00:00:00.000Z".to_owned(),
            kind: ModuleKind::Wat,
            certificate: Certificate::unchecked(),
            settings: Vec::new(),
            bound: bound.map(|(name, _)| name.clone()).collect(),
            nodes: BTreeMap::from([("n1".to_owned(), Readiness::Ready)]),
        }
    }
}

fn node() -> NodeId {
    "n1".parse().expect("a name")
}

impl Api for Fake {
    fn begin(&self, arrival: Arrival<'_>) -> Arc<dyn Call> {
        let given = arrival
            .traceparent
            .and_then(|text| u128::from_str_radix(text.get(3..35)?, 16).ok());
        let trace_id = given.unwrap_or(0xfeed).to_be_bytes();
        let route = format!("{} {}", arrival.method, arrival.route);
        Arc::new(FakeCall {
            fake: self.clone(),
            trace_id,
            route,
        })
    }
}

struct FakeCall {
    fake: Fake,
    trace_id: [u8; 16],
    route: String,
}

impl Call for FakeCall {
    fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    fn end(&self, departure: Departure) {
        self.fake
            .state()
            .ended
            .push((self.route.clone(), departure));
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> Pending<'a, T> {
    Box::pin(std::future::ready(value))
}

impl Keys for FakeCall {
    fn max_value_bytes(&self, bucket: &str) -> Result<usize, BucketRefused> {
        let state = self.fake.state();
        if let Some(error) = &state.faults.bucket {
            return Err(error.clone());
        }
        let found = state
            .find(bucket)
            .ok_or_else(|| BucketRefused::NoBucket(bucket.to_owned()))?;
        Ok(usize::try_from(found.config.max_value_bytes).expect("small"))
    }

    fn open(&self, bucket: &str, key: &[u8], sealed: &[u8]) -> Result<Context, ContextRefused> {
        let state = self.fake.state();
        if state.faults.expired {
            return Err(ContextRefused::Expired);
        }
        let found = state
            .find(bucket)
            .ok_or_else(|| BucketRefused::NoBucket(bucket.to_owned()))?;
        let place = Place {
            bucket: found.incarnation,
            key,
        };
        Ok(seal::open(&[KEY], place, sealed)?.context)
    }

    fn seal(&self, bucket: Incarnation, key: &[u8], context: &Context) -> Vec<u8> {
        seal::seal(&KEY, Place { bucket, key }, START_MS, context)
    }

    fn get(&self, request: GetRequest) -> Pending<'_, Result<Got, GetError>> {
        let mut state = self.fake.state();
        state.last_get = Some(request.clone());
        if state.faults.hangs {
            return Box::pin(std::future::pending());
        }
        if let Some(error) = &state.faults.get {
            return ready(Err(error.clone()));
        }
        let (panics, delay) = (state.faults.panics, state.faults.delays);
        let found = match state.find(&request.bucket) {
            Some(bucket) => Ok(state.got(&bucket, &request.key)),
            None => Err(GetError::NoBucket(request.bucket)),
        };
        drop(state);
        assert!(!panics, "the fake was asked to panic");
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            found
        })
    }

    fn put(&self, request: PutRequest) -> Pending<'_, Result<Stored, PutError>> {
        let mut state = self.fake.state();
        if let Some(error) = &state.faults.put {
            return ready(Err(error.clone()));
        }
        let stored = match state.find(&request.bucket) {
            Some(bucket) => state.stored(&bucket, request),
            None => Err(PutError::NoBucket(request.bucket)),
        };
        if state.faults.holds {
            return Box::pin(async {
                self.fake.pass().await;
                stored
            });
        }
        ready(stored)
    }

    fn list(&self, request: ListRequest) -> Pending<'_, Result<Listed, ListError>> {
        let state = self.fake.state();
        if let Some(error) = &state.faults.list {
            return ready(Err(error.clone()));
        }
        let Some(bucket) = state.find(&request.bucket) else {
            return ready(Err(ListError::NoBucket(request.bucket)));
        };
        let fits = |((place, key), object): &(&(u64, Bytes), &Object)| {
            *place == bucket.incarnation.0
                && object.live().next().is_some()
                && key.starts_with(&request.prefix)
                && request.after.as_ref().is_none_or(|after| key > after)
        };
        let mut keys: Vec<Bytes> = state
            .objects
            .iter()
            .filter(fits)
            .map(|((_, key), _)| key.clone())
            .collect();
        let more = keys.len() > request.limit;
        keys.truncate(request.limit);
        let next = if more { keys.last().cloned() } else { None };
        ready(Ok(Listed { keys, next }))
    }

    fn explain(&self, request: GetRequest) -> Pending<'_, Result<Explained, GetError>> {
        let state = self.fake.state();
        let Some(bucket) = state.find(&request.bucket) else {
            return ready(Err(GetError::NoBucket(request.bucket)));
        };
        let got = state.got(&bucket, &request.key);
        let owner = Owner {
            hint: false,
            node: node(),
            primary: true,
            state: "alive",
            digest: Some(Digest::of(b"")),
            siblings: Some(1),
        };
        ready(Ok(Explained {
            partition: 5,
            preference: vec![owner],
            siblings: got.siblings,
            resolver: state.faults.note.clone(),
        }))
    }

    fn conflicts(&self, request: ListRequest) -> Pending<'_, Result<ConflictPage, ListError>> {
        let state = self.fake.state();
        if state.find(&request.bucket).is_none() {
            return ready(Err(ListError::NoBucket(request.bucket)));
        }
        let conflict = Conflict {
            key: Bytes::from_static(b"\xffk"),
            reason: "no resolver is bound".to_owned(),
            resolver: Some(("cart".to_owned(), Digest::of(b"x"))),
            siblings: 2,
            since_ms: START_MS,
            trace_id: [1; 16],
        };
        ready(Ok(ConflictPage {
            conflicts: vec![conflict],
            next: None,
        }))
    }
}

/// Forms are compared in tests of uploads.
pub(crate) fn form_of(fake: &Fake, name: &str) -> Option<Form> {
    fake.state()
        .resolvers
        .get(name)?
        .last()
        .map(|(_, upload)| upload.form)
}
