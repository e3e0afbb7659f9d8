//! Heads of frames between peers: questions, answers, gossip, and what a node that is no member asks.
//!
//! They come from authenticated peers of other releases too, so what is read must be written again as it was. Bodies
//! are opaque here; frames have a target of their own.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sibyl_core::joining::Knock;
use sibyl_core::membership::{self, Answer, Question};
use sibyl_core::message::{self, Reply, Request};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = message::decode::<Request>(bytes) {
        assert_eq!(message::decode(&message::encode(&request)), Ok(request));
    }
    if let Ok(reply) = message::decode::<Reply>(bytes) {
        assert_eq!(message::decode(&message::encode(&reply)), Ok(reply));
    }
    if let Ok(knock) = message::decode::<Knock>(bytes) {
        assert_eq!(message::decode(&message::encode(&knock)), Ok(knock));
    }
    if let Ok(question) = membership::decode::<Question>(bytes) {
        assert!(membership::decode::<Question>(&membership::encode(&question)).is_ok());
    }
    if let Ok(answer) = membership::decode::<Answer>(bytes) {
        assert!(membership::decode::<Answer>(&membership::encode(&answer)).is_ok());
    }
});
