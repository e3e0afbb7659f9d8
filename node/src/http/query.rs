//! Query parameters: read, checked and documented from the same tables.
//!
//! A route names the parameters it takes as a table of [`Parameter`]s; what is not in it is refused and named,
//! as are a parameter given twice and a value that does not fit. Values are bytes: a prefix of a key need
//! not be UTF-8.

use std::time::Duration;

use bytes::Bytes;
use sibyl_core::quorum::{BadLevel, Level};
use sibyl_core::registry::MAX_N;
use utoipa::openapi::Required;
use utoipa::openapi::path::{Parameter as Documented, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};

use super::path;
use super::problem::Problem;

/// The longest time a client may ask a request to take, in milliseconds.
pub(super) const MAX_TIMEOUT_MS: u64 = 60_000;
/// The most entries of one page.
pub(super) const MAX_PAGE: usize = 1000;
/// The entries of a page that names no limit.
pub(super) const DEFAULT_PAGE: usize = 100;

/// What a parameter holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// How many replicas: `one`, `quorum`, `all` or a number.
    Level,
    /// `true` or `false`.
    Flag,
    /// Milliseconds, from 1 to [`MAX_TIMEOUT_MS`].
    TimeoutMs,
    /// Entries of a page, from 1 to [`MAX_PAGE`].
    Limit,
    /// Percent-encoded bytes.
    Bytes,
    /// One of these words.
    Word(&'static [&'static str]),
}

/// A query parameter of a route.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameter {
    /// Its name.
    pub(super) name: &'static str,
    /// What it holds.
    pub(super) kind: Kind,
    /// What it means.
    pub(super) about: &'static str,
}

/// A row of a table.
pub(super) const fn parameter(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    Parameter { name, kind, about }
}

impl Parameter {
    /// As the served document has it.
    pub(super) fn document(&self) -> Documented {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let number = |most: u64| {
            ObjectBuilder::new()
                .schema_type(Type::Integer)
                .minimum(Some(1))
                .maximum(Some(most))
        };
        let schema = match self.kind {
            Kind::Level => text().pattern(Some("^(one|quorum|all|[1-9]|1[0-5])$")),
            Kind::Flag => ObjectBuilder::new().schema_type(Type::Boolean),
            Kind::TimeoutMs => number(MAX_TIMEOUT_MS),
            Kind::Limit => number(MAX_PAGE as u64).default(Some(DEFAULT_PAGE.into())),
            Kind::Bytes => text().max_length(Some(path::MAX_KEY_BYTES)),
            Kind::Word(words) => text().enum_values(Some(words.iter().copied())),
        };
        ParameterBuilder::new()
            .name(self.name)
            .parameter_in(ParameterIn::Query)
            .required(Required::False)
            .description(Some(self.about))
            .schema(Some(schema))
            .build()
    }
}

/// The query of a request, every parameter known and given once.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(&'static Parameter, Vec<u8>)>);

impl Query {
    /// Reads a query against the table of its route.
    pub(super) fn parse(raw: Option<&str>, known: &'static [Parameter]) -> Result<Self, Problem> {
        let mut found = Self::default();
        for pair in raw
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = String::from_utf8_lossy(&form_decode(name)?).into_owned();
            let Some(parameter) = known.iter().find(|parameter| parameter.name == name) else {
                return Err(unknown(&name, known));
            };
            if found.raw(parameter.name).is_some() {
                return Err(bad(&name, "is given twice"));
            }
            found.0.push((parameter, form_decode(value)?));
        }
        Ok(found)
    }

    fn raw(&self, name: &str) -> Option<&[u8]> {
        let (_, value) = self
            .0
            .iter()
            .find(|(parameter, _)| parameter.name == name)?;
        Some(value)
    }

    fn text(&self, name: &str) -> Result<Option<&str>, Problem> {
        let utf8 = |raw| std::str::from_utf8(raw).map_err(|_| bad(name, "is not UTF-8"));
        self.raw(name).map(utf8).transpose()
    }

    /// How many replicas. More than any bucket has is a mistake; more than there are now is not.
    pub(super) fn level(&self, name: &str) -> Result<Option<Level>, Problem> {
        let parse = |text: &str| match text.parse() {
            Ok(Level::Count(count)) if count > MAX_N => {
                Err(bad(name, &format!("is at most {MAX_N}, not {count}")))
            }
            Ok(level) => Ok(level),
            Err(error) => Err(bad(name, &BadLevel::to_string(&error))),
        };
        self.text(name)?.map(parse).transpose()
    }

    /// `true` or `false`; `false` if it is not there.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        Ok(self.maybe_flag(name)?.unwrap_or(false))
    }

    /// `true`, `false`, or not there.
    pub(super) fn maybe_flag(&self, name: &str) -> Result<Option<bool>, Problem> {
        match self.text(name)? {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => Err(bad(name, &format!("is true or false, not {other:?}"))),
        }
    }

    /// One of the words of its table.
    pub(super) fn word(&self, name: &str) -> Result<Option<&str>, Problem> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        let words = self
            .0
            .iter()
            .find_map(|(parameter, _)| match parameter.kind {
                Kind::Word(words) if parameter.name == name => Some(words),
                _ => None,
            });
        match words {
            Some(words) if words.contains(&text) => Ok(Some(text)),
            words => {
                let words = words.unwrap_or_default().join(" or ");
                Err(bad(name, &format!("is {words} here, not {text:?}")))
            }
        }
    }

    /// How long the client waits.
    pub(super) fn timeout(&self) -> Result<Option<Duration>, Problem> {
        let ms = self.number("timeout_ms", MAX_TIMEOUT_MS)?;
        Ok(ms.map(Duration::from_millis))
    }

    /// Entries of a page.
    pub(super) fn limit(&self) -> Result<usize, Problem> {
        let limit = self.number("limit", MAX_PAGE as u64)?;
        Ok(limit
            .and_then(|limit| limit.try_into().ok())
            .unwrap_or(DEFAULT_PAGE))
    }

    /// Bytes of a key.
    pub(super) fn bytes(&self, name: &str) -> Result<Option<Bytes>, Problem> {
        match self.raw(name) {
            Some(raw) if raw.len() > path::MAX_KEY_BYTES => Err(bad(
                name,
                &format!(
                    "has {} bytes, a key has at most {}",
                    raw.len(),
                    path::MAX_KEY_BYTES
                ),
            )),
            raw => Ok(raw.map(Bytes::copy_from_slice)),
        }
    }

    fn number(&self, name: &str, most: u64) -> Result<Option<u64>, Problem> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number = digits.then(|| text.parse().ok()).flatten();
        match number.filter(|number| (1..=most).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(bad(
                name,
                &format!("is a number from 1 to {most}, not {text:?}"),
            )),
        }
    }
}

