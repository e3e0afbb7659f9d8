//! Where spans go: the operator's flags and the standard `OTEL_*` variables, read and checked once.
//!
//! A wrong endpoint is refused at start with a message that says what to write instead, because the SDK
//! would accept it and lose every span in silence. The environment comes in as a function, so tests need no
//! real variables.

use std::time::Duration;

/// Longest wait for one export, tries included. Short, because a shutdown may have to wait for one.
pub const EXPORT_TIMEOUT: Duration = Duration::from_secs(2);
/// Finished spans waiting for export; more are dropped and counted. At about 1 KiB each this is 8 MiB.
pub const QUEUE_SPANS: usize = 8192;
/// Time between exports when there are few spans.
pub const EXPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The largest queue an operator may ask for: about 1 GiB of spans.
const MAX_QUEUE_SPANS: usize = 1 << 20;
/// The longest export timeout or interval an operator may ask for.
const MAX_WAIT: Duration = Duration::from_secs(60);

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const TRACES_PROTOCOL: &str = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL";
const TIMEOUT: &str = "OTEL_EXPORTER_OTLP_TIMEOUT";
const QUEUE: &str = "OTEL_BSP_MAX_QUEUE_SIZE";
const DELAY: &str = "OTEL_BSP_SCHEDULE_DELAY";
const HTTP_PATH: &str = "/v1/traces";

/// How spans are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP over gRPC, by convention port 4317.
    Grpc,
    /// OTLP as protobuf over HTTP/1.1, by convention port 4318.
    Http,
}

/// Settings nobody can start with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSettings {
    /// No scheme: `host:4317`.
    #[error(
        "the OTLP endpoint {0:?} has no scheme: write http://HOST:4317 for gRPC or http://HOST:4318 for HTTP"
    )]
    NoScheme(String),
    /// `https://`.
    #[error(
        "the OTLP endpoint {0:?} asks for TLS, which this build does not speak: send to a collector on this machine or network by http://, and let it forward over TLS"
    )]
    Tls(String),
    /// Neither http nor https, or no host.
    #[error("the OTLP endpoint {0:?} is not http://HOST:PORT")]
    NotHttp(String),
    /// An unknown protocol.
    #[error("{0} is {1:?}; this node speaks grpc and http/protobuf")]
    Protocol(&'static str, String),
    /// A number out of range.
    #[error("{0} is {1:?}; it is a whole number from 1 to {2}")]
    Number(&'static str, String, usize),
}

/// A checked place to send spans to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// For gRPC the base, for HTTP the full address with its path.
    pub endpoint: String,
    /// How to speak to it.
    pub protocol: Protocol,
    /// Longest wait for one export.
    pub timeout: Duration,
    /// Finished spans waiting for export.
    pub queue_spans: usize,
    /// Time between exports when there are few spans.
    pub interval: Duration,
}

