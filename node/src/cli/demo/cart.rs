//! The shopping cart of the Dynamo paper: edits on both sides of a cut, none lost, nothing removed comes back.
//!
//! Values are what the shipped `cart` resolver reads: items with a quantity, or with `"removed": true`.

use serde_json::{Value, json};

use super::scene::Scene;

/// The resolver, as it travels in the repository.
pub(in crate::cli) const MODULE: &[u8] = include_bytes!("../../../../resolvers/prebuilt/cart.wasm");

/// The scene.
pub(super) fn scene() -> Scene {
    Scene {
        title: "The shopping cart",
        bucket: "carts",
        content_type: "application/json",
        base: || {
            Ok(json!({ "items": { "book": 1, "pen": 2 } })
                .to_string()
                .into_bytes())
        },
        left: ("two more books and a lamp", |seen| {
            edit(seen, &[("book", json!(3)), ("lamp", json!(1))])
        }),
        right: ("no pens, but two mugs", |seen| {
            edit(
                seen,
                &[("pen", json!({ "removed": true })), ("mug", json!(2))],
            )
        }),
        resolver: "cart",
        module: MODULE,
        show,
        check,
    }
}

fn edit(seen: &[u8], changes: &[(&str, Value)]) -> Result<Vec<u8>, String> {
    let mut cart: Value = serde_json::from_slice(seen).map_err(|error| error.to_string())?;
    let items = cart
        .get_mut("items")
        .and_then(Value::as_object_mut)
        .ok_or("the cart has no items")?;
    items.extend(
        changes
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone())),
    );
    Ok(cart.to_string().into_bytes())
}

/// `3 book, 1 lamp, no pen`.
fn show(value: &[u8]) -> Result<String, String> {
    let cart: Value = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    let items = cart
        .get("items")
        .and_then(Value::as_object)
        .ok_or("the cart has no items")?;
    let shown: Vec<String> = items
        .iter()
        .map(|(name, item)| format!("{} {name}", quantity(item)))
        .collect();
    Ok(shown.join(", "))
}

fn quantity(item: &Value) -> String {
    if item.get("removed").and_then(Value::as_bool) == Some(true) {
        return "no".to_owned();
    }
    item.get("qty").unwrap_or(item).to_string()
}

fn check(merged: &[u8], _: &[u8], _: &[u8]) -> Result<String, String> {
    let shown = show(merged)?;
    let mut found: Vec<&str> = shown.split(", ").collect();
    found.sort_unstable();
    if found == ["1 lamp", "2 mug", "3 book", "no pen"] {
        Ok("merged, both edits are in the cart".to_owned())
    } else {
        Err(format!("the cart holds: {shown}"))
    }
}
