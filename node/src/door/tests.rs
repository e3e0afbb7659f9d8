//! Places go on, are given back however their requests end, and background work waits for those who wait.

use futures_util::FutureExt as _;

use super::*;
use crate::replica::{Count, Ground};
use crate::store::WriteError;
use crate::store::disk::Gauge;
use crate::store::memory::Memory;

const LONG: Duration = Duration::from_secs(60);

struct Nothing;

impl Count for Nothing {
    fn mint(&mut self) -> Result<u64, WriteError> {
        Ok(1)
    }

    fn peek(&self) -> u64 {
        1
    }
}

fn door(max_requests: usize) -> Door {
    let replica = Replica::start(Ground {
        store: Arc::new(Memory::new()),
        watermark: None,
        counters: Box::new(Nothing),
        actor: sibyl_core::id::Actor(1),
        line: 0,
        hint_quota_bytes: 0,
        gauge: Gauge::boundless(),
        observer: Box::new(drop),
    });
    Door::new(replica, max_requests)
}

#[tokio::test]
async fn a_place_that_is_given_back_goes_on() {
    let door = door(1);
    let first = door.enter(LONG).await.expect("a free place");
    let mut second = Box::pin(door.enter(LONG));
    assert!(second.as_mut().now_or_never().is_none(), "it waits");
    drop(first);
    let second = second.await.expect("its turn");
    assert_eq!(door.load().running, 1);
    drop(second);
    assert_eq!(door.load(), Load::default());
}

#[tokio::test]
async fn whoever_goes_while_it_waits_leaves_nothing_behind() {
    let door = door(1);
    let first = door.enter(LONG).await.expect("a free place");
    let mut gone = Box::pin(door.enter(LONG));
    assert!(gone.as_mut().now_or_never().is_none());
    drop(gone);
    assert_eq!(door.load().waiting, 0);
    // One that was told and goes before it hears of it gives its place back.
    let mut told = Box::pin(door.enter(LONG));
    assert!(told.as_mut().now_or_never().is_none());
    drop(first);
    assert_eq!((door.load().running, door.load().waiting), (1, 0));
    drop(told);
    assert_eq!(door.load(), Load::default());
}

#[tokio::test]
async fn beyond_the_line_requests_are_shed_at_once() {
    let door = door(1);
    let _first = door.enter(LONG).await.expect("a free place");
    let mut waiting: Vec<_> = (0..WAITING_PER_RUNNING)
        .map(|_| Box::pin(door.enter(LONG)))
        .collect();
    for waits in &mut waiting {
        assert!(waits.as_mut().now_or_never().is_none());
    }
    let beyond = door.enter(LONG).now_or_never();
    assert_eq!(beyond.map(|shed| shed.map(drop)), Some(Err(Shed::Full)));
    for waits in waiting {
        assert_eq!(waits.await.map(drop), Err(Shed::Waited));
    }
}

#[tokio::test]
async fn background_work_waits_until_nobody_waits() {
    let door = door(1);
    door.yield_to_clients()
        .now_or_never()
        .expect("nobody is there");
    let first = door.enter(LONG).await.expect("a free place");
    let mut second = Box::pin(door.enter(LONG));
    assert!(second.as_mut().now_or_never().is_none());
    let mut background = Box::pin(door.yield_to_clients());
    assert!(background.as_mut().now_or_never().is_none(), "it waits");
    drop(first);
    let _second = second.await.expect("its turn");
    background.await;
    assert_eq!(door.load().waiting, 0);
}
