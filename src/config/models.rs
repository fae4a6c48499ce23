//! Keys of model deployments, and how patient the router is.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::SecretString;

use super::app::AppConfig;
use super::reader::{Reader, Setting};
use super::secrets::suffix_of;

const KEY: Setting = Setting::new(
    "LLM_<DEPLOYMENT>_API_KEY",
    "text",
    "Key of a deployment at its provider. <DEPLOYMENT> is the name in colloquy.toml in upper case with _ for -.",
)
.secret()
.required_when("the conversation server runs and the deployment has auth = \"key\"");
const CONNECT_TIMEOUT: Setting =
    Setting::new("LLM_CONNECT_TIMEOUT", "time", "Longest wait for a connection to a provider.").default("5s");
const OPEN_DEADLINE: Setting = Setting::new(
    "LLM_OPEN_DEADLINE",
    "time",
    "From the first attempt at an answer to its first event, over all retries and deployments. An alias whose \
     first_event_seconds is longer gets that instead.",
)
.default("120s");
const RETRIES: Setting = Setting::new(
    "LLM_RETRIES",
    "rounds",
    "How often the deployments of an alias are tried again after all of them failed, before the first event only.",
)
.default("3");
const RETRY_BASE: Setting = Setting::new(
    "LLM_RETRY_BASE",
    "time",
    "Delay before the first such retry; it doubles from there, jittered, and a longer one that the provider asks for \
     takes its place.",
)
.default("1s");
const RETRY_BUDGET: Setting = Setting::new(
    "LLM_RETRY_BUDGET",
    "percent",
    "How many attempts beyond the first this process may make, in percent of its requests; without such a budget, \
     retries multiply the load of a provider in trouble.",
)
.default("20");
const RETRY_RESERVE: Setting = Setting::new(
    "LLM_RETRY_RESERVE",
    "attempts",
    "Attempts beyond the first that are always saved up, so that a process with little traffic may retry too.",
)
.default("20");
const BREAKER_FAILURES: Setting = Setting::new(
    "LLM_BREAKER_FAILURES",
    "failures",
    "Failures in a row after which a deployment is left alone. Refused requests and filtered content do not count.",
)
.default("5");
const BREAKER_PAUSE: Setting = Setting::new(
    "LLM_BREAKER_PAUSE",
    "time",
    "How long a deployment is left alone before one request probes it; doubles up to eight times while probes fail.",
)
.default("15s");
const QUOTA_WAIT: Setting = Setting::new(
    "LLM_QUOTA_WAIT",
    "time",
    "Longest wait for a deployment's own tokens_per_minute and requests_per_minute, where no other deployment of the \
     alias is free; beyond it the request is refused with 429.",
)
.default("20s");
const QUOTA_SHARE: Setting = Setting::new(
    "LLM_QUOTA_SHARE",
    "percent, 1 to 100",
    "How much of each deployment's tokens_per_minute and requests_per_minute this process takes where it cannot tell \
     others what it takes: without REDIS_URL, or while Redis is away. For three instances without Redis: 33.",
)
.default("100");
const EVENT_MAX_BYTES: Setting = Setting::new(
    "LLM_EVENT_MAX_BYTES",
    "bytes",
    "Longest single event of a provider's stream, and longest error body read.",
)
.default("4194304");
const EMBEDDINGS_MAX_BYTES: Setting =
    Setting::new("LLM_EMBEDDINGS_MAX_BYTES", "bytes", "Longest answer of an embeddings request.")
        .default("67108864");
const DEMO_TOKENS_PER_SECOND: Setting = Setting::new(
    "LLM_DEMO_TOKENS_PER_SECOND",
    "tokens per second",
    "How fast the demo model speaks; 0 is at once.",
)
.default("40");

pub(super) const SETTINGS: &[Setting] = &[
    KEY,
    CONNECT_TIMEOUT,
    OPEN_DEADLINE,
    RETRIES,
    RETRY_BASE,
    RETRY_BUDGET,
    RETRY_RESERVE,
    BREAKER_FAILURES,
    BREAKER_PAUSE,
    QUOTA_WAIT,
    QUOTA_SHARE,
    EVENT_MAX_BYTES,
    EMBEDDINGS_MAX_BYTES,
    DEMO_TOKENS_PER_SECOND,
];

