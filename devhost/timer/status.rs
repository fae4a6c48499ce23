//! What is recorded of a timer, and what a host that starts makes of it.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::schedule::{Clock, Schedule};
use crate::envelope::{ScheduleStatus, local_date};

/// Reads the status blob; anything unreadable counts as never recorded.
pub fn parse(bytes: &[u8]) -> Option<ScheduleStatus> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let time = |name: &str| value[name].as_str()?.parse::<Timestamp>().ok();
    Some(ScheduleStatus { last: time("Last"), next: time("Next")?, last_updated: time("LastUpdated")? })
}

/// The content of the status blob.
pub fn format(status: &ScheduleStatus, zone: &TimeZone) -> String {
    let local = |at: Timestamp| local_date(at, zone);
    let last = status.last.map_or_else(|| "0001-01-01T00:00:00".to_owned(), local);
    json!({"Last": last, "Next": local(status.next), "LastUpdated": local(status.last_updated)}).to_string()
}

/// The status to go on from. A first start is due at the next occurrence; a schedule that was changed meanwhile
/// is not held to have been missed. Otherwise `next` stays, and in the past it means past due.
pub fn reconcile(
    recorded: Option<ScheduleStatus>,
    now: Timestamp,
    schedule: &Schedule,
    zone: &TimeZone,
    speed: f64,
) -> ScheduleStatus {
    let next_from = |at: Timestamp| Clock::new(at, speed).next(schedule, at, zone).unwrap_or(Timestamp::MAX);
    let Some(recorded) = recorded else {
        return ScheduleStatus { last: None, next: next_from(now), last_updated: now };
    };
    if speed != 1.0 {
        // Recorded occurrences depend on when the faster clock started: nothing to compare with.
        return recorded;
    }
    let expected = next_from(recorded.last.unwrap_or(recorded.last_updated));
    if expected == recorded.next {
        return recorded;
    }
    ScheduleStatus { next: if now > expected { next_from(now) } else { expected }, ..recorded }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn status(last: Option<&str>, next: &str) -> ScheduleStatus {
        ScheduleStatus { last: last.map(at), next: at(next), last_updated: at("2026-01-01T10:00:00Z") }
    }

    fn check(recorded: Option<ScheduleStatus>, now: &str) -> ScheduleStatus {
        reconcile(recorded, at(now), &Schedule::parse("0 */5 * * * *").unwrap(), &TimeZone::UTC, 1.0)
    }

    #[test]
    fn it_survives_its_blob() {
        for status in [
            status(Some("2026-01-01T10:00:00.25Z"), "2026-01-01T10:05:00Z"),
            status(None, "2026-01-01T10:05:00Z"),
        ] {
            assert_eq!(parse(format(&status, &TimeZone::UTC).as_bytes()), Some(status));
        }
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn a_first_start_is_not_past_due() {
        let now = "2026-01-01T10:02:00Z";
        let first = check(None, now);
        assert_eq!((first.last, first.next, first.last_updated), (None, at("2026-01-01T10:05:00Z"), at(now)));
    }

    #[test]
    fn a_missed_occurrence_stays_in_the_past_however_many_were_missed() {
        let recorded = status(Some("2026-01-01T10:00:00Z"), "2026-01-01T10:05:00Z");
        assert_eq!(check(Some(recorded), "2026-01-01T18:00:00Z"), recorded);
        let never_ran = status(None, "2026-01-01T10:05:00Z");
        assert_eq!(check(Some(never_ran), "2026-01-01T18:00:00Z").next, at("2026-01-01T10:05:00Z"));
    }

    #[test]
    fn a_changed_schedule_is_not_past_due() {
        let recorded = status(Some("2026-01-01T10:00:00Z"), "2026-01-01T11:00:00Z");
        assert_eq!(check(Some(recorded), "2026-01-01T10:01:00Z").next, at("2026-01-01T10:05:00Z"));
        assert_eq!(check(Some(recorded), "2026-01-01T12:01:00Z").next, at("2026-01-01T12:05:00Z"));
    }
}
