//! Named things in the order of their names, each name once: an object's members.
//!
//! A sorted vector instead of a tree: canonical input is sorted already, joining two is one pass, and a guest
//! pays for every step it takes.

use std::borrow::Cow;
use std::cmp::Ordering;

/// Values by name, sorted by code point.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Members<'a, T>(Vec<(Cow<'a, str>, T)>);

impl<T> Default for Members<'_, T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'a, T> Members<'a, T> {
    /// Sorts `members`.
    ///
    /// # Errors
    /// A name that stands twice.
    pub fn new(mut members: Vec<(Cow<'a, str>, T)>) -> Result<Self, Cow<'a, str>> {
        if !members.is_sorted_by(|a, b| a.0 < b.0) {
            members.sort_by(|a, b| a.0.cmp(&b.0));
            if let Some(at) = members.windows(2).position(|pair| pair[0].0 == pair[1].0) {
                return Err(members.swap_remove(at).0);
            }
        }
        Ok(Self(members))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&T> {
        self.find(name).ok().map(|at| &self.0[at].1)
    }

    /// Takes the value of a name out.
    pub fn remove(&mut self, name: &str) -> Option<T> {
        self.find(name).ok().map(|at| self.0.remove(at).1)
    }

    /// Sets the value of a name.
    pub fn insert(&mut self, name: impl Into<Cow<'a, str>>, value: T) {
        let name = name.into();
        match self.find(&name) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (name, value)),
        }
    }

    /// Drops what `keep` does not want; it may change what it keeps.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &mut T) -> bool) {
        self.0.retain_mut(|(name, value)| keep(name, value));
    }

    /// The names in order.
    pub fn names(&self) -> impl Iterator<Item = &Cow<'a, str>> {
        self.0.iter().map(|(name, _)| name)
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Cow<'a, str>, &T)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// All values in the order of their names.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, value)| value)
    }

    /// The same names with other values.
    ///
    /// # Errors
    /// The first of `change`.
    pub fn try_map<U, E>(
        self,
        mut change: impl FnMut(&str, T) -> Result<U, E>,
    ) -> Result<Members<'a, U>, E> {
        // Collecting results would not know how many there are, and grow.
        let mut changed = Vec::with_capacity(self.0.len());
        for (name, value) in self.0 {
            let value = change(&name, value)?;
            changed.push((name, value));
        }
        Ok(Members(changed))
    }

    /// All names of both; `both` makes one value of two. As lawful as `both` is.
    #[must_use]
    pub fn join(self, other: Self, mut both: impl FnMut(T, T) -> T) -> Self {
        if self.is_empty() || other.is_empty() {
            return if self.is_empty() { other } else { self };
        }
        let mut joined = Vec::with_capacity(self.0.len().max(other.0.len()));
        let (mut left, mut right) = (self.0.into_iter(), other.0.into_iter());
        // Ends: each round takes one from either side, or one from both. Each pair is compared once.
        while let ([mine, ..], [theirs, ..]) = (left.as_slice(), right.as_slice()) {
            match mine.0.cmp(&theirs.0) {
                Ordering::Less => joined.extend(left.next()),
                Ordering::Greater => joined.extend(right.next()),
                Ordering::Equal => {
                    if let (Some((name, mine)), Some((_, other))) = (left.next(), right.next()) {
                        joined.push((name, both(mine, other)));
                    }
                }
            }
        }
        joined.extend(left);
        joined.extend(right);
        Self(joined)
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| (**other).cmp(name))
    }
}

impl<'a, T> FromIterator<(Cow<'a, str>, T)> for Members<'a, T> {
    /// Of one name the last value stays.
    fn from_iter<I: IntoIterator<Item = (Cow<'a, str>, T)>>(members: I) -> Self {
        let mut all = Self::default();
        for (name, value) in members {
            all.insert(name, value);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::Members;

    fn members(names: &str) -> Members<'static, usize> {
        names
            .char_indices()
            .map(|(at, name)| (name.to_string().into(), at))
            .collect()
    }

    fn check_join(left: &str, right: &str, expected: &str) {
        let joined = members(left).join(members(right), |a, b| 10 * (a + 1) + b);
        let text: Vec<_> = joined
            .iter()
            .map(|(name, value)| format!("{name}{value}"))
            .collect();
        assert_eq!(text.join(" "), expected);
    }

    #[test]
    fn joins_in_order() {
        check_join("", "ab", "a0 b1");
        check_join("ab", "", "a0 b1");
        check_join("ac", "bd", "a0 b0 c1 d1");
        check_join("bcd", "acx", "a0 b0 c21 d2 x2");
        check_join("xyz", "a", "a0 x0 y1 z2");
    }

    #[test]
    fn a_name_stands_once() {
        let named = |names: &str| {
            let names = names.chars().map(|name| (name.to_string().into(), ()));
            Members::new(names.collect())
        };
        assert_eq!(named("bab"), Err("b".into()));
        let sorted = named("bca").map(|all| all.names().cloned().collect::<Vec<_>>().concat());
        assert_eq!(sorted, Ok("abc".to_owned()));
        let mut some = members("abc");
        assert_eq!(
            (some.remove("b"), some.remove("b"), some.get("c")),
            (Some(1), None, Some(&2))
        );
        some.insert("a", 7);
        assert_eq!(some.get("a"), Some(&7));
    }
}
