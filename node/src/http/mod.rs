//! (being written)
pub mod baseline;
