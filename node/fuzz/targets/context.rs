//! Sealed contexts that clients hand back: forged ones are refused, sealed ones open where they were sealed for.
//!
//! A forged context would let a client erase what it never saw, so a changed bit anywhere must be refused. It does
//! not look at how contexts travel in headers; the HTTP tests do.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sibyl_core::id::Incarnation;
use sibyl_core::registry::{ContextKey, Secret};
use sibyl_core::seal::{Place, open, seal};

const KEY: ContextKey = ContextKey {
    id: 3,
    secret: Secret([7; 32]),
};

fuzz_target!(|input: (Vec<u8>, Vec<u8>, Option<(u16, u8)>)| {
    let (key, bytes, change) = input;
    let place = Place {
        bucket: Incarnation(5),
        key: &key,
    };
    assert!(
        open(&[KEY], place, &bytes).is_err(),
        "nobody guesses 16 bytes of a code"
    );
    // The body of a sealed context is what a peer's message has as well: read it as one.
    let Ok(context) = sibyl_core::message::decode::<sibyl_core::context::Context>(&bytes) else {
        return;
    };
    let mut sealed = seal(&KEY, place, 1_234, &context);
    let opened = open(&[KEY], place, &sealed).expect("it was sealed here");
    assert_eq!(opened.context, context);
    assert_eq!(opened.sealed_at, 1_234);
    if let Some((at, mask)) = change.filter(|(_, mask)| *mask != 0) {
        let at = usize::from(at) % sealed.len();
        sealed[at] ^= mask;
        assert!(open(&[KEY], place, &sealed).is_err());
    }
});
