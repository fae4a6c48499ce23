//! Reading JSON so that a mistake can be told by its place.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::error::{ApiError, excerpt, place_of};

/// Reads JSON in one pass; only a body that fails is read again, to find the place.
pub fn parse<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, ApiError> {
    // serde would fill a struct from an array too, by position.
    if body.trim_ascii_start().starts_with(b"[") {
        let message = "Invalid body: expected an object.";
        return Err(ApiError::invalid("invalid_type", "", message).without_param());
    }
    if let Ok(value) = serde_json::from_slice(body) {
        return Ok(value);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let error = match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Ok(_) => {
            return Err(
                ApiError::invalid("invalid_json", "", "There is more after the JSON object.").without_param()
            );
        }
        Err(error) => error,
    };
    let (place, path) = (error.path().clone(), place_of(&error.path().to_string()));
    let inner = error.into_inner();
    // Where a word was expected, a number is told as if it were no JSON.
    if !inner.is_data() && serde_json::from_slice::<IgnoredAny>(body).is_err() {
        let message = format!(
            "We could not parse the JSON body of your request: line {}, column {}.",
            inner.line(),
            inner.column()
        );
        return Err(ApiError::invalid("invalid_json", "", message).without_param());
    }
    let problem = inner.to_string();
    let problem = problem.split(" at line ").next().unwrap_or_default();
    if let Some(field) = problem.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next()) {
        let place = match path.rsplit_once('.') {
            Some((parent, _)) if path.ends_with(field) => format!("{parent}.{field}"),
            _ if path == "." || path == field => field.to_owned(),
            _ => format!("{path}.{field}"),
        };
        return Err(ApiError::invalid(
            "unknown_parameter",
            &place,
            format!("Unknown parameter: '{}'.", excerpt(&place)),
        ));
    }
    if let Some(error) = super::places::within(body, &place) {
        return Err(error);
    }
    let place = if path == "." { None } else { Some(path) };
    if let Some(field) = problem.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
        let field = place.map_or_else(|| field.to_owned(), |place| format!("{place}.{field}"));
        return Err(ApiError::missing(&field));
    }
    // What serde says of a wrong value may quote it; only the shape that was expected is repeated.
    let expected = expected(problem);
    let message = match (&place, &expected) {
        (Some(place), Some(expected)) => format!("Invalid '{place}': expected {expected}."),
        (Some(place), None) => format!("Invalid '{place}'."),
        (None, Some(expected)) => format!("Invalid body: expected {expected}."),
        (None, None) => "Invalid body.".to_owned(),
    };
    let error = ApiError::invalid("invalid_type", place.as_deref().unwrap_or_default(), message);
    Err(if place.is_some() { error } else { error.without_param() })
}

/// What was expected instead, in JSON's words: serde names our types.
pub(super) fn expected(problem: &str) -> Option<String> {
    let (found, expected) = problem.rsplit_once("expected ")?;
    let is_integer = found.contains("integer `");
    Some(match expected {
        // It is one, and too large or too small.
        "u32" | "i32" | "u64" | "i64" if is_integer => match expected {
            "u32" => format!("an integer from 0 to {}", u32::MAX),
            "i32" => format!("an integer from {} to {}", i32::MIN, i32::MAX),
            "u64" => format!("an integer from 0 to {}", u64::MAX),
            _ => format!("an integer from {} to {}", i64::MIN, i64::MAX),
        },
        "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" => "an integer".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "an array".to_owned(),
        "a map" | "map" => "an object".to_owned(),
        "value" | "string or map" | "variant identifier" | "field identifier" => "a string".to_owned(),
        ours if ours.starts_with("struct ") || ours.starts_with("internally tagged enum ") => {
            "an object".to_owned()
        }
        known => known.replace('`', "'"),
    })
}

impl ApiError {
    fn without_param(mut self) -> Self {
        self.param = None;
        self
    }
}
