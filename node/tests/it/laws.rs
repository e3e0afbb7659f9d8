//! Certificates on a live cluster: found with an upload or a binding, agreed on by all, enforced, and lowered by what
//! real conflicts show.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::live::{Live, Said, With, prebuilt, until};
use crate::resolver::fixture::{guest, module, pick};

/// Answers the second sibling: fine with two, and with three it depends on who was merged first.
const SECOND: u32 = 1;
/// Keys with a conflict each, until one is looked at again: one in 16 is, so two hundred miss in three of a million runs.
const CONFLICTS: usize = 200;

async fn upload(live: &Live, name: &str, query: &str, module: impl Into<Vec<u8>>) -> Said {
    let path = format!("/v1/resolvers/{name}{query}");
    live.put(1, &path, With::module(module)).await
}

async fn bind(live: &Live, node: usize, bucket: &str, binding: Value) -> Said {
    let config = With::json(&json!({ "resolver": binding }));
    live.put(node, &format!("/v1/buckets/{bucket}"), config)
        .await
}

/// The version as every node shows it.
async fn version(live: &Live, name: &str, digest: &str) -> Value {
    live.agreed().await;
    let mut all = BTreeSet::new();
    for node in 1..=live.nodes() {
        let path = format!("/v1/resolvers/{name}/versions/{digest}");
        let said = live.get(node, &path).await.expect(200).json();
        let known = json!({ "certificate": said["certificate"], "settings": said["settings"] });
        all.insert(known.to_string());
    }
    assert_eq!(all.len(), 1, "the nodes differ: {all:?}");
    let one = all.pop_first().expect("there are nodes");
    serde_json::from_str(&one).expect("it was JSON")
}

fn law<'a>(certificate: &'a Value, name: &str) -> &'a Value {
    let laws = certificate["laws"].as_array().expect("a list");
    laws.iter()
        .find(|law| law["law"] == name)
        .unwrap_or_else(|| panic!("no {name} in {certificate}"))
}

async fn check_uploads(live: &Live) -> String {
    let union = upload(live, "union", "", prebuilt("set-union"))
        .await
        .expect(201);
    let union = union.json();
    assert_eq!(union["certificate"]["tier"], "lattice", "{union}");
    assert_eq!(law(&union["certificate"], "absorption")["holds"], true);
    let digest = union["digest"].as_str().expect("a digest").to_owned();
    let known = version(live, "union", &digest).await;
    assert_eq!(known["certificate"]["tier"], "lattice");
    assert_eq!(known["settings"].as_array().map(Vec::len), Some(1));
    bind(live, 2, "unions", json!({ "name": "union" }))
        .await
        .expect(201);

    let off = upload(live, "second", "?check=off", guest(&pick(SECOND))).await;
    let off = off.expect(201).json();
    assert_eq!(off["certificate"]["tier"], "unchecked", "{off}");
    let again = upload(live, "second", "", guest(&pick(SECOND)))
        .await
        .expect(200);
    let again = again.json();
    assert_eq!(again["certificate"]["tier"], "deterministic", "{again}");
    let broken = law(&again["certificate"], "regrouping");
    assert_eq!(broken["holds"], false);
    assert!(broken["counterexample"]["siblings"].is_array(), "{broken}");
    for told in ["suspicion", "remedy"] {
        assert!(
            broken[told].as_str().is_some_and(|text| !text.is_empty()),
            "{broken}"
        );
    }
    digest
}

async fn check_bindings(live: &Live) {
    live.agreed().await;
    let refused = bind(live, 2, "seconds", json!({ "name": "second" }))
        .await
        .expect(422);
    let refused = refused.json();
    assert_eq!(refused["code"], "laws_broken", "{refused}");
    assert_eq!(law(&refused["certificate"], "regrouping")["holds"], false);
    live.get(2, "/v1/buckets/seconds").await.expect(404);
    bind(
        live,
        3,
        "seconds",
        json!({ "name": "second", "laws": "warn" }),
    )
    .await
    .expect(201);

    // A trap is below what a warning takes, and good enough for who asks for nothing.
    upload(live, "traps", "", guest("unreachable"))
        .await
        .expect(201);
    live.agreed().await;
    let warn = json!({ "name": "traps", "laws": "warn" });
    let refused = bind(live, 1, "traps", warn).await.expect(422).json();
    assert_eq!(law(&refused["certificate"], "determinism")["holds"], true);
    assert_eq!(law(&refused["certificate"], "totality")["holds"], false);
    bind(live, 1, "traps", json!({ "name": "traps", "laws": "off" }))
        .await
        .expect(201);

    // One that never ends is found out before the time is over, too.
    let endless = guest("(loop (br 0)) unreachable");
    let endless = upload(live, "endless", "", endless)
        .await
        .expect(201)
        .json();
    assert_eq!(endless["certificate"]["tier"], "none", "{endless}");
    assert_eq!(law(&endless["certificate"], "totality")["holds"], false);

    // Never checked: the binding does it, with the bucket's own configuration and policy.
    let merge = upload(live, "merge", "?check=off", prebuilt("json-merge")).await;
    let digest = merge.expect(201).json()["digest"]
        .as_str()
        .expect("a digest")
        .to_owned();
    live.agreed().await;
    let later = json!({ "name": "merge" });
    let later = bind(live, 2, "merged", later).await.expect(422).json();
    assert_eq!(later["code"], "laws_broken", "{later}");
    let newest = json!({ "name": "merge", "config": { "default": "newest" } });
    bind(live, 2, "merged", newest).await.expect(201);
    let known = version(live, "merge", &digest).await;
    let empty = &known["certificate"]["tier"];
    assert_eq!(empty, "deterministic", "of the empty configuration");
    let settings = known["settings"].as_array().expect("a list");
    let tiers: BTreeSet<&str> = settings
        .iter()
        .filter_map(|setting| setting["certificate"]["tier"].as_str())
        .collect();
    assert_eq!(
        tiers,
        BTreeSet::from(["deterministic", "lattice"]),
        "{known}"
    );
}

