//! The voice of the demo: numbered steps with marks for people, or one JSON document of what was seen.
//!
//! It prints; it judges nothing. Every line is kept, so both forms tell the same.

use std::time::{Duration, Instant};

use owo_colors::{OwoColorize, Stream};
use serde::Serialize;

use crate::cli::failure::Failure;
use crate::cli::output::{self, Format};

/// What has been told so far.
#[derive(Debug)]
pub(super) struct Story {
    format: Format,
    started: Instant,
    steps: Vec<Step>,
}

/// One numbered step.
#[derive(Debug, Serialize)]
struct Step {
    step: String,
    at_ms: u128,
    seen: Vec<String>,
}

impl Story {
    pub(super) fn new(format: Format) -> Story {
        Story {
            format,
            started: Instant::now(),
            steps: Vec::new(),
        }
    }

    /// A heading.
    pub(super) fn title(&self, text: &str) -> Result<(), Failure> {
        self.say(format!(
            "\n{}\n",
            text.if_supports_color(Stream::Stdout, |text| text.bold())
        ))
    }

    /// What happens next.
    pub(super) fn step(&mut self, text: &str) -> Result<(), Failure> {
        let at_ms = self.started.elapsed().as_millis();
        self.steps.push(Step {
            step: text.to_owned(),
            at_ms,
            seen: Vec::new(),
        });
        let number = format!("{:>2}", self.steps.len());
        self.say(format!(
            "\n{} {text}\n",
            number.if_supports_color(Stream::Stdout, |text| text.cyan())
        ))
    }

    /// Something that had to be seen and was.
    pub(super) fn seen(&mut self, text: &str) -> Result<(), Failure> {
        self.keep(text);
        let mark = "✓"
            .if_supports_color(Stream::Stdout, |text| text.green())
            .to_string();
        self.say(format!("   {mark} {}\n", output::printable(text)))
    }

    /// A remark.
    pub(super) fn note(&mut self, text: &str) -> Result<(), Failure> {
        self.keep(text);
        let text = output::printable(text);
        self.say(format!(
            "     {}\n",
            text.if_supports_color(Stream::Stdout, |text| text.dimmed())
        ))
    }

    /// The end: in JSON everything is printed now.
    pub(super) fn finish(self) -> Result<(), Failure> {
        match self.format {
            Format::Table => {
                output::print(format!("\ndone in {}\n", duration(self.started.elapsed())))
            }
            Format::Json => output::print_json(&serde_json::json!({
                "ok": true,
                "duration_ms": u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
                "steps": self.steps,
            })),
        }
    }

    fn keep(&mut self, text: &str) {
        if let Some(step) = self.steps.last_mut() {
            step.seen.push(text.to_owned());
        }
    }

    fn say(&self, text: String) -> Result<(), Failure> {
        match self.format {
            Format::Table => output::print(text),
            Format::Json => Ok(()),
        }
    }
}

/// A time for people: `3.1 ms`, `1.24 s`.
pub(super) fn duration(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{:.1} ms", time.as_secs_f64() * 1e3)
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}
