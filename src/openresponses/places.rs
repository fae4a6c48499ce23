//! Where in `input` a mistake stands. Behind untagged and tagged enums serde no longer knows the place, so what failed is
//! read again, part by part.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use serde_path_to_error::Segment;

use super::content::ContentPart;
use super::error::{ApiError, excerpt};
use super::item::{InputItem, Summary};
use super::parse::expected;

/// The mistake within `body` at the place where reading it failed, if more can be told than the place.
pub(super) fn within(body: &[u8], path: &serde_path_to_error::Path) -> Option<ApiError> {
    let mut value = serde_json::from_slice::<Value>(body).ok()?;
    let mut last = "";
    for segment in path {
        value = match segment {
            Segment::Map { key } => {
                last = key;
                value.get_mut(key)?.take()
            }
            Segment::Seq { index } => value.get_mut(*index)?.take(),
            Segment::Enum { .. } | Segment::Unknown => return None,
        };
    }
    below(&value, last, &path.to_string())
}

/// The mistake in a list that stands under the key `last`, at `place`.
fn below(value: &Value, last: &str, place: &str) -> Option<ApiError> {
    let each = value.as_array()?.iter().enumerate();
    each.map(|(at, one)| (one, format!("{place}[{at}]"))).find_map(|(one, place)| match last {
        "input" | "items" => item(one, &place),
        "content" | "output" => tagged::<ContentPart>(one, &place),
        "summary" => tagged::<Summary>(one, &place),
        _ => None,
    })
}

fn item(value: &Value, place: &str) -> Option<ApiError> {
    let error = serde_path_to_error::deserialize::<_, InputItem>(value).err()?;
    let path = error.path().to_string();
    if path == "." {
        return Some(ApiError::invalid(
            "invalid_type",
            place,
            format!("Invalid '{place}': expected an object."),
        ));
    }
    let key = path.split(['.', '[']).next().unwrap_or_default();
    let place = format!("{place}.{key}");
    let deeper = value.get(key).and_then(|value| below(value, key, &place));
    Some(deeper.unwrap_or_else(|| told(&place, &error.into_inner().to_string())))
}

/// The mistake in an object whose `type` says what it is.
fn tagged<T: DeserializeOwned>(value: &Value, place: &str) -> Option<ApiError> {
    let read = |fields: &Map<String, Value>| serde_json::from_value::<T>(Value::Object(fields.clone()));
    let Some(fields) = value.as_object() else {
        return Some(ApiError::invalid(
            "invalid_type",
            place,
            format!("Invalid '{place}': expected an object."),
        ));
    };
    let problem = read(fields).err()?.to_string();
    if let Some(field) = quoted(&problem, "missing field `") {
        return Some(ApiError::missing(&format!("{place}.{field}")));
    }
    if problem.starts_with("unknown variant `")
        && fields.get("type").is_some_and(|kind| problem.contains(&variant(kind)))
    {
        return Some(told(&format!("{place}.type"), &problem));
    }
    // Whichever field, left out, changes what is wrong.
    let at_fault = fields.keys().filter(|name| *name != "type").find(|name| {
        let mut others = fields.clone();
        others.remove(*name);
        read(&others).map_or_else(|error| error.to_string() != problem, |_| true)
    });
    Some(match at_fault {
        Some(name) => told(&format!("{place}.{}", excerpt(name)), &problem),
        None => told(place, &problem),
    })
}

/// As serde begins to complain of an unknown one.
fn variant(kind: &Value) -> String {
    format!("unknown variant `{}`", kind.as_str().unwrap_or_default())
}

/// What stands between `before` and the next backtick.
fn quoted<'p>(problem: &'p str, before: &str) -> Option<&'p str> {
    problem.strip_prefix(before)?.split('`').next()
}

/// A wrong value, in our words: what serde says of it may quote it.
fn told(place: &str, problem: &str) -> ApiError {
    let expected = expected(problem);
    if problem.starts_with("unknown variant `") {
        let known = expected.unwrap_or_default();
        let known = known.strip_prefix("one of ").unwrap_or(&known);
        return ApiError::invalid_value(place, format!("Invalid '{place}'. Supported values are: {known}."));
    }
    let message = match expected {
        Some(expected) => format!("Invalid '{place}': expected {expected}."),
        None => format!("Invalid '{place}'."),
    };
    ApiError::invalid("invalid_type", place, message)
}
