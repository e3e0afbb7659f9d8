//! What commands print: tables for people, JSON for programs.
//!
//! Standard output carries data and nothing else; progress and remarks go to standard error, and colours only
//! to a terminal. Text from nodes is escaped before it reaches a terminal, since a value may hold anything.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
pub(super) use comfy_table::Table;
use comfy_table::{LineStyle, TableStyle, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::Value;

use super::failure::Failure;

/// What shows progress.
pub(super) type Bar = ProgressBar;

/// A line under the titles and nothing else, so that tables stay readable and easy to cut.
const PLAIN: TableStyle = TableStyle::new().header_separator(LineStyle::new('─', '─', '─', '─'));

/// How data is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Writes to standard output. A reader that went away ends the command quietly.
pub(super) fn print(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_ref()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::ReaderGone),
        Err(source) => Err(Failure::File {
            doing: "write",
            path: "standard output".into(),
            source,
        }),
    }
}

/// Prints a value as indented JSON.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    print(to_json(value) + "\n")
}

/// A table as text.
pub(super) fn table_text(table: &Table) -> String {
    table.trim_fmt()
}

/// Prints a table.
pub(super) fn print_table(table: &Table) -> Result<(), Failure> {
    print(table.trim_fmt() + "\n")
}

/// Indented JSON of what we built ourselves.
pub(super) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value)
        .expect("our own types have string keys and no failing serializer")
}

/// A table with these columns and no rows yet.
pub(super) fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(PLAIN).set_header(columns.to_vec());
    table
}

/// Two columns of names and values, without a header; empty values are left out.
pub(super) fn facts(rows: &[(&str, String)]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        table.add_row([*name, value]);
    }
    table
}

/// One table cell of a field; absent as `-`.
pub(super) fn field(value: &Value, name: &str) -> String {
    value.get(name).map_or_else(|| "-".to_owned(), cell)
}

/// The entries of a field; none if it is not there, or no list.
pub(super) fn entries<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    let list = value.get(name).and_then(Value::as_array);
    list.map(Vec::as_slice).unwrap_or_default()
}

/// One table cell of a JSON value: text as it is, absent as `-`.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Object(fields) if fields.len() == 1 && fields.contains_key("base64") => {
            format!("base64:{}", cell(&fields["base64"]))
        }
        other => other.to_string(),
    }
}

/// Text that moves no cursor and rings no bell: control characters but line ends and tabs are escaped.
pub(super) fn printable(text: &str) -> String {
    let harmless = |c: char| !c.is_control() || c == '\n' || c == '\t';
    text.chars()
        .flat_map(|c| {
            if harmless(c) {
                vec![c]
            } else {
                c.escape_default().collect::<Vec<_>>()
            }
        })
        .collect()
}

/// Bytes in JSON: text if they are UTF-8, else `{"base64": …}`.
pub(super) fn bytes_to_json(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => serde_json::json!({ "base64": STANDARD.encode(bytes) }),
    }
}

/// The bytes of a JSON byte string: text, or `{"base64": …}`.
pub(super) fn bytes_from_json(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.clone().into_bytes()),
        Value::Object(fields) => STANDARD.decode(fields.get("base64")?.as_str()?).ok(),
        _ => None,
    }
}

/// Bytes for people: text if they are UTF-8, else base64 and their number.
pub(super) fn bytes_for_people(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => printable(text),
        Err(_) => format!("base64:{} ({} bytes)", STANDARD.encode(bytes), bytes.len()),
    }
}

/// A count of bytes for people.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// A spinner on standard error if that is a terminal, else nothing.
pub(super) fn spinner(message: impl Into<String>) -> ProgressBar {
    let message = message.into();
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("  {spinner} {msg} {elapsed}")
        .expect("the template is a constant");
    let bar = ProgressBar::new_spinner()
        .with_style(style)
        .with_message(message);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// A bar on standard error if that is a terminal, else nothing.
pub(super) fn progress(total: u64, message: impl Into<String>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("  {msg} {wide_bar} {pos}/{len} {eta}")
        .expect("the template is a constant");
    ProgressBar::new(total)
        .with_style(style)
        .with_message(message.into())
}
