//! The served document, the router and the design hold the same routes.

use std::collections::BTreeSet;

use axum::body::Body;
use serde_json::Value;

use super::setup;

/// The routes of `design/http-api.md` that exist by now. What is missing comes with later work, and is not
/// registered: watch, undo, check, replay, logs, shadow and the console.
const DESIGN: &[&str] = &[
    "GET /v1/buckets/{bucket}/keys/{key}",
    "HEAD /v1/buckets/{bucket}/keys/{key}",
    "PUT /v1/buckets/{bucket}/keys/{key}",
    "DELETE /v1/buckets/{bucket}/keys/{key}",
    "GET /v1/buckets/{bucket}/keys",
    "POST /v1/buckets/{bucket}/batch",
    "GET /v1/buckets/{bucket}/conflicts",
    "POST /key",
    "GET /key/{key}",
    "GET /v1/buckets",
    "GET /v1/buckets/{bucket}",
    "PUT /v1/buckets/{bucket}",
    "DELETE /v1/buckets/{bucket}",
    "PUT /v1/resolvers/{name}",
    "GET /v1/resolvers",
    "GET /v1/resolvers/{name}",
    "GET /v1/resolvers/{name}/versions/{digest}",
    "GET /v1/resolvers/{name}/versions/{digest}/wasm",
    "DELETE /v1/resolvers/{name}/versions/{digest}",
    "POST /v1/resolvers/{name}/try",
    "GET /v1/resolvers/{name}/logs",
    "POST /v1/resolvers/{name}/check",
    "GET /v1/resolvers/{name}/versions/{digest}/check",
    "GET /v1/wit",
    "GET /v1/cluster",
    "GET /v1/cluster/anti-entropy",
    "GET /v1/cluster/ring",
    "POST /v1/cluster/anti-entropy",
    "GET /v1/backup",
    "GET /v1/cluster/handoff",
    "POST /v1/cluster/handoff",
    "POST /v1/cluster/cut",
    "POST /v1/cluster/join",
    "POST /v1/cluster/leave",
    "POST /v1/cluster/recover",
    "POST /v1/cluster/remove",
    "POST /v1/cluster/replace",
    "GET /v1/registry",
    "GET /v1/trace",
    "PUT /v1/trace",
    "GET /v1/log",
    "PUT /v1/log",
    "GET /health/live",
    "GET /health/ready",
    "GET /metrics",
    "GET /version",
    "GET /openapi.json",
];

/// Every operation: `METHOD path` and what the document says of it.
async fn operations() -> (Value, Vec<(String, Value)>) {
    let document = setup().get("GET /openapi.json").await.json();
    let paths = document["paths"].as_object().expect("paths").clone();
    let operations = paths.into_iter().flat_map(|(path, item)| {
        let item = item.as_object().expect("an item").clone();
        item.into_iter().map(move |(method, operation)| {
            (format!("{} {path}", method.to_uppercase()), operation)
        })
    });
    (document, operations.collect())
}

#[tokio::test]
async fn the_document_holds_the_routes_of_the_design_and_no_others() {
    let (document, operations) = operations().await;
    assert_eq!(document["openapi"], "3.1.0");
    let documented: BTreeSet<_> = operations.iter().map(|(line, _)| line.as_str()).collect();
    let design: BTreeSet<_> = DESIGN.iter().copied().collect();
    assert_eq!(documented, design);
    let ids: BTreeSet<_> = operations
        .iter()
        .map(|(_, operation)| operation["operationId"].to_string())
        .collect();
    assert_eq!(ids.len(), operations.len(), "operation ids are unique");
}

/// A path of this template.
fn filled(line: &str) -> String {
    line.replace("{bucket}", "default")
        .replace("{key}", "k")
        .replace("{name}", "r")
        .replace("{digest}", &format!("sha256:{}", "0".repeat(64)))
}

#[tokio::test]
async fn the_router_takes_exactly_what_the_document_says() {
    let (_, operations) = operations().await;
    let documented: BTreeSet<_> = operations.iter().map(|(line, _)| line.as_str()).collect();
    let setup = setup();
    for (line, _) in &operations {
        let path = line.split_once(' ').expect("METHOD path").1;
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
            let line = format!("{method} {path}");
            let reply = setup.get(&filled(&line)).await;
            let known = documented.contains(line.as_str());
            assert_eq!(reply.status != 405, known, "{line}: {:?}", reply.body);
            if reply.status == 404 {
                assert_ne!(reply.at("/code"), "no_route", "{line}");
            }
        }
    }
}

#[tokio::test]
async fn every_documented_query_parameter_is_known_and_no_other() {
    let (_, operations) = operations().await;
    let setup = setup();
    for (line, operation) in &operations {
        let parameters = operation["parameters"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let names = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "query");
        let names: Vec<_> = names
            .map(|parameter| parameter["name"].as_str().expect("a name"))
            .collect();
        if line.starts_with("HEAD") {
            continue;
        }
        let reply = setup
            .check(
                &format!("{}?zzz=1", filled(line)),
                &[],
                Body::empty(),
                (400, "unknown_parameter"),
            )
            .await;
        let takes = if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        };
        assert!(
            reply
                .at("/detail")
                .ends_with(&format!("this route takes {takes}")),
            "{line}: {}",
            reply.at("/detail")
        );
    }
}

#[tokio::test]
async fn every_answer_is_described() {
    let (document, operations) = operations().await;
    for (line, operation) in &operations {
        let responses = operation["responses"].as_object().expect("responses");
        for status in ["400", "431", "500", "503"] {
            assert!(responses.contains_key(status), "{line}: {status}");
        }
        for (status, response) in responses {
            assert!(
                response["headers"].get("Sibyl-Trace-Id").is_some(),
                "{line}: {status}"
            );
            let problem = &response["content"]["application/problem+json"]["schema"]["$ref"];
            let is_problem = status.as_str() >= "400" && !line.starts_with("HEAD");
            assert_eq!(
                problem == "#/components/schemas/Problem",
                is_problem,
                "{line}: {status}"
            );
        }
        assert!(operation["summary"].is_string(), "{line}");
        for name in line
            .split('{')
            .skip(1)
            .filter_map(|rest| rest.split('}').next())
        {
            let parameters = operation["parameters"].as_array().expect("parameters");
            let described =
                |p: &&Value| p["in"] == "path" && p["name"] == name && p["required"] == true;
            assert_eq!(
                parameters.iter().filter(described).count(),
                1,
                "{line}: {name}"
            );
        }
    }
    check_references(&document, &document);
}

/// Every `$ref` leads somewhere. Ends because JSON is a tree.
fn check_references(document: &Value, at: &Value) {
    match at {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                let pointer = reference.strip_prefix('#').expect("a local reference");
                assert!(
                    document.pointer(pointer).is_some(),
                    "{reference} leads nowhere"
                );
            }
            fields
                .values()
                .for_each(|field| check_references(document, field));
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| check_references(document, item)),
        _ => {}
    }
}
