//! The watermark under tears and flipped bits, byte by byte.

use bytes::Bytes;
use sibyl_core::id::Actor;

use super::entry::{self, Damage, Entry};
use super::*;

fn state() -> State {
    let mut state = State::unborn(Actor(0x0123_4567_89ab_cdef), false, 1 << 20);
    state.ready = true;
    state.synced = 3;
    state.promises.insert(4, Bytes::from_static(b"promised"));
    state
}

/// A file of a snapshot and these writes, and where the last begins.
fn file(writes: &[Vec<Entry>]) -> (Vec<u8>, usize) {
    let mut bytes = entry::snapshot(&state());
    let mut last = bytes.len();
    for (number, entries) in (1..).zip(writes) {
        last = bytes.len();
        bytes.extend(entry::encode(number, entries));
    }
    bytes.resize(bytes.len() + 64, 0);
    (bytes, last)
}

fn after(writes: &[Vec<Entry>]) -> State {
    let mut state = state();
    writes
        .iter()
        .flatten()
        .for_each(|e| entry::apply(&mut state, e.clone()));
    state
}

fn history() -> Vec<Vec<Entry>> {
    vec![
        vec![Entry::Synced(4)],
        vec![Entry::Synced(5), Entry::Reserved(2 << 20)],
        vec![Entry::Promise(5, Bytes::from_static(b"accepted document"))],
        vec![Entry::ForgetBelow(5)],
        vec![Entry::Incarnation(7)],
        vec![Entry::Reserved(3 << 20)],
    ]
}

#[test]
fn what_was_written_is_read() {
    for length in 0..=history().len() {
        let writes = &history()[..length];
        assert_eq!(entry::read(&file(writes).0), Ok(after(writes)));
    }
}

#[test]
fn a_torn_last_write_leaves_what_was_before_it() {
    let history = history();
    let (bytes, last) = file(&history);
    let (before, whole) = (after(&history[..history.len() - 1]), after(&history));
    for cut in last..bytes.len() {
        let read = entry::read(&bytes[..cut]).unwrap();
        assert!(read == before || read == whole, "cut at {cut}");
        // Pages reach the disk in any order: the front may be missing as well.
        let mut torn = bytes.clone();
        torn[last..cut].fill(0);
        let read = entry::read(&torn).unwrap();
        assert!(read == before || read == whole, "torn until {cut}");
    }
}

#[test]
fn a_flipped_bit_loses_no_reservation_and_no_promise() {
    for length in 0..=history().len() {
        let writes = &history()[..length];
        let (bytes, _) = file(writes);
        let whole = after(writes);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let Ok(read) = entry::read(&damaged) else {
                continue;
            };
            let State { synced, .. } = read;
            assert!(synced <= whole.synced, "bit {bit}");
            let expected = State {
                synced,
                ..whole.clone()
            };
            assert_eq!(read, expected, "bit {bit} after {length} writes");
        }
    }
}

#[test]
fn damage_before_the_tail_is_never_passed_over() {
    let (bytes, last) = file(&history());
    for bit in 0..last * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        if let Ok(read) = entry::read(&damaged) {
            // Only padding may change unseen.
            assert_eq!(read, after(&history()), "bit {bit}");
        }
    }
    let mut gap = bytes;
    let first = entry::snapshot(&state()).len();
    gap[first..first + 32].fill(0);
    let damage = Damage::Write { write: 1, last: 6 };
    assert_eq!(entry::read(&gap), Err(damage));
}

#[test]
fn the_format_is_golden() {
    let bytes = entry::encode(2, &[Entry::Synced(0x0102)]);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex.len(), 64);
    assert_eq!(
        &hex[8..],
        "0800000002000000000000000000010006000000".to_owned() + "0201000000000000"
    );
}

#[test]
fn a_newer_file_is_not_called_damaged() {
    let mut bytes = entry::encode(0, &[Entry::Ready]);
    let mut header = entry::snapshot(&state());
    header[24] = 9;
    let checksum = crc32c::crc32c(&header[4..34]);
    header[..4].copy_from_slice(&checksum.to_le_bytes());
    bytes.splice(0..0, header);
    assert_eq!(entry::read(&bytes), Err(Damage::Newer(9)));
}

#[test]
fn nothing_is_forgotten_when_the_file_is_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let watermark = Watermark::create(folder.path(), state(), None).unwrap();
    let promise = Bytes::from(vec![7; 100 * 1024]);
    for number in 4..9 {
        watermark.promise(number, promise.clone()).unwrap();
        watermark.synced(number).unwrap();
    }
    watermark.want_reserved(9 << 20);
    assert_eq!(watermark.reserved_end(), 1 << 20);
    watermark.synced(10).unwrap();
    assert_eq!(watermark.reserved_end(), 9 << 20);
    watermark.raise_incarnation(4).unwrap();
    watermark.forget_promises_below(6).unwrap();
    assert_eq!(watermark.promised(5), None);
    assert_eq!(watermark.promised(8), Some(promise.clone()));
    drop(watermark);
    let read = load(folder.path()).unwrap();
    assert_eq!((read.synced, read.reserved_end), (10, 9 << 20));
    assert_eq!(read.incarnation, 4);
    assert_eq!(read.promises.keys().copied().collect::<Vec<_>>(), [6, 7, 8]);
    assert!(read.promises.values().all(|kept| *kept == promise));
    assert!(!folder.path().join(NEW_NAME).exists());
}

#[test]
fn promises_have_limits() {
    let folder = tempfile::tempdir().unwrap();
    let watermark = Watermark::create(folder.path(), state(), None).unwrap();
    let long = Bytes::from(vec![0; MAX_PROMISE_BYTES + 1]);
    assert!(matches!(
        watermark.promise(4, long),
        Err(PromiseError::TooLong(_))
    ));
    for number in 5..12 {
        watermark.promise(number, Bytes::new()).unwrap();
    }
    let refused = watermark.promise(12, Bytes::new());
    assert!(matches!(refused, Err(PromiseError::TooMany)));
    watermark.promise(11, Bytes::from_static(b"again")).unwrap();
    watermark.forget_promises_below(11).unwrap();
    watermark.promise(12, Bytes::new()).unwrap();
}
