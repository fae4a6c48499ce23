//! Limits of the work itself: leases, attempts, schedules, batches, retention.

use std::time::Duration;

use super::reader::{Reader, Setting};
use super::values;

const LEASE: Setting = Setting::new(
    "WORK_LEASE",
    "time",
    "How long a claim on a job or callback holds without renewal; another process may take it over afterwards. \
     At least 3s.",
)
.default("60s");
const RETRY_BASE: Setting = Setting::new(
    "RETRY_BASE",
    "time",
    "Delay after a first failed attempt of an event or job; it doubles from there, jittered.",
)
.default("5s");
const RETRY_CAP: Setting =
    Setting::new("RETRY_CAP", "time", "Longest delay between two attempts of an event or job.")
        .default("15m");
const OUTAGE_RETRY: Setting = Setting::new(
    "OUTAGE_RETRY",
    "time",
    "Delay before work is tried again that failed because PostgreSQL, storage or a provider was out of reach. \
     Such failures count towards no limit on attempts.",
)
.default("30s");
const EVENT_MAX_ATTEMPTS: Setting = Setting::new(
    "EVENT_MAX_ATTEMPTS",
    "attempts",
    "Failed attempts (outages apart) after which a delivery becomes a dead letter.",
)
.default("10");
const EVENT_BATCH: Setting =
    Setting::new("EVENT_BATCH", "events", "Most events of one delivery that one transaction takes in.")
        .default("100");
const EVENT_RETENTION: Setting = Setting::new(
    "EVENT_RETENTION",
    "time",
    "How long events and their bodies are kept, where the source's retention_days does not say otherwise.",
)
.default("90d");
const JOB_MAX_ATTEMPTS: Setting = Setting::new(
    "JOB_MAX_ATTEMPTS",
    "attempts",
    "Failed attempts (outages apart) after which a job becomes a dead letter.",
)
.default("10");
const JOB_MAX_AGE: Setting = Setting::new(
    "JOB_MAX_AGE",
    "time",
    "Age after which a job is given up even if only outages kept it from finishing.",
)
.default("24h");
const CALLBACK_SCHEDULE: Setting = Setting::new(
    "CALLBACK_SCHEDULE",
    "times, comma-separated",
    "Delays before each attempt of a callback, each counted from the attempt before; their number is the number of \
     attempts.",
)
.default("0s,5s,5m,30m,2h,5h,10h,10h");
const CALLBACK_TIMEOUT: Setting = Setting::new(
    "CALLBACK_TIMEOUT",
    "time",
    "How long one callback attempt may take, from resolving the name to the last byte read.",
)
.default("15s");
const CALLBACK_RESPONSE: Setting =
    Setting::new("CALLBACK_RESPONSE_MAX_BYTES", "bytes", "How much of a consumer's answer is read and kept.")
        .default("4096");
const CALLBACK_RETRY_AFTER: Setting = Setting::new(
    "CALLBACK_RETRY_AFTER_MAX",
    "time",
    "Longest Retry-After of a consumer that is honoured; a longer one is cut to this.",
)
.default("24h");
const DEAD_LETTER_RETENTION: Setting = Setting::new(
    "DEAD_LETTER_RETENTION",
    "time",
    "How long settled (replayed or discarded) dead letters are kept.",
)
.default("90d");
const MAINTAIN_BATCH: Setting =
    Setting::new("MAINTAIN_BATCH", "rows", "Most rows that one sweep takes at a time.").default("500");
