//! Where the demo plays: one client per node, patience with limits, and failures that name a log.
//!
//! It knows the public API and nothing of the story. Invariant: whatever waits has a limit and ends with what
//! was seen last.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::Unexpected;
use crate::cli::client::{Answer, Client, Error, Parts, bucket_path, key_path};
use crate::cli::failure::Failure;
use crate::cli::local_cluster::LocalCluster;
use crate::cli::{bucket, cluster};

/// Links close at once, and reachability is probed every few hundred milliseconds; a busy machine gets slack.
pub(super) const SETTLE_LIMIT: Duration = Duration::from_secs(20);

/// Uploading a large module compiles it on three nodes, in a debug build for a long time.
pub(super) const COMPILE_LIMIT: Duration = Duration::from_secs(240);

/// A bound resolver is compiled everywhere, but a first call on a busy machine, in a debug build, takes its time.
pub(super) const MERGE_LIMIT: Duration = Duration::from_secs(60);

/// One request of the data API; the node's own limit is shorter.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// One node of the demo.
pub(super) struct Actor {
    /// n1, n2 or n3.
    pub(super) node_id: String,
    /// For the data API.
    pub(super) client: Client,
    /// For uploads and bindings.
    pub(super) patient: Client,
    log: PathBuf,
}

/// All nodes.
pub(super) struct Stage {
    actors: Vec<Actor>,
    folder: PathBuf,
}

impl Stage {
    pub(super) fn new(cluster: &LocalCluster, folder: &Path) -> Result<Stage, Failure> {
        let actor = |node: &crate::cli::local_cluster::LocalNode| -> Result<Actor, Failure> {
            Ok(Actor {
                node_id: node.node_id.clone(),
                client: Client::new(&node.url, REQUEST_TIMEOUT)?,
                patient: Client::new(&node.url, COMPILE_LIMIT)?,
                log: node.log.clone(),
            })
        };
        let actors = cluster
            .nodes()
            .iter()
            .map(actor)
            .collect::<Result<_, _>>()?;
        Ok(Stage {
            actors,
            folder: folder.to_owned(),
        })
    }

    /// All nodes, n1 first.
    pub(super) fn all(&self) -> &[Actor] {
        &self.actors
    }

    /// The node on one side of the cut.
    pub(super) fn left(&self) -> &Actor {
        &self.actors[0]
    }

    /// The node on the other side.
    pub(super) fn right(&self) -> &Actor {
        &self.actors[1]
    }

    /// A failure that names the log to read.
    pub(super) fn unexpected(
        &self,
        actor: &Actor,
        doing: &str,
        expected: &str,
        saw: impl ToString,
    ) -> Failure {
        Failure::Unexpected(Box::new(Unexpected {
            doing: doing.to_owned(),
            expected: expected.to_owned(),
            saw: saw.to_string(),
            node_id: actor.node_id.clone(),
            log: actor.log.clone(),
            folder: self.folder.clone(),
        }))
    }

    /// Turns a client's error into a failure that names the log to read.
    pub(super) fn must<T>(
        &self,
        actor: &Actor,
        doing: &str,
        result: Result<T, Error>,
    ) -> Result<T, Failure> {
        result.map_err(|error| self.unexpected(actor, doing, "the node to do it", error))
    }

    /// Looks again until `look` is content or `limit` has passed; `look` says what it saw instead.
    pub(super) fn until<T>(
        &self,
        actor: &Actor,
        doing: &str,
        expected: &str,
        limit: Duration,
        mut look: impl FnMut() -> Result<T, String>,
    ) -> Result<T, Failure> {
        let started = Instant::now();
        loop {
            match look() {
                Ok(found) => return Ok(found),
                Err(saw) if started.elapsed() > limit => {
                    return Err(self.unexpected(actor, doing, expected, saw));
                }
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Cuts or mends the link between the two sides, on both.
    pub(super) fn cut(&self, cut: bool) -> Result<(), Failure> {
        let (left, right) = (self.left(), self.right());
        let doing = if cut { "cut the link" } else { "mend the link" };
        self.must(left, doing, cluster::cut(&left.client, &right.node_id, cut))?;
        self.must(
            right,
            doing,
            cluster::cut(&right.client, &left.node_id, cut),
        )
    }

    /// Creates a bucket and waits until every node knows it.
    pub(super) fn create_bucket(&self, name: &str) -> Result<(), Failure> {
        let first = self.left();
        let doing = format!("create the bucket {name}");
        self.until(
            first,
            &doing,
            "the registry to take it",
            SETTLE_LIMIT,
            || bucket::change(&first.client, name, &Map::new()).map_err(|error| error.to_string()),
        )?;
        for actor in &self.actors {
            let known = || {
                actor
                    .client
                    .get(&bucket_path(name), Parts::default())
                    .map_err(|error| error.to_string())
            };
            self.until(actor, &doing, "every node to know it", SETTLE_LIMIT, known)?;
        }
        Ok(())
    }

    /// The preference list of a key, or `None` if this node cannot tell for a key without a value.
    pub(super) fn preference_list(
        &self,
        bucket: &str,
        key: &str,
    ) -> Result<Option<Vec<String>>, Failure> {
        let actor = self.left();
        let doing = format!("explain {bucket}/{key}");
        let path = self.must(actor, &doing, key_path(bucket, key))?;
        let answer = match actor
            .client
            .get(&path, Parts::default().query("explain", true))
        {
            Err(Error::Refused(problem)) if problem.status == 404 => return Ok(None),
            other => self.must(actor, &doing, other)?,
        };
        let body = self.must(actor, &doing, answer.json())?;
        let nodes = body
            .get("preference_list")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let nodes: Vec<String> = nodes
            .filter_map(|node| Some(node.get("node_id")?.as_str()?.to_owned()))
            .collect();
        if nodes.is_empty() {
            return Err(self.unexpected(actor, &doing, "a preference list", body));
        }
        Ok(Some(nodes))
    }

    /// Reads a key once.
    pub(super) fn read(&self, actor: &Actor, bucket: &str, key: &str) -> Result<Answer, Error> {
        actor.client.get(&key_path(bucket, key)?, Parts::default())
    }
}
