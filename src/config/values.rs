//! Notations of single values.

use std::time::Duration;

use url::Url;

pub(super) const DURATION: &str =
    "a time with its unit, such as 250ms, 10s, 5m, 24h or 90d, of at most 36500d";

/// A hundred years: what is longer is a slip, and none of the calendars here (ours, PostgreSQL's, the clock's) reaches
/// as far as a number of days may.
const LONGEST: Duration = Duration::from_secs(36_500 * 86_400);

/// A time with its unit, of at most 36500d; a bare number is taken only if it is zero, since nobody can tell what unit
/// was meant.
pub fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis).filter(|time| *time <= LONGEST)
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
    fn no_time_is_longer_than_a_calendar() {
        for longest in ["36500d", "876000h", "3153600000s", "3153600000000ms"] {
            assert_eq!(duration(longest), Some(LONGEST), "{longest}");
        }
        for longer in ["36501d", "5000000d", "3153600000001ms", "18446744073709551615ms"] {
            assert_eq!(duration(longer), None, "{longer}");
        }
        let now = jiff::Timestamp::now();
        let longest = jiff::SignedDuration::try_from(LONGEST).unwrap();
        assert!(now.checked_add(longest).is_ok() && now.checked_sub(longest).is_ok());
    }

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
