//! The one integration binary.

mod otlp;
mod telemetry;
