//! The metrics page in the two text formats scrapers ask for.
//!
//! prometheus-client writes OpenMetrics 1.0. The classic format (0.0.4) is what a browser, curl and old
//! scrapers get; it is made from the other by renaming counters in their headers and leaving out units,
//! exemplars and the end mark. Every name and value is the same in both.

use std::fmt::Write;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page and its `Content-Type`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The `Content-Type` header.
    pub content_type: &'static str,
    /// The text.
    pub body: String,
}

pub(super) fn page(registry: &Registry, accept: Option<&str>) -> Page {
    let mut body = String::with_capacity(32 * 1024);
    encode(&mut body, registry).expect("writing to a string cannot fail");
    if accept.is_some_and(wants_open_metrics) {
        Page {
            content_type: OPEN_METRICS,
            body,
        }
    } else {
        Page {
            content_type: CLASSIC,
            body: classic(&body),
        }
    }
}

/// Prometheus names OpenMetrics first when it speaks it; a weight of 0 would be a refusal.
fn wants_open_metrics(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let named = parts.next() == Some("application/openmetrics-text");
        named && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

fn classic(open: &str) -> String {
    let mut text = String::with_capacity(open.len());
    // A counter's samples end in `_total` and its headers do not, but HELP comes before TYPE says so.
    let mut help: Option<&str> = None;
    for line in open.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = Some(rest);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, text_of)) = help.take().and_then(|help| help.split_once(' ')) {
                let _ = writeln!(text, "# HELP {name}{suffix} {text_of}");
            }
            let _ = writeln!(text, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with('#') {
            let sample = without_exemplar(line);
            let _ = writeln!(text, "{sample}");
        }
    }
    text
}

/// Cuts ` # {…} …` off a sample. Only bucket lines have exemplars, and no label of theirs holds a blank.
fn without_exemplar(line: &str) -> &str {
    match line.split_once(" # {") {
        Some((sample, _)) if line.contains("_bucket{") => sample,
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_only_when_asked_for() {
        for yes in [
            "application/openmetrics-text",
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            "text/plain, application/openmetrics-text; version=1.0.0",
        ] {
            assert!(wants_open_metrics(yes), "{yes}");
        }
        for no in ["", "*/*", "text/plain", "application/openmetrics-text;q=0"] {
            assert!(!wants_open_metrics(no), "{no}");
        }
    }

    #[test]
    fn classic_says_the_same() {
        let open = "# HELP a_seconds Help.\n# TYPE a_seconds histogram\n# UNIT a_seconds seconds\n\
            a_seconds_bucket{le=\"1.0\"} 1 # {trace_id=\"7\"} 0.5 1.0\n\
            # HELP b Bees.\n# TYPE b counter\nb_total{x=\"y # {\"} 3\n# EOF\n";
        let expected = "# HELP a_seconds Help.\n# TYPE a_seconds histogram\na_seconds_bucket{le=\"1.0\"} 1\n\
            # HELP b_total Bees.\n# TYPE b_total counter\nb_total{x=\"y # {\"} 3\n";
        assert_eq!(classic(open), expected);
    }
}
