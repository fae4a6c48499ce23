//! Reading JSON so that a mistake can be told by its place.

use serde::Deserialize;

use super::error::{ApiError, excerpt};

/// Reads JSON in one pass; only a body that fails is read again, to find the place.
pub fn parse<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, ApiError> {
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
    let (place, path) = (error.path().clone(), error.path().to_string());
    let inner = error.into_inner();
    if !inner.is_data() {
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
    // What serde says of a wrong value may quote it; only the shape that was expected is repeated.
    let expected = problem.rsplit_once("expected ").map(|(_, expected)| expected);
    let message = match (&place, expected) {
        (Some(place), Some(expected)) => format!("Invalid '{place}': expected {expected}."),
        (Some(place), None) => format!("Invalid '{place}'."),
        (None, Some(expected)) => format!("Invalid body: expected {expected}."),
        (None, None) => "Invalid body.".to_owned(),
    };
    let error = ApiError::invalid("invalid_type", place.as_deref().unwrap_or_default(), message);
    Err(if place.is_some() { error } else { error.without_param() })
}

impl ApiError {
    fn without_param(mut self) -> Self {
        self.param = None;
        self
    }
}
