//! What resolvers logged on this node, by resolver: the last lines of each.
//!
//! Written by the guest, so as large as it likes up to its limits: a ring of lines and of bytes for every name, and the
//! names are the registry's. Kept in memory only; a node that starts again begins anew.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use sibyl_core::id::Digest;

use crate::resolver::Level;

/// Lines kept of each resolver.
const LINES: usize = 256;
/// Bytes of messages kept of each resolver: with 256 resolvers 16 MiB.
const BYTES: usize = 64 << 10;

/// One line of a guest, and what it was asked when it wrote it.
#[derive(Clone, Debug)]
pub struct GuestLine {
    /// Milliseconds since 1970, of this node.
    pub at_ms: u64,
    /// The version that wrote it.
    pub version: Digest,
    /// Whose siblings it merged.
    pub bucket: String,
    /// How serious the guest thinks it is.
    pub level: Level,
    /// What it wrote, cut to a thousand bytes.
    pub message: String,
    /// The request that it was called for.
    pub trace_id: [u8; 16],
}

/// The lines of one resolver.
#[derive(Clone, Debug, Default)]
pub struct GuestLog {
    /// The last ones, oldest first.
    pub lines: VecDeque<GuestLine>,
    /// Lines that had to make room.
    pub dropped: u64,
    bytes: usize,
}

impl GuestLog {
    fn push(&mut self, line: GuestLine) {
        self.bytes += line.message.len();
        self.lines.push_back(line);
        while self.lines.len() > LINES || self.bytes > BYTES {
            let Some(oldest) = self.lines.pop_front() else {
                return;
            };
            self.bytes -= oldest.message.len();
            self.dropped += 1;
        }
    }
}

/// The lines of all of them.
#[derive(Debug, Default)]
pub(super) struct GuestLogs(Mutex<BTreeMap<String, GuestLog>>);

impl GuestLogs {
    /// Keeps what a call logged.
    pub(super) fn note(&self, name: &str, lines: impl Iterator<Item = GuestLine>) {
        let mut lines = lines.peekable();
        if lines.peek().is_none() {
            return;
        }
        let mut logs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let log = logs.entry(name.to_owned()).or_default();
        lines.for_each(|line| log.push(line));
    }

    /// The lines of one resolver.
    pub(super) fn of(&self, name: &str) -> GuestLog {
        let logs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logs.get(name).cloned().unwrap_or_default()
    }

    /// Forgets resolvers that do not exist any more.
    pub(super) fn keep(&self, known: impl Fn(&str) -> bool) {
        let mut logs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logs.retain(|name, _| known(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: String) -> GuestLine {
        GuestLine {
            at_ms: 0,
            version: Digest::of(b"module"),
            bucket: "b".to_owned(),
            level: Level::Info,
            message,
            trace_id: [0; 16],
        }
    }

    #[test]
    fn the_last_lines_stay_within_both_limits() {
        let logs = GuestLogs::default();
        logs.note("a", (0..LINES + 5).map(|at| line(at.to_string())));
        let log = logs.of("a");
        assert_eq!((log.lines.len(), log.dropped), (LINES, 5));
        assert_eq!(log.lines[0].message, "5");
        logs.note("a", (0..BYTES / 1000 + 9).map(|_| line("x".repeat(1000))));
        let log = logs.of("a");
        assert_eq!(log.lines.len(), BYTES / 1000);
        assert_eq!(
            log.bytes,
            log.lines
                .iter()
                .map(|line| line.message.len())
                .sum::<usize>()
        );
        assert_eq!(logs.of("b").lines.len(), 0);
        logs.keep(|name| name != "a");
        assert_eq!(logs.of("a").lines.len(), 0);
    }
}
