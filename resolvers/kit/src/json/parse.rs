//! Reads JSON text (RFC 8259) into values that borrow from it.
//!
//! Recursion is bounded by [`MAX_DEPTH`], so a hostile value cannot run a guest out of its small stack, and
//! every byte is looked at a constant number of times.

use std::borrow::Cow;

use super::{Number, Object, Value};

/// Levels of arrays and objects within one another.
pub const MAX_DEPTH: usize = 64;

/// Why a text is refused, and where: bytes from its start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {at}")]
pub struct Error {
    /// Offset of the first byte that does not fit.
    pub at: usize,
    /// What is wrong.
    pub reason: Reason,
}

/// What is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Not UTF-8.
    #[error("invalid UTF-8")]
    Encoding,
    /// The text stops too early.
    #[error("unexpected end")]
    End,
    /// A byte that cannot stand there.
    #[error("expected {0}")]
    Expected(&'static str),
    /// A value, and then something else.
    #[error("text after the value")]
    Trailing,
    /// An object says one name twice; readers disagree on which counts.
    #[error("member {0:?} stands twice in the object")]
    Twice(String),
    /// A surrogate without its other half.
    #[error("an escape that is no character")]
    Surrogate,
    /// Nested beyond [`MAX_DEPTH`].
    #[error("more than {MAX_DEPTH} levels")]
    Depth,
    /// A number beyond 10^400 or below 10^-400.
    #[error("an exponent beyond 400")]
    Exponent,
}

/// Reads one JSON value that fills all of `bytes`, white space around it aside.
///
/// # Errors
/// See [`Reason`].
pub fn parse(bytes: &[u8]) -> Result<Value<'_>, Error> {
    whole(bytes).map_err(|error| *error)
}

/// What a part was read as. Errors are boxed: each level hands its result up, and they are the larger half.
type Read<T> = Result<T, Box<Error>>;

