//! Before a node that was told to join is one: it has a store and addresses, knocks, and keeps what names it.
//!
//! The store is opened for this and given free again: when the node then starts as any other, the document is in it
//! as if it had always been. A store that holds a document already has joined, whatever the flags say; one that was
//! begun and not named yet knocks on as the same store, so that nobody is taken in twice.

use std::path::Path;
use std::time::Duration;

use rand::RngExt as _;
use sibyl_core::id::NodeId;
use sibyl_core::joining::{Asking, Effect, Event, Knock, Told, Wish};
use sibyl_core::message;
use sibyl_core::registry::{BadDocument, Document, Held, Joiner};
use tokio::sync::watch;

use super::{CHOSEN, JOINED};
use crate::outside;
use crate::peer;
use crate::store::{self, Batch, Opened, Space, Start};

/// What a node says of itself, and where it asks.
#[derive(Clone, Debug)]
pub struct Ground {
    /// Its name.
    pub me: NodeId,
    /// The cluster's name, if the operator gave it.
    pub cluster_id: Option<String>,
    /// Peer addresses of members.
    pub addresses: Vec<String>,
    /// What it wants.
    pub wish: Wish,
    /// Where its peers reach it.
    pub peer_addr: String,
    /// Where its HTTP API is.
    pub url: String,
    /// Its failure domain.
    pub zone: Option<String>,
    /// How many tokens it wants.
    pub tokens: u32,
}

/// Why a node cannot join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Its folder cannot be used.
    #[error(transparent)]
    Open(#[from] store::OpenError),
    /// Its store cannot be read.
    #[error("the stored registry document cannot be read")]
    Read(#[from] store::ReadError),
    /// What is stored is no document.
    #[error("the stored registry document: {0}")]
    Stored(#[from] BadDocument),
    /// Its store takes no write.
    #[error("the registry document cannot be kept")]
    Write(#[from] store::WriteError),
    /// The cluster does not take it in.
    #[error("the cluster does not take this node in: {0}")]
    Refused(String),
}

/// The document that this node's store holds; none if it has not joined. The folder is free again afterwards.
///
/// # Errors
/// [`JoinError`].
pub fn joined(folder: &Path) -> Result<Option<Document>, JoinError> {
    Ok(kept(&open(folder)?)?.map(|held| held.document))
}

/// Knocks until a document names this node, and keeps it. `reasons` hears why that takes so long.
///
/// # Errors
/// [`JoinError`].
pub async fn join(
    ground: &Ground,
    folder: &Path,
    reasons: &watch::Sender<Vec<String>>,
) -> Result<Document, JoinError> {
    let opened = open(folder)?;
    let knock = Knock {
        cluster_id: ground.cluster_id.clone(),
        joiner: Joiner {
            node: ground.me.clone(),
            store: opened.actor,
            peer_addr: ground.peer_addr.clone(),
            zone: ground.zone.clone(),
            tokens: ground.tokens,
        },
        url: ground.url.clone(),
        wish: ground.wish,
    };
    let mut asking = Asking::new(
        ground.me.clone(),
        ground.cluster_id.clone(),
        ground.wish,
        ground.addresses.clone(),
    );
    let ask = message::encode(&knock);
    let mut event = Event::Woken;
    // Ends when it is named or refused; until then it is what an operator asked for.
    let held = loop {
        let effect = asking.handle(event);
        tell(reasons, &asking);
        event = match effect {
            Effect::Knock(address) => match peer::knock(&address, ask.clone()).await {
                Ok((head, body)) => match message::decode::<Told>(&head) {
                    Ok(told) => Event::Answered(told, body.to_vec()),
                    Err(error) => Event::Failed(error.to_string()),
                },
                Err(error) => Event::Failed(error.to_string()),
            },
            Effect::Pause(least_ms, most_ms) => {
                let pause_ms = outside::rng().random_range(least_ms..=most_ms);
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                Event::Woken
            }
            Effect::Start(held) => break held,
            Effect::GiveUp(why) => return Err(JoinError::Refused(why)),
        };
    };
    keep(&opened, &held)?;
    let document = held.document;
    tracing::info!(
        cluster = %document.cluster_id,
        lineage = ?document.lineage(),
        number = document.number,
        "this node is named by the cluster"
    );
    Ok(document)
}

fn tell(reasons: &watch::Sender<Vec<String>>, asking: &Asking) {
    let now = asking.reasons();
    let changed = reasons.send_if_modified(|reasons| {
        let changed = *reasons != now && !now.is_empty();
        if changed {
            reasons.clone_from(&now);
        }
        changed
    });
    if changed {
        tracing::info!(reasons = now.join("; "), "joining");
    }
}

fn open(folder: &Path) -> Result<Opened, JoinError> {
    let opened = store::open(folder, || outside::rng().random())?;
    if let Start::Amnesia(cause) = &opened.start {
        tracing::error!(%cause, "the store cannot prove what it remembers: a new one is begun, the old one kept aside");
    }
    Ok(opened)
}

fn kept(opened: &Opened) -> Result<Option<Held>, JoinError> {
    let bytes = opened.store.get(Space::Meta, CHOSEN.as_bytes())?;
    Ok(bytes.map(|bytes| Held::decode(&bytes)).transpose()?)
}

fn keep(opened: &Opened, held: &Held) -> Result<(), JoinError> {
    let mut batch = Batch::new();
    batch.put(Space::Meta, CHOSEN.as_bytes(), held.encode());
    batch.put(Space::Meta, JOINED.as_bytes(), vec![1]);
    opened.store.apply(batch)?;
    store::commit(&*opened.store, &opened.watermark)?;
    Ok(())
}
