//! Every template is whole and its manifest is understood; cases are read strictly; differences are short.

use clap::ValueEnum;
use serde_json::json;

use super::cases::{Cases, Expect};
use super::project::Manifest;
use super::templates::{Language, PLACEHOLDER, files};
use super::{difference, project};
use crate::resolver::{Failure, Resolution};

#[test]
fn every_template_is_a_project() {
    for language in Language::value_variants() {
        let files: Vec<_> = files(*language).collect();
        let file = |wanted: &str| {
            let found = files.iter().find(|(path, _)| *path == wanted);
            found
                .unwrap_or_else(|| panic!("{language:?} has no {wanted}"))
                .1
        };
        let manifest: Manifest = serde_json::from_str(file(project::MANIFEST)).expect("a manifest");
        assert_eq!(manifest.name, PLACEHOLDER);
        assert_eq!(manifest.language, language.title());
        assert!(!manifest.needs.is_empty() && !manifest.build.is_empty());
        let cases: Cases = serde_json::from_str(file("cases/lines.json")).expect("cases");
        assert!(!cases.resolve.is_empty() && !cases.check_value.is_empty());
        let readme = file("README.md");
        for said in [
            "sibyl resolver build",
            "sibyl resolver test",
            "sibyl resolver push",
        ] {
            assert!(
                readme.contains(said),
                "{language:?}: README.md does not say {said}"
            );
        }
        assert!(file("wit/resolver.wit").contains("package sibyl:resolver@"));
    }
}

#[track_caller]
fn refused(sibling: serde_json::Value, why: &str) {
    let case = json!({ "resolve": [{
        "name": "n", "siblings": [sibling], "expect": { "outcome": "delete" },
    }] });
    let message = match serde_json::from_value::<Cases>(case) {
        Err(error) => error.to_string(),
        Ok(cases) => cases.resolve[0].siblings[0].input().expect_err("refused"),
    };
    assert!(message.contains(why), "{message:?} does not say {why:?}");
}

#[test]
fn a_case_that_is_not_understood_is_refused() {
    refused(json!({}), "neither a value nor");
    refused(json!({ "deleted": true, "text": "a" }), "and is `deleted`");
    refused(json!({ "txt": "a" }), "`txt`");
    refused(json!({ "text": 1 }), "`text`");
    refused(json!({ "text": "a", "json": 1 }), "one value is meant");
    refused(json!({ "base64": "?" }), "base64");
    refused(
        json!({ "text": "a", "modifed_at": 1 }),
        "one value is meant",
    );
}

#[track_caller]
fn differs(expected: serde_json::Value, found: &Result<Resolution, Failure>, shown: &str) {
    let expected: Expect = serde_json::from_value(expected).expect("it is one");
    assert!(!expected.is_met(found));
    assert_eq!(difference::between(&expected, found), shown);
}

#[test]
fn a_difference_is_what_differs() {
    let merged = |text: &'static str| Ok(Resolution::Merged(text.into()));
    let expected = json!({ "outcome": "merged", "text": "a\nb\nc\n" });
    differs(
        expected.clone(),
        &merged("a\nx\ny\nc\n"),
        "  merged, from line 2:\n- \"b\"\n+ \"x\"\n+ \"y\"\n",
    );
    differs(
        expected,
        &merged("a\nb\nc"),
        "  merged, from line 4:\n- \"\"\n",
    );
    differs(
        json!({ "outcome": "pick", "index": 1 }),
        &Ok(Resolution::Pick(0)),
        "- pick 1\n+ pick 0\n",
    );
    differs(
        json!({ "outcome": "other", "message": "boom" }),
        &Err(Failure::Trap("boom".to_owned())),
        "- failed: … boom …\n+ the resolver crashed: boom\n",
    );
}

#[test]
fn a_crash_is_met_by_its_words_and_by_nothing_of_the_resolvers_own() {
    let expected: Expect =
        serde_json::from_value(json!({ "outcome": "crashed", "message": "boom" }))
            .expect("it is one");
    assert!(expected.is_met(&Err(Failure::Trap("a boom came".to_owned()))));
    assert!(!expected.is_met(&Err(Failure::Trap("unreachable".to_owned()))));
    assert!(!expected.is_met(&Err(Failure::Other("boom".to_owned()))));
}