const HINT_AFTER: Setting = Setting::new(
    "HINT_AFTER",
    "time",
    "How long a row may be due and unclaimed before maintain sends its queue message again.",
)
.default("30s");
const PARTITIONS_AHEAD: Setting = Setting::new(
    "PARTITIONS_AHEAD",
    "months",
    "How many monthly partitions maintain keeps ready beyond the present one.",
)
.default("3");
const LOG_RETENTION: Setting = Setting::new(
    "LOG_RETENTION",
    "time",
    "How long the stream of a stored turn can be read again after its end.",
)
.default("24h");
const RESPONSE_RETENTION: Setting = Setting::new(
    "RESPONSE_RETENTION",
    "time",
    "How long stored turns are kept. The items of a conversation stay until it is deleted.",
)
.default("30d");
const USAGE_RETENTION: Setting = Setting::new(
    "USAGE_RETENTION",
    "time",
    "How long single rows of usage are kept, and budgets of past days. Their sums by day stay. At least 7d.",
)
.default("90d");
const ROTATION_ALONE: Setting = Setting::new(
    "ROTATION_ALONE",
    "time",
    "For how long a source's deliveries must have been proved by another secret alone, before the rotation of the old one \
     is over.",
)
.default("24h");
const SWITCH_CACHE: Setting = Setting::new(
    "SWITCH_CACHE",
    "time",
    "How long a process goes by the stop switches it read last. 0 reads them for each request.",
)
.default("5s");
const RETRY_AFTER: Setting = Setting::new(
    "RETRY_AFTER",
    "time",
    "What Retry-After tells a sender whose delivery could not be taken just now.",
)
.default("30s");

const INGRESS_TIMEOUT: Setting = Setting::new(
    "INGRESS_TIMEOUT",
    "time",
    "How long a delivery may take from its arrival until it is stored; then its sender gets 503 with Retry-After. Keep it \
     below the 10s after which most senders hear no answer.",
)
.default("7s");
const INGRESS_MAX_BYTES: Setting = Setting::new(
    "INGRESS_MAX_BYTES",
    "bytes",
    "How many bytes of deliveries one process holds at once, from the first one read until the delivery is stored; beyond \
     it senders get 503 with Retry-After. A quarter is kept for bodies of up to 64 KiB.",
)
.default("67108864");
const FORGERIES: Setting = Setting::new(
    "FORGERIES_PER_MINUTE",
    "deliveries",
    "Deliveries to one source a minute and process that may fail verification; beyond it, those of this source are \
     verified one at a time for a minute. Nobody is refused for it.",
)
.default("600");
pub(super) const SETTINGS: &[Setting] = &[
    LEASE,
    RETRY_BASE,
    RETRY_CAP,
    OUTAGE_RETRY,
    EVENT_MAX_ATTEMPTS,
    EVENT_BATCH,
    EVENT_RETENTION,
    JOB_MAX_ATTEMPTS,
    JOB_MAX_AGE,
    CALLBACK_SCHEDULE,
    CALLBACK_TIMEOUT,
    CALLBACK_RESPONSE,
    CALLBACK_RETRY_AFTER,
    DEAD_LETTER_RETENTION,
    MAINTAIN_BATCH,
    HINT_AFTER,
    PARTITIONS_AHEAD,
    LOG_RETENTION,
    RESPONSE_RETENTION,
    USAGE_RETENTION,
    ROTATION_ALONE,
    SWITCH_CACHE,
    RETRY_AFTER,
    INGRESS_TIMEOUT,
    INGRESS_MAX_BYTES,
    FORGERIES,
];

/// A third of it, between two renewals, is more than a slow answer takes.
const LEAST_LEASE: Duration = Duration::from_secs(3);
/// Usage that waited on a queue is home by then, and slices of budgets are closed.
const LEAST_USAGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Limits of events, jobs, callbacks and upkeep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkLimits {
    /// How long a claim holds without renewal.
    pub lease: Duration,
    /// Delay after a first failed attempt.
    pub retry_base: Duration,
    /// Longest delay between two attempts; at least `retry_base`.
    pub retry_cap: Duration,
    /// Delay after a failure that counts towards no limit.
    pub outage_retry: Duration,
    pub event_max_attempts: u32,
    /// Events per transaction.
    pub event_batch: u32,
    pub event_retention: Duration,
    pub job_max_attempts: u32,
    pub job_max_age: Duration,
    /// Delay before each attempt, counted from the attempt before; never empty.
    pub callback_schedule: Vec<Duration>,
    /// Limit of one attempt.
    pub callback_timeout: Duration,
    /// How much of an answer is read and kept.
    pub callback_response_max_bytes: u64,
    /// Longest `Retry-After` honoured.
    pub callback_retry_after_max: Duration,
    pub dead_letter_retention: Duration,
    /// Rows one sweep takes at a time.
    pub maintain_batch: u32,
    /// How long a row may be due and unclaimed before its hint is sent again.
    pub hint_after: Duration,
    /// Months of partitions kept ready.
    pub partitions_ahead: u32,
    /// How long the log of a turn is kept past its end.
    pub log_retention: Duration,
    /// How long a turn is kept, from its beginning.
    pub response_retention: Duration,
    /// How long single rows of usage are kept, from their day.
    pub usage_retention: Duration,
    /// How long another secret must have been seen alone.
    pub rotation_alone: Duration,
    /// How long stop switches are remembered.
    pub switch_cache: Duration,
    /// `Retry-After` of a 503.
    pub retry_after: Duration,
    /// From a delivery's arrival until it is stored.
    pub ingress_timeout: Duration,
    /// Bytes of deliveries that one process holds at once.
    pub ingress_max_bytes: u64,
    /// Failed verifications a minute, per source and process, before they take turns; at least 1.
    pub forgeries_per_minute: u32,
}

