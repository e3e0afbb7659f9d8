//! `sibyl resolver rollback`: binds an older version, with everything else of the binding as it is.
//!
//! Which one that is, the order of uploads says: nobody remembers what was bound before. The older version has to keep
//! the laws that the binding asks for, as any other.

use serde_json::{Map, Value, json};

use super::client::{Client, Parts, bucket_path, resolver_path};
use super::connection::Connection;
use super::failure::Failure;
use super::resolver::patient;
use super::{bucket, output};

/// `sibyl resolver rollback`.
pub(super) fn run(
    bucket: &str,
    version: Option<&str>,
    connection: &Connection,
) -> Result<(), Failure> {
    let client = patient(connection)?;
    let config = client.get(&bucket_path(bucket), Parts::default())?.json()?;
    let Some(binding) = config.get("resolver").filter(|it| it.is_object()) else {
        let nothing = format!("bucket {bucket} has no resolver to roll back");
        return Err(Failure::Failed(nothing));
    };
    let text = |field: &str| {
        binding
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (name, bound) = (text("name"), text("version"));
    let to = match version {
        Some(version) => version.to_owned(),
        None => before(&client, name, bound)?,
    };
    let mut binding = binding.clone();
    binding["version"] = to.as_str().into();
    let fields = Map::from_iter([("resolver".to_owned(), binding.clone())]);
    let waiting = output::spinner("every node gets the module ready");
    let answer = bucket::change(&client, bucket, &fields);
    waiting.finish_and_clear();
    let answer = answer?;
    if connection.json() {
        return output::print_json(
            &json!({ "bucket": bucket, "from": bound, "to": to, "trace_id": answer.trace_id() }),
        );
    }
    output::print(format!(
        "bucket {bucket} is merged by {name}@{to}, no more by {bound} (trace id {})\n",
        answer.trace_id()
    ))
}

/// Digest of the version uploaded last before this one.
fn before(client: &Client, name: &str, bound: &str) -> Result<String, Failure> {
    let body = client.get(&resolver_path(name), Parts::default())?.json()?;
    let versions = output::entries(&body, "versions");
    let digest = |version: &Value| Some(version.get("digest")?.as_str()?.to_owned());
    // They stand in the order of their uploads.
    let at = versions
        .iter()
        .position(|version| digest(version).as_deref() == Some(bound));
    let older = at.and_then(|at| versions.get(at.checked_sub(1)?));
    older.and_then(digest).ok_or_else(|| {
        Failure::Failed(format!("resolver {name} has no version older than {bound}"))
    })
}
