//! .NET `TimeSpan` text: `[d.]hh:mm:ss[.fffffff]`.

use std::time::Duration;

/// Parses a non-negative time span; `None` if it is not one.
pub fn parse(text: &str) -> Option<Duration> {
    let parts: Vec<&str> = text.trim().split(':').collect();
    let [hours, minutes, seconds] = parts.as_slice() else { return None };
    let (days, hours) = match hours.split_once('.') {
        Some((days, hours)) => (number(days, u64::MAX / 100_000)?, number(hours, 23)?),
        // .NET takes "24:00:00" as 24 days; nobody means that, so it is refused instead.
        None => (0, number(hours, 23)?),
    };
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    if fraction.len() > 7 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}").parse().ok()?;
    let seconds = ((days * 24 + hours) * 60 + number(minutes, 59)?) * 60 + number(seconds, 59)?;
    Some(Duration::new(seconds, nanos))
}

/// Writes a time span as .NET does, without the fraction.
pub fn format(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, clock) = (seconds / 86_400, seconds % 86_400);
    let clock = format!("{:02}:{:02}:{:02}", clock / 3_600, clock / 60 % 60, clock % 60);
    if days == 0 { clock } else { format!("{days}.{clock}") }
}

fn number(text: &str, limit: u64) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|number| plain && *number <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_host_json_parse() {
        assert_eq!(parse("00:05:00"), Some(Duration::from_secs(300)));
        assert_eq!(parse("1.02:00:00"), Some(Duration::from_secs(93_600)));
        assert_eq!(parse("00:00:00.25"), Some(Duration::from_millis(250)));
        for wrong in ["", "5", "-1", "00:60:00", "24:00:00", "00:00", "+1:00:00", "00:00:00.x"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn spans_print_as_dotnet_prints_them() {
        assert_eq!(format(Duration::from_secs(300)), "00:05:00");
        assert_eq!(format(Duration::from_secs(93_600)), "1.02:00:00");
    }
}
