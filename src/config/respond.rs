//! Limits of events that start model work (`action = "respond"`).

use std::time::Duration;

use super::reader::{Reader, Setting};

const FUEL: Setting = Setting::new(
    "RESPOND_TEMPLATE_FUEL",
    "steps",
    "How much the rendering of one template may do: about one step for each instruction and each 64 bytes.",
)
.default("200000");
const TEXT_MAX: Setting = Setting::new(
    "RESPOND_TEXT_MAX_BYTES",
    "bytes",
    "Longest text that a template may give; an event that gives more becomes a dead letter.",
)
.default("262144");
const TIME_LIMIT: Setting = Setting::new(
    "RESPOND_TIME_LIMIT",
    "time",
    "How long one answer may take in the function app, from asking to its end, where the route's time_limit_seconds does \
     not say otherwise. It must fit into functionTimeout; `function-handlers check` says whether it does.",
)
.default("90s");
const ANSWERS_MAX: Setting = Setting::new(
    "RESPOND_ANSWERS_MAX",
    "answers",
    "How many answers one event may pay for, its repair and those cut in the middle included, before it becomes a dead \
     letter. A provider that is away costs none.",
)
.default("3");
const BUDGET_RETRY: Setting = Setting::new(
    "RESPOND_BUDGET_RETRY",
    "time",
    "An event whose owner's budget is spent waits for the next day's, and looks this often whether there is room before: \
     a budget that was raised takes effect within it.",
)
.default("1h");
const IDLE: Setting = Setting::new(
    "RESPOND_IDLE",
    "time",
    "How long the function app keeps its clients of models, and its parts of budgets, after the last answer.",
)
.default("60s");

pub(super) const SETTINGS: &[Setting] = &[FUEL, TEXT_MAX, TIME_LIMIT, ANSWERS_MAX, BUDGET_RETRY, IDLE];

/// Limits of `respond` routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RespondLimits {
    pub template_fuel: u64,
    pub text_max_bytes: usize,
    pub time_limit: Duration,
    pub answers_max: u32,
    pub budget_retry: Duration,
    pub idle: Duration,
}

impl RespondLimits {
    pub(super) fn read(reader: &Reader<'_>) -> Self {
        Self {
            template_fuel: reader.number(&FUEL, 100, 1_000_000_000),
            text_max_bytes: usize::try_from(reader.number(&TEXT_MAX, 1_024, 1 << 28)).unwrap_or(usize::MAX),
            time_limit: reader.positive_duration(&TIME_LIMIT),
            answers_max: reader.number_u32(&ANSWERS_MAX, 1, 100),
            budget_retry: reader.positive_duration(&BUDGET_RETRY),
            idle: reader.positive_duration(&IDLE),
        }
    }
}

impl Default for RespondLimits {
    /// What an empty environment gives.
    fn default() -> Self {
        Self::read(&Reader::new(&std::collections::BTreeMap::new()))
    }
}
