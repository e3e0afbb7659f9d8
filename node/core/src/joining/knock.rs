//! What a node that is no member asks of a member, what it is told, and what a document says to it.
//!
//! Decides from the document alone; whether the member of that name is here at this moment is an argument.

use serde::{Deserialize, Serialize};

use crate::id::{Digest, NodeId};
use crate::registry::{Document, Farewell, Former, Joiner};

/// The most addresses of members that a waiting node is told: of 263 bytes each they fit a head of 64 KiB.
pub const MAX_TOLD_ADDRESSES: usize = 64;

/// What a node wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wish {
    /// To be taken in now.
    Join,
    /// To be known, until an operator names it.
    Wait,
    /// To give what its store holds, if that was sent away.
    Salvage,
    /// The same, if the lineage that the store is of was given up for the one here.
    Return(Digest),
}

/// A node that is no member asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knock {
    /// The cluster it was told to join, if it was.
    pub cluster_id: Option<String>,
    /// What it says of itself.
    pub joiner: Joiner,
    /// Where its HTTP API is.
    pub url: String,
    /// What it wants.
    pub wish: Wish,
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// The body is a chosen document, with its proof, that names this node.
    Named,
    /// Not yet: ask again.
    Wait {
        /// The cluster's name.
        cluster_id: String,
        /// Which of that name; none while it forms.
        lineage: Option<Digest>,
        /// Why not yet.
        why: String,
        /// Where other members can be asked; not all, in a large cluster.
        members: Vec<String>,
    },
    /// Never, as things are; in words for its operator.
    Refused(String),
    /// Its store was sent away: bring what it holds, on this connection.
    Bring {
        /// The cluster's name.
        cluster_id: String,
        /// Which of that name.
        lineage: Option<Digest>,
        /// Whose store it was, by which document it went, and why.
        former: Former,
    },
}

/// Why a node is not taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It was told to join another cluster.
    #[error(
        "this is cluster {ours:?}, not {theirs:?}: check --cluster-id and the addresses of --join"
    )]
    Cluster {
        /// Its name here.
        ours: String,
        /// What the node was told.
        theirs: String,
    },
    /// It is of another lineage, which was not given up for this one.
    #[error(
        "two clusters of one name, this one {ours}, that one {theirs}, and neither follows from the other: either they were formed apart, or one cluster was recovered twice; then keep one, and start the nodes of the other with --yield and a peer address of the one that is kept"
    )]
    Apart {
        /// The lineage here.
        ours: Digest,
        /// That of the node.
        theirs: Digest,
    },
    /// Its store is that of a former member.
    #[error("{}", farewell(.0))]
    Former(Former),
    /// A member is called so.
    #[error(
        "{0} is a member with another store: give this node another --node-id, or replace the member"
    )]
    Name(NodeId),
    /// A member is reached there.
    #[error(
        "{address} is the peer address of {node}: give this node its own --peer-listen, or say with --peer-advertise how it is reached"
    )]
    Address {
        /// The address.
        address: String,
        /// The member.
        node: NodeId,
    },
    /// Somebody else knocks under that name.
    #[error("another node that calls itself {0} asks to be taken in: give each its own --node-id")]
    Knocks(NodeId),
    /// Too many knock.
    #[error("{0} nodes wait to be taken in already, which is the most")]
    Full(usize),
}

impl Refusal {
    /// Whether asking again later may help: another store of that name, or some of many, may be gone by then.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Knocks(_) | Self::Full(_))
    }
}

/// What the document says of a knock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// It names the node: hand it over.
    Named,
    /// It names the node with a store that is lost, so the node comes back: hand it over, too.
    Returns,
    /// It does not know the node.
    Stranger,
    /// It sent the node's store away, and the node wants to give what that holds.
    Gives(Former),
}

/// Judges a knock. `is_here`: whether the member of that name can be reached now, with the store that is named.
///
/// # Errors
/// [`Refusal`].
pub fn judge(document: &Document, knock: &Knock, is_here: bool) -> Result<Judged, Refusal> {
    let Knock {
        cluster_id, joiner, ..
    } = knock;
    if let Some(theirs) = cluster_id.as_ref().filter(|id| **id != document.cluster_id) {
        return Err(Refusal::Cluster {
            ours: document.cluster_id.clone(),
            theirs: theirs.clone(),
        });
    }
    if let (Wish::Return(theirs), Some(ours)) = (knock.wish, document.lineage())
        && ours != theirs
        && !document.follows_from(theirs)
    {
        return Err(Refusal::Apart { ours, theirs });
    }
    if let Some(former) = document.layout.former.get(&joiner.store) {
        let gives = matches!(knock.wish, Wish::Salvage | Wish::Return(_));
        // Who left has handed everything over before.
        if gives && former.why != Farewell::Left {
            return Ok(Judged::Gives(former.clone()));
        }
        return Err(Refusal::Former(former.clone()));
    }
    if let Some(former) = never_named(document, knock) {
        return Ok(Judged::Gives(former));
    }
    let members = &document.layout.members;
    if let Some(member) = members.get(&joiner.node) {
        let same_place = member.peer_addr == joiner.peer_addr;
        return match member.store == Some(joiner.store) {
            true => Ok(Judged::Named),
            // Where the member was is a node without its store: that store is gone.
            false if same_place && !is_here => Ok(Judged::Returns),
            false => Err(Refusal::Name(joiner.node.clone())),
        };
    }
    let mut others = members.iter();
    match others.find(|(_, member)| member.peer_addr == joiner.peer_addr) {
        Some((node, _)) => Err(Refusal::Address {
            address: joiner.peer_addr.clone(),
            node: node.clone(),
        }),
        None => Ok(Judged::Stranger),
    }
}

/// A store that its lineage had not named when that was given up, as a restored one: it is sent away with it.
fn never_named(document: &Document, knock: &Knock) -> Option<Former> {
    let Wish::Return(theirs) = knock.wish else {
        return None;
    };
    let mut members = document.layout.members.values();
    let is_member = members.any(|member| member.store == Some(knock.joiner.store));
    let recovery = document.recovery()?;
    (!is_member && document.follows_from(theirs)).then(|| Former {
        node: knock.joiner.node.clone(),
        incarnation: 0,
        why: Farewell::Removed,
        number: recovery.number,
    })
}

/// What is said to a store that was sent away.
pub fn farewell(former: &Former) -> String {
    let Former {
        node, number, why, ..
    } = former;
    match why {
        Farewell::Left => {
            format!("{node} left with document {number}: start it with an empty data folder")
        }
        Farewell::Removed => format!(
            "{node} was removed by document {number}: it gives what it holds to the owners of now and starts empty"
        ),
        Farewell::Lost => format!(
            "{node} was given up by the recovery that document {number} is: it gives what it holds to the owners of now and starts empty"
        ),
    }
}
