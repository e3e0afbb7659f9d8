//! What a case expects beside what came: for values of several lines only the lines that differ.
//!
//! Lines that both begin with and lines that both end with are left out; that is no shortest edit, but it is short and
//! says where to look.

use super::super::output::bytes_for_people;
use super::cases::{Expect, Given};
use crate::resolver::{Failure, Resolution};

/// Lines shown of each side.
const LINES_MAX: usize = 20;

/// The difference, for people; lines begin with `-` for what was expected and with `+` for what came.
pub(super) fn between(expected: &Expect, found: &Result<Resolution, Failure>) -> String {
    if let (Expect::Merged(Given(expected)), Ok(Resolution::Merged(found))) = (expected, found)
        && let (Ok(expected), Ok(found)) =
            (std::str::from_utf8(expected), std::str::from_utf8(found))
        && (expected.contains('\n') || found.contains('\n'))
    {
        return lines(expected, found);
    }
    format!("- {}\n+ {}\n", wanted(expected), came(found))
}

fn lines(expected: &str, found: &str) -> String {
    let expected: Vec<_> = expected.split('\n').collect();
    let found: Vec<_> = found.split('\n').collect();
    let same = |(one, other): &(&&str, &&str)| one == other;
    let before = expected.iter().zip(&found).take_while(same).count();
    let (expected, found) = (&expected[before..], &found[before..]);
    let both_ends = expected.iter().rev().zip(found.iter().rev());
    let after = both_ends.take_while(same).count();
    let mut text = format!("  merged, from line {}:\n", before + 1);
    for (mark, side) in [('-', expected), ('+', found)] {
        let differing = &side[..side.len() - after];
        for line in differing.iter().take(LINES_MAX) {
            text += &format!("{mark} {line:?}\n");
        }
        if differing.len() > LINES_MAX {
            text += &format!("{mark} … ({} lines more)\n", differing.len() - LINES_MAX);
        }
    }
    text
}

fn wanted(expected: &Expect) -> String {
    match expected {
        Expect::Merged(Given(value)) => format!("merged {}", bytes_for_people(value)),
        Expect::Pick { index } => format!("pick {index}"),
        Expect::Keep { indexes } => format!("keep {indexes:?}"),
        Expect::Delete => "delete".to_owned(),
        Expect::Malformed { index, message } => format!("malformed sibling {index}: … {message} …"),
        Expect::BadConfig { message } => format!("bad config: … {message} …"),
        Expect::Declined { message } => format!("declined: … {message} …"),
        Expect::Other { message } => format!("failed: … {message} …"),
        Expect::Crashed { message } => format!("crashed: … {message} …"),
    }
}

fn came(found: &Result<Resolution, Failure>) -> String {
    match found {
        Ok(Resolution::Merged(value)) => format!("merged {}", bytes_for_people(value)),
        Ok(Resolution::Pick(index)) => format!("pick {index}"),
        Ok(Resolution::Keep(indexes)) => format!("keep {indexes:?}"),
        Ok(Resolution::Delete) => "delete".to_owned(),
        Err(failure) => failure.to_string(),
    }
}
