//! Span contexts between processes: 26 bytes between nodes, `traceparent` at the HTTP edge.
//!
//! The 26 bytes are version (0), trace id (16), span id (8) and flags (1), the layout of
//! [`sibyl_core::id::Trace`]. Foreign bytes are checked here and nowhere else: an unknown version or an
//! all-zero id means "no context", never an error, so bad telemetry cannot fail a request. Unknown flag
//! bits are carried along and ignored (W3C Trace Context level 2).

use std::fmt;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceState};
use sibyl_core::id::Trace;

/// The only layout of the 26 bytes so far.
const VERSION: u8 = 0;
/// Flag bit: the trace is being recorded.
const SAMPLED: u8 = 0x01;
/// `00-` + 32 + `-` + 16 + `-` + 2: the length of a version 00 `traceparent`.
const TRACEPARENT_BYTES: usize = 55;

/// A trace id for people: 32 hexadecimal digits. Goes into `Sibyl-Trace-Id`, problem documents and logs.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Puts a span context together.
pub(super) fn trace(trace_id: [u8; 16], span_id: [u8; 8], flags: u8) -> Trace {
    let mut bytes = [0; 26];
    bytes[0] = VERSION;
    bytes[1..17].copy_from_slice(&trace_id);
    bytes[17..25].copy_from_slice(&span_id);
    bytes[25] = flags;
    Trace(bytes)
}

/// The span id of a context.
pub(super) fn span_id(trace: &Trace) -> [u8; 8] {
    let mut id = [0; 8];
    id.copy_from_slice(&trace.0[17..25]);
    id
}

/// Whether the context names a span at all: a known version and no all-zero id.
pub fn is_valid(trace: &Trace) -> bool {
    trace.0[0] == VERSION && trace.trace_id() != [0; 16] && span_id(trace) != [0; 8]
}

/// Whether the trace is being recorded.
pub fn is_sampled(trace: &Trace) -> bool {
    trace.0[25] & SAMPLED != 0
}

/// The same context with another sampling decision.
pub(super) fn with_sampled(mut trace: Trace, sampled: bool) -> Trace {
    trace.0[25] = trace.0[25] & !SAMPLED | u8::from(sampled);
    trace
}

/// Reads the W3C `traceparent` header. `None` for anything malformed: the request then starts a trace of
/// its own, as the specification asks.
pub fn from_traceparent(header: &str) -> Option<Trace> {
    let bytes = header.trim().as_bytes();
    let known = bytes.len() == TRACEPARENT_BYTES;
    let newer = bytes.len() > TRACEPARENT_BYTES && bytes[TRACEPARENT_BYTES] == b'-';
    let version: [u8; 1] = hex(bytes.get(..2)?)?;
    if version == [0xff] || !(known || newer && version != [0]) {
        return None;
    }
    let dashes = [2, 35, 52].iter().all(|&at| bytes.get(at) == Some(&b'-'));
    let [flags] = hex(&bytes[53..55])?;
    let found = trace(hex(&bytes[3..35])?, hex(&bytes[36..52])?, flags);
    (dashes && is_valid(&found)).then_some(found)
}

/// Writes a context as a W3C `traceparent` header.
pub fn to_traceparent(trace: &Trace) -> String {
    format!(
        "00-{}-{:016x}-{:02x}",
        TraceId(trace.trace_id()),
        u64::from_be_bytes(span_id(trace)),
        trace.0[25] & SAMPLED,
    )
}

/// The SDK's form of a context.
pub(super) fn to_sdk(trace: &Trace, remote: bool) -> SpanContext {
    SpanContext::new(
        opentelemetry::trace::TraceId::from_bytes(trace.trace_id()),
        SpanId::from_bytes(span_id(trace)),
        TraceFlags::new(trace.0[25]),
        remote,
        TraceState::NONE,
    )
}

/// Our form of the SDK's context.
pub(super) fn from_sdk(context: &SpanContext) -> Trace {
    trace(
        context.trace_id().to_bytes(),
        context.span_id().to_bytes(),
        context.trace_flags().to_u8(),
    )
}

/// Lower-case hexadecimal of exactly `N` bytes; the specification forbids upper case.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn check(header: &str, valid: bool) {
        assert_eq!(from_traceparent(header).is_some(), valid, "{header}");
    }

    #[test]
    fn reads_what_the_specification_allows() {
        check(GOOD, true);
        check(&GOOD.replace("-01", "-00"), true);
        check(&GOOD.replace("-01", "-03"), true);
        check(&format!("cc{}-later-parts", &GOOD[2..]), true);
        check(&format!("cc{}", &GOOD[2..]), true);
    }

    #[test]
    fn refuses_everything_else() {
        check("", false);
        check("00-", false);
        check(&GOOD[1..], false);
        check(&GOOD.to_uppercase(), false);
        check(&GOOD.replace('-', "_"), false);
        check(&format!("{GOOD}-more"), false);
        check(&format!("{GOOD}0"), false);
        check(&format!("ff{}", &GOOD[2..]), false);
        check(
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            false,
        );
        check(&GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)), false);
        check(
            "00-4bf92f3577b34da6a3ce929d0e0e47\u{e4}\u{e4}-00f067aa0ba902b7-01",
            false,
        );
    }

    #[test]
    fn flags_decide_sampling() {
        let sampled = from_traceparent(GOOD).expect("the example of the specification is valid");
        assert!(is_sampled(&sampled));
        assert!(!is_sampled(&with_sampled(sampled, false)));
        assert_eq!(with_sampled(with_sampled(sampled, false), true), sampled);
    }

    proptest! {
        #[test]
        fn survives_the_round_trips(id in 1u128.., span in 1u64.., sampled: bool) {
            let one = trace(id.to_be_bytes(), span.to_be_bytes(), u8::from(sampled));
            prop_assert!(is_valid(&one));
            prop_assert_eq!(from_traceparent(&to_traceparent(&one)), Some(one));
            prop_assert_eq!(from_sdk(&to_sdk(&one, true)), one);
        }

        #[test]
        fn never_panics_on_hostile_headers(header in "\\PC{0,80}") {
            let _ = from_traceparent(&header);
        }
    }
}
