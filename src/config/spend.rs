//! How a process spends, and how it talks to the others.

use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use super::host::AppEnvironment;
use super::reader::{Reader, Setting};

const WITHOUT_DATABASE: Setting = Setting::new(
    "SPEND_WITHOUT_DATABASE",
    "refuse, allow",
    "What happens to a turn when the database is away and the budget this process holds is spent.",
)
.default("refuse");
const LEASE: Setting = Setting::new(
    "SPEND_LEASE",
    "time",
    "How long a process may spend what it holds of the budgets without reaching the database. What a crashed process \
     held returns after it.",
)
.default("10m");
const HEARTBEAT: Setting = Setting::new(
    "SPEND_HEARTBEAT",
    "time",
    "How often a process reports what it spent, and looks whether others need what it holds.",
)
.default("2s");
const PATIENCE: Setting =
    Setting::new("SPEND_PATIENCE", "time", "How long a turn waits for its budget to be drawn.")
        .default("10s");
const SLICE: Setting = Setting::new(
    "SPEND_SLICE_PERCENT",
    "percent, 1 to 50",
    "How much of a budget a process draws at once while there is plenty.",
)
.default("2");
const ANSWER: Setting = Setting::new(
    "SPEND_ANSWER_PERCENT",
    "percent, 1 to 100",
    "How much of any budget is set aside for one answer whose length its caller did not limit: 4096 tokens' worth in any \
     case, the model's longest answer at most. Where that is less than the longest, it is the answer's limit.",
)
.default("5");
const BUFFER: Setting = Setting::new(
    "USAGE_BUFFER",
    "rows",
    "Usage rows kept in memory while neither the database nor the queue takes them.",
)
.default("10000");
const SPOOL_AFTER: Setting = Setting::new(
    "USAGE_SPOOL_AFTER",
    "time",
    "How long usage waits for the database before it goes to the queue QUEUE_USAGE.",
)
.default("10s");
const REDIS_URL: Setting = Setting::new(
    "REDIS_URL",
    "rediss://host:port",
    "What instances share while it is live. Unset: in memory, which is right for one instance.",
)
.secret();
const REDIS_AUTH: Setting = Setting::new(
    "REDIS_AUTH_MODE",
    "password, entra",
    "How to log in: with what stands in REDIS_URL, or with a Microsoft Entra token. Unset: password in dev, else entra.",
);
const REDIS_USER: Setting = Setting::new(
    "REDIS_USERNAME",
    "object id",
    "The identity's object (principal) id, which is the user's name with REDIS_AUTH_MODE=entra.",
)
.required_when("REDIS_URL is set and REDIS_AUTH_MODE=entra");

pub(super) const SETTINGS: &[Setting] = &[
    WITHOUT_DATABASE,
    LEASE,
    HEARTBEAT,
    PATIENCE,
    SLICE,
    ANSWER,
    BUFFER,
    SPOOL_AFTER,
    REDIS_URL,
    REDIS_AUTH,
    REDIS_USER,
];

/// How a process spends. Plain data; [`crate::wiring::spend_settings`] turns it into what spending takes.
#[derive(Clone, Debug)]
pub struct SpendConfig {
    /// Whether turns go on without a budget in hand while the database is away.
    pub allow_without_database: bool,
    pub lease: Duration,
    pub heartbeat: Duration,
    pub patience: Duration,
    pub slice_percent: u32,
    pub answer_percent: u32,
    pub buffer: u64,
    pub spool_after: Duration,
}

impl SpendConfig {
    pub(super) fn read(reader: &Reader<'_>) -> Self {
        Self {
            allow_without_database: reader
                .word(&WITHOUT_DATABASE, &[("refuse", false), ("allow", true)])
                .unwrap_or_default(),
            lease: reader.positive_duration(&LEASE),
            heartbeat: reader.positive_duration(&HEARTBEAT),
            patience: reader.positive_duration(&PATIENCE),
            slice_percent: reader.number_u32(&SLICE, 1, 50),
            answer_percent: reader.number_u32(&ANSWER, 1, 100),
            buffer: reader.number(&BUFFER, 100, 10_000_000),
            spool_after: reader.positive_duration(&SPOOL_AFTER),
        }
    }
}

/// How to log in to Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisAuth {
    /// As the address says.
    Password,
    /// As this user, with a Microsoft Entra token as the password.
    Entra { username: String },
}

/// How Redis is reached.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// Secret because it may hold a password.
    pub url: SecretString,
    pub auth: RedisAuth,
}

impl RedisConfig {
    pub(super) fn read(reader: &Reader<'_>, app: AppEnvironment) -> Option<Self> {
        let words = [("password", false), ("entra", true)];
        let entra = reader.word(&REDIS_AUTH, &words).unwrap_or(!app.is_dev());
        let username = reader.text(&REDIS_USER);
        let url = reader.optional(&REDIS_URL, "an address like rediss://host:10000", |text| {
            let url = Url::parse(text).ok()?;
            (matches!(url.scheme(), "redis" | "rediss") && url.has_host()).then_some(url)
        })?;
        let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if url.scheme() == "redis" && !local && !app.is_dev() {
            reader
                .mistake(REDIS_URL.name, format!("plain redis:// is refused with APP_ENV={}", app.as_str()));
        }
        if entra && url.password().is_some() {
            reader.mistake(REDIS_URL.name, "holds a password although REDIS_AUTH_MODE is entra; remove it");
        }
        let auth = match (entra, username) {
            (false, _) => RedisAuth::Password,
            (true, Some(username)) => RedisAuth::Entra { username },
            (true, None) => {
                reader.mistake(REDIS_USER.name, "is not set; expected the identity's object id");
                RedisAuth::Password
            }
        };
        Some(Self { url: SecretString::from(url.to_string()), auth })
    }
}
