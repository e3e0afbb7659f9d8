//! Registry documents, alone and with their proof: what can be read is canonical, keeps the rules, and can be asked.
//!
//! A node takes documents from peers that knock and from its own disk, so bytes that can be read must keep the rules
//! that everything behind them relies on. It does not choose documents; the registry's machines are for that.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sibyl_core::id::Partition;
use sibyl_core::registry::{Document, Held};

/// Partitions that are looked at in each document.
const LOOKS: u32 = 4;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(held) = Held::decode(bytes) {
        assert_eq!(Held::decode(&held.encode()).as_ref(), Ok(&held));
    }
    let Ok(document) = Document::decode(bytes) else {
        return;
    };
    assert_eq!(document.encode(), bytes, "one form");
    let _ = (document.digest(), document.first(), document.voters());
    let owners = document.owners();
    for at in (0..document.layout.partitions.min(LOOKS)).map(Partition) {
        for n in 1..=3 {
            assert!(owners.counting(at, n).len() <= document.layout.members.len());
        }
    }
});
