//! timerTrigger: a true object, times local to the host.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::{Members, Node, Sys, body, local_date};

/// When a timer last ran and runs next. `last` is `None` until its first run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScheduleStatus {
    pub last: Option<Timestamp>,
    pub next: Timestamp,
    pub last_updated: Timestamp,
}

/// The body of the envelope request. `status` is `None` with `useMonitor: false`.
pub fn timer_info(
    binding: &str,
    status: Option<ScheduleStatus>,
    past_due: bool,
    zone: &TimeZone,
    sys: &Sys<'_>,
) -> serde_json::Result<Vec<u8>> {
    let status =
        status.map_or(Node::Value(Value::Null), |status| Node::Members(status_members(&status, zone)));
    let timer = Members::default()
        .with("Schedule", json!({"AdjustForDST": true}))
        .with("ScheduleStatus", status)
        .with("IsPastDue", Value::from(past_due));
    let metadata = Members::default().with("sys", sys.members());
    body(&Members::default().with(binding, timer), &metadata)
}

fn status_members(status: &ScheduleStatus, zone: &TimeZone) -> Members {
    let local = |at: Timestamp| local_date(at, zone);
    // .NET's default date, which carries no offset.
    let last = status.last.map_or_else(|| "0001-01-01T00:00:00".to_owned(), local);
    Members::default()
        .with("Last", Value::from(last))
        .with("Next", Value::from(local(status.next)))
        .with("LastUpdated", Value::from(local(status.last_updated)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(status: Option<ScheduleStatus>, past_due: bool, zone: &TimeZone) -> String {
        let sys = Sys {
            function: "tick",
            now: "2026-01-01T10:05:00Z".parse().unwrap(),
            rand_guid: "24ad".to_owned(),
        };
        String::from_utf8(timer_info("tick", status, past_due, zone, &sys).unwrap()).unwrap()
    }

    fn status() -> ScheduleStatus {
        ScheduleStatus {
            last: Some("2026-01-01T10:00:00Z".parse().unwrap()),
            next: "2026-01-01T10:05:00Z".parse().unwrap(),
            last_updated: "2026-01-01T10:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn is_byte_for_byte_the_contracts_example() {
        // functions-host.md §3, timerTrigger, without its line breaks; sys is elided there.
        let expected = concat!(
            r#"{"Data":{"tick":{"Schedule":{"AdjustForDST":true},"#,
            r#""ScheduleStatus":{"Last":"2026-01-01T10:00:00+00:00","Next":"2026-01-01T10:05:00+00:00","LastUpdated":"2026-01-01T10:00:00+00:00"},"#,
            r#""IsPastDue":false}},"Metadata":{"sys":{"MethodName":"tick","UtcNow":"2026-01-01T10:05:00.0000000Z","RandGuid":"24ad"}}}"#,
        );
        assert_eq!(encode(Some(status()), false, &TimeZone::UTC), expected);
    }

    #[test]
    fn a_timer_that_never_ran_carries_the_year_one_and_an_unmonitored_one_null() {
        let never = encode(Some(ScheduleStatus { last: None, ..status() }), true, &TimeZone::UTC);
        assert!(
            never.contains(r#""Last":"0001-01-01T00:00:00""#) && never.contains(r#""IsPastDue":true"#),
            "{never}"
        );
        assert!(encode(None, false, &TimeZone::UTC).contains(r#""ScheduleStatus":null"#));
    }

    #[test]
    fn times_are_local_to_the_host() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        assert!(encode(Some(status()), false, &zone).contains(r#""Next":"2026-01-01T12:05:00+02:00""#));
    }
}
