//! Durations as .NET writes them in `host.json`.

use std::time::Duration;

/// A `TimeSpan`: `hh:mm:ss`, `d.hh:mm:ss`, either with a fraction of up to seven digits, or `hh:mm`.
///
/// Refused although .NET takes them: a bare number (days, which nobody means) and an hour above 23
/// (silently days as well). The error says what to write instead.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let refuse = || format!("`{text}` is not a duration: write hh:mm:ss or d.hh:mm:ss, hours below 24");
    let text_trimmed = text.trim();
    let (clock, fraction) = match text_trimmed.rsplit_once('.') {
        Some((rest, digits)) if rest.contains(':') => (rest, digits),
        _ => (text_trimmed, ""),
    };
    let (days, clock) = match clock.split_once('.') {
        Some((days, rest)) => (number(days, u64::from(u32::MAX)).ok_or_else(refuse)?, rest),
        None => (0, clock),
    };
    let parts: Vec<&str> = clock.split(':').collect();
    let (hours, minutes, seconds) = match parts[..] {
        [h, m] => (h, m, "0"),
        [h, m, s] => (h, m, s),
        _ => return Err(refuse()),
    };
    let hours = number(hours, 23).ok_or_else(refuse)?;
    let minutes = number(minutes, 59).ok_or_else(refuse)?;
    let seconds = number(seconds, 59).ok_or_else(refuse)?;
    let nanos = match fraction.len() {
        0 => 0,
        // Ticks are 100 ns: seven digits.
        n @ 1..=7 => number(fraction, 9_999_999).ok_or_else(refuse)? * 10_u64.pow(9 - n as u32),
        _ => return Err(refuse()),
    };
    let whole = ((days * 24 + hours) * 60 + minutes) * 60 + seconds;
    Ok(Duration::from_secs(whole) + Duration::from_nanos(nanos))
}

/// `functionTimeout`: a duration of at least one second, or `-1` for none.
pub(super) fn parse_timeout(text: &str) -> Result<Option<Duration>, String> {
    if text.trim() == "-1" {
        return Ok(None);
    }
    match parse(text)? {
        short if short < Duration::from_secs(1) => {
            Err(format!("`{text}` is below the host's minimum of 00:00:01 (`-1` means unlimited)"))
        }
        timeout => Ok(Some(timeout)),
    }
}

fn number(digits: &str, max: u64) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|n| *n <= max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_dotnet_writes() {
        for (text, millis) in [
            ("00:05:00", 300_000),
            ("23:59:59", 86_399_000),
            ("1.00:00:00", 86_400_000),
            ("7.12:30:15", 649_815_000),
            ("00:00:00.5", 500),
            ("00:00:01.2500000", 1_250),
            ("1.00:00:00.001", 86_400_001),
            ("00:30", 1_800_000),
            (" 0:1:2 ", 62_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn refuses_what_would_surprise() {
        for text in [
            "",
            "5",
            "-1",
            "24:00:00",
            "00:60:00",
            "00:00:60",
            "a:b:c",
            "1:2:3:4",
            "-00:01:00",
            "1.5",
            "00:00:00.12345678",
            "+1:00:00",
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains("hh:mm:ss"), "{error}");
        }
    }

    #[test]
    fn a_timeout_may_be_unlimited_but_not_nothing() {
        assert_eq!(parse_timeout("-1"), Ok(None));
        assert_eq!(parse_timeout("00:10:00"), Ok(Some(Duration::from_secs(600))));
        assert!(parse_timeout("00:00:00").expect_err("zero").contains("minimum"));
        assert!(parse_timeout("00:00:00.9").expect_err("below one second").contains("minimum"));
    }
}
