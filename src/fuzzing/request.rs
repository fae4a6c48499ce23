//! What callers ask for.

use crate::chatcompletions::ChatRequest;
use crate::conversation::engine::{Entry, entries};
use crate::openresponses::{ApiError, CompactRequest, CreateResponse, Item, parse};

/// Longest message of an error; what a caller wrote may stand in it, but not all of it.
const LONGEST: usize = 1_200;

/// A request is refused with its field, or it can be kept as it is and read again.
pub fn requests(data: &[u8]) {
    if let Err(error) = parse::<CompactRequest>(data) {
        short(&error);
    }
    match CreateResponse::parse(data) {
        Ok(request) => check(request),
        Err(error) => short(&error),
    }
}

/// The same for a chat completion, in its own terms.
pub fn chat(data: &[u8]) {
    let request = match ChatRequest::parse(data) {
        Ok(request) => request,
        Err(error) => return short(&error),
    };
    match request.translate() {
        Ok(asked) => {
            assert_eq!(asked.request.store, Some(false), "a chat completion is not stored");
            if let Err(error) = asked.request.validate() {
                short(&asked.terms.apply(error));
            }
            check(asked.request);
        }
        Err(error) => short(&error),
    }
}

fn check(mut request: CreateResponse) {
    let valid = request.validate();
    if let Err(error) = &valid {
        short(error);
    }
    let kept = serde_json::to_string(&request).expect("a request is JSON");
    let again: CreateResponse = serde_json::from_str(&kept)
        .unwrap_or_else(|error| panic!("what is kept of a request cannot be read: {error}\n{kept}"));
    assert_eq!(serde_json::to_string(&again).expect("JSON"), kept);
    // What is taken is stored, where it is read by whoever does not bear any depth.
    let read = serde_json::from_str::<serde_json::Value>(&kept);
    let too_deep = read.is_err_and(|error| error.to_string().starts_with("recursion limit"));
    assert!(valid.is_err() || !too_deep, "{kept}");
    match entries(request.input.take()) {
        Ok(entries) => entries.into_iter().for_each(stored),
        Err(error) => short(&error),
    }
}

/// An item as it would be stored can be read, and is the same then.
fn stored(entry: Entry) {
    let Entry::New(own) = entry else { return };
    let again: Item = serde_json::from_str(&own.json)
        .unwrap_or_else(|error| panic!("a stored item cannot be read: {error}\n{}", own.json));
    assert_eq!(serde_json::to_string(&again).expect("JSON"), own.json);
}

fn short(error: &ApiError) {
    assert!(error.status.is_client_error(), "{error}");
    assert!(error.message.len() <= LONGEST, "{} bytes: {error}", error.message.len());
    assert!(error.param.as_deref().is_none_or(|param| param.len() <= LONGEST), "{error}");
}
