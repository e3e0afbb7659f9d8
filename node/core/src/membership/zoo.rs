//! Known bugs, switchable: what membership gets wrong without each of its rules.
//!
//! A production build has no way to switch one on. Tests and the simulator do, to show that their properties find
//! it. `reference/failure-catalogue.md`: G4 (resurrection), H5 (clocks), G7 (what a relay did to a record).

#[cfg(any(test, feature = "zoo"))]
use super::machine::Membership;

/// Which rules are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Gossip brings back whom the registry removed.
    pub resurrects: bool,
    /// Silence is measured by the stamps of others.
    pub believes_stamps: bool,
    /// A node refutes for others, by raising their incarnation.
    pub raises_others: bool,
    /// Who drops a suspicion does not tell whom it suspected.
    pub tells_nobody: bool,
    /// A node that slept takes the silence it slept through for the others'.
    pub blames_others: bool,
    /// Nobody keeps what a store once said of itself.
    pub forgives: bool,
}

#[cfg(any(test, feature = "zoo"))]
impl Membership {
    /// Leaves rules out, from the start of the node on.
    pub fn with_faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }
}
