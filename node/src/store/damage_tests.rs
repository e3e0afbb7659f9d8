//! What crashes, torn writes and flipped bits do to real files: the right value, an error, or amnesia.
//!
//! A killed process is a copy of the folder taken while the store is open: the operating system keeps
//! what was written. Damage is done to copies of one small store that has tables, a journal, overwritten
//! and deleted keys.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sibyl_core::id::Actor;
use tempfile::TempDir;

use super::watermark::{self, State, Watermark};
use super::{Batch, Cause, OpenError, Opened, Space, Start, commit, counters, open};

const KEYS: u8 = 6;
/// Batches of the sample, each of which writes every key anew: long enough to cross pages.
const ROUNDS: u8 = 5;

fn value(key: u8, round: u8) -> Vec<u8> {
    [key, round].repeat(20)
}

fn write_round(opened: &Opened, round: u8) {
    // A key per batch, so that a journal has many batches of which any may be lost.
    for key in 0..KEYS {
        let mut batch = Batch::new();
        if key == 0 && round == ROUNDS - 1 {
            batch.delete(Space::Objects, &[key]);
        } else {
            batch.put(Space::Objects, &[key], value(key, round));
        }
        opened.store.apply(batch).unwrap();
        commit(&*opened.store, &opened.watermark).unwrap();
    }
}

/// Opens a folder that must be the store it was.
fn reopen(folder: &Path) -> Opened {
    let opened = open(folder, || 0xdead).unwrap();
    assert!(
        matches!(opened.start, Start::Restarted),
        "{:?}",
        opened.start
    );
    opened
}

/// Two rounds in a table, the others in a journal that a restart has cut to its content.
fn sample() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let opened = open(folder.path(), || 1).unwrap();
    write_round(&opened, 0);
    write_round(&opened, 1);
    opened.store.flush();
    drop(opened);
    let opened = reopen(folder.path());
    (2..ROUNDS).for_each(|round| write_round(&opened, round));
    drop(opened);
    folder
}

