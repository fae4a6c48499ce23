//! What of a request may be stored: an allow-list for header values, and bodies without their secrets.
//!
//! A header we do not know may carry a credential (Event Grid lets its owner invent up to ten), so every name
//! is kept for diagnosis and only values known to be harmless.

use bytes::Bytes;
use http::HeaderMap;

use super::event::{ExtractedSecret, Malformed};
use super::json;
use super::sources::SecretPlace;

/// Stands for a value that is not kept.
pub const REDACTED: &str = "[redacted]";

/// Headers kept for every source.
const HARMLESS: &[&str] = &[
    "accept",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "request-id",
    "traceparent",
    "user-agent",
    "x-request-id",
];

const MAX_HEADERS: usize = 100;
const MAX_VALUE_BYTES: usize = 1024;

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}

/// All headers by lower-case name, those the adapter needs first; values only of these and of harmless ones, and never
/// of `credential`, the header that carries one.
pub(super) fn headers(
    headers: &HeaderMap,
    kept: &[String],
    credential: Option<&str>,
) -> Vec<(String, String)> {
    let needed = |name: &str| kept.iter().any(|pattern| matches(pattern, name));
    let mut all: Vec<_> = headers.iter().collect();
    // A flood of foreign headers must not push out those that splitting needs.
    all.sort_by_key(|(name, _)| !needed(name.as_str()));
    all.into_iter()
        .take(MAX_HEADERS)
        .map(|(name, value)| {
            let harmless = HARMLESS.contains(&name.as_str()) || needed(name.as_str());
            let keep = harmless && credential != Some(name.as_str());
            let text = if keep { String::from_utf8_lossy(value.as_bytes()) } else { REDACTED.into() };
            (name.as_str().to_owned(), truncated(&text).to_owned())
        })
        .collect()
}

fn truncated(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_VALUE_BYTES)]
}

/// Headers that an event's identity may come from must be single, readable and short enough to be kept whole.
pub(super) fn identity_headers_are_usable(headers: &HeaderMap, kept: &[String]) -> Result<(), Malformed> {
    for name in headers.keys().filter(|name| kept.iter().any(|pattern| matches(pattern, name.as_str()))) {
        let mut values = headers.get_all(name).iter();
        let usable = values.next().is_some_and(|v| v.len() <= MAX_VALUE_BYTES && v.to_str().is_ok());
        if !usable || values.next().is_some() {
            return Err(Malformed::shape(format!(
                "the header `{name}` must occur once, as at most {MAX_VALUE_BYTES} printable characters"
            )));
        }
    }
    Ok(())
}

/// The body without the values at `places`, byte for byte the same otherwise, and those values that are needed.
pub(super) fn body(body: &Bytes, places: &[SecretPlace]) -> Result<(Bytes, Vec<ExtractedSecret>), Malformed> {
    let mut body = body.clone();
    let mut secrets = Vec::new();
    for &SecretPlace { pointer, needed } in places {
        let Some(value) = json::at_pointer(&body, pointer)? else { continue };
        let raw = value.get();
        // Anything but a string is no secret we know; it is taken out all the same.
        let text = json::scalar(value).map_or_else(|| raw.to_owned(), |text| text.into_owned());
        let start = raw.as_ptr() as usize - body.as_ptr() as usize;
        let mut without = Vec::with_capacity(body.len());
        without.extend_from_slice(&body[..start]);
        without.push(b'"');
        without.extend_from_slice(REDACTED.as_bytes());
        without.push(b'"');
        without.extend_from_slice(&body[start + raw.len()..]);
        if needed {
            secrets.push(ExtractedSecret { pointer, value: text.into() });
        }
        body = without.into();
    }
    Ok((body, secrets))
}