fn whole(bytes: &[u8]) -> Read<Value<'_>> {
    let text = std::str::from_utf8(bytes).map_err(|error| Error {
        at: error.valid_up_to(),
        reason: Reason::Encoding,
    })?;
    let mut reader = Reader { text, at: 0 };
    reader.skip_space();
    let value = reader.value(MAX_DEPTH)?;
    reader.skip_space();
    if reader.at < text.len() {
        return Err(reader.error(Reason::Trailing));
    }
    Ok(value)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    #[cold]
    fn error(&self, reason: Reason) -> Box<Error> {
        Box::new(Error {
            at: self.at,
            reason,
        })
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[cold]
    fn expected(&self, what: &'static str) -> Box<Error> {
        self.error(match self.peek() {
            Some(_) => Reason::Expected(what),
            None => Reason::End,
        })
    }

    fn skip_space(&mut self) {
        // Canonical text has none, and every other byte between values is beyond the space.
        if self.peek().is_some_and(|byte| byte > b' ') {
            return;
        }
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Steps over `byte` if it is next.
    fn take(&mut self, byte: u8) -> bool {
        let here = self.peek() == Some(byte);
        self.at += usize::from(here);
        here
    }

    fn value(&mut self, depth: usize) -> Read<Value<'a>> {
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') => self.number().map(Value::Number),
            Some(b'n') => self.word("null", Value::Null),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            _ => Err(self.expected("a value")),
        }
    }

    fn word(&mut self, word: &'static str, value: Value<'a>) -> Read<Value<'a>> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.expected("null, true or false"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn array(&mut self, depth: usize) -> Read<Value<'a>> {
        let depth = depth
            .checked_sub(1)
            .ok_or_else(|| self.error(Reason::Depth))?;
        self.at += 1;
        let mut items = Vec::new();
        self.skip_space();
        if self.take(b']') {
            return Ok(Value::Array(items));
        }
        loop {
            self.skip_space();
            items.push(self.value(depth)?);
            self.skip_space();
            if self.take(b']') {
                return Ok(Value::Array(items));
            }
            if !self.take(b',') {
                return Err(self.expected("`,` or `]`"));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Read<Value<'a>> {
        let depth = depth
            .checked_sub(1)
            .ok_or_else(|| self.error(Reason::Depth))?;
        self.at += 1;
        let start = self.at;
        let mut members = Vec::new();
        self.skip_space();
        if self.take(b'}') {
            return Ok(Value::Object(Object::default()));
        }
        loop {
            self.skip_space();
            members.push(self.member(depth)?);
            self.skip_space();
            if self.take(b'}') {
                break;
            }
            if !self.take(b',') {
                return Err(self.expected("`,` or `}`"));
            }
        }
        Object::new(members).map(Value::Object).map_err(|name| {
            Box::new(Error {
                at: start - 1,
                reason: Reason::Twice(name.into_owned()),
            })
        })
    }

    fn member(&mut self, depth: usize) -> Read<(Cow<'a, str>, Value<'a>)> {
        if self.peek() != Some(b'"') {
            return Err(self.expected("a member's name in quotes"));
        }
        let name = self.string()?;
        self.skip_space();
        if !self.take(b':') {
            return Err(self.expected("`:`"));
        }
        self.skip_space();
        Ok((name, self.value(depth)?))
    }

    fn digits(&mut self) -> Read<usize> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start {
            return Err(self.expected("a digit"));
        }
        Ok(self.at - start)
    }

    fn number(&mut self) -> Read<Number<'a>> {
        let start = self.at;
        if let Some(natural) = self.natural() {
            return Ok(natural);
        }
        self.take(b'-');
        let zero = self.peek() == Some(b'0');
        if self.digits()? > 1 && zero {
            return Err(self.error(Reason::Expected("a number without a leading zero")));
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Number::from_json(&self.text[start..self.at]).ok_or_else(|| {
            Box::new(Error {
                at: start,
                reason: Reason::Exponent,
            })
        })
    }

    /// Steps over a number of a few plain digits: most are, and such a text is canonical as it stands.
    fn natural(&mut self) -> Option<Number<'a>> {
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let ends = !matches!(rest.get(length), Some(b'.' | b'e' | b'E'));
        let number = Number::from_digits(&self.text[self.at..self.at + length]).filter(|_| ends)?;
        self.at += length;
        Some(number)
    }

    /// Steps over characters that stand for themselves, and returns them.
    fn plain(&mut self) -> &'a str {
        let length = super::write::plain_length(&self.text.as_bytes()[self.at..]);
        let start = self.at;
        self.at += length;
        &self.text[start..self.at]
    }

    fn string(&mut self) -> Read<Cow<'a, str>> {
        self.at += 1;
        let start = self.plain();
        if self.take(b'"') {
            return Ok(Cow::Borrowed(start));
        }
        let mut out = start.to_owned();
        loop {
            if !self.take(b'\\') {
                return Err(self.expected("no control character in a string"));
            }
            out.push(self.escape()?);
            out.push_str(self.plain());
            if self.take(b'"') {
                return Ok(Cow::Owned(out));
            }
        }
    }

    fn escape(&mut self) -> Read<char> {
        let Some(letter) = self.peek() else {
            return Err(self.error(Reason::End));
        };
        let plain = match letter {
            b'"' | b'\\' | b'/' => char::from(letter),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.at += 1;
                return self.unicode();
            }
            _ => return Err(self.expected("an escape that JSON knows")),
        };
        self.at += 1;
        Ok(plain)
    }

    fn unicode(&mut self) -> Read<char> {
        let start = self.at;
        let surrogate = || {
            Box::new(Error {
                at: start,
                reason: Reason::Surrogate,
            })
        };
        let first = self.hex()?;
        if !(0xD800..0xDC00).contains(&first) {
            return char::from_u32(first).ok_or_else(surrogate);
        }
        if !(self.take(b'\\') && self.take(b'u')) {
            return Err(surrogate());
        }
        let second = self.hex()?;
        if !(0xDC00..0xE000).contains(&second) {
            return Err(surrogate());
        }
        char::from_u32(0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00))
            .ok_or_else(surrogate)
    }

    fn hex(&mut self) -> Read<u32> {
        let digits = self
            .text
            .as_bytes()
            .get(self.at..self.at + 4)
            .ok_or_else(|| self.error(Reason::End))?;
        let mut value = 0;
        for &digit in digits {
            let digit = char::from(digit)
                .to_digit(16)
                .ok_or_else(|| self.error(Reason::Expected("four hexadecimal digits")))?;
            value = value * 16 + digit;
        }
        self.at += 4;
        Ok(value)
    }
}