impl Collector {
    /// Reads the flag (`--otlp-endpoint`) and the standard variables; the flag wins. `None` when nobody
    /// named an endpoint: nothing is exported then. An empty flag or variable counts as absent.
    pub fn read(
        flag: Option<&str>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, BadSettings> {
        let variable = |name: &'static str| environment(name).filter(|text| !text.is_empty());
        let named = |name| variable(name).map(|endpoint| (endpoint, name == TRACES_ENDPOINT));
        let given = flag
            .filter(|text| !text.is_empty())
            .map(|text| (text.to_owned(), false))
            .or_else(|| named(TRACES_ENDPOINT))
            .or_else(|| named(ENDPOINT));
        let Some((endpoint, exact)) = given else {
            return Ok(None);
        };
        let port = check(&endpoint)?;
        let protocol = protocol(&variable)?.unwrap_or(match port {
            Some(4318) => Protocol::Http,
            // gRPC knows no such path.
            _ if endpoint.ends_with(HTTP_PATH) => Protocol::Http,
            _ => Protocol::Grpc,
        });
        let endpoint = match protocol {
            Protocol::Http if !exact && !endpoint.ends_with(HTTP_PATH) => {
                format!("{}{HTTP_PATH}", endpoint.trim_end_matches('/'))
            }
            _ => endpoint,
        };
        Ok(Some(Self {
            endpoint,
            protocol,
            timeout: millis(&variable, TIMEOUT, EXPORT_TIMEOUT)?,
            queue_spans: number(&variable, QUEUE, MAX_QUEUE_SPANS)?.unwrap_or(QUEUE_SPANS),
            interval: millis(&variable, DELAY, EXPORT_INTERVAL)?,
        }))
    }
}

/// Refuses what is not `http://host…`; answers the port.
fn check(endpoint: &str) -> Result<Option<u16>, BadSettings> {
    let given = || endpoint.to_owned();
    let (scheme, rest) = endpoint
        .split_once("://")
        .ok_or_else(|| BadSettings::NoScheme(given()))?;
    match scheme {
        "http" => {}
        "https" => return Err(BadSettings::Tls(given())),
        _ => return Err(BadSettings::NotHttp(given())),
    }
    port(rest).ok_or_else(|| BadSettings::NotHttp(given()))
}

/// The port of `host[:port][/…]`; `None` if there is no host, or blanks or a user in it.
fn port(rest: &str) -> Option<Option<u16>> {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == '@';
    if authority.is_empty() || rest.contains(odd) {
        return None;
    }
    let after_ip6 = authority
        .rsplit_once(']')
        .map_or(authority, |(_, port)| port);
    match after_ip6.rsplit_once(':') {
        Some((_, port)) => port.parse().ok().map(Some),
        None => Some(None),
    }
}

fn protocol(
    variable: &impl Fn(&'static str) -> Option<String>,
) -> Result<Option<Protocol>, BadSettings> {
    for name in [TRACES_PROTOCOL, PROTOCOL] {
        match variable(name).as_deref() {
            None => {}
            Some("grpc") => return Ok(Some(Protocol::Grpc)),
            Some("http/protobuf") => return Ok(Some(Protocol::Http)),
            Some(other) => return Err(BadSettings::Protocol(name, other.to_owned())),
        }
    }
    Ok(None)
}

fn number(
    variable: &impl Fn(&'static str) -> Option<String>,
    name: &'static str,
    max: usize,
) -> Result<Option<usize>, BadSettings> {
    let Some(text) = variable(name) else {
        return Ok(None);
    };
    match text.parse() {
        Ok(number) if (1..=max).contains(&number) => Ok(Some(number)),
        _ => Err(BadSettings::Number(name, text, max)),
    }
}

fn millis(
    variable: &impl Fn(&'static str) -> Option<String>,
    name: &'static str,
    default: Duration,
) -> Result<Duration, BadSettings> {
    let max = usize::try_from(MAX_WAIT.as_millis()).unwrap_or(usize::MAX);
    let given = number(variable, name, max)?;
    Ok(given.map_or(default, |ms| Duration::from_millis(ms as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(
        flag: Option<&str>,
        variables: &[(&str, &str)],
    ) -> Result<Option<Collector>, BadSettings> {
        Collector::read(flag, |name| {
            let found = variables.iter().find(|(given, _)| *given == name)?;
            Some(found.1.to_owned())
        })
    }

    fn check(flag: Option<&str>, variables: &[(&str, &str)], endpoint: &str, protocol: Protocol) {
        let collector = read(flag, variables)
            .expect("the settings are good")
            .expect("an endpoint is named");
        assert_eq!(
            (collector.endpoint.as_str(), collector.protocol),
            (endpoint, protocol)
        );
    }

    #[test]
    fn no_endpoint_means_no_export() {
        assert_eq!(read(None, &[]), Ok(None));
        assert_eq!(read(Some(""), &[(ENDPOINT, "")]), Ok(None));
        assert_eq!(read(None, &[(PROTOCOL, "grpc")]), Ok(None));
    }

    #[test]
    fn the_flag_wins_then_the_more_special_variable() {
        let both = [(ENDPOINT, "http://a:1"), (TRACES_ENDPOINT, "http://b:2")];
        check(Some("http://c:3"), &both, "http://c:3", Protocol::Grpc);
        check(None, &both, "http://b:2", Protocol::Grpc);
        check(None, &both[..1], "http://a:1", Protocol::Grpc);
    }

    #[test]
    fn http_gets_its_path() {
        let http = (PROTOCOL, "http/protobuf");
        check(
            Some("http://a:9"),
            &[http],
            "http://a:9/v1/traces",
            Protocol::Http,
        );
        check(
            Some("http://a:9/otlp/"),
            &[http],
            "http://a:9/otlp/v1/traces",
            Protocol::Http,
        );
        check(
            Some("http://a:9/v1/traces"),
            &[http],
            "http://a:9/v1/traces",
            Protocol::Http,
        );
        check(
            None,
            &[http, (TRACES_ENDPOINT, "http://a:9/own")],
            "http://a:9/own",
            Protocol::Http,
        );
        check(
            Some("http://a:4318"),
            &[],
            "http://a:4318/v1/traces",
            Protocol::Http,
        );
        check(
            Some("http://[::1]:4318"),
            &[],
            "http://[::1]:4318/v1/traces",
            Protocol::Http,
        );
        check(
            Some("http://[::1]:4317"),
            &[],
            "http://[::1]:4317",
            Protocol::Grpc,
        );
        check(
            Some("http://a:4318"),
            &[(PROTOCOL, "grpc")],
            "http://a:4318",
            Protocol::Grpc,
        );
        check(
            Some("http://a:9/v1/traces"),
            &[],
            "http://a:9/v1/traces",
            Protocol::Http,
        );
        check(
            Some("http://a:9"),
            &[(PROTOCOL, "grpc"), (TRACES_PROTOCOL, "http/protobuf")],
            "http://a:9/v1/traces",
            Protocol::Http,
        );
    }

    fn check_refused(flag: &str, variables: &[(&str, &str)], needle: &str) {
        let error = read(Some(flag), variables)
            .expect_err("the settings are bad")
            .to_string();
        assert!(error.contains(needle), "{error:?} should say {needle:?}");
    }

    #[test]
    fn bad_settings_are_named() {
        check_refused("collector:4317", &[], "write http://HOST:4317");
        check_refused("https://collector:4317", &[], "does not speak");
        check_refused("ftp://collector", &[], "is not http://HOST:PORT");
        check_refused("http://", &[], "is not http://HOST:PORT");
        check_refused("http://a:70000", &[], "is not http://HOST:PORT");
        check_refused("http://a b:1", &[], "is not http://HOST:PORT");
        check_refused("http://a:1", &[(PROTOCOL, "http/json")], "http/json");
        check_refused("http://a:1", &[(QUEUE, "0")], QUEUE);
        check_refused("http://a:1", &[(TIMEOUT, "soon")], TIMEOUT);
        check_refused("http://a:1", &[(DELAY, "60001")], "60000");
    }

    #[test]
    fn numbers_are_read() {
        let variables = [(QUEUE, "7"), (TIMEOUT, "250"), (DELAY, "10")];
        let collector = read(Some("http://a:1"), &variables)
            .expect("the settings are good")
            .expect("an endpoint is named");
        assert_eq!(collector.queue_spans, 7);
        assert_eq!(collector.timeout, Duration::from_millis(250));
        assert_eq!(collector.interval, Duration::from_millis(10));
    }
}
