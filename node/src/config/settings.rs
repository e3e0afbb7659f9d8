//! Settings as text, layered: flags over environment over file.
//!
//! A value remembers where it came from. Nothing here knows what a value means; that is `parse.rs`.

use std::collections::BTreeMap;
use std::path::Path;

use super::flags::{self, FLAGS, Kind};
use super::{Error, Flag};

/// Largest `sibyl.toml` that is read: two dozen lines, and a member list of [`super::MAX_MEMBERS`] entries.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Variables that start with `SIBYL_` but belong to other commands or to the process around a node.
const OTHER_VARIABLES: &[&str] = &["SIBYL_CONFIG", "SIBYL_URL", "SIBYL_BUCKET", "SIBYL_OUTPUT"];

/// Where a value came from, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// `sibyl.toml`.
    File,
    /// A `SIBYL_` variable.
    Environment,
    /// The command line.
    Flag,
}

/// Values by flag name, each with its layer. The strongest layer wins, in any order of setting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    values: BTreeMap<&'static str, (Layer, String)>,
}

/// `gossip-interval` is `SIBYL_GOSSIP_INTERVAL` in the environment.
pub fn environment_name(flag: &str) -> String {
    format!("SIBYL_{}", flag.to_uppercase().replace('-', "_"))
}

/// `gossip-interval` is `gossip_interval` in `sibyl.toml`.
pub fn file_name(flag: &str) -> String {
    flag.replace('-', "_")
}

impl Settings {
    /// Sets a value unless a stronger layer has it. Unknown names are a mistake in the caller's table.
    pub fn set(&mut self, flag: &'static Flag, layer: Layer, value: String) {
        let entry = self
            .values
            .entry(flag.name)
            .or_insert_with(|| (layer, value.clone()));
        if layer >= entry.0 {
            *entry = (layer, value);
        }
    }

    /// Adds the environment: every `SIBYL_<FLAG>` that is set and not empty.
    ///
    /// Returns the `SIBYL_` variables that are no flag. They are no error: Kubernetes sets `SIBYL_PORT` and others
    /// for a service of that name; but a person may want to hear of a typing mistake.
    #[must_use = "a misspelled variable should be reported"]
    pub fn add_environment(
        &mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Vec<String> {
        let mut unknown = Vec::new();
        for (name, value) in variables {
            if !name.starts_with("SIBYL_")
                || OTHER_VARIABLES.contains(&name.as_str())
                || value.is_empty()
            {
                continue;
            }
            match FLAGS
                .iter()
                .find(|flag| environment_name(flag.name) == name)
            {
                Some(flag) => self.set(flag, Layer::Environment, value),
                None => unknown.push(name),
            }
        }
        unknown
    }

    /// Adds a `sibyl.toml`.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, or has a line that is no flag or has the wrong type.
    pub fn add_file(&mut self, path: &Path) -> Result<(), Error> {
        let file = |source| Error::File {
            path: path.to_owned(),
            source,
        };
        let bytes = std::fs::metadata(path).map_err(file)?.len();
        if bytes > MAX_FILE_BYTES {
            return Err(file(std::io::Error::other(format!(
                "it has {bytes} bytes, the limit is {MAX_FILE_BYTES}"
            ))));
        }
        self.add_toml(path, &std::fs::read_to_string(path).map_err(file)?)
    }

    /// Adds the text of a `sibyl.toml`; `path` is only for messages.
    ///
    /// # Errors
    /// As [`Settings::add_file`].
    pub fn add_toml(&mut self, path: &Path, text: &str) -> Result<(), Error> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| Error::Toml {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        for (line, value) in table {
            let Some(flag) = FLAGS.iter().find(|flag| file_name(flag.name) == line) else {
                return Err(unknown(format!("{line} in {}", path.display()), &line));
            };
            let text = text_of(flag, &value).ok_or_else(|| Error::Value {
                place: format!("{line} in {}", path.display()),
                value: value.to_string(),
                reason: expected(flag.kind),
            })?;
            self.set(flag, Layer::File, text);
        }
        Ok(())
    }

    /// The text of a flag, if some layer sets it.
    pub fn get(&self, name: &str) -> Option<&str> {
        debug_assert!(flags::find(name).is_some(), "{name} is not in the table");
        self.values.get(name).map(|(_, value)| value.as_str())
    }

    /// What to call a flag in a message: the name under which it was set.
    pub fn place(&self, name: &str) -> String {
        match self.values.get(name) {
            Some((Layer::File, _)) => format!("{} in sibyl.toml", file_name(name)),
            Some((Layer::Environment, _)) => environment_name(name),
            Some((Layer::Flag, _)) | None => format!("--{name}"),
        }
    }
}

/// A TOML value as the text that the flag would have had on the command line.
fn text_of(flag: &Flag, value: &toml::Value) -> Option<String> {
    match (flag.kind, value) {
        (Kind::Switch, toml::Value::Boolean(on)) => Some(on.to_string()),
        (Kind::Switch, _) => None,
        (Kind::List(_), toml::Value::Array(items)) => {
            let items: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
            items.map(|items| items.join(","))
        }
        (_, toml::Value::String(text)) => Some(text.clone()),
        (Kind::Value(_), toml::Value::Integer(number)) => Some(number.to_string()),
        (Kind::Value(_), toml::Value::Float(number)) => Some(number.to_string()),
        _ => None,
    }
}

fn expected(kind: Kind) -> String {
    match kind {
        Kind::Value(shown) => format!("expected text or a number ({shown})"),
        Kind::List(shown) => format!("expected a list of texts ({shown})"),
        Kind::Switch => "expected true or false".to_owned(),
    }
}

fn unknown(place: String, line: &str) -> Error {
    let nearest = FLAGS
        .iter()
        .map(|flag| file_name(flag.name))
        .min_by_key(|name| distance(name, line))
        .filter(|name| distance(name, line) <= line.len() / 3);
    let hint = match nearest {
        Some(name) => format!("did you mean {name}?"),
        None => "`sibyl serve --help` lists them".to_owned(),
    };
    Error::Unknown { place, hint }
}

/// Levenshtein distance, one row at a time. Ends because both loops run over finite texts.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = before + usize::from(from != *to);
            before = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(before + 1);
        }
    }
    row[b.len()]
}
