//! What was found, as JSON: for programs, for the API and for the registry, which keeps it.
//!
//! The registry is in every node's memory and on every disk, so a report is cut until it fits: values first, at last the
//! whole case. What it looks like and what to do always stay.

use bytes::Bytes;
use serde_json::{Value, json};
use sibyl_core::registry::{self, MAX_REPORT_BYTES, Tried};

use super::{Certificate, Counterexample, Finding};

/// How much of each value a report shows, if it would be too long otherwise.
const CUTS: [usize; 4] = [usize::MAX, 256, 64, 16];

impl Certificate {
    /// As the registry keeps it.
    pub fn kept(&self) -> registry::Certificate {
        kept(&self.laws, self.seed)
    }
}

/// Findings as the registry keeps them.
pub fn kept(findings: &[Finding], seed: u64) -> registry::Certificate {
    registry::Certificate::new(findings.iter().map(|finding| Tried {
        law: finding.law,
        cases: finding.cases,
        seed,
        broken: finding.broken.as_ref().map(|broken| {
            let reports = CUTS.iter().map(|cut| report(broken, *cut).to_string());
            let fits = |report: &String| report.len() <= MAX_REPORT_BYTES;
            // At last without the case: what it looks like and what to do always fit.
            let plain = || told(broken).to_string();
            reports.into_iter().find(fits).unwrap_or_else(plain)
        }),
    }))
}

/// The suspicion and the remedy.
fn told(broken: &Counterexample) -> Value {
    json!({ "suspicion": broken.suspicion.text(), "remedy": broken.suspicion.remedy() })
}

fn report(broken: &Counterexample, cut: usize) -> Value {
    let mut report = told(broken);
    report["counterexample"] = broken.to_json(cut);
    report
}

impl Counterexample {
    /// The siblings, every merge, and what should be equal; of each value so many bytes.
    pub fn to_json(&self, cut: usize) -> Value {
        let value = |value: &Option<Bytes>| {
            let json = value.as_ref().map(|value| octets(value, cut));
            json.unwrap_or(Value::Null)
        };
        let gave = |gave: &Result<Vec<Option<Bytes>>, String>| match gave {
            Ok(values) => json!({ "values": values.iter().map(value).collect::<Vec<_>>() }),
            Err(failure) => json!({ "failure": failure }),
        };
        let siblings = self.siblings.iter().map(|given| {
            json!({ "name": given.name, "value": value(&given.value), "modified_at_ms": given.modified_at })
        });
        let steps = self.steps.iter();
        let steps = steps.map(|step| json!({ "merge": step.of, "gave": gave(&step.gave) }));
        let sides = self.sides.iter();
        let sides = sides.map(|side| json!({ "term": side.of, "is": gave(&side.values) }));
        json!({
            "siblings": siblings.collect::<Vec<_>>(),
            "steps": steps.collect::<Vec<_>>(),
            "should_be_equal": sides.collect::<Vec<_>>(),
            "always": self.always,
        })
    }
}

/// A value, or its beginning and its length.
fn octets(value: &Bytes, cut: usize) -> Value {
    use base64::Engine as _;
    if value.len() <= cut {
        return match std::str::from_utf8(value) {
            Ok(text) => text.into(),
            Err(_) => {
                let text = base64::engine::general_purpose::STANDARD.encode(value);
                json!({ "base64": text })
            }
        };
    }
    let begins = String::from_utf8_lossy(&value[..cut]);
    json!({ "begins": begins, "bytes": value.len() })
}
