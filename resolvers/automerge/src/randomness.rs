//! The source of randomness that Automerge insists on: a constant.
//!
//! It would name the actor of a new document; ours get constant actors and never write. Chosen by
//! `--cfg getrandom_backend="custom"` in `.cargo/config.toml`.

#![allow(
    unsafe_code,
    reason = "the signature getrandom's custom backend requires"
)]

/// Fills `destination` with a constant.
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(
    destination: *mut u8,
    length: usize,
) -> Result<(), getrandom::Error> {
    // SAFETY: getrandom hands over `length` writable bytes.
    unsafe { std::ptr::write_bytes(destination, 7, length) };
    Ok(())
}