async fn check_checks(live: &Live, union: &str) {
    let path = "/v1/resolvers/union/check";
    let body = json!({ "samples": ["[1,2,3]", "[3,4]"], "cases": 40, "seed": "9" });
    let checked = live.post(3, path, &body).await.expect(200).json();
    assert_eq!(checked["certificate"]["tier"], "lattice", "{checked}");
    assert_eq!(checked["certificate"]["seed"], "9");
    assert_eq!(law(&checked["certificate"], "closure")["cases"], 40);
    assert!(
        checked["costs"][0]["fuel"]
            .as_u64()
            .is_some_and(|fuel| fuel > 0),
        "{checked}"
    );
    let known = version(live, "union", union).await;
    assert_eq!(
        law(&known["certificate"], "closure")["cases"],
        256,
        "the longer check counts"
    );

    let nonsense = json!({ "samples": ["no list"], "cases": 40 });
    let unknown = live.post(1, path, &nonsense).await.expect(422).json();
    assert_eq!(unknown["code"], "laws_unknown", "{unknown}");

    let begun = upload(live, "union", "?check=thorough", prebuilt("set-union")).await;
    let begun = begun.expect(202);
    let job = begun.header("location").to_owned();
    assert_eq!(job, format!("/v1/resolvers/union/versions/{union}/check"));
    until("the thorough check is done", async || {
        let how_far = live.get(1, &job).await.expect(200).json();
        assert_ne!(how_far["state"], "failed", "{how_far}");
        how_far["state"] == "done"
    })
    .await;
    let known = version(live, "union", union).await;
    assert_eq!(law(&known["certificate"], "closure")["cases"], 4096);
    live.get(2, &job).await.expect(404);
}

/// A module that knows the check by its bucket's name, and is found out by real conflicts.
async fn check_demotion(live: &Live) {
    let (first, second) = (pick(0), pick(SECOND));
    let liar = format!(
        "(if (result i32) (i32.eq (local.get 1) (i32.const 5)) (then {first}) (else {second}))"
    );
    let uploaded = upload(live, "liar", "", module("resolve", &liar, "")).await;
    let uploaded = uploaded.expect(201).json();
    assert_eq!(uploaded["certificate"]["tier"], "lattice", "{uploaded}");
    let digest = uploaded["digest"].as_str().expect("a digest");
    live.agreed().await;
    let binding = json!({ "name": "liar" });
    bind(live, 1, "told", binding.clone()).await.expect(201);
    live.agreed().await;

    let path = format!("/v1/resolvers/liar/versions/{digest}");
    let mut found = Value::Null;
    for key in 0..CONFLICTS {
        let at = format!("/v1/buckets/told/keys/{key}");
        for node in 1..=3 {
            let value = With::body(format!("{node}"));
            live.put(node, &format!("{at}?w=all"), value)
                .await
                .expect(204);
        }
        live.get(1, &at).await.expect(200);
        found = live.get(1, &path).await.expect(200).json()["certificate"].clone();
        if found["tier"] != "lattice" {
            break;
        }
    }
    assert_eq!(found["tier"], "deterministic", "{found}");
    let broken = law(&found, "regrouping");
    assert_eq!(
        (&broken["holds"], &broken["cases"]),
        (&json!(false), &json!(256))
    );
    let siblings = broken["counterexample"]["siblings"].as_array();
    assert!(siblings.is_some_and(|all| !all.is_empty()), "{broken}");
    version(live, "liar", digest).await;

    let page = live.get(1, "/metrics").await.expect(200).text();
    let counted = |line: &str| {
        line.starts_with("sibyl_law_violations_total{")
            && line.contains("resolver=\"liar\"")
            && line.contains("law=\"regrouping\"")
    };
    assert!(page.lines().any(counted), "{page}");
    // What is bound goes on, also through changes of other settings; nobody else may bind it.
    let other = json!({ "resolver": binding, "max_siblings": 50 });
    live.bucket("told", &other).await;
    live.get(2, "/v1/buckets/told/keys/0").await.expect(200);
    bind(live, 2, "others", binding).await.expect(422);
    live.send(1, Method::GET, "/v1/buckets/others", With::body(""))
        .await
        .expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_found_agreed_on_and_enforced() {
    let live = Live::start(3, &[]).await;
    let union = check_uploads(&live).await;
    check_bindings(&live).await;
    check_checks(&live, &union).await;
    check_demotion(&live).await;
    live.end().await;
}