fn copy(from: &Path) -> TempDir {
    fn copy_into(from: &Path, to: &Path) {
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                fs::create_dir(&target).unwrap();
                copy_into(&entry.path(), &target);
            } else {
                // Without their zeros at the end, sparse journals stay small.
                let mut bytes = fs::read(entry.path()).unwrap();
                if target.extension().is_some_and(|e| e == "jnl") {
                    let end = bytes
                        .iter()
                        .rposition(|byte| *byte != 0)
                        .map_or(0, |at| at + 1);
                    bytes.truncate(end);
                }
                fs::write(target, bytes).unwrap();
            }
        }
    }
    let to = tempfile::tempdir().unwrap();
    copy_into(from, to.path());
    to
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if fs::metadata(&path).unwrap().len() > 0 {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Opens a damaged copy: whatever it reads must be the last value, and its actor must not be reused.
fn check_never_wrong(folder: &Path, what: &str) {
    let opened = match open(folder, || 2) {
        Ok(opened) => opened,
        Err(error) => {
            assert!(!matches!(error, OpenError::InUse(_)), "{what}: {error}");
            return;
        }
    };
    match opened.start {
        Start::First => panic!("{what}: a used store counts as new"),
        Start::Amnesia(_) => {
            assert_eq!(opened.actor, Actor(2), "{what}");
            assert!(opened.watermark.is_rebuilding(), "{what}");
            assert!(folder.join("aside-1").exists(), "{what}");
        }
        Start::Restarted => {
            assert_eq!(opened.actor, Actor(1), "{what}");
            for key in 0..KEYS {
                let expected = (key != 0).then(|| value(key, ROUNDS - 1));
                if let Ok(read) = opened.store.get(Space::Objects, &[key]) {
                    assert_eq!(read.as_deref(), expected.as_deref(), "{what}: key {key}");
                }
            }
        }
    }
}

#[test]
fn a_flipped_bit_never_gives_a_wrong_value() {
    let sample = sample();
    for file in files(sample.path()) {
        let name = file.strip_prefix(sample.path()).unwrap();
        let bytes = fs::read(&file).unwrap();
        // 24 places per file, another bit each time; trailing zeros are not written content.
        let end = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(1, |at| at + 1);
        for at in (0..end).step_by(end.div_ceil(24).max(1)) {
            let damaged = copy(sample.path());
            let mut bytes = fs::read(damaged.path().join(name)).unwrap();
            bytes[at] ^= 1 << (at % 8);
            fs::write(damaged.path().join(name), bytes).unwrap();
            check_never_wrong(damaged.path(), &format!("{} byte {at}", name.display()));
        }
    }
}

#[test]
fn a_truncated_file_never_gives_a_wrong_value() {
    let sample = sample();
    for file in files(sample.path()) {
        let name = file.strip_prefix(sample.path()).unwrap();
        let length = fs::metadata(&file).unwrap().len();
        let step = length.div_ceil(8).max(1);
        for at in (0..length).step_by(usize::try_from(step).unwrap()) {
            let damaged = copy(sample.path());
            let target = damaged.path().join(name);
            fs::File::options()
                .write(true)
                .open(target)
                .unwrap()
                .set_len(at)
                .unwrap();
            check_never_wrong(damaged.path(), &format!("{} cut at {at}", name.display()));
        }
        let damaged = copy(sample.path());
        fs::remove_file(damaged.path().join(name)).unwrap();
        check_never_wrong(damaged.path(), &format!("{} removed", name.display()));
    }
}

fn journal(folder: &Path) -> PathBuf {
    let mut journals = files(folder);
    journals.retain(|path| path.extension().is_some_and(|e| e == "jnl"));
    journals.pop().unwrap()
}

/// Where the batches of a journal begin: tag, count, sequence number of a batch with its trailer before it.
fn starts(bytes: &[u8]) -> Vec<usize> {
    let trailers = bytes.windows(4).enumerate();
    let ends = trailers.filter(|(_, window)| *window == b"FJL\x03");
    let mut starts: Vec<_> = ends.map(|(at, _)| at + 4).collect();
    starts.pop();
    starts
}

#[test]
fn a_flipped_sequence_number_never_brings_an_old_value_back() {
    let sample = sample();
    let journal = journal(sample.path());
    let bytes = fs::read(&journal).unwrap();
    let starts = starts(&bytes);
    assert!(starts.len() > 10);
    for start in starts.into_iter().step_by(3) {
        for bit in [0, 2, 3, 4, 6, 40] {
            let damaged = copy(sample.path());
            let mut bytes = bytes.clone();
            bytes[start + 5 + bit / 8] ^= 1 << (bit % 8);
            fs::write(super::damage_tests::journal(damaged.path()), bytes).unwrap();
            check_never_wrong(damaged.path(), &format!("batch at {start}, bit {bit}"));
        }
    }
}

#[test]
fn an_unsynced_torn_tail_is_cut_and_no_amnesia() {
    let sample = sample();
    let opened = reopen(sample.path());
    let synced = opened.store.last_batch();
    for key in 10..14 {
        let mut batch = Batch::new();
        batch.put(Space::Objects, &[key], value(key, 0));
        opened.store.apply(batch).unwrap();
    }
    let crashed = copy(sample.path());
    drop(opened);
    let path = journal(crashed.path());
    let whole = fs::read(&path).unwrap();
    let last_starts = starts(&whole);
    let unsynced = last_starts[last_starts.len() - 4];
    for at in (unsynced..whole.len()).step_by(9) {
        // A sector (512 bytes in truth) that never reached the disk, with the end marker behind it:
        // fjall alone refuses this.
        let torn = copy(crashed.path());
        let mut bytes = whole.clone();
        let until = (at + 32).min(bytes.len());
        bytes[at..until].fill(0);
        fs::write(journal(torn.path()), bytes).unwrap();
        let opened = reopen(torn.path());
        assert!(matches!(opened.start, Start::Restarted), "torn at {at}");
        assert!(opened.store.last_batch() >= synced);
        for key in 10..14 {
            let read = opened.store.get(Space::Objects, &[key]).unwrap();
            assert!(read.is_none_or(|read| read == value(key, 0)));
        }
    }
}

#[test]
fn losing_a_synced_batch_is_amnesia() {
    let sample = sample();
    let path = journal(sample.path());
    let bytes = fs::read(&path).unwrap();
    let last = *starts(&bytes).last().unwrap();
    fs::write(&path, &bytes[..last]).unwrap();
    let opened = open(sample.path(), || 2).unwrap();
    assert!(matches!(
        opened.start,
        Start::Amnesia(Cause::Engine(super::fjall::Damage::Behind { .. }))
    ));
    assert!(
        sample
            .path()
            .join("aside-1/store-0000000000000001")
            .exists()
    );
    drop(opened);
    let opened = reopen(sample.path());
    assert!(matches!(opened.start, Start::Restarted));
    assert!(
        opened.watermark.is_rebuilding(),
        "a restart does not refill a store"
    );
    opened.watermark.rebuilt().unwrap();
    drop(opened);
    let opened = reopen(sample.path());
    assert!(!opened.watermark.is_rebuilding());
}

#[test]
fn a_killed_process_loses_nothing_it_applied_and_no_counter_returns() {
    let folder = tempfile::tempdir().unwrap();
    let mut opened = open(folder.path(), || 1).unwrap();
    let mut folders = vec![folder];
    let mut used = BTreeSet::new();
    for round in 0..4 {
        for _ in 0..1000 {
            assert!(
                used.insert(opened.counters.mint().unwrap()),
                "handed out twice"
            );
        }
        let mut batch = Batch::new();
        batch.put(Space::Objects, &[round], value(round, 0));
        opened.store.apply(batch).unwrap();
        if round % 2 == 0 {
            commit(&*opened.store, &opened.watermark).unwrap();
        }
        let killed = copy(folders.last().unwrap().path());
        if round == 2 {
            // The last write of the watermark never reached the disk.
            let path = killed.path().join("watermark");
            let mut bytes = fs::read(&path).unwrap();
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            bytes[end - 20..=end].fill(0);
            fs::write(path, bytes).unwrap();
        }
        drop(opened);
        opened = reopen(killed.path());
        assert_eq!(opened.counters.peek(), opened.counter);
        for key in 0..=round {
            let read = opened.store.get(Space::Objects, &[key]).unwrap();
            assert_eq!(read.as_deref(), Some(&*value(key, 0)));
        }
        folders.push(killed);
    }
}

#[test]
fn a_block_is_reserved_before_it_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let opened = open(folder.path(), || 1).unwrap();
    let end = opened.watermark.reserved_end();
    for expected in opened.counter..end {
        assert_eq!(opened.counters.mint().unwrap(), expected);
    }
    assert_eq!(
        opened.watermark.reserved_end(),
        end,
        "nothing forced a sync"
    );
    commit(&*opened.store, &opened.watermark).unwrap();
    let ahead = opened.watermark.reserved_end();
    assert_eq!(
        ahead,
        end + counters::BLOCK,
        "the next block came with a commit"
    );
    for _ in end..=ahead {
        opened.counters.mint().unwrap();
    }
    assert!(opened.watermark.reserved_end() > opened.counters.peek());
    let state = watermark::load(folder.path()).unwrap();
    assert!(state.reserved_end >= opened.counters.peek());
}

