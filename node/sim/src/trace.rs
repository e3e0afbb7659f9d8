//! What happened in a run, as one number, and as text if somebody wants to read it.
//!
//! Two runs of one seed must give one hash: anything that depends on memory addresses, hash maps, clocks
//! or threads shows here.

use crate::draw::mix;

/// The trace of a run.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// An empty trace; `verbose` keeps text too.
    pub fn new(verbose: bool) -> Self {
        Self {
            hash: 0,
            lines: verbose.then(Vec::new),
        }
    }

    /// Notes that something happened; the text is made only if somebody reads it.
    pub fn note(&mut self, now_us: u64, words: &[u64], text: impl FnOnce() -> String) {
        self.hash = mix(&[self.hash, now_us, mix(words)]);
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>9.3} ms  {}", now_us as f64 / 1000.0, text()));
        }
    }

    /// Notes bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(word)
        });
        self.hash = words
            .by_ref()
            .fold(self.hash, |hash, word| mix(&[hash, word]));
    }

    /// The hash so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The text, if it was kept.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}
