//! JSON looked into without being rebuilt: every value stays the slice of the body it is.
//!
//! Senders' numbers beyond `f64`, their escapes and their key order survive, and nesting of any depth is
//! walked without recursion, because only the members asked for are ever parsed.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::event::Malformed;

/// One level of an object, in order.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Walk;
        impl<'de> Visitor<'de> for Walk {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Text(name), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    members.push((name, value));
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Walk).map(Members)
    }
}

/// A string that is borrowed when it holds no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }
        deserializer.deserialize_str(Read).map(Text)
    }
}

struct Elements<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Elements<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Walk;
        impl<'de> Visitor<'de> for Walk {
            type Value = Vec<&'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = seq.next_element()? {
                    elements.push(element);
                }
                Ok(elements)
            }
        }
        deserializer.deserialize_seq(Walk).map(Elements)
    }
}

/// An object whose members are read one by one.
pub(super) struct Object<'a>(Members<'a>);

impl<'a> Object<'a> {
    /// `what` names the object in the error.
    pub fn parse(json: &'a [u8], what: &str) -> Result<Self, Malformed> {
        serde_json::from_slice(json)
            .map(Self)
            .map_err(|_| Malformed::shape(format!("{what} is not a JSON object")))
    }

    fn of(value: &'a RawValue) -> Option<Self> {
        serde_json::from_str(value.get()).ok().map(Self)
    }

    /// The member of that name. A name that occurs twice is refused: two readers may see two different events.
    pub fn get(&self, name: &str) -> Result<Option<&'a RawValue>, Malformed> {
        let mut found = self.0.0.iter().filter(|(n, _)| n == name).map(|(_, value)| *value);
        match (found.next(), found.next()) {
            (value, None) => Ok(value),
            _ => Err(Malformed::shape(format!("`{name}` occurs twice in one object"))),
        }
    }

    /// A member as text: strings as they read, numbers and booleans as written, anything else as absent.
    pub fn text(&self, name: &str) -> Result<Option<Cow<'a, str>>, Malformed> {
        Ok(self.get(name)?.and_then(scalar))
    }

    /// [`Self::text`], where absence is an error.
    pub fn required(&self, name: &str) -> Result<Cow<'a, str>, Malformed> {
        match self.text(name)? {
            Some(text) if !text.is_empty() => Ok(text),
            // Also there, and no text: an object, or a string with half of a surrogate pair.
            _ if self.get(name)?.is_some_and(|value| !matches!(value.get(), "null" | "\"\"")) => {
                Err(Malformed::shape(format!("`{name}` is not text")))
            }
            _ => Err(Malformed::shape(format!("`{name}` is missing"))),
        }
    }

    /// A member that is an object; absent if it is anything else.
    pub fn object(&self, name: &str) -> Result<Option<Object<'a>>, Malformed> {
        Ok(self.get(name)?.and_then(Self::of))
    }
}

/// The value's text, unless it is null, an array, an object or a string that is not Unicode.
pub(super) fn scalar(value: &RawValue) -> Option<Cow<'_, str>> {
    match value.get().as_bytes().first()? {
        b'"' => serde_json::from_str(value.get()).ok().map(|Text(text)| text),
        b'{' | b'[' | b'n' => None,
        _ => Some(Cow::Borrowed(value.get())),
    }
}

/// The elements of an array, each its own slice of `json`.
pub(super) fn elements<'a>(json: &'a [u8], what: &str) -> Result<Vec<&'a RawValue>, Malformed> {
    serde_json::from_slice::<Elements<'a>>(json)
        .map(|Elements(elements)| elements)
        .map_err(|_| Malformed::shape(format!("{what} is not a JSON array")))
}

pub(super) fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(bytes).is_ok()
}

/// The value at a JSON pointer (RFC 6901) as a slice of `json`; none if there is nothing.
pub(super) fn at_pointer<'a>(json: &'a [u8], pointer: &str) -> Result<Option<&'a RawValue>, Malformed> {
    let Ok(mut value) = serde_json::from_slice::<&'a RawValue>(json) else {
        return Err(Malformed::shape("the body is not JSON"));
    };
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        let next = match value.get().as_bytes().first() {
            Some(b'{') => match Object::of(value) {
                Some(object) => object.get(&token)?,
                None => None,
            },
            Some(b'[') => {
                // `01` is no index (RFC 6901).
                let index = token.parse::<usize>().ok().filter(|index| index.to_string() == token);
                let all = elements(value.get().as_bytes(), "a member")?;
                index.and_then(|index| all.get(index).copied())
            }
            _ => None,
        };
        match next {
            Some(next) => value = next,
            None => return Ok(None),
        }
    }
    Ok(Some(value))
}

/// The slice of `body` that `value` is, shared and not copied.
pub(super) fn slice(body: &Bytes, value: &RawValue) -> Bytes {
    body.slice_ref(value.get().as_bytes())
}