#[test]
fn a_reservation_lost_without_a_trace_reuses_no_counter() {
    let folder = tempfile::tempdir().unwrap();
    let opened = open(folder.path(), || 1).unwrap();
    let written = || {
        let bytes = fs::read(folder.path().join("watermark")).unwrap();
        bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
    };
    let end = opened.watermark.reserved_end();
    while opened.counters.mint().unwrap() + 1 < end {}
    let before = written();
    commit(&*opened.store, &opened.watermark).unwrap();
    while opened.counters.peek() < opened.watermark.reserved_end() {
        opened.counters.mint().unwrap();
    }
    let used = opened.counters.peek();
    assert!(written() > before && used > end);
    let killed = copy(folder.path());
    let path = killed.path().join("watermark");
    let mut bytes = fs::read(&path).unwrap();
    bytes[before.next_multiple_of(8)..].fill(0);
    fs::write(path, bytes).unwrap();
    let reopened = reopen(killed.path());
    assert!(reopened.counters.mint().unwrap() >= used);
}

#[test]
fn a_second_process_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let opened = open(folder.path(), || 1).unwrap();
    let refused = open(folder.path(), || 2).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains(&folder.path().display().to_string())
    );
    assert!(matches!(refused, OpenError::InUse(_)));
    let store = opened.store.clone();
    drop(opened);
    assert!(
        open(folder.path(), || 2).is_err(),
        "the store alone holds the folder"
    );
    drop(store);
    reopen(folder.path());
}

#[derive(Debug, PartialEq)]
enum Begun {
    First,
    Restarted,
    Amnesia,
}

/// Opens a folder in which a start stopped half-way, writes, and sees it again after a restart.
fn check_start(folder: &Path, expected: Begun) {
    let opened = open(folder, || 9).unwrap();
    let begun = match opened.start {
        Start::First => Begun::First,
        Start::Restarted => Begun::Restarted,
        Start::Amnesia(_) => Begun::Amnesia,
    };
    assert_eq!(begun, expected);
    let mut batch = Batch::new();
    batch.put(Space::Meta, b"k", "v");
    opened.store.apply(batch).unwrap();
    commit(&*opened.store, &opened.watermark).unwrap();
    drop(opened);
    let opened = reopen(folder);
    assert!(opened.store.get(Space::Meta, b"k").unwrap().is_some());
}

fn watermark_of(folder: &Path, after_amnesia: bool) -> Watermark {
    Watermark::create(folder, State::unborn(Actor(1), after_amnesia, 100), None).unwrap()
}

