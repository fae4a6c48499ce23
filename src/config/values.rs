//! Notations of single values.

use std::time::Duration;

use url::Url;

pub(super) const DURATION: &str = "a time with its unit, such as 250ms, 10s, 5m, 24h or 90d";

/// A time with its unit; a bare number is taken only if it is zero, since nobody can tell what unit was meant.
pub fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let seconds = match unit {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

/// Times separated by commas.
pub fn durations(text: &str) -> Option<Vec<Duration>> {
    text.split(',').map(|part| duration(part.trim())).collect()
}

pub(super) fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

pub(super) fn http_url(text: &str) -> Option<Url> {
    Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("10s"), Some(Duration::from_secs(10)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("90d"), Some(Duration::from_secs(90 * 86_400)));
        assert_eq!(duration("0"), Some(Duration::ZERO));
        for wrong in ["10", "s", "", "-1s", "1.5h", "10 s", "99999999999999999999d", "5min"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
        assert_eq!(durations("0s, 5s,5m").map(|all| all.len()), Some(3));
        assert_eq!(durations("0s,,5m"), None);
    }
}
