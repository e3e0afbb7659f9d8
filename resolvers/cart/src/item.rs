//! One item of a cart and the join of two opinions on it.
//!
//! The plain form `2` says the same as `{"qty": 2}`; the result is plain only if every winner was, so that a
//! client which writes objects reads objects.

use std::cmp::Ordering;

use sibyl_resolver_kit::json::{Number, Object, Value};

const BAD_QTY: &str = "\"qty\" must be a number, 0 or more";

/// What one cart says of one item.
pub(crate) struct Item<'a> {
    rev: Number<'a>,
    state: State<'a>,
}

enum State<'a> {
    Removed,
    /// In the cart: the quantity, other members, and whether the item was written as an object.
    Present {
        qty: Number<'a>,
        details: Object<'a>,
        object: bool,
    },
}

impl<'a> Item<'a> {
    pub(crate) fn read(value: Value<'a>) -> Result<Self, String> {
        let mut details = match value {
            Value::Number(qty) => return Self::plain(qty),
            Value::Object(members) => members,
            other => {
                return Err(format!(
                    "expected a quantity or an object, found {}",
                    other.kind()
                ));
            }
        };
        let rev = match details.remove("rev") {
            None => Number::ZERO,
            Some(Value::Number(rev)) if rev.is_integer() && !rev.is_negative() => rev,
            Some(_) => return Err("\"rev\" must be an integer, 0 or more".to_owned()),
        };
        let removed = match details.remove("removed") {
            None => false,
            Some(Value::Bool(removed)) => removed,
            Some(_) => return Err("\"removed\" must be true or false".to_owned()),
        };
        let qty = match details.remove("qty") {
            Some(Value::Number(qty)) => Some(checked(qty)?),
            None => None,
            Some(_) => return Err(BAD_QTY.to_owned()),
        };
        let state = match (removed, qty) {
            (true, _) => State::Removed,
            (false, Some(qty)) => State::Present {
                qty,
                details,
                object: true,
            },
            (false, None) => return Err("needs \"qty\", or \"removed\": true".to_owned()),
        };
        Ok(Self { rev, state })
    }

    fn plain(qty: Number<'a>) -> Result<Self, String> {
        Ok(Self {
            rev: Number::ZERO,
            state: State::Present {
                qty: checked(qty)?,
                details: Object::default(),
                object: false,
            },
        })
    }

    pub(crate) fn join(self, other: Self) -> Self {
        match self.rev.cmp(&other.rev) {
            Ordering::Greater => self,
            Ordering::Less => other,
            Ordering::Equal => Self {
                rev: self.rev,
                state: self.state.join(other.state),
            },
        }
    }

    pub(crate) fn into_json(self) -> Value<'a> {
        let mut members = match self.state {
            State::Removed => Object::from_iter([("removed".into(), Value::Bool(true))]),
            State::Present {
                qty, object: false, ..
            } => return Value::Number(qty),
            State::Present {
                qty, mut details, ..
            } => {
                details.insert("qty", Value::Number(qty));
                details
            }
        };
        if self.rev != Number::ZERO {
            members.insert("rev", Value::Number(self.rev));
        }
        Value::Object(members)
    }

    /// One of 64 opinions.
    pub(crate) fn sample(byte: u8) -> Self {
        let rev = u64::from(byte / 8 % 4);
        Self {
            rev: rev.into(),
            state: match byte % 8 {
                0 | 1 => State::Removed,
                qty => State::Present {
                    qty: u64::from(qty - 1).into(),
                    details: Object::default(),
                    object: rev > 0 || byte >= 32,
                },
            },
        }
    }
}

impl State<'_> {
    fn join(self, other: Self) -> Self {
        match (self, other) {
            (
                Self::Present {
                    qty,
                    details,
                    object,
                },
                Self::Present {
                    qty: other_qty,
                    details: other_details,
                    object: other_object,
                },
            ) => Self::Present {
                qty: qty.max(other_qty),
                details: details.join(other_details, Value::max),
                object: object || other_object,
            },
            _ => Self::Removed,
        }
    }
}

fn checked(qty: Number<'_>) -> Result<Number<'_>, String> {
    if qty.is_negative() {
        return Err(BAD_QTY.to_owned());
    }
    Ok(qty)
}