#[test]
fn a_first_start_that_stopped_anywhere_is_a_first_start() {
    let steps: [fn(&Path); 5] = [
        |_| {},
        |folder| fs::write(folder.join("lock"), "").unwrap(),
        |folder| fs::write(folder.join("watermark.new"), [1; 99]).unwrap(),
        |folder| drop(watermark_of(folder, false)),
        |folder| {
            drop(watermark_of(folder, false));
            fs::create_dir_all(folder.join("store-0000000000000001/keyspaces")).unwrap();
        },
    ];
    for step in steps {
        let folder = tempfile::tempdir().unwrap();
        step(folder.path());
        check_start(folder.path(), Begun::First);
    }
}

#[test]
fn a_start_after_amnesia_that_stopped_anywhere_is_still_amnesia() {
    let steps: [fn(&Path); 5] = [
        // The old store is aside, the old watermark still in force.
        |folder| {
            fs::rename(
                folder.join("store-0000000000000001"),
                folder.join("aside-1"),
            )
            .unwrap();
        },
        // The new watermark is in force, its store is not there yet, or half there.
        |folder| drop(watermark_of(folder, true)),
        |folder| {
            drop(watermark_of(folder, true));
            fs::remove_dir_all(folder.join("store-0000000000000001/keyspaces")).unwrap();
        },
        |folder| fs::remove_file(folder.join("watermark")).unwrap(),
        |folder| fs::write(folder.join("watermark"), "").unwrap(),
    ];
    for step in steps {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path(), || 1).unwrap());
        step(folder.path());
        check_start(folder.path(), Begun::Amnesia);
    }
}

#[test]
fn a_store_that_disowned_itself_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let opened = open(folder.path(), || 1).unwrap();
    let counter = opened.counters.mint().unwrap();
    opened.watermark.disown().unwrap();
    drop(opened);
    let opened = open(folder.path(), || 2).unwrap();
    assert!(matches!(opened.start, Start::Amnesia(Cause::Disowned)));
    assert_eq!(opened.actor, Actor(2));
    assert!(opened.counter > counter, "ballots go on upwards");
}

#[test]
fn a_store_given_up_for_its_damage_leaves_what_can_be_read_to_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let opened = open(folder.path(), || 1).unwrap();
    // Partitions with a few blocks each, in one table.
    let place = |at: u32| [(at / 100).to_be_bytes(), at.to_be_bytes()].concat();
    let mut batch = Batch::new();
    (0..1000).for_each(|at| batch.put(Space::Objects, &place(at), vec![at as u8; 500]));
    batch.put(Space::Meta, b"filled", "all of it");
    opened.store.apply(batch).unwrap();
    commit(&*opened.store, &opened.watermark).unwrap();
    opened.store.flush();
    let tables = files(folder.path());
    let tables = tables.iter();
    let tables = tables.filter(|path| path.parent().unwrap().ends_with("tables"));
    let table = tables.max_by_key(|path| fs::metadata(path).unwrap().len());
    let table = table.unwrap();
    for at in [100_000, 300_000] {
        let mut bytes = fs::read(table).unwrap();
        bytes[at] ^= 4;
        fs::write(table, bytes).unwrap();
    }

    assert_eq!(opened.store.damage(), None, "nobody has met it");
    let met = (0..1000).filter(|at| opened.store.get(Space::Objects, &place(*at)).is_err());
    let hidden = met.count();
    assert!((2..60).contains(&hidden), "{hidden}");
    assert!(opened.store.damage().is_some());
    super::salvage::mark(folder.path(), opened.actor).unwrap();
    opened.watermark.disown().unwrap();
    drop(opened);

    let opened = open(folder.path(), || 2).unwrap();
    let Start::Amnesia(Cause::Damaged { store, records }) = opened.start else {
        panic!("{:?}", opened.start);
    };
    assert_eq!(store, Actor(1));
    // Between the two damaged places some of a partition can be lost, and no more.
    assert!(records >= 850, "{records}");
    let read = |at: u32| opened.store.get(Space::Objects, &place(at)).unwrap();
    let there: Vec<u32> = (0..1000).filter(|at| read(*at).is_some()).collect();
    assert!(there.len() >= 850 && there.len() <= 1000 - hidden);
    for at in there {
        assert_eq!(read(at).unwrap(), vec![at as u8; 500]);
    }
    assert_eq!(opened.store.get(Space::Meta, b"filled").unwrap(), None);
    assert!(opened.watermark.is_rebuilding());
    drop(opened);
    assert_eq!(reopen(folder.path()).actor, Actor(2));
}

#[test]
fn one_flipped_bit_of_the_version_file_is_no_other_version() {
    let sample = sample();
    for bit in 0..32 {
        let damaged = copy(sample.path());
        let path = damaged.path().join("store-0000000000000001/version");
        let mut bytes = fs::read(&path).unwrap();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, bytes).unwrap();
        let opened = reopen(damaged.path());
        assert_eq!(opened.actor, Actor(1), "bit {bit}");
    }
}
