//! What a plan is in any room: a seed, a setting, and what happens when.
//!
//! A plan is data. It is drawn from its seed before anything runs, an entry can be dropped and the rest means the
//! same (`shrink`), and it can be kept as a file and replayed after its seed means something else (`regression`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Something that happens, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry<W> {
    /// Its number in the plan as drawn: what its randomness hangs on.
    pub id: u32,
    /// When.
    pub at_us: u64,
    /// What.
    pub what: W,
}

/// A run to be, in a room with such settings and such happenings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script<S, W> {
    /// Where everything comes from.
    pub seed: u64,
    /// The world.
    pub setting: S,
    /// What happens, in the order of time.
    pub entries: Vec<Entry<W>>,
}

impl<S, W> Script<S, W> {
    /// Puts what was drawn in the order of time, and numbers it.
    pub(crate) fn of(seed: u64, setting: S, mut drawn: Vec<(u64, W)>) -> Self {
        drawn.sort_by_key(|(at_us, _)| *at_us);
        let numbered = drawn.into_iter().zip(0..);
        let entries = numbered.map(|((at_us, what), id)| Entry { id, at_us, what });
        Self {
            seed,
            setting,
            entries: entries.collect(),
        }
    }

    /// The same with these entries only.
    #[must_use]
    pub fn with(&self, entries: Vec<Entry<W>>) -> Self
    where
        S: Clone,
    {
        Self {
            seed: self.seed,
            setting: self.setting.clone(),
            entries,
        }
    }
}

impl<S: fmt::Debug, W: fmt::Debug> fmt::Display for Script<S, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {:?}", self.seed, self.setting)?;
        for Entry { id, at_us, what } in &self.entries {
            writeln!(f, "{:>9.3} ms  #{id} {what:?}", *at_us as f64 / 1000.0)?;
        }
        Ok(())
    }
}
