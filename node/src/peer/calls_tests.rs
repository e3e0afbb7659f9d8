//! The slab: generations, certainty, deadlines, room.

use std::time::Duration;

use super::*;

fn answer(size: usize) -> Result<Answer, CallError> {
    Ok(Answer {
        head: Bytes::new(),
        body: Bytes::from(vec![0; size]),
        registry: 0,
    })
}

fn poll(calls: &mut Calls, id: u64) -> Option<Result<Answer, CallError>> {
    match calls.poll(id, &Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

#[test]
fn a_late_answer_misses_the_next_call_in_the_slot() {
    let (mut calls, later) = (Calls::default(), Instant::now() + Duration::from_secs(9));
    let first = calls.insert(later, 10).expect("room");
    calls.cancel(first);
    let second = calls.insert(later, 10).expect("room");
    assert_ne!(first, second);
    assert_eq!(first as u32, second as u32, "the same slot");
    calls.complete(first, answer(1), &mut Vec::new());
    assert!(poll(&mut calls, second).is_none());
    calls.complete(second, answer(2), &mut Vec::new());
    let got = poll(&mut calls, second).expect("done").expect("an answer");
    assert_eq!(got.body.len(), 2);
    assert_eq!((calls.len(), calls.bytes()), (0, 0));
}

#[test]
fn certainty_follows_the_writer() {
    let now = Instant::now();
    let (mut calls, later) = (Calls::default(), now + Duration::from_secs(9));
    let written = calls.insert(later, 1).expect("room");
    let queued = calls.insert(later, 1).expect("room");
    let dropped = calls.insert(later, 1).expect("room");
    assert!(calls.sending(written, now));
    calls.cancel(dropped);
    assert!(!calls.sending(dropped, now), "nobody waits for it");
    assert!(!calls.sending(queued, later), "too late to send it");
    calls.fail_all(|| Reason::Cut, &mut Vec::new());
    let mut sent = |id| {
        poll(&mut calls, id)
            .expect("done")
            .expect_err("failed")
            .sent
    };
    assert_eq!(sent(written), Sent::Maybe);
    assert_eq!(sent(queued), Sent::No);
}

#[test]
fn overdue_calls_fail_and_the_next_deadline_is_known() {
    let now = Instant::now();
    let at = |ms| now + Duration::from_millis(ms);
    let mut calls = Calls::default();
    let late = calls.insert(at(500), 1).expect("room");
    let soon = calls.insert(at(100), 1).expect("room");
    assert_eq!(calls.earliest(), Some(at(100)));
    calls.expire(at(99), &mut Vec::new());
    assert!(poll(&mut calls, soon).is_none());
    calls.expire(at(100), &mut Vec::new());
    let err = poll(&mut calls, soon).expect("done").expect_err("overdue");
    assert_eq!((err.reason, err.sent), (Reason::Timeout, Sent::No));
    assert!(poll(&mut calls, late).is_none());
    assert_eq!(calls.earliest(), Some(at(500)));
    calls.cancel(late);
    calls.expire(at(500), &mut Vec::new());
    assert_eq!(calls.earliest(), None);
}

#[test]
fn calls_and_bytes_are_bounded() {
    let later = Instant::now() + Duration::from_secs(9);
    let mut calls = Calls::default();
    let large = calls.insert(later, MAX_PEER_BYTES).expect("room");
    assert_eq!(calls.insert(later, 1), None);
    calls.complete(large, answer(0), &mut Vec::new());
    for _ in 1..MAX_CALLS {
        calls.insert(later, 1).expect("room");
    }
    assert_eq!(calls.insert(later, 1), None, "the answer not taken counts");
    assert!(poll(&mut calls, large).is_some());
    assert!(calls.insert(later, 1).is_some());
}

#[test]
fn answers_nobody_takes_do_not_pile_up() {
    let later = Instant::now() + Duration::from_secs(9);
    let mut calls = Calls::default();
    let ids: Vec<_> = (0..4)
        .map(|_| calls.insert(later, 1).expect("room"))
        .collect();
    let mut refused = 0;
    for id in &ids {
        calls.complete(*id, answer(MAX_PEER_BYTES - 1), &mut Vec::new());
        refused += usize::from(calls.bytes() <= 2 * MAX_PEER_BYTES);
    }
    assert_eq!(refused, 4, "never more than twice the limit");
    let last = poll(&mut calls, ids[3])
        .expect("done")
        .expect_err("no room");
    assert_eq!((last.reason, last.sent), (Reason::Overloaded, Sent::Maybe));
}
