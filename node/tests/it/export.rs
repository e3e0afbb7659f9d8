//! Buckets as JSON lines: out of one and into another, with siblings and bytes that are no text.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::ask::{delete, get, put, put_bucket};
use crate::nodes::{Cluster, Node, SIBYL};

fn run(node: &Node, command: &str, bucket: &str, file: &Path) -> Output {
    let mut sibyl = Command::new(SIBYL);
    sibyl
        .args([command, "--bucket", bucket])
        .stdin(Stdio::null());
    sibyl.args(["--url", &format!("http://{}", node.http)]);
    if command == "export" {
        sibyl.arg("--file");
    }
    sibyl.arg(file).output().unwrap()
}

#[track_caller]
fn works(node: &Node, command: &str, bucket: &str, file: &Path) -> String {
    let output = run(node, command, bucket, file);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    said
}

#[track_caller]
fn fails(node: &Node, bucket: &str, file: &Path, lines: &str, words: &str) {
    std::fs::write(file, lines).unwrap();
    let output = run(node, "import", bucket, file);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(words), "{said:?} does not say {words:?}");
}

/// The lines of a file without what an import does not keep: the time of writing.
fn lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    let line = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        let siblings = line["siblings"].as_array_mut().unwrap();
        for sibling in siblings.iter_mut() {
            sibling.as_object_mut().unwrap().remove("modified_at");
        }
        siblings.sort_by_key(Value::to_string);
        line
    };
    text.lines().map(line).collect()
}

/// Keys of all kinds: text, bytes, slashes; values of all kinds: siblings, empty, large, binary.
fn fill(node: &Node, bucket: &str) -> usize {
    let path = |key: &str| format!("/v1/buckets/{bucket}/keys/{key}");
    for at in 0..70 {
        let write = put(path(&format!("k{at:03}")), format!("value {at}"));
        node.ask(&write).expect(204);
    }
    let odd = ["a%2Fb", "%FF%00", "%20", "..%2F..", "%E2%98%83"];
    for (at, key) in odd.iter().enumerate() {
        let write = put(path(key), vec![at as u8, 0xff, 0xfe])
            .with("content-type", "application/x-odd")
            .with("sibyl-attr-colour", "blue");
        node.ask(&write).expect(204);
    }
    // The same value twice is two siblings.
    for value in ["same", "same", "", "other"] {
        node.ask(&put(path("siblings"), value)).expect(204);
    }
    node.ask(&put(path("large"), vec![b'x'; 900_000]))
        .expect(204);
    node.ask(&put(path("gone"), "x")).expect(204);
    node.ask(&delete(path("gone") + "?blind=true")).expect(204);
    70 + odd.len() + 2
}

#[test]
fn a_bucket_goes_out_and_into_another_and_a_second_import_writes_nothing() {
    let cluster = Cluster::three();
    let (node, other) = (&cluster.nodes[0], &cluster.nodes[1]);
    for bucket in ["from", "to"] {
        node.ask(&put_bucket(bucket, &json!({}))).expect(201);
    }
    let keys = fill(node, "from");
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("1"), folder.path().join("2"));
    let said = works(node, "export", "from", &first);
    assert!(said.contains(&format!("{keys} keys exported")), "{said}");

    let said = works(other, "import", "to", &first);
    let siblings = keys + 3;
    let words = format!("{siblings} values written, 0 were there already");
    assert!(said.contains(&words), "{said}");
    works(node, "export", "to", &second);
    assert_eq!(lines(&first), lines(&second));

    let said = works(node, "import", "to", &first);
    let words = format!("0 values written, {siblings} were there already");
    assert!(said.contains(&words), "{said}");
    // Half of it is gone; what stands there by somebody else's hand stays beside it.
    node.ask(&delete("/v1/buckets/to/keys/siblings?blind=true"))
        .expect(204);
    node.ask(&put("/v1/buckets/to/keys/siblings", "same"))
        .expect(204);
    node.ask(&put("/v1/buckets/to/keys/siblings", "mine"))
        .expect(204);
    let said = works(node, "import", "to", &first);
    assert!(said.contains("3 values written"), "{said}");
    let answer = node.ask(&get("/v1/buckets/to/keys/siblings?siblings=true"));
    assert_eq!(
        answer.expect(200).values(),
        ["", "mine", "other", "same", "same"]
    );
    check_mistakes(node, &folder.path().join("bad"), &first);
}

fn check_mistakes(node: &Node, bad: &Path, good: &Path) {
    let good_line = r#"{"key":"good","siblings":[{"value":"v"}]}"#;
    let cases = [
        (format!("{good_line}\n\n{{\"key\":"), "line 3: "),
        (
            r#"{"key":7,"siblings":[]}"#.to_owned(),
            "line 1: `key` must be",
        ),
        (
            r#"{"key":"k","siblings":[{"value":1}]}"#.to_owned(),
            "line 1: `value` must be",
        ),
        (
            r#"{"key":"..","siblings":[{"value":"v"}]}"#.to_owned(),
            "cannot stand in a URL",
        ),
        (
            format!(
                "{good_line}\n{}",
                json!({ "key": "k", "siblings": [{ "value": "x".repeat(2 << 20) }] })
            ),
            "line 2: ",
        ),
    ];
    for (lines, words) in cases {
        fails(node, "to", bad, &lines, words);
    }
    node.ask(&get("/v1/buckets/to/keys/good")).expect(200);
    let text = std::fs::read_to_string(good).unwrap();
    fails(node, "nowhere", bad, &text, "no_bucket");
    let output = run(node, "export", "to", good);
    assert_eq!(
        output.status.code(),
        Some(1),
        "an export overwrites nothing"
    );
}