impl WorkLimits {
    pub(super) fn read(reader: &Reader<'_>) -> Self {
        let limits = Self {
            lease: reader.positive_duration(&LEASE),
            retry_base: reader.positive_duration(&RETRY_BASE),
            retry_cap: reader.positive_duration(&RETRY_CAP),
            outage_retry: reader.positive_duration(&OUTAGE_RETRY),
            event_max_attempts: reader.number_u32(&EVENT_MAX_ATTEMPTS, 1, 1_000),
            event_batch: reader.number_u32(&EVENT_BATCH, 1, 100),
            event_retention: reader.positive_duration(&EVENT_RETENTION),
            job_max_attempts: reader.number_u32(&JOB_MAX_ATTEMPTS, 1, 1_000),
            job_max_age: reader.positive_duration(&JOB_MAX_AGE),
            callback_schedule: reader.required(
                &CALLBACK_SCHEDULE,
                "times with their units, separated by commas, such as 0s,5s,5m",
                values::durations,
            ),
            callback_timeout: reader.positive_duration(&CALLBACK_TIMEOUT),
            callback_response_max_bytes: reader.number(&CALLBACK_RESPONSE, 0, 1 << 20),
            callback_retry_after_max: reader.duration(&CALLBACK_RETRY_AFTER),
            dead_letter_retention: reader.positive_duration(&DEAD_LETTER_RETENTION),
            maintain_batch: reader.number_u32(&MAINTAIN_BATCH, 1, 10_000),
            hint_after: reader.duration(&HINT_AFTER),
            partitions_ahead: reader.number_u32(&PARTITIONS_AHEAD, 1, 24),
            log_retention: reader.positive_duration(&LOG_RETENTION),
            response_retention: reader.positive_duration(&RESPONSE_RETENTION),
            usage_retention: reader.positive_duration(&USAGE_RETENTION),
            rotation_alone: reader.positive_duration(&ROTATION_ALONE),
            switch_cache: reader.duration(&SWITCH_CACHE),
            retry_after: reader.positive_duration(&RETRY_AFTER),
            ingress_timeout: reader.positive_duration(&INGRESS_TIMEOUT),
            ingress_max_bytes: reader.number(&INGRESS_MAX_BYTES, 1 << 20, u64::from(u32::MAX)),
            forgeries_per_minute: reader.number_u32(&FORGERIES, 1, 10_000_000),
        };
        // Zero: refused already.
        if !limits.lease.is_zero() && limits.lease < LEAST_LEASE {
            reader.mistake(LEASE.name, "is shorter than 3s; a lease is renewed every third of it, and a slow answer must not lose it");
        }
        if !limits.usage_retention.is_zero() && limits.usage_retention < LEAST_USAGE {
            reader
                .mistake(USAGE_RETENTION.name, "is shorter than 7d; rows that come late must find their day");
        }
        if limits.retry_cap < limits.retry_base {
            reader.mistake(RETRY_CAP.name, "is shorter than RETRY_BASE");
        }
        limits
    }
}

impl Default for WorkLimits {
    /// What an empty environment gives.
    fn default() -> Self {
        Self::read(&Reader::new(&std::collections::BTreeMap::new()))
    }
}