/// `+` is a space in a query, as every form has it.
fn form_decode(text: &str) -> Result<Vec<u8>, Problem> {
    path::decode(text.replace('+', " ").as_bytes())
}

fn bad(name: &str, what: &str) -> Problem {
    Problem::bad(
        "bad_parameter",
        format!("the query parameter {name} {what}"),
    )
    .with("parameter", name)
}

fn unknown(name: &str, known: &[Parameter]) -> Problem {
    let names: Vec<_> = known.iter().map(|parameter| parameter.name).collect();
    let takes = if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    };
    let detail =
        format!("the query parameter {name:?} is not known here; this route takes {takes}");
    Problem::bad("unknown_parameter", detail).with("parameter", name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Parameter] = &[
        parameter("r", Kind::Level, ""),
        parameter("partial", Kind::Flag, ""),
        parameter("prefix", Kind::Bytes, ""),
        parameter("limit", Kind::Limit, ""),
        parameter("timeout_ms", Kind::TimeoutMs, ""),
        parameter("return", Kind::Word(&["none", "value"]), ""),
    ];

    fn check_refused(raw: &str, says: &str) {
        let all = |query: Query| {
            query.level("r")?;
            query.flag("partial")?;
            query.bytes("prefix")?;
            query.limit()?;
            query.timeout()?;
            query.word("return").map(|_| ())
        };
        let problem = Query::parse(Some(raw), TABLE).and_then(all).expect_err(raw);
        let text = serde_json::Value::Object(problem.document("")).to_string();
        assert!(text.contains(says), "{raw}: {text}");
    }

    #[test]
    fn what_does_not_fit_is_refused_and_named() {
        check_refused("zzz=1", "zzz");
        check_refused("R=1", "unknown_parameter");
        check_refused("r=1&r=1", "twice");
        check_refused("r=0", "parameter r");
        check_refused("r=16", "at most 15");
        check_refused("r=256", "parameter r");
        check_refused("partial", "true or false");
        check_refused("partial=1", "true or false");
        check_refused("limit=1001", "1 to 1000");
        check_refused("limit=-1", "1 to 1000");
        check_refused("timeout_ms=0", "60000");
        check_refused("timeout_ms=99999999999999999999999", "60000");
        check_refused("return=all", "none or value");
        check_refused("prefix=%f", "%25");
    }

    #[test]
    fn values_are_decoded_once() {
        let raw = "prefix=a+b%2B%ff&r=quorum&partial=true&limit=7&&timeout_ms=5";
        let query = Query::parse(Some(raw), TABLE).expect("fits");
        assert_eq!(
            query.bytes("prefix").expect("fits").as_deref(),
            Some(&b"a b+\xff"[..])
        );
        assert_eq!(query.level("r").expect("fits"), Some(Level::Quorum));
        assert!(query.flag("partial").expect("fits"));
        assert_eq!(query.limit().expect("fits"), 7);
        assert_eq!(
            query.timeout().expect("fits"),
            Some(Duration::from_millis(5))
        );
    }
}
