//! Reading and writing against examples and against `serde_json`, and the order of values.

use proptest::prelude::*;

use super::{Value, parse};

/// Reads `text` and writes it canonically.
fn check(text: &str, canonical: &str) {
    let value = parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(String::from_utf8(value.to_bytes()).unwrap(), canonical);
    assert_eq!(parse(canonical.as_bytes()).unwrap(), value, "{canonical}");
}

fn check_refused(text: impl AsRef<[u8]>, message: &str) {
    assert_eq!(parse(text.as_ref()).unwrap_err().to_string(), message);
}

#[test]
fn equal_content_is_equal_text() {
    check(
        " { \"b\" : [ 1 , 2 ] , \"a\" : null } ",
        r#"{"a":null,"b":[1,2]}"#,
    );
    check(
        r#"{"":{},"a":[],"é":true,"z":false}"#,
        r#"{"":{},"a":[],"z":false,"é":true}"#,
    );
    check(
        r#""\u0041\/\u00e9\ud83d\ude00\n\u001f\"\\\b\f\r\t""#,
        "\"A/é😀\\n\\u001f\\\"\\\\\\b\\f\\r\\t\"",
    );
}

#[test]
fn numbers_are_exact() {
    for (text, canonical) in [
        ("1.0", "1"),
        ("10e-1", "1"),
        ("-0.0e7", "0"),
        ("-0", "0"),
        ("0.1", "0.1"),
        ("1E2", "100"),
        (
            "12345678901234567890123456789",
            "12345678901234567890123456789",
        ),
        ("123456789012345678901234.5", "123456789012345678901234.5"),
        ("100000000000000000000", "100000000000000000000"),
        ("1000000000000000000000", "1e+21"),
        ("0.000001", "0.000001"),
        ("0.0000001", "1e-7"),
        ("-1.50e-9", "-1.5e-9"),
        ("9007199254740993", "9007199254740993"),
        ("0.10000000000000000001", "0.10000000000000000001"),
        ("1e+400", "1e+400"),
    ] {
        check(text, canonical);
    }
    check_refused("1e401", "an exponent beyond 400 at byte 0");
    check_refused(
        "[1e-99999999999999999999]",
        "an exponent beyond 400 at byte 1",
    );
}

#[test]
fn what_json_leaves_open_is_refused() {
    check_refused("", "unexpected end at byte 0");
    check_refused("{\"a\":1", "unexpected end at byte 6");
    check_refused("[1,]", "expected a value at byte 3");
    check_refused("[1] x", "text after the value at byte 4");
    check_refused("[01]", "expected a number without a leading zero at byte 3");
    check_refused("1.", "unexpected end at byte 2");
    check_refused("nul", "expected null, true or false at byte 0");
    check_refused(
        "{\"a\":1,\"\\u0061\":2}",
        "member \"a\" stands twice in the object at byte 0",
    );
    check_refused("\"\\ud800\"", "an escape that is no character at byte 3");
    check_refused("\"\\udc00\"", "an escape that is no character at byte 3");
    check_refused("\"\\x\"", "expected an escape that JSON knows at byte 2");
    check_refused(
        "\"a\nb\"",
        "expected no control character in a string at byte 2",
    );
    check_refused(b"\"\xff\"", "invalid UTF-8 at byte 1");
    check_refused("[".repeat(65), "more than 64 levels at byte 64");
    check(
        &format!("{}{}", "[".repeat(64), "]".repeat(64)),
        &format!("{}{}", "[".repeat(64), "]".repeat(64)),
    );
}

