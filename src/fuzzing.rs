//! Every parser that meets the outside, as a function of bytes: what `scripts/fuzz` runs for as long as one likes, and
//! what the tests run over the kept inputs and some changed ones.
//!
//! A target does more than not to panic: it asserts what has to hold of any input. A forged request is never believed,
//! a stream means the same however it is cut, what is kept can be read back, an error holds nothing of what it is about.
//! Compiled for tests and under `cfg(fuzzing)` alone, which `cargo fuzz` sets.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a finding is a panic; what is fixed here is known to be right"
)]

mod address;
mod config;
mod headers;
mod request;
mod schema;
mod streams;
mod template;
#[cfg(test)]
mod tests;
mod webhooks;
mod websocket;

/// A parser's name, which is that of its folder of inputs, and what is run.
pub type Target = (&'static str, fn(&[u8]));

/// All of them, in the order in which `scripts/fuzz` runs them.
pub const TARGETS: &[Target] = &[
    ("signatures", webhooks::signatures),
    ("deliveries", webhooks::deliveries),
    ("envelopes", crate::functions::envelope::fuzz::envelopes),
    ("messages", webhooks::messages),
    ("streams", streams::streams),
    ("websocket", websocket::websocket),
    ("requests", request::requests),
    ("chat", request::chat),
    ("headers", headers::headers),
    ("tokens", crate::access::jwt::fuzz::tokens),
    ("templates", template::templates),
    ("schemas", schema::schemas),
    ("addresses", address::addresses),
    ("configuration", config::configuration),
    ("settings", config::settings),
];

/// Runs one target once. `name` is one of [`TARGETS`].
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of that name");
    target(data);
}

/// What stands before and after the first `mark`; all of it and nothing without one.
fn split<'a>(data: &'a [u8], mark: &[u8]) -> (&'a [u8], &'a [u8]) {
    let found = data.windows(mark.len()).position(|window| window == mark);
    found.map_or((data, &[]), |at| (&data[..at], &data[at + mark.len()..]))
}

/// Headers as they stand in a request, one a line; lines that could be none are passed over.
fn header_lines(head: &[u8]) -> http::HeaderMap {
    let mut headers = http::HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n').take(64) {
        let (name, value) = split(line, b":");
        let value = value.strip_prefix(b" ").unwrap_or(value);
        if let (Ok(name), Ok(value)) =
            (http::HeaderName::from_bytes(name), http::HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    headers
}
