//! `cart`: the shopping cart of the Dynamo paper, without its flaw that removed items come back.
//!
//! `{"items": {"book": 1, "pen": {"qty": 2, "rev": 1}}}`. Per item the highest `rev` wins; at one `rev` a
//! removal (`"removed": true`) wins, then the highest quantity. Raising a quantity needs no `rev`; lowering
//! it, or adding again what was removed, does: one more than the item has.
//!
//! A lattice: per item a total order (`rev`) over the join (removed, greatest quantity, greatest details).

mod item;

use std::convert::Infallible;

use sibyl_resolver_kit::json::{Members, Object, Value};
use sibyl_resolver_kit::{Checked, Context, Failure, Resolution, Resolver, Sibling, siblings};

use item::Item;

/// The shopping cart.
pub struct Cart;

/// What one value says.
#[derive(Default)]
struct Content<'a> {
    items: Members<'a, Item<'a>>,
    /// Members beside `items`: the greatest value wins.
    others: Object<'a>,
}

impl Resolver for Cart {
    const NAME: &'static str = "cart";
    const SUMMARY: &'static str =
        "The shopping cart: per item the highest quantity; removals are remembered.";
    const MEDIA_TYPES: &'static [&'static str] = &["application/json"];

    fn resolve(_: &Context, input: &[Sibling]) -> Result<Resolution, Failure> {
        if let Some(done) = siblings::alike(input) {
            return Ok(done);
        }
        let carts = siblings::read_all(input, Content::read)?;
        let merged = carts.into_iter().fold(Content::default(), Content::join);
        Ok(Resolution::Merged(merged.into_bytes()))
    }
}

impl Checked for Cart {
    fn check_value(_: &Context, value: &[u8]) -> Result<(), String> {
        siblings::read_json(value, Content::read).map(drop)
    }

    fn sample(entropy: &[u8]) -> Vec<u8> {
        let items = entropy.iter().map(|&byte| {
            let name = ["book", "pen", "lamp", "mug"][usize::from(byte % 4)];
            (name.into(), Item::sample(byte / 4))
        });
        Content {
            items: items.collect(),
            others: Object::default(),
        }
        .into_bytes()
    }
}

impl<'a> Content<'a> {
    fn read(value: Value<'a>) -> Result<Self, String> {
        let Value::Object(mut others) = value else {
            return Err(format!(
                "a cart is a JSON object, and this is {}",
                value.kind()
            ));
        };
        let items = match others.remove("items") {
            None => Members::default(),
            Some(Value::Object(items)) => items.try_map(|name, item| {
                Item::read(item).map_err(|why| format!("item {name:?}: {why}"))
            })?,
            Some(other) => {
                return Err(format!(
                    "\"items\" must be an object, and is {}",
                    other.kind()
                ));
            }
        };
        Ok(Self { items, others })
    }

    fn join(self, other: Self) -> Self {
        Self {
            items: self.items.join(other.items, Item::join),
            others: self.others.join(other.others, Value::max),
        }
    }

    fn into_bytes(self) -> Vec<u8> {
        let Ok(items) = self
            .items
            .try_map(|_, item| Ok::<_, Infallible>(item.into_json()));
        let mut all = self.others;
        all.insert("items", Value::Object(items));
        Value::Object(all).to_bytes()
    }
}

sibyl_resolver_kit::export!(Cart);

#[cfg(test)]
mod tests;
