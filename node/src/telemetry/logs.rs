//! Log lines: text for a person at a terminal, JSON for everything else, always on standard error.
//!
//! The libraries that carry our own telemetry and transport are silenced unless named by the operator:
//! exporting spans must not produce lines about exporting. A line about a request carries
//! `trace_id = %span.trace_id()`, the id the client got in `Sibyl-Trace-Id`.
//! A process has one subscriber, so what is logged belongs to the process and not to a node: [`LEVELS`].

use std::io::{IsTerminal, stderr};
use std::sync::{Mutex, OnceLock};

use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::util::TryInitError;
use tracing_subscriber::{Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// What is logged when nobody says otherwise.
pub const DEFAULT_FILTER: &str = "info";
/// Libraries below our own telemetry and transport. A target names everything that begins with it.
const SILENCED: [&str; 5] = ["h2", "hyper", "tonic", "tower", "opentelemetry"];
/// What is said where nothing was started.
const NOTHING: &str = "off";

/// What is logged, once logging has started.
static LEVELS: OnceLock<Levels> = OnceLock::new();

/// A filter that can be changed, and its text as it was given.
struct Levels {
    handle: reload::Handle<EnvFilter, Registry>,
    given: Mutex<String>,
}

/// Logs that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The filter cannot be read.
    #[error("the log filter is like info or info,sibyl::peer=debug: {0}")]
    Filter(#[from] ParseError),
    /// Something else logs already.
    #[error("log lines already have a subscriber in this process: {0}")]
    Taken(#[from] TryInitError),
    /// There is nothing to change.
    #[error("this process writes no log lines")]
    Silent,
}

/// Starts logging for the whole process. `directives` is the operator's filter, [`DEFAULT_FILTER`] if
/// absent; lines are JSON if `json` says so, and if it says nothing when standard error is no terminal.
pub fn start(directives: Option<&str>, json: Option<bool>) -> Result<(), LogsError> {
    let (filter, handle) = reload::Layer::new(filter(directives)?);
    let lines = fmt::layer().with_writer(stderr);
    let registry = tracing_subscriber::registry().with(filter);
    if json.unwrap_or(!stderr().is_terminal()) {
        registry.with(lines.json().flatten_event(true)).try_init()?;
    } else {
        registry.with(lines).try_init()?;
    }
    let given = Mutex::new(given(directives).to_owned());
    // Only who has set the subscriber comes here, and that is one.
    let _first = LEVELS.set(Levels { handle, given });
    Ok(())
}

/// What this process logs: the filter as it was given last, `off` if logging was never started.
pub fn current() -> String {
    let given = |levels: &Levels| levels.given.lock().expect("nobody panics with it").clone();
    LEVELS.get().map_or_else(|| NOTHING.to_owned(), given)
}

/// Logs by this filter from now on, until the process ends or it is changed again.
///
/// # Errors
/// If it cannot be read or nothing is logged here; then all stays as it was.
pub fn change(directives: &str) -> Result<(), LogsError> {
    let filter = filter(Some(directives))?;
    let levels = LEVELS.get().ok_or(LogsError::Silent)?;
    // Held until both have changed, so that what is shown is what is done.
    let mut text = levels.given.lock().expect("nobody panics with it");
    levels
        .handle
        .reload(filter)
        .map_err(|_gone| LogsError::Silent)?;
    given(Some(directives)).clone_into(&mut text);
    Ok(())
}

/// The operator's filter, or the default.
fn given(directives: Option<&str>) -> &str {
    directives
        .filter(|text| !text.is_empty())
        .unwrap_or(DEFAULT_FILTER)
}

fn filter(directives: Option<&str>) -> Result<EnvFilter, ParseError> {
    let given = given(directives);
    let mut all = given.to_owned();
    for target in SILENCED {
        if !given
            .split(',')
            .any(|directive| directive.trim().starts_with(target))
        {
            all.push_str(&format!(",{target}=off"));
        }
    }
    EnvFilter::try_new(all)
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no test panics with it").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn check(directives: Option<&str>, seen: &[&str], unseen: &[&str]) {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let lines = fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(move || writer.clone());
        let filter = filter(directives).expect("the filter is good");
        let subscriber = tracing_subscriber::registry().with(filter).with(lines);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "sibyl::http", trace_id = %super::super::TraceId([7; 16]), "own info");
            tracing::debug!(target: "sibyl::http", "own debug");
            tracing::error!(target: "h2::proto", "h2 error");
            tracing::error!(target: "hyper_util::client", "hyper error");
            tracing::error!(target: "opentelemetry_sdk", "otel error");
        });
        let bytes = buffer.0.lock().expect("no test panics with it");
        let text = String::from_utf8_lossy(&bytes);
        for line in text.lines() {
            serde_json::from_str::<serde_json::Value>(line).expect("every line is JSON");
        }
        for needle in seen {
            assert!(text.contains(needle), "{needle:?} in {text}");
        }
        for needle in unseen {
            assert!(!text.contains(needle), "{needle:?} not in {text}");
        }
    }

    #[test]
    fn silences_the_libraries_below() {
        let id = "\"trace_id\":\"07070707070707070707070707070707\"";
        check(
            None,
            &["own info", id],
            &["own debug", "h2 error", "hyper error", "otel error"],
        );
        check(Some("debug"), &["own debug"], &["h2 error", "otel error"]);
    }

    #[test]
    fn the_operator_can_have_them() {
        check(
            Some("info,h2=debug"),
            &["own info", "h2 error"],
            &["hyper error", "otel error"],
        );
    }

    #[test]
    fn a_bad_filter_is_refused() {
        assert!(filter(Some("sibyl=loudly")).is_err());
    }
}
