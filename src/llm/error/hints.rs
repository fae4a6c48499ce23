//! When a provider says it may be asked again. First the exact headers, then the general one, then its words, then
//! the moment when the limit that is used up begins anew.

use std::time::Duration;

use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};

/// Nobody means more than this.
const LONGEST: Duration = Duration::from_secs(86_400);

/// The provider's wish, if it has one.
pub(super) fn wait(headers: &HeaderMap, message: &str, now: Timestamp) -> Option<Duration> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let exact = header("retry-after-ms").and_then(|text| text.parse::<f64>().ok()).and_then(seconds_of_ms);
    exact
        .or_else(|| header("retry-after").and_then(|text| seconds_or_date(text, now)))
        .or_else(|| in_words(message))
        .or_else(|| used_up(headers, now))
        .map(|delay| delay.min(LONGEST))
}

fn seconds_of_ms(ms: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(ms / 1_000.0).ok()
}

fn seconds_or_date(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(until(at, now))
}

fn until(at: Timestamp, now: Timestamp) -> Duration {
    let wait: SignedDuration = at.duration_since(now);
    wait.try_into().unwrap_or_default()
}

/// "Try again in 60 seconds", "Please try again in 1.2s", "Please retry after 7 seconds", "try again in 500ms".
pub(super) fn in_words(message: &str) -> Option<Duration> {
    let lower = message.to_ascii_lowercase();
    let rest = ["again in ", "retry after ", "retry in "].iter().find_map(|words| {
        let at = lower.find(words)?;
        lower.get(at + words.len()..)
    })?;
    let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let number: f64 = rest[..digits].trim_end_matches('.').parse().ok()?;
    let unit = rest[digits..].trim_start();
    let seconds = if unit.starts_with("ms") || unit.starts_with("milli") {
        number / 1_000.0
    } else if unit.starts_with("min") || unit.starts_with('m') {
        number * 60.0 + compound_seconds(unit)
    } else if unit.starts_with('h') {
        number * 3_600.0
    } else {
        number
    };
    Duration::try_from_secs_f64(seconds).ok()
}

/// The seconds of `1m30s`, the part before and with `m` being gone or leading.
fn compound_seconds(unit: &str) -> f64 {
    let rest = unit.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    if unit.starts_with("min") { 0.0 } else { rest[..digits].parse().unwrap_or(0.0) }
}

/// Limits by the names of their headers; OpenAI's and Azure's, then Anthropic's.
const LIMITS: &[(&str, &str)] = &[
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
    ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
];

/// The longest wait among the limits of which nothing remains. A remainder of −1, which Azure has sent, says nothing.
fn used_up(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    LIMITS
        .iter()
        .filter(|(remaining, _)| header(remaining) == Some("0"))
        .filter_map(|(_, reset)| reset_time(header(reset)?, now))
        .filter(|delay| !delay.is_zero())
        .max()
}

/// `1s`, `6m0s`, `120ms`, bare seconds, or a time of day (RFC 3339).
fn reset_time(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(until(at, now));
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        total += number
            * match &rest[digits..unit_end] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3_600.0,
                "d" => 86_400.0,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    Duration::try_from_secs_f64(total).ok()
}
