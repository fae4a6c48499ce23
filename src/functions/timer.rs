//! What a timer function is told.

use jiff::Timestamp;
use serde::Deserialize;

use super::envelope;

/// One tick. Every time is `None` when the host keeps no schedule status (`useMonitor: false`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timer {
    /// When the timer last ran; `None` if it never has (the host says year 1).
    pub last: Option<Timestamp>,
    /// When it is due next.
    pub next: Option<Timestamp>,
    /// When the host last wrote the status.
    pub last_updated: Option<Timestamp>,
    /// The tick is late: the app was down when it was due. However many were missed, one comes.
    pub past_due: bool,
}

#[derive(Deserialize)]
struct TimerInfo {
    #[serde(rename = "ScheduleStatus", alias = "scheduleStatus")]
    status: Option<ScheduleStatus>,
    #[serde(rename = "IsPastDue", alias = "isPastDue", default)]
    past_due: bool,
}

#[derive(Deserialize)]
struct ScheduleStatus {
    #[serde(rename = "Last", alias = "last")]
    last: Option<String>,
    #[serde(rename = "Next", alias = "next")]
    next: Option<String>,
    #[serde(rename = "LastUpdated", alias = "lastUpdated")]
    last_updated: Option<String>,
}

impl Timer {
    /// `json` is the `TimerInfo` object.
    pub(super) fn decode(json: &str) -> Result<Self, serde_json::Error> {
        let info: TimerInfo = serde_json::from_str(json)?;
        let time = |text: Option<String>| text.as_deref().and_then(envelope::time_of);
        let (last, next, last_updated) = match info.status {
            Some(status) => (time(status.last), time(status.next), time(status.last_updated)),
            None => (None, None, None),
        };
        Ok(Self { last, next, last_updated, past_due: info.past_due })
    }
}
