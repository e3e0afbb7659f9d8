//! Reads the bucket's `resolver.config`; every message names the place and what to do.
//!
//! Whatever is not known is refused: a rule with a typing error must not become the default. It reads and checks;
//! what rules do is in `merge`.

use sibyl_resolver_kit::json::{self, Object, Value};

use crate::rules::{Clash, Node, Rule, Rules};

/// The rules that `config` declares.
pub(crate) fn read(config: &str) -> Result<Rules, String> {
    let value = json::parse(config.as_bytes()).map_err(|error| format!("config: {error}"))?;
    let mut members = object(value, "config")?;
    let default = match members.remove("default") {
        None => Rule::Lww,
        Some(name) => rule(&name, "default")?,
    };
    if !default.takes_all() {
        return Err(
            "default: must take values of every kind; use first, lww, max, min or newest".into(),
        );
    }
    let mut root = Node::default();
    match members.remove("rules") {
        None => {}
        Some(Value::Array(rules)) => {
            for (index, entry) in rules.into_iter().enumerate() {
                add(&mut root, entry, &format!("rules[{index}]"))?;
            }
        }
        Some(other) => return Err(format!("rules: must be an array, and is {}", other.kind())),
    }
    refuse_others(&members, "config", "`rules` and `default`")?;
    if let Some((path, Clash::Covered(above))) = root.covered(None, "") {
        return Err(format!(
            "the rule for {path:?} is never reached: a rule above it takes the value as a whole ({}); \
             remove one of them",
            name_of(above)
        ));
    }
    Ok(Rules { root, default })
}

fn add(root: &mut Node, entry: Value<'_>, place: &str) -> Result<(), String> {
    let mut members = object(entry, place)?;
    let path = match members.remove("path") {
        Some(Value::String(path)) => path,
        _ => return Err(format!("{place}.path: must be a string such as \"/a/b\"")),
    };
    let Some(name) = members.remove("rule") else {
        return Err(format!("{place} ({path:?}): needs a `rule`"));
    };
    let rule = rule(&name, &format!("{place}.rule ({path:?})"))?;
    refuse_others(&members, place, "`path` and `rule`")?;
    let segments = segments(&path).map_err(|why| format!("{place}.path {path:?}: {why}"))?;
    root.insert(&segments, rule)
        .map_err(|_| format!("{place}.path {path:?}: has a rule already; remove one of them"))
}

fn object<'a>(value: Value<'a>, place: &str) -> Result<Object<'a>, String> {
    match value {
        Value::Object(members) => Ok(members),
        other => Err(format!(
            "{place}: must be an object, and is {}",
            other.kind()
        )),
    }
}

fn refuse_others(left: &Object<'_>, place: &str, known: &str) -> Result<(), String> {
    match left.names().next() {
        None => Ok(()),
        Some(name) => Err(format!(
            "{place}: unknown member {name:?}; there are {known}"
        )),
    }
}

fn rule(name: &Value<'_>, place: &str) -> Result<Rule, String> {
    let known = || Rule::NAMES.map(|(name, _)| name).join(", ");
    let Value::String(name) = name else {
        return Err(format!("{place}: must be one of {}", known()));
    };
    let found = Rule::NAMES.iter().find(|(known, _)| known == name);
    found
        .map(|&(_, rule)| rule)
        .ok_or_else(|| format!("{place}: no rule {name:?}; use one of {}", known()))
}

fn name_of(rule: Rule) -> &'static str {
    Rule::NAMES
        .iter()
        .find(|(_, known)| *known == rule)
        .map_or("", |(name, _)| name)
}

/// The segments of a JSON Pointer, unescaped.
fn segments(path: &str) -> Result<Vec<String>, &'static str> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let Some(rest) = path.strip_prefix('/') else {
        return Err("must be empty (the whole document) or start with `/`");
    };
    rest.split('/')
        .map(|segment| {
            let plain = segment.replace("~0", "").replace("~1", "");
            if plain.contains('~') {
                return Err("write `~` in a name as `~0`, and `/` as `~1`");
            }
            Ok(segment.replace("~1", "/").replace("~0", "~"))
        })
        .collect()
}
