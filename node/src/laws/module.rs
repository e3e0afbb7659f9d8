//! A compiled module as the law check calls it.
//!
//! It holds the platform's place for law checks as long as it lives. That `sampling` fails is no broken law: it is kept
//! beside, and told instead of a certificate.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::Values;
use super::host::{Ran, Subject};
use crate::resolver::{Call, Checker, Input};

/// What a module is for if neither it nor the caller says so.
const ANY_MEDIA_TYPE: &str = "application/octet-stream";

/// The bucket and the key that a law check shows: they are nobody's.
const BUCKET: &str = "check";
const KEY: &str = "key";

/// A module with what every call of it has in common.
pub struct Module {
    checker: Checker,
    call: Call,
    /// A failure of `sampling`, which is no law but has to be told.
    broken_sampling: Mutex<Option<String>>,
}

impl Module {
    /// With this configuration, JSON text, and the limits that a bucket has by default.
    pub fn new(checker: Checker, config: &str) -> Self {
        let call = Call {
            bucket: BUCKET.into(),
            key: KEY.into(),
            config: Some(config.to_owned()),
            ..Call::default()
        };
        Self::calling(checker, call)
    }

    /// With what this call says, but its siblings.
    pub fn calling(checker: Checker, call: Call) -> Self {
        Self {
            checker,
            call,
            broken_sampling: Mutex::default(),
        }
    }

    /// Where its values come from: of a media type, or of the first that it describes; samples come before all.
    pub fn values(&self, media_type: Option<&str>, samples: Vec<Bytes>) -> Values {
        let described = self.checker.media_type();
        let media_type = media_type.or(described.as_deref());
        Values::new(media_type.unwrap_or(ANY_MEDIA_TYPE), samples)
    }

    /// What is wrong with its `sampling`, if it failed.
    pub fn broken_sampling(&self) -> Option<String> {
        let broken = self.broken_sampling.lock();
        broken.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn call(&self, siblings: &[Input]) -> Call {
        Call {
            siblings: siblings.to_vec(),
            ..self.call.clone()
        }
    }
}

impl Subject for Module {
    fn resolve(&self, siblings: &[Input]) -> Ran {
        let report = self.checker.resolve(&self.call(siblings));
        Ran {
            outcome: report.outcome,
            fuel: report.fuel,
            memory_bytes: report.memory_bytes,
        }
    }

    fn accepts(&self, value: &Input) -> bool {
        let call = self.call(std::slice::from_ref(value));
        // As on a node: a check that fails itself refuses nothing.
        !matches!(self.checker.check_value(&call), Ok(Err(_)))
    }

    fn sample(&self, entropy: &[u8]) -> Option<Vec<u8>> {
        self.checker.sample(entropy).unwrap_or_else(|failure| {
            let broken = self.broken_sampling.lock();
            *broken.unwrap_or_else(PoisonError::into_inner) = Some(failure.to_string());
            None
        })
    }
}
