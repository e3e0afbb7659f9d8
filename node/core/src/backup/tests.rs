//! Every flipped bit and every missing end of a backup is found; what is whole reads back as it was written.

use super::*;

fn header() -> Header {
    Header {
        cluster_id: "test".to_owned(),
        lineage: Some(Digest([7; 32])),
        node_id: "n1".parse().unwrap(),
        actor: Actor(9),
        reserved_end: 2 << 20,
        incarnation: 3,
        batch: 77,
        registry: 5,
        members: 3,
        taken_at_ms: 1_700_000_000_000,
        reap_epoch: 0,
        build: "0.1.0".to_owned(),
    }
}

fn parts() -> Vec<Part> {
    let record = |space, key: &'static [u8], value: &'static [u8]| Part::Record {
        space,
        key: Bytes::from_static(key),
        value: Bytes::from_static(value),
    };
    vec![
        record(1, b"", b"the empty key"),
        record(2, b"key", b""),
        Part::Unreadable {
            space: 1,
            key: Bytes::from_static(b"lost"),
        },
        Part::Module(Bytes::from_static(b"\0asm")),
    ]
}

fn written() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::begin(&header(), &mut bytes);
    parts().iter().for_each(|part| writer.put(part, &mut bytes));
    let counts = writer.end(&mut bytes);
    assert_eq!(
        (counts.records, counts.unreadable, counts.modules),
        (2, 1, 1)
    );
    bytes
}

/// Reads a whole backup.
fn read_all(bytes: &[u8]) -> Result<(Header, Vec<Part>, Counts), Bad> {
    let at = |at: usize| Bad::Truncated { at: at as u64 };
    let (magic, mut rest) = bytes.split_at_checked(8).ok_or(at(0))?;
    let mut reader = Reader::magic(magic)?;
    let (mut header, mut parts, mut counts) = (None, Vec::new(), None);
    while !rest.is_empty() {
        let short = Bad::Truncated { at: reader.at() };
        let (prefix, behind) = rest.split_first_chunk().ok_or(short.clone())?;
        let (part, behind) = behind
            .split_at_checked(reader.length(prefix)?)
            .ok_or(short)?;
        match reader.part(prefix, &Bytes::copy_from_slice(part))? {
            Read::Header(read) => header = Some(*read),
            Read::Part(part) => parts.push(part),
            Read::End(read) => counts = Some(read),
        }
        rest = behind;
    }
    let counts = counts.ok_or(at(bytes.len()))?;
    Ok((header.ok_or(Bad::NoBackup)?, parts, counts))
}

#[test]
fn what_was_written_is_read() {
    let (read, found, counts) = read_all(&written()).unwrap();
    assert_eq!((read, found), (header(), parts()));
    assert_eq!(counts.bytes, 13 + 3 + 4);
}

#[test]
fn every_flipped_bit_is_found() {
    let whole = written();
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            assert!(read_all(&bytes).is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn every_missing_end_and_every_addition_is_found() {
    let whole = written();
    for end in 0..whole.len() {
        assert!(read_all(&whole[..end]).is_err(), "cut at {end}");
    }
    let mut longer = whole.clone();
    longer.extend([0; 9]);
    let at = whole.len() as u64;
    assert_eq!(read_all(&longer), Err(Bad::Trailing { at }));
}

#[test]
fn parts_that_are_lost_or_exchanged_are_found_by_the_sum() {
    let mut bytes = Vec::new();
    let mut writer = Writer::begin(&header(), &mut bytes);
    let head = bytes.len();
    let record = |value: &'static [u8]| Part::Record {
        space: 1,
        key: Bytes::from_static(b"k"),
        value: Bytes::from_static(value),
    };
    writer.put(&record(b"one"), &mut bytes);
    let one = bytes.len() - head;
    writer.put(&record(b"two"), &mut bytes);
    writer.end(&mut bytes);
    let mut lost = bytes.clone();
    lost.drain(head..head + one);
    assert_eq!(read_all(&lost), Err(Bad::Sum));
    let mut exchanged = bytes.clone();
    exchanged[head..head + 2 * one].rotate_left(one);
    assert_eq!(read_all(&exchanged), Err(Bad::Sum));
}

#[test]
fn a_newer_format_is_refused_by_its_number() {
    let mut bytes = MAGIC.to_vec();
    let mut part = vec![2, 0, 0, 0, HEADER, 9, 0];
    part.extend(crc32c::crc32c(&part).to_le_bytes());
    bytes.extend(part);
    assert_eq!(read_all(&bytes), Err(Bad::Format(9)));
}

#[test]
fn the_bytes_are_those_of_the_golden_file() {
    assert_eq!(written(), include_bytes!("golden-1.backup"));
}