const PREFIX: &str = "LLM_";
const SUFFIX: &str = "_API_KEY";

/// Keys by deployment.
#[derive(Clone, Debug, Default)]
pub struct ModelKeys(BTreeMap<String, SecretString>);

impl ModelKeys {
    pub fn read(reader: &Reader<'_>) -> Self {
        let mut keys = BTreeMap::new();
        for variable in reader.environment().names() {
            let Some(middle) = variable.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX))
            else {
                continue;
            };
            if let Some(text) = reader.named(&variable).filter(|_| !middle.is_empty()) {
                if !text.bytes().all(|b| b.is_ascii_graphic()) {
                    reader.mistake(&variable, "expected printable ASCII without spaces");
                }
                keys.insert(middle.to_owned(), text.into());
            }
        }
        Self(keys)
    }

    /// The variable of the deployment called `name`.
    pub fn variable(name: &str) -> String {
        format!("{PREFIX}{}{SUFFIX}", suffix_of(name))
    }

    /// The key of the deployment called `name`.
    pub fn of(&self, name: &str) -> Option<&SecretString> {
        self.0.get(&suffix_of(name))
    }

    /// Variables that no deployment of `app` has use for: likely a misspelt name, worth a warning.
    pub fn unused(&self, app: &AppConfig) -> Vec<String> {
        let known: Vec<String> = app.deployments.keys().map(|name| suffix_of(name)).collect();
        let stray = self.0.keys().filter(|name| !known.contains(name));
        stray.map(|name| format!("{PREFIX}{name}{SUFFIX}")).collect()
    }
}

/// What the router needs beyond `colloquy.toml`.
#[derive(Clone, Debug)]
pub struct LlmConfig {
    pub keys: ModelKeys,
    pub connect_timeout: Duration,
    pub open_deadline: Duration,
    pub retries: u32,
    pub retry_base: Duration,
    pub retry_budget_percent: u32,
    pub retry_reserve: u32,
    pub breaker_failures: u32,
    pub breaker_pause: Duration,
    pub quota_wait: Duration,
    pub quota_share: u32,
    pub event_max_bytes: usize,
    pub embeddings_max_bytes: usize,
    pub demo_tokens_per_second: u32,
}

impl LlmConfig {
    pub fn read(reader: &Reader<'_>) -> Self {
        let bytes =
            |setting, most| usize::try_from(reader.number(setting, 1_024, most)).unwrap_or(usize::MAX);
        Self {
            keys: ModelKeys::read(reader),
            connect_timeout: reader.positive_duration(&CONNECT_TIMEOUT),
            open_deadline: reader.positive_duration(&OPEN_DEADLINE),
            retries: reader.number_u32(&RETRIES, 0, 10),
            retry_base: reader.positive_duration(&RETRY_BASE),
            retry_budget_percent: reader.number_u32(&RETRY_BUDGET, 0, 1_000),
            retry_reserve: reader.number_u32(&RETRY_RESERVE, 0, 100_000),
            breaker_failures: reader.number_u32(&BREAKER_FAILURES, 1, 1_000),
            breaker_pause: reader.positive_duration(&BREAKER_PAUSE),
            quota_wait: reader.duration(&QUOTA_WAIT),
            quota_share: reader.number_u32(&QUOTA_SHARE, 1, 100),
            event_max_bytes: bytes(&EVENT_MAX_BYTES, 1 << 30),
            embeddings_max_bytes: bytes(&EMBEDDINGS_MAX_BYTES, 1 << 32),
            demo_tokens_per_second: reader.number_u32(&DEMO_TOKENS_PER_SECOND, 0, 1_000_000),
        }
    }
}

impl Default for LlmConfig {
    /// What an empty environment gives.
    fn default() -> Self {
        Self::read(&Reader::new(&BTreeMap::new()))
    }
}
