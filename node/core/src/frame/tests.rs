//! The codec: a golden frame, round trips in any cut of the stream, every flipped bit, hostile bytes.

use proptest::prelude::*;

use super::*;

const STAMP: Stamp = Stamp {
    version: 1,
    session: 0x1122_3344_5566_7788,
};

fn out(kind: Kind, id: u64, span: Option<Trace>, head: &[u8], body: &[u8]) -> Out<Duration> {
    Out {
        span,
        head: Bytes::copy_from_slice(head),
        body: Bytes::copy_from_slice(body),
        ..Out::bare(kind, id, 7)
    }
}

fn bytes_of(out: &Out<Duration>) -> BytesMut {
    let mut bytes = BytesMut::new();
    encode(out, STAMP, |left| *left, &mut bytes);
    bytes.extend_from_slice(&out.body);
    bytes
}

fn check_refused(change: impl FnOnce(&mut BytesMut), want: &str) {
    let mut bytes = bytes_of(&out(Kind::Request, 1, None, b"head", b"body"));
    change(&mut bytes);
    let before = bytes.capacity();
    let err = decode(&mut bytes, MAX_FRAME_BYTES).expect_err("must be refused");
    assert!(
        err.to_string().contains(want),
        "{err} should contain {want:?}"
    );
    assert_eq!(bytes.capacity(), before, "refused before it allocates");
}

#[test]
fn golden_frame() {
    let bytes = bytes_of(&out(
        Kind::Request,
        0x0102_0304,
        Some(Trace([9; 26])),
        b"hd",
        b"value",
    ));
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        concat!(
            "4d000000010401000403020100000000ffffffff0700000000000000",
            "887766554433221102000000",
            "6f2ddf9c",
            "0909090909090909090909090909090909090909090909090909",
            "6864",
            "76616c7565"
        )
    );
}

#[test]
fn remaining_time_is_rounded_up() {
    let check = |micros, want| {
        let left = Some(Duration::from_micros(micros));
        assert_eq!(remaining_ms(left), want, "{micros} µs");
    };
    check(0, 0);
    check(1, 1);
    check(1000, 1);
    check(1001, 2);
    check(u64::from(u32::MAX) * 2000, u32::MAX - 1);
    assert_eq!(remaining_ms(None), u32::MAX);
}

#[test]
fn every_flipped_bit_is_noticed() {
    let good = bytes_of(&out(
        Kind::Answer,
        3,
        Some(Trace([1; 26])),
        b"head",
        b"body",
    ));
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        // A longer length waits for bytes that never come; everything else is an error.
        if let Ok(Some(frame)) = decode(&mut bad, MAX_FRAME_BYTES) {
            panic!("bit {bit} flipped unnoticed: {frame:?}");
        }
    }
}

#[test]
fn caps_come_before_allocation() {
    let length = |bytes: &mut BytesMut, length: u32| {
        bytes[0..4].copy_from_slice(&length.to_le_bytes());
    };
    check_refused(|b| length(b, u32::MAX), "over the limit");
    check_refused(|b| length(b, 12), "too short");
    check_refused(
        |b| length(b, u32::try_from(MAX_FRAME_BYTES).expect("fits")),
        "a body of",
    );
    check_refused(
        |b| b[36..40].copy_from_slice(&65537_u32.to_le_bytes()),
        "a head of 65537",
    );
    check_refused(
        |b| b[36..40].copy_from_slice(&60_u32.to_le_bytes()),
        "too short",
    );
    check_refused(|b| b[5] = 77, "unknown frame kind 77");
    check_refused(|b| b[6] = 6, "unknown frame flags");
    check_refused(|b| b[50] ^= 1, "checksum");
}

proptest! {
    #[test]
    fn round_trip_in_any_cut(
        kind in 1..=9_u8,
        id: u64,
        span in proptest::option::of(proptest::array::uniform26(any::<u8>())),
        head in proptest::collection::vec(any::<u8>(), 0..300),
        body in proptest::collection::vec(any::<u8>(), 0..3000),
        step in 1..500_usize,
    ) {
        let kind = Kind::of(kind).expect("1 to 9 are kinds");
        let sent = out(kind, id, span.map(Trace), &head, &body);
        let mut stream = bytes_of(&sent);
        stream.extend_from_slice(&bytes_of(&sent));
        let mut buf = BytesMut::new();
        let mut got = Vec::new();
        for piece in stream.chunks(step) {
            buf.extend_from_slice(piece);
            while let Some(frame) = decode(&mut buf, MAX_FRAME_BYTES).expect("a good frame") {
                got.push(frame);
            }
        }
        let want = Frame {
            version: STAMP.version, kind, id, timeout_ms: None, registry: 7, session: STAMP.session,
            span: sent.span, head: sent.head.clone(), body: sent.body.clone(),
        };
        prop_assert_eq!(got, vec![want.clone(), want]);
    }

    #[test]
    fn hostile_bytes_never_panic_or_allocate(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        length in proptest::option::of(0..200_u32),
        kind in proptest::option::of(0..12_u8),
        limit in 0..5000_usize,
    ) {
        if let (Some(length), true) = (length, bytes.len() >= 8) {
            bytes[0..4].copy_from_slice(&length.to_le_bytes());
            bytes[6..8].fill(0);
        }
        if let (Some(kind), true) = (kind, bytes.len() >= 8) {
            bytes[5] = kind;
        }
        let mut buf = BytesMut::from(&bytes[..]);
        if let Ok(Some(_)) = decode(&mut buf, limit) {
            prop_assert!(false, "random bytes do not have the right checksum");
        }
        prop_assert!(buf.capacity() <= 2 * limit.max(bytes.len()).max(64));
    }
}