#[test]
fn values_have_one_order() {
    let ordered = [
        "null",
        "false",
        "true",
        "-1e30",
        "-2",
        "-1.5",
        "0",
        "1e-7",
        "0.5",
        "2",
        "10",
        "10.25",
        "999999999999999998",
        "999999999999999999",
        "1000000000000000000",
        "18446744073709551615",
        "18446744073709551616",
        "1e30",
        "\"\"",
        "\"10\"",
        "\"2\"",
        "[]",
        "[1]",
        "[1,0]",
        "[2]",
        "{}",
        "{\"a\":1}",
        "{\"a\":2}",
        "{\"b\":0}",
    ];
    let values: Vec<_> = ordered
        .iter()
        .map(|text| parse(text.as_bytes()).unwrap())
        .collect();
    for (i, a) in values.iter().enumerate() {
        for (j, b) in values.iter().enumerate() {
            assert_eq!(a.cmp(b), i.cmp(&j), "{} against {}", ordered[i], ordered[j]);
        }
    }
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<f64>()
            .prop_filter("JSON has no others", |f| f.is_finite())
            .prop_map(Into::into),
        "\\PC{0,6}|[\\x00-\\x7f]{0,6}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::btree_map("[a-c\"\\\\é]{0,2}", inner, 0..5)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn reads_what_serde_json_writes(json in any_json(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&json) } else { serde_json::to_string(&json) }.unwrap();
        let value = parse(text.as_bytes()).unwrap();
        let canonical = value.to_bytes();
        prop_assert_eq!(&parse(&canonical).unwrap(), &value);
        prop_assert!(same(&value, &json), "{} became {}", json, String::from_utf8_lossy(&canonical));
    }

    #[test]
    fn numbers_order_as_floats_do(a: f64, b: f64) {
        prop_assume!(a.is_finite() && b.is_finite());
        let (x, y) = (serde_json::to_string(&a).unwrap(), serde_json::to_string(&b).unwrap());
        let order = parse(x.as_bytes()).unwrap().cmp(&parse(y.as_bytes()).unwrap());
        prop_assert_eq!(order, a.partial_cmp(&b).unwrap());
    }

    #[test]
    fn accepts_what_serde_json_accepts(text in "[\\[\\]{}\",:0-9eE+.\\-ntfabu\\\\ ]{0,12}") {
        let ours = parse(text.as_bytes());
        let theirs: Result<serde_json::Value, _> = serde_json::from_str(&text);
        match (&ours, &theirs) {
            (Ok(_), Err(error)) => prop_assert!(error.to_string().contains("out of range"), "{error}"),
            (Err(error), Ok(_)) => prop_assert!(
                matches!(error.reason, super::parse::Reason::Twice(_) | super::parse::Reason::Exponent), "{error}"
            ),
            _ => {}
        }
    }

    #[test]
    fn plain_bytes_are_counted(bytes in prop::collection::vec(prop_oneof![20 => 0x1e_u8.., 1 => any::<u8>()], 0..40)) {
        let escaped = bytes.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\');
        prop_assert_eq!(super::write::plain_length(&bytes), escaped.unwrap_or(bytes.len()));
    }

    #[test]
    fn hostile_bytes_never_panic(bytes: Vec<u8>) {
        let _ = parse(&bytes).map(|value: Value<'_>| value.to_bytes());
    }
}

/// As numbers: `1.0` and `1` are one to us and two to `serde_json`, which also reads floats less exactly than
/// it writes them.
fn same(ours: &Value<'_>, theirs: &serde_json::Value) -> bool {
    match (ours, theirs) {
        (Value::Null, serde_json::Value::Null) => true,
        (Value::Bool(a), serde_json::Value::Bool(b)) => a == b,
        (Value::String(a), serde_json::Value::String(b)) => a == b,
        (Value::Number(a), serde_json::Value::Number(b)) if b.is_f64() => {
            a.as_str().parse() == Ok(b.as_f64().unwrap())
        }
        (Value::Number(a), serde_json::Value::Number(b)) => a.as_str() == b.to_string(),
        (Value::Array(a), serde_json::Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), serde_json::Value::Object(b)) => {
            a.names().count() == b.len()
                && a.iter()
                    .all(|(name, a)| b.get(&**name).is_some_and(|b| same(a, b)))
        }
        _ => false,
    }
}
