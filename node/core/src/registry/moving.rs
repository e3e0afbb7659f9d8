//! The changes of owners: join, leave, remove, replace, and the steps in between.
//!
//! One change at a time; but whoever died may be removed, and whoever joins may go again, in the middle of one:
//! the owners of before stay those of before, and what there is to fetch is computed anew.

use std::collections::BTreeMap;

use super::change::ChangeError;
use super::document::{Document, Member};
use super::owners::{Farewell, Former, OwnerChange, Seat};
use super::partitions::Partitions;
use crate::id::{Actor, NodeId};

/// What a node says of itself when it asks to be taken in.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Joiner {
    /// Its name.
    pub node: NodeId,
    /// Its store.
    pub store: Actor,
    /// Where its peers reach it: `HOST:PORT`.
    pub peer_addr: String,
    /// Its failure domain.
    pub zone: Option<String>,
    /// How many tokens it wants.
    pub tokens: u32,
}

pub(super) fn join(next: &mut Document, joiner: &Joiner) -> Result<(), ChangeError> {
    if is_in(next, joiner)? {
        if member(next, &joiner.node)?.leaving {
            // It stays after all.
            let before = seats(next);
            member_mut(next, &joiner.node)?.leaving = false;
            aim(next, before);
        }
        return Ok(());
    }
    alone(next)?;
    let before = seats(next);
    let seat = free_seat(next, &joiner.node)?;
    admit(next, joiner, seat, joiner.tokens);
    aim(next, before);
    Ok(())
}

pub(super) fn leave(next: &mut Document, node: &NodeId) -> Result<(), ChangeError> {
    let member = member(next, node)?;
    if member.leaving {
        return Ok(());
    }
    if is_joining(next, node) {
        give_back(next, node);
    } else {
        alone(next)?;
    }
    enough_without(next, node)?;
    let before = seats(next);
    member_mut(next, node)?.leaving = true;
    aim(next, before);
    Ok(())
}

pub(super) fn remove(
    next: &mut Document,
    node: &NodeId,
    store: Option<Actor>,
) -> Result<(), ChangeError> {
    let Some(found) = next.layout.members.get(node) else {
        return is_former(next, node, store);
    };
    if store.is_some() && found.store != store {
        // It came back with another store meanwhile: that one did not fail.
        return Ok(());
    }
    let leaving = found.leaving;
    if is_joining(next, node) {
        give_back(next, node);
    }
    if !leaving {
        enough_without(next, node)?;
    }
    let before = seats(next);
    bid_farewell(next, node, Farewell::Removed);
    aim(next, before);
    Ok(())
}

/// `by` takes the places of `node`, which is gone for good unless it is said to be `alive`: then it hands over.
pub(super) fn replace(
    next: &mut Document,
    node: &NodeId,
    by: &Joiner,
    alive: bool,
) -> Result<(), ChangeError> {
    if is_in(next, by)? {
        return Ok(());
    }
    let Member { seat, tokens, .. } = member(next, node)?.clone();
    if alive {
        alone(next)?;
    }
    let before = seats(next);
    if alive {
        member_mut(next, node)?.leaving = true;
    } else {
        bid_farewell(next, node, Farewell::Removed);
    }
    admit(next, by, seat, tokens);
    aim(next, before);
    Ok(())
}

/// A new owner has fetched these. Said of another change, or by a store that is lost, it means nothing.
pub(super) fn filled(
    next: &mut Document,
    began: u64,
    node: &NodeId,
    store: Actor,
    got: &Partitions,
) {
    let named = next
        .layout
        .members
        .get(node)
        .and_then(|member| member.store);
    let Some(change) = next
        .layout
        .change
        .as_mut()
        .filter(|change| change.began == began)
    else {
        return;
    };
    if let Some(missing) = change
        .missing
        .get_mut(node)
        .filter(|_| named == Some(store))
    {
        let before = missing.len();
        missing.subtract(got);
        if missing.len() < before {
            next.layout.since = next.number;
        }
        change.missing.retain(|_, missing| !missing.is_empty());
    }
}

pub(super) fn retire(next: &mut Document, began: u64) -> Result<(), ChangeError> {
    let Some(change) = next
        .layout
        .change
        .as_ref()
        .filter(|change| change.began == began)
    else {
        return Ok(());
    };
    if !change.missing.is_empty() {
        return Err(ChangeError::UnderWay { began });
    }
    next.layout.change = None;
    next.layout.since = next.number;
    let gone: Vec<NodeId> = next
        .layout
        .members
        .iter()
        .filter(|(_, member)| member.leaving)
        .map(|(node, _)| node.clone())
        .collect();
    gone.iter()
        .for_each(|node| bid_farewell(next, node, Farewell::Left));
    Ok(())
}

/// A member has a new store: what it had fetched is lost with the old one.
pub(super) fn lost(next: &mut Document, node: &NodeId) {
    let Some(before) = next
        .layout
        .change
        .as_ref()
        .map(|change| change.before.clone())
    else {
        return;
    };
    let again = next.moves_from(&before).remove(node);
    if let (Some(change), Some(again)) = (next.layout.change.as_mut(), again) {
        change.missing.insert(node.clone(), again);
        next.layout.since = next.number;
    }
}

