//! Who says that it is of another lineage, for an operator to know: as long as it says so, and no longer.
//!
//! A node of the lineage before this one hears of this one when it is asked, and yields by itself: so nothing is said
//! of what was heard only once. Who cannot be asked at the moment has not changed its mind. The invariant: at most
//! [`MAX_ELSEWHERE`] are remembered.

use std::collections::BTreeMap;

/// The most that are remembered: one for each member of the largest cluster that a waiting node is told of.
pub const MAX_ELSEWHERE: usize = 64;
/// How often somebody must have said so.
const LOOKS: u32 = 2;

/// Who says so, by where it was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elsewhere {
    said: BTreeMap<String, (u32, String)>,
}

impl Elsewhere {
    /// Whoever is reached there says that it is of another lineage, in these words; or that it is not.
    pub fn hear(&mut self, address: &str, says: Option<String>) {
        let Some(says) = says else {
            self.said.remove(address);
            return;
        };
        let is_full = self.said.len() >= MAX_ELSEWHERE;
        if is_full && !self.said.contains_key(address) {
            return;
        }
        let (looks, words) = self.said.entry(address.to_owned()).or_default();
        *looks = looks.saturating_add(1);
        *words = says;
    }

    /// Forgets who is nobody else any more: a member is reached where it was.
    pub fn forget(&mut self, is_member: impl Fn(&str) -> bool) {
        self.said.retain(|address, _| !is_member(address));
    }

    /// What an operator should know: the words of the first who said so more than once.
    pub fn note(&self) -> Option<&str> {
        let mut said = self.said.values();
        let lasting = said.find(|(looks, _)| *looks >= LOOKS);
        lasting.map(|(_, words)| words.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_from_the_second_time_on_until_the_same_one_says_otherwise() {
        let mut elsewhere = Elsewhere::default();
        let says = |words: &str| Some(words.to_owned());
        elsewhere.hear("n2:1", says("two"));
        elsewhere.hear("n3:1", says("three"));
        assert_eq!(elsewhere.note(), None, "once is nothing");
        elsewhere.hear("n2:1", says("two again"));
        assert_eq!(elsewhere.note(), Some("two again"));
        elsewhere.hear("n3:1", None);
        elsewhere.hear("n4:1", None);
        assert_eq!(
            elsewhere.note(),
            Some("two again"),
            "that was somebody else"
        );
        elsewhere.hear("n2:1", None);
        assert_eq!(elsewhere, Elsewhere::default());
        elsewhere.hear("n2:1", says("two"));
        assert_eq!(elsewhere.note(), None, "it counts anew");
    }

    #[test]
    fn who_became_a_member_is_forgotten_and_few_are_remembered() {
        let mut elsewhere = Elsewhere::default();
        for number in 0..MAX_ELSEWHERE + 9 {
            elsewhere.hear(&format!("n{number:03}:1"), Some(format!("{number}")));
        }
        assert_eq!(elsewhere.said.len(), MAX_ELSEWHERE);
        elsewhere.hear("n000:1", Some("again".to_owned()));
        assert_eq!(elsewhere.note(), Some("again"), "who is known is heard");
        elsewhere.forget(|address| address == "n000:1");
        assert_eq!(elsewhere.note(), None);
        assert_eq!(elsewhere.said.len(), MAX_ELSEWHERE - 1);
    }
}
