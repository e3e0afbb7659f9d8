//! How full a disk is, and what a node still takes then.
//!
//! Three levels by two marks. Below the low-water mark no new values are taken, so that deletes, copies that free
//! as much elsewhere, and the engine's own work have room. Below half of it nothing of clients or peers is taken
//! any more: what is left is for the memtable that must be flushed and for what the node itself has to remember.
//! A node that kept writing would end in a failed write, which stops it. It takes writes again by itself, once an
//! eighth more than the mark is free, so that it does not change its mind with every write.

/// What the disk has room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything.
    #[default]
    Enough,
    /// Everything but new values.
    Low,
    /// What the node itself must remember.
    Out,
}

/// What a write is, as far as room is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taking {
    /// A value that a client writes now.
    Value,
    /// A delete: it makes room, sooner or later.
    Delete,
    /// A copy of what was acknowledged elsewhere: a delivered hint, a repair, an exchange.
    Copy,
    /// What the node itself must remember.
    Own,
}

/// Where the levels begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Free below this, new values are refused; 0 refuses nothing.
    pub low_water_bytes: u64,
}

impl Marks {
    /// Free below this, nothing but the node's own is taken.
    #[must_use]
    pub fn out_bytes(self) -> u64 {
        self.low_water_bytes / 2
    }

    /// Free at least this, a node that refused takes values again.
    #[must_use]
    pub fn enough_bytes(self) -> u64 {
        self.low_water_bytes
            .saturating_add(self.low_water_bytes / 8)
    }

    /// The level now, by what is free and by the level before.
    #[must_use]
    pub fn level(self, before: Level, available_bytes: u64) -> Level {
        if available_bytes < self.out_bytes() {
            Level::Out
        } else if available_bytes < self.low_water_bytes
            || before > Level::Enough && available_bytes < self.enough_bytes()
        {
            Level::Low
        } else {
            Level::Enough
        }
    }
}

impl Level {
    /// Whether a write is taken.
    #[must_use]
    pub fn takes(self, what: Taking) -> bool {
        match what {
            Taking::Value => self == Self::Enough,
            Taking::Delete | Taking::Copy => self < Self::Out,
            Taking::Own => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: Marks = Marks {
        low_water_bytes: 800,
    };

    fn check(free: &[u64], expected: &[Level]) {
        let mut level = Level::Enough;
        let levels: Vec<Level> = free
            .iter()
            .map(|free| {
                level = MARKS.level(level, *free);
                level
            })
            .collect();
        assert_eq!(levels, expected, "{free:?}");
    }

    #[test]
    fn a_disk_that_fills_goes_through_the_levels_and_back() {
        use Level::{Enough, Low, Out};
        check(
            &[801, 800, 799, 400, 399, 0, 400, 899, 900, 800],
            &[Enough, Enough, Low, Low, Out, Out, Low, Low, Enough, Enough],
        );
    }

    #[test]
    fn a_mark_of_zero_refuses_nothing() {
        let marks = Marks { low_water_bytes: 0 };
        assert_eq!(marks.level(Level::Enough, 0), Level::Enough);
    }

    #[test]
    fn the_largest_mark_refuses_everything() {
        let marks = Marks {
            low_water_bytes: u64::MAX,
        };
        assert_eq!(marks.level(Level::Enough, 1 << 40), Level::Out);
    }

    #[test]
    fn deletes_and_copies_go_on_when_values_are_refused() {
        let taken = |level: Level| {
            [Taking::Value, Taking::Delete, Taking::Copy, Taking::Own].map(|what| level.takes(what))
        };
        assert_eq!(taken(Level::Enough), [true; 4]);
        assert_eq!(taken(Level::Low), [false, true, true, true]);
        assert_eq!(taken(Level::Out), [false, false, false, true]);
    }
}