/// Gives the change under way, or a new one, the members as they are now as its aim.
fn aim(next: &mut Document, before: BTreeMap<NodeId, Seat>) {
    let missing = next.moves_from(&before);
    next.layout.since = next.number;
    next.layout.change = Some(OwnerChange {
        began: next.number,
        before,
        missing,
    });
}

/// Who stands on the ring: by the change under way those of before it.
fn seats(document: &Document) -> BTreeMap<NodeId, Seat> {
    if let Some(change) = &document.layout.change {
        return change.before.clone();
    }
    let members = document.layout.members.iter();
    members
        .map(|(node, member)| (node.clone(), member.seat()))
        .collect()
}

fn admit(next: &mut Document, joiner: &Joiner, seat: NodeId, tokens: u32) {
    let known = next
        .layout
        .former
        .values()
        .filter(|former| former.node == joiner.node);
    let incarnation = known.map(|former| former.incarnation).max().unwrap_or(0) + 1;
    let member = Member {
        peer_addr: joiner.peer_addr.clone(),
        zone: joiner.zone.clone(),
        tokens,
        incarnation,
        store: Some(joiner.store),
        seat,
        leaving: false,
    };
    next.layout.members.insert(joiner.node.clone(), member);
}

fn bid_farewell(next: &mut Document, node: &NodeId, why: Farewell) {
    let number = next.number;
    if let Some(Member {
        incarnation,
        store: Some(store),
        ..
    }) = next.layout.members.remove(node)
    {
        let former = Former {
            node: node.clone(),
            incarnation,
            why,
            number,
        };
        next.layout.former.insert(store, former);
    }
}

/// Whether this store is a member already; another store under its name, or one that was sent away, is refused.
fn is_in(document: &Document, joiner: &Joiner) -> Result<bool, ChangeError> {
    check_store(document, joiner.store)?;
    match document.layout.members.get(&joiner.node) {
        Some(member) if member.store == Some(joiner.store) => Ok(true),
        Some(_) => Err(ChangeError::NameTaken(joiner.node.clone())),
        None => Ok(false),
    }
}

pub(super) fn check_store(document: &Document, store: Actor) -> Result<(), ChangeError> {
    match document.layout.former.get(&store) {
        Some(former) => Err(ChangeError::Fenced {
            node: former.node.clone(),
            number: former.number,
        }),
        None => Ok(()),
    }
}

fn is_former(document: &Document, node: &NodeId, store: Option<Actor>) -> Result<(), ChangeError> {
    let mut former = document.layout.former.iter();
    let known =
        former.any(|(at, former)| former.node == *node && store.is_none_or(|store| store == *at));
    if known {
        Ok(())
    } else {
        Err(ChangeError::NoMember(node.clone()))
    }
}

fn alone(document: &Document) -> Result<(), ChangeError> {
    match &document.layout.change {
        Some(change) => Err(ChangeError::UnderWay {
            began: change.began,
        }),
        None => Ok(()),
    }
}

/// Whether it is to become an owner by the change under way, and was none before.
fn is_joining(document: &Document, node: &NodeId) -> bool {
    let change = document.layout.change.as_ref();
    change.is_some_and(|change| !change.before.contains_key(node))
}

/// A node that joins turns round: whose places it was to take keeps them.
fn give_back(next: &mut Document, node: &NodeId) {
    let seat = next
        .layout
        .members
        .get(node)
        .map(|member| member.seat.clone());
    let members = next.layout.members.iter_mut();
    let other =
        members.filter(|(other, member)| *other != node && Some(&member.seat) == seat.as_ref());
    other.for_each(|(_, member)| member.leaving = false);
}

/// Fewer members than copies would be fewer copies; but a node that joins may turn round.
fn enough_without(document: &Document, node: &NodeId) -> Result<(), ChangeError> {
    let stood = document
        .layout
        .change
        .as_ref()
        .map_or(usize::MAX, |change| change.before.len());
    let others = document.layout.members.iter();
    let left = others
        .filter(|(other, member)| *other != node && !member.leaving)
        .count();
    let most = document
        .buckets
        .iter()
        .max_by_key(|(_, bucket)| bucket.config.n);
    match most {
        Some((name, bucket)) if left < usize::from(bucket.config.n).min(stood) => {
            Err(ChangeError::TooFew {
                left,
                bucket: name.clone(),
                n: bucket.config.n,
            })
        }
        _ => Ok(()),
    }
}

/// A node that left its places to another stands elsewhere when it comes again.
fn free_seat(document: &Document, node: &NodeId) -> Result<NodeId, ChangeError> {
    let is_free = |seat: &NodeId| {
        document
            .layout
            .members
            .values()
            .all(|member| member.seat != *seat)
    };
    let again =
        (2..=document.layout.members.len() + 2).map(|time| format!("{node}.{time}").parse());
    let seats = std::iter::once(Ok(node.clone())).chain(again);
    let free = seats.filter_map(Result::ok).find(is_free);
    free.ok_or_else(|| ChangeError::NameTaken(node.clone()))
}

fn member<'a>(document: &'a Document, node: &NodeId) -> Result<&'a Member, ChangeError> {
    let found = document.layout.members.get(node);
    found.ok_or_else(|| ChangeError::NoMember(node.clone()))
}

fn member_mut<'a>(
    document: &'a mut Document,
    node: &NodeId,
) -> Result<&'a mut Member, ChangeError> {
    let found = document.layout.members.get_mut(node);
    found.ok_or_else(|| ChangeError::NoMember(node.clone()))
}
