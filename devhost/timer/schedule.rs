//! When a timer is due: six-field NCRONTAB, five-field, or a time span.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::timespan;

#[derive(Debug, Clone)]
pub enum Schedule {
    Cron(Box<Cron>),
    /// A constant interval from the last run; dedicated plans only in Azure.
    Every(Duration),
}

impl Schedule {
    /// Parses the `schedule` of function.json.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.contains(':') {
            return match timespan::parse(text) {
                Some(every) if !every.is_zero() => Ok(Schedule::Every(every)),
                _ => Err(format!("schedule {text:?} is not a time span above zero")),
            };
        }
        // NCRONTAB demands both the day of month and the day of week to match, unlike Vixie cron.
        let parser =
            CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).dom_and_dow(true).build();
        let cron = parser.parse(text);
        cron.map(|cron| Schedule::Cron(Box::new(cron)))
            .map_err(|cause| format!("schedule {text:?} is not a six-field NCRONTAB expression: {cause}"))
    }

    /// The first occurrence strictly after `after`, in local time of `zone`.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Schedule::Every(every) => after.checked_add(*every).ok(),
            Schedule::Cron(cron) => {
                let found = cron.find_next_occurrence(&after.to_zoned(zone.clone()), false);
                found.ok().map(|zoned| zoned.timestamp())
            }
        }
    }
}

/// Time as the schedule sees it: from `start` on, `speed` times as fast as real time.
pub struct Clock {
    start: Timestamp,
    speed: f64,
}

impl Clock {
    pub fn new(start: Timestamp, speed: f64) -> Self {
        Clock { start, speed }
    }

    /// The real time of the first occurrence after the real time `after`.
    pub fn next(&self, schedule: &Schedule, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if self.speed == 1.0 {
            return schedule.next_after(after, zone);
        }
        let believed = self.start.checked_add(scale(after.duration_since(self.start), self.speed)?).ok()?;
        let next = schedule.next_after(believed, zone)?;
        let real = self.start.checked_add(scale(next.duration_since(self.start), 1.0 / self.speed)?).ok()?;
        // Rounding must not make the same occurrence due again.
        Some(real.max(after.checked_add(SignedDuration::from_millis(1)).ok()?))
    }
}

fn scale(span: SignedDuration, factor: f64) -> Option<SignedDuration> {
    SignedDuration::try_from_secs_f64(span.as_secs_f64() * factor).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str) -> String {
        let found = Schedule::parse(schedule).unwrap().next_after(after.parse().unwrap(), &TimeZone::UTC);
        found.unwrap().to_string()
    }

    #[test]
    fn six_fields_have_the_second_first() {
        assert_eq!(next("0 */5 * * * *", "2026-01-01T10:00:00Z"), "2026-01-01T10:05:00Z");
        assert_eq!(next("*/15 * * * * *", "2026-01-01T10:00:14.9Z"), "2026-01-01T10:00:15Z");
        assert_eq!(next("*/15 * * * * *", "2026-01-01T10:00:15.001Z"), "2026-01-01T10:00:30Z");
        assert_eq!(next("0 30 9 * * 1-5", "2026-01-02T10:00:00Z"), "2026-01-05T09:30:00Z");
    }

    #[test]
    fn five_fields_and_spans_are_taken_too() {
        assert_eq!(next("*/5 * * * *", "2026-01-01T10:00:01Z"), "2026-01-01T10:05:00Z");
        assert_eq!(next("00:00:30", "2026-01-01T10:00:01Z"), "2026-01-01T10:00:31Z");
    }

    #[test]
    fn day_of_month_and_day_of_week_must_both_match() {
        assert_eq!(next("0 0 0 13 * 5", "2026-01-01T00:00:00Z"), "2026-02-13T00:00:00Z");
    }

    #[test]
    fn occurrences_follow_local_time() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let found = Schedule::parse("0 0 12 * * *")
            .unwrap()
            .next_after("2026-01-01T00:00:00Z".parse().unwrap(), &zone);
        assert_eq!(found.unwrap().to_string(), "2026-01-01T10:00:00Z");
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in ["", "* * *", "99 * * * * *", "00:00:00", "x:y"] {
            assert!(Schedule::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn speed_divides_the_waits() {
        let schedule = Schedule::parse("0 */5 * * * *").unwrap();
        let start: Timestamp = "2026-01-01T10:00:00Z".parse().unwrap();
        let clock = Clock::new(start, 60.0);
        let first = clock.next(&schedule, start, &TimeZone::UTC).unwrap();
        assert_eq!(first.to_string(), "2026-01-01T10:00:05Z");
        let second = clock.next(&schedule, first, &TimeZone::UTC).unwrap();
        assert_eq!(second.to_string(), "2026-01-01T10:00:10Z");
    }
}
