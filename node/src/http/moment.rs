//! Instants as HTTP and JSON write them.
//!
//! Inside, an instant is milliseconds since the Unix epoch. A clock that ran wild may have stamped a value
//! after the year 9999, which neither form can write: such an instant is shown as the last one that can.

use std::time::{Duration, UNIX_EPOCH};

/// 9999-12-31T23:59:59.999Z.
const LAST_MS: u64 = 253_402_300_799_999;

/// `2026-11-22T13:47:48.123Z`.
pub(super) fn rfc3339(ms: u64) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(ms.min(LAST_MS));
    humantime::format_rfc3339_millis(at).to_string()
}

/// `Sun, 22 Nov 2026 13:47:48 GMT`, for `Last-Modified`.
pub(super) fn http_date(ms: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(ms.min(LAST_MS)))
}

/// Reads RFC 3339 with any offset. `None` for anything else, and for instants before 1970.
pub(super) fn parse(text: &str) -> Option<u64> {
    let text = text.to_ascii_uppercase();
    let (local, offset_s) = match text.strip_suffix('Z') {
        Some(local) => (local, 0),
        None => {
            let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
            (local, offset_seconds(offset)?)
        }
    };
    let at = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let local_ms = i64::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()?;
    u64::try_from(local_ms - offset_s * 1000).ok()
}

/// `+01:30` in seconds.
fn offset_seconds(offset: &str) -> Option<i64> {
    let (sign, clock) = offset.split_at_checked(1)?;
    let (hours, minutes) = clock.split_once(':')?;
    let number = |text: &str, below: i64| {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        digits
            .then(|| text.parse::<i64>().ok())
            .flatten()
            .filter(|n| *n < below)
    };
    let seconds = number(hours, 24)? * 3600 + number(minutes, 60)? * 60;
    match sign {
        "+" => Some(seconds),
        "-" => Some(-seconds),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_written_and_read() {
        let check = |text: &str, ms: Option<u64>| assert_eq!(parse(text), ms, "{text}");
        check("1970-01-01T00:00:00.001Z", Some(1));
        check("1970-01-01t01:00:00+01:00", Some(0));
        check("1969-12-31T23:00:01-01:00", None);
        check("1970-01-01T00:00:01-01:00", Some(3_601_000));
        check("1970-01-01", None);
        check("", None);
        check("1970-01-01T00:00:00+1:00", None);
        assert_eq!(rfc3339(1), "1970-01-01T00:00:00.001Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!(http_date(784_111_777_000), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
