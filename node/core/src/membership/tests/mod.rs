//! Tests of membership: transcripts to read, laws over random histories, bytes that mean harm.

mod bytes;
mod laws;
mod script;
mod transcripts;
mod world;
