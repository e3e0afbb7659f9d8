//! What the standard resolvers must do, as data: the cases of `*.json` beside this crate, and the laws.
//!
//! The resolvers' native tests and the node's tests of the prebuilt modules run the same cases, so source and
//! module are held to one behaviour. Only for tests; nothing here ships. The host's part (sorting siblings by
//! time and SHA-256, never calling for a single one, what a result inherits) is imitated in [`laws`].

mod case;
pub mod laws;

use sibyl_resolver_kit::{Checked, Context, Failure, Resolution, Resolver, Sibling};

pub use case::{Bytes, Cases, CheckConfig, CheckValue, Expect, Merged, Resolve, SiblingCase, load};

/// Runs every `resolve` and `check_config` case of a resolver natively.
///
/// # Panics
/// With the case's name, if the resolver does something else.
pub fn check<R: Resolver>() {
    let cases = load(R::NAME);
    assert!(!cases.resolve.is_empty(), "{} has no cases", R::NAME);
    for case in &cases.resolve {
        let siblings: Vec<_> = case.siblings.iter().map(SiblingCase::to_sibling).collect();
        let outcome = R::resolve(&context(case.config.clone()), &siblings);
        case.expect.check(&case.name, &outcome);
    }
    for case in &cases.check_config {
        expect_refusal(&case.name, &case.refused, &R::check_config(&case.config));
    }
}

/// Runs every case of a resolver natively, those of `check_value` too.
///
/// # Panics
/// With the case's name, if the resolver does something else.
pub fn check_all<R: Checked>() {
    check::<R>();
    for case in &load(R::NAME).check_value {
        let found = R::check_value(&context(case.config.clone()), &case.bytes());
        expect_refusal(&case.name, &case.refused, &found);
    }
}

/// The context that cases are run in: bucket `cases`, key `k`, no attributes.
#[must_use]
pub fn context(config: Option<String>) -> Context {
    Context {
        bucket: "cases".to_owned(),
        key: b"k".to_vec(),
        config,
        attributes: Vec::new(),
    }
}

/// Compares the outcome of a check with what a case expects: acceptance, or a message that contains a text.
///
/// # Panics
/// If they differ.
pub fn expect_refusal(name: &str, refused: &Option<String>, found: &Result<(), String>) {
    match (refused, found) {
        (None, Ok(())) => {}
        (Some(part), Err(message)) if message.contains(part.as_str()) => {}
        _ => panic!("{name}: expected {refused:?} to be refused, found {found:?}"),
    }
}

impl Expect {
    /// Compares with what a resolver returned.
    ///
    /// # Panics
    /// If they differ.
    pub fn check(&self, name: &str, found: &Result<Resolution, Failure>) {
        let fits = match (self, found) {
            (Self::Merged(value), Ok(Resolution::Merged(bytes))) => value.bytes() == *bytes,
            (Self::Pick { index }, Ok(Resolution::Pick(found))) => index == found,
            (Self::Keep { indexes }, Ok(Resolution::Keep(found))) => indexes == found,
            (Self::Delete, Ok(Resolution::Delete)) => true,
            (Self::Malformed { index, message }, Err(Failure::Malformed(bad))) => {
                *index == bad.index && bad.message.contains(message.as_str())
            }
            (Self::BadConfig { message }, Err(Failure::BadConfig(found)))
            | (Self::Declined { message }, Err(Failure::Declined(found)))
            | (Self::Other { message }, Err(Failure::Other(found))) => {
                found.contains(message.as_str())
            }
            _ => false,
        };
        assert!(fits, "{name}: expected {self:?}, found {}", describe(found));
    }
}

fn describe(found: &Result<Resolution, Failure>) -> String {
    match found {
        Ok(Resolution::Merged(bytes)) => format!("merged {}", String::from_utf8_lossy(bytes)),
        other => format!("{other:?}"),
    }
}

impl SiblingCase {
    /// As the contract has it.
    #[must_use]
    pub fn to_sibling(&self) -> Sibling {
        Sibling {
            value: self.bytes(),
            modified_at: self.modified_at,
            attributes: Vec::new(),
        }
    }
}
