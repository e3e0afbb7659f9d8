//! Resolvers in a live cluster: uploaded, bound, merging on every node, failing without harm.
//!
//! Each scene has a bucket of its own; conflicts are made by writes without a context, on all copies at once.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::live::{Live, Said, With, prebuilt, until};
use crate::resolver::fixture::{RESOLVE, component, fail, guest, keep, merged, module, pick};

/// Loops until its fuel is used up.
const ENDLESS: &str = "(loop (br 0)) unreachable";
/// Takes memory until there is no more.
const BOMB: &str = "(loop (drop (memory.grow (i32.const 16))) (br 0)) unreachable";
/// Answers `delete`.
const DELETE: &str = "(call $answer (i32.const 0) (i32.const 3) (i32.const 0) (i32.const 0))";

fn path(bucket: &str, key: &str) -> String {
    format!("/v1/buckets/{bucket}/keys/{key}")
}

/// Binds a version to a bucket of its own.
async fn bind(live: &Live, bucket: &str, name: &str, version: &str) {
    bind_with(live, bucket, json!({"name": name, "version": version})).await;
}

async fn bind_with(live: &Live, bucket: &str, mut binding: Value) {
    binding["laws"] = "off".into();
    live.bucket(bucket, &json!({ "resolver": binding })).await;
}

/// Uploads a guest and binds it to the bucket of the same name.
async fn bound(live: &Live, name: &str, wat: &str) -> String {
    let version = live.upload(name, wat).await;
    bind(live, name, name, &version).await;
    version
}

/// Writes siblings, each through another node, to every copy.
async fn conflict(live: &Live, bucket: &str, key: &str, values: &[&str]) {
    for (at, value) in values.iter().enumerate() {
        let node = at % live.nodes() + 1;
        live.put(node, &(path(bucket, key) + "?w=all"), With::body(*value))
            .await
            .expect(204);
    }
}

/// The same answer through every node: status, body, ETag, resolver.
async fn everywhere(live: &Live, bucket: &str, key: &str, status: u16, outcome: &str) -> Said {
    let mut answers = BTreeSet::new();
    let mut last = None;
    for node in 1..=live.nodes() {
        let said = live.get(node, &path(bucket, key)).await.expect(status);
        let resolver = said.header("sibyl-resolver");
        assert!(
            resolver.ends_with(&format!("outcome={outcome}")),
            "n{node}: {resolver:?}"
        );
        // A sealed context says when it was sealed, and a problem document which request it answers.
        let shown = match status {
            200 => said.body.clone(),
            300 => said.json()["siblings"].to_string().into_bytes(),
            _ => Vec::new(),
        };
        let etag = said.header("etag").to_owned();
        answers.insert((shown, etag, resolver.to_owned()));
        last = Some(said);
    }
    assert_eq!(answers.len(), 1, "the nodes differ: {answers:?}");
    last.expect("there are nodes")
}

/// The digests of all copies of a key.
async fn copies(live: &Live, bucket: &str, key: &str) -> Vec<String> {
    let explained = live
        .get(1, &(path(bucket, key) + "?explain=true"))
        .await
        .expect(200)
        .json();
    let list = explained["preference_list"].as_array().expect("a list");
    list.iter()
        .map(|owner| owner["object_digest"].to_string())
        .collect()
}

async fn feed(live: &Live, bucket: &str) -> Vec<Value> {
    let page = live
        .get(2, &format!("/v1/buckets/{bucket}/conflicts"))
        .await
        .expect(200)
        .json();
    page["conflicts"].as_array().expect("a list").clone()
}

/// The sum of a metric's samples with this label.
async fn metric(live: &Live, node: usize, name: &str, label: &str) -> f64 {
    let page = live.get(node, "/metrics").await.expect(200).text();
    let samples = page
        .lines()
        .filter(|line| line.starts_with(name) && line.contains(label));
    let values = samples.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    values.sum()
}

/// Every form of module is taken, says what it is, and merges.
async fn check_forms(live: &Live) {
    let wat = guest(&pick(0));
    let forms: [(&str, Vec<u8>); 3] = [
        ("wat", wat.clone().into_bytes()),
        ("core", wat::parse_str(&wat).expect("the fixture parses")),
        ("component", component(&module(RESOLVE, &pick(0), ""))),
    ];
    for (kind, bytes) in forms {
        let name = format!("form-{kind}");
        let version = live.upload(&name, bytes.clone()).await;
        let versions = live
            .get(3, &format!("/v1/resolvers/{name}"))
            .await
            .expect(200)
            .json();
        assert_eq!(versions["versions"][0]["kind"], kind);
        assert_eq!(
            versions["versions"][0]["nodes"],
            json!({"n1": "ready", "n2": "ready", "n3": "ready"})
        );
        let held = live
            .get(2, &format!("/v1/resolvers/{name}/versions/{version}/wasm"))
            .await
            .expect(200);
        assert!(held.body == bytes, "the bytes come back as they went up");
        bind(live, &name, &name, &version).await;
        conflict(live, &name, "k", &["a", "b"]).await;
        everywhere(live, &name, "k", 200, "picked").await;
    }
}

/// Views are the same bytes on every node, made once, and stored by nobody.
async fn check_views(live: &Live) {
    let version = live.upload("json-merge", prebuilt("json-merge")).await;
    let config = json!({"rules": [{"path": "/n", "rule": "max"}]});
    let good = json!({"name": "json-merge", "version": version, "config": config});
    let bad = json!({"name": "json-merge", "version": version, "config": {"rules": [{"path": "/n", "rule": "mx"}]}});
    let refused = live
        .put(1, "/v1/buckets/docs", With::json(&json!({"resolver": bad})))
        .await
        .expect(400)
        .json();
    assert_eq!(refused["code"], "bad_resolver_config");
    assert!(
        refused["detail"].to_string().contains("no rule"),
        "{refused}"
    );
    bind_with(live, "docs", good.clone()).await;
    conflict(live, "docs", "k", &[r#"{"n":7,"a":1}"#, r#"{"n":5,"b":2}"#]).await;
    let before = copies(live, "docs", "k").await;

    let calls = "sibyl_resolver_invocations_total";
    let (hit, miss) = (r#"result="hit""#, r#"result="miss""#);
    let count = async |node| {
        let cache = "sibyl_view_cache_total";
        let (hits, misses) = (
            metric(live, node, cache, hit).await,
            metric(live, node, cache, miss).await,
        );
        [hits, misses, metric(live, node, calls, "json-merge").await]
    };
    let was = count(2).await;
    let first = live.get(2, &path("docs", "k")).await.expect(200);
    let made = count(2).await;
    let second = live.get(2, &path("docs", "k")).await.expect(200);
    let again = count(2).await;
    assert_eq!(made, [was[0], was[1] + 1.0, was[2] + 1.0]);
    assert_eq!(again, [made[0] + 1.0, made[1], made[2]]);
    assert_eq!(
        (&first.body, first.header("etag")),
        (&second.body, second.header("etag"))
    );

    let said = everywhere(live, "docs", "k", 200, "merged").await;
    assert_eq!(said.text(), r#"{"a":1,"b":2,"n":7}"#);
    assert_eq!(said.header("sibyl-siblings"), "2");
    assert_eq!(
        said.header("sibyl-resolver"),
        format!("json-merge@{version}; outcome=merged")
    );
    assert_eq!(copies(live, "docs", "k").await, before);
    assert!(feed(live, "docs").await.is_empty());
    check_refusals(live, good).await;
}

/// A value that the resolver refuses is not written; a paused binding shows siblings.
async fn check_refusals(live: &Live, binding: Value) {
    let rejected = live
        .put(1, &path("docs", "other"), With::body("no JSON"))
        .await
        .expect(422)
        .json();
    assert_eq!(rejected["code"], "value_rejected");
    live.get(1, &path("docs", "other")).await.expect(404);

    let mut paused = binding;
    paused["mode"] = json!("paused");
    bind_with(live, "docs", paused).await;
    let said = live.get(3, &path("docs", "k")).await.expect(300);
    assert_eq!(said.header("sibyl-resolver"), "");
    assert_eq!(said.json()["siblings"].as_array().map(Vec::len), Some(2));
    let paused = feed(live, "docs").await;
    assert_eq!(paused.len(), 1, "{paused:?}");
    assert!(
        paused[0]["reason"].to_string().contains("paused"),
        "{paused:?}"
    );
}

/// Another version makes another view; what is bound cannot be deleted.
async fn check_rebinding(live: &Live) {
    let first = bound(live, "versions", &guest(&pick(0))).await;
    conflict(live, "versions", "k", &["a", "b"]).await;
    let old = everywhere(live, "versions", "k", 200, "picked").await;
    let second = live.upload("versions", guest(&merged(4))).await;
    assert_ne!(first, second);
    let same = everywhere(live, "versions", "k", 200, "picked").await;
    assert_eq!(
        old.header("etag"),
        same.header("etag"),
        "an upload binds nothing"
    );
    bind(live, "versions", "versions", &second).await;
    let new = everywhere(live, "versions", "k", 200, "merged").await;
    assert_ne!(old.header("etag"), new.header("etag"));
    assert_eq!(new.body, [0; 4]);
    let delete = async |version: &str| {
        let path = format!("/v1/resolvers/versions/versions/{version}");
        live.send(2, Method::DELETE, &path, With::default()).await
    };
    let refused = delete(&second).await.expect(409).json();
    assert_eq!(refused["code"], "resolver_bound");
    delete(&first).await.expect(204);
    live.agreed().await;
    live.get(1, &format!("/v1/resolvers/versions/versions/{first}"))
        .await
        .expect(404);
}

/// What a resolution becomes.
async fn check_outcomes(live: &Live) {
    bound(live, "keeps", &guest(&keep(&[2, 0]))).await;
    conflict(live, "keeps", "k", &["a", "b", "c"]).await;
    let kept = everywhere(live, "keeps", "k", 300, "kept").await.json();
    assert_eq!(kept["siblings"].as_array().map(Vec::len), Some(2), "{kept}");
    bound(live, "deletes", &guest(DELETE)).await;
    conflict(live, "deletes", "k", &["a", "b"]).await;
    let gone = everywhere(live, "deletes", "k", 404, "deleted").await;
    assert_ne!(
        gone.header("sibyl-context"),
        "",
        "a client can write it anew"
    );
}

/// A failure shows all siblings, is in the feed once for each set of siblings, and changes nothing.
async fn check_failure(live: &Live) {
    bound(live, "declines", &guest(&fail(2))).await;
    conflict(live, "declines", "k", &["a", "b"]).await;
    let before = copies(live, "declines", "k").await;
    for _ in 0..2 {
        let said = everywhere(live, "declines", "k", 300, "failed").await;
        assert_eq!(said.json()["siblings"].as_array().map(Vec::len), Some(2));
    }
    assert_eq!(copies(live, "declines", "k").await, before);
    let entries = feed(live, "declines").await;
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert!(
        entries[0]["reason"]
            .to_string()
            .contains("leaves it to a person"),
        "{entries:?}"
    );
    assert_eq!(
        (&entries[0]["key"], &entries[0]["siblings"]),
        (&json!("k"), &json!(2))
    );
    conflict(live, "declines", "k", &["c"]).await;
    everywhere(live, "declines", "k", 300, "failed").await;
    let entries = feed(live, "declines").await;
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(entries[0]["siblings"], 3);
}

/// `try` tells every outcome and stores nothing.
/// A newer version that cannot read what is stored: siblings stay, new values are held to it, the older one is as good
/// as before.
async fn check_malformed(live: &Live) {
    let bucket = "grown";
    let any = live.upload(bucket, prebuilt("lww")).await;
    let lists = live.upload(bucket, prebuilt("set-union")).await;
    bind(live, bucket, bucket, &any).await;
    conflict(live, bucket, "old", &["text", "other text"]).await;
    let before = everywhere(live, bucket, "old", 200, "picked").await;
    let stored = copies(live, bucket, "old").await;

    bind(live, bucket, bucket, &lists).await;
    let shown = everywhere(live, bucket, "old", 300, "failed").await.json();
    assert_eq!(
        shown["siblings"].as_array().map(Vec::len),
        Some(2),
        "{shown}"
    );
    let entry = &feed(live, bucket).await[0];
    assert!(entry["reason"].to_string().contains("not JSON"), "{entry}");
    assert_eq!(
        copies(live, bucket, "old").await,
        stored,
        "nothing is stored"
    );
    let text = live
        .put(1, &path(bucket, "old"), With::body("more text"))
        .await;
    assert_eq!(text.expect(422).json()["code"], "value_rejected");
    conflict(live, bucket, "new", &["[1]", "[2]"]).await;
    everywhere(live, bucket, "new", 200, "merged").await;

    bind(live, bucket, bucket, &any).await;
    let after = everywhere(live, bucket, "old", 200, "picked").await;
    assert_eq!(
        (after.body, after.headers.get("etag")),
        (before.body, before.headers.get("etag"))
    );

    // A client that saw the siblings may write over them what the newer version reads.
    bind(live, bucket, bucket, &lists).await;
    let seen = live.get(2, &path(bucket, "old")).await.expect(300);
    let with = With::body("[3]").header("sibyl-context", seen.header("sibyl-context"));
    live.put(2, &path(bucket, "old"), with).await.expect(204);
    let read = live.get(3, &path(bucket, "old")).await.expect(200);
    assert_eq!(read.body, b"[3]");
}

async fn check_try(live: &Live) {
    let outcomes = [
        (guest(&merged(3)), "merged", ""),
        (guest(&pick(1)), "picked", ""),
        (guest(&keep(&[0])), "kept", ""),
        (guest(DELETE), "deleted", ""),
        (guest(&fail(1)), "failed", "bad_config"),
        (guest(&fail(2)), "failed", "declined"),
        (guest(&fail(3)), "failed", "other"),
        (guest("unreachable"), "failed", "trap"),
        (guest(&pick(9)), "failed", "invalid_index"),
        (guest(ENDLESS), "failed", "fuel"),
        (guest(BOMB), "failed", "memory"),
        (guest(&merged(2 << 20)), "failed", "output"),
    ];
    for (wat, outcome, kind) in outcomes {
        let version = live.upload("tries", wat).await;
        let body = json!({"version": version, "siblings": [{"value": "a"}, {"value": "b"}]});
        let tried = live
            .post(2, "/v1/resolvers/tries/try", &body)
            .await
            .expect(200)
            .json();
        assert_eq!(tried["outcome"], outcome, "{tried}");
        assert_eq!(
            tried["failure"]["kind"].as_str().unwrap_or(""),
            kind,
            "{tried}"
        );
        assert!(
            tried["fuel"].as_u64().is_some_and(|fuel| fuel > 0),
            "{tried}"
        );
    }
}

/// Hostile modules end at their limits: 300 for their keys, nothing for anybody else.
async fn check_hostile(live: &Live) {
    let guests = [("loops", ENDLESS, "fuel"), ("swells", BOMB, "memory")];
    for (bucket, body, limit) in guests {
        let version = live.upload(bucket, guest(body)).await;
        let limits = json!({"fuel": 10_000_000, "memory_bytes": 4 << 20});
        bind_with(
            live,
            bucket,
            json!({"name": bucket, "version": version, "limits": limits}),
        )
        .await;
        let keys: Vec<_> = (0..8).map(|key| format!("k{key}")).collect();
        for key in &keys {
            conflict(live, bucket, key, &["a", "b"]).await;
        }
        let reads = keys
            .iter()
            .map(|key| async move { live.get(1, &path(bucket, key)).await });
        let harmless = async {
            for number in 0..20 {
                let key = path("default", &format!("calm{number}"));
                live.put(1, &key, With::body("v")).await.expect(204);
                live.get(1, &key).await.expect(200);
            }
        };
        let (reads, ()) = tokio::join!(futures_util::future::join_all(reads), harmless);
        for said in reads {
            let said = said.expect(300);
            assert!(said.header("sibyl-resolver").ends_with("outcome=failed"));
        }
        live.get(1, "/health/ready").await.expect(200);
        let failed = metric(
            live,
            1,
            "sibyl_resolver_invocations_total",
            &format!("resolver=\"{bucket}\""),
        )
        .await;
        assert!(failed >= 8.0, "{failed} calls of {bucket} were counted");
        let reasons = feed(live, bucket).await;
        assert!(
            reasons[0]["reason"].to_string().contains(limit),
            "{reasons:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resolvers_merge_on_every_node() {
    let live = Live::start(3, &[]).await;
    check_forms(&live).await;
    check_views(&live).await;
    check_rebinding(&live).await;
    check_outcomes(&live).await;
    live.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resolvers_that_fail_harm_nothing() {
    let live = Live::start(3, &[]).await;
    check_failure(&live).await;
    check_malformed(&live).await;
    check_try(&live).await;
    check_hostile(&live).await;
    live.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_the_module_fetches_it() {
    let mut live = Live::start(3, &[]).await;
    let version = bound(&live, "carts", &guest(&pick(0))).await;
    conflict(&live, "carts", "k", &["a", "b"]).await;
    live.stop(3).await;
    let modules = live.data_dir(3).join("resolvers");
    std::fs::remove_dir_all(&modules).expect("the modules were there");
    // A version that n3 never heard of, too.
    let newer = live.upload_alone("carts", guest(&merged(2))).await;
    live.start_again(3).await;
    until("n3 merges with a module it fetched", async || {
        let said = live.get(3, &path("carts", "k")).await;
        assert!(
            matches!(said.status, 200 | 300),
            "{} {}",
            said.status,
            said.text()
        );
        said.header("sibyl-resolver") == format!("carts@{version}; outcome=picked")
    })
    .await;
    bind(&live, "carts", "carts", &newer).await;
    everywhere(&live, "carts", "k", 200, "merged").await;
    live.end().await;
}
