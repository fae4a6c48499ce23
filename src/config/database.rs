//! How PostgreSQL is reached.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::host::AppEnvironment;
use super::reader::{Reader, Setting};

const URL: Setting = Setting::new(
    "DATABASE_URL",
    "postgres://user@host:port/database",
    "PostgreSQL through the pooler. TLS is required except to a loopback address.",
)
.secret()
.required_when("always");
const DIRECT_URL: Setting = Setting::new(
    "DATABASE_DIRECT_URL",
    "postgres://user@host:port/database",
    "PostgreSQL without the pooler; migrations, and only they, use it. Unset: DATABASE_URL, which must then be direct.",
)
.secret();
const AUTH_MODE: Setting = Setting::new(
    "DB_AUTH_MODE",
    "password, entra",
    "How to log in: with a password, or with a Microsoft Entra token. Unset: password in dev, else entra. \
     Staging and production refuse password.",
);
const PASSWORD: Setting = Setting::new(
    "DB_PASSWORD",
    "text",
    "Password, if it does not stand in DATABASE_URL. Used for both addresses.",
)
.secret()
.required_when("DB_AUTH_MODE=password and DATABASE_URL holds none and the server wants one");
const TRACK_USAGE: Setting = Setting::new(
    "DB_TRACK_USAGE",
    "true, false",
    "Whether the conversation server writes usage to the database; false keeps serving what does not need it. The \
     function handlers write none.",
)
.default("true");
const CA_FILE: Setting = Setting::new(
    "DB_CA_FILE",
    "path",
    "PEM file of certificate authorities to trust for PostgreSQL besides the system's.",
);
const POOL_SIZE: Setting = Setting::new(
    "DB_POOL_SIZE",
    "connections, 1 to 15",
    "Most connections one process holds. Processes times this must stay within the server's limit.",
)
.default("4");
const POOL_WAIT: Setting =
    Setting::new("DB_POOL_WAIT", "time", "How long a caller waits for a free connection.").default("30s");
const MAX_AGE: Setting =
    Setting::new("DB_CONNECTION_MAX_AGE", "time", "Age at which a connection is replaced.").default("30m");
const CONNECT_TIMEOUT: Setting =
    Setting::new("DB_CONNECT_TIMEOUT", "time", "How long opening one connection may take.").default("10s");
const STATEMENT_TIMEOUT: Setting =
    Setting::new("DB_STATEMENT_TIMEOUT", "time", "How long one statement may run, migrations excepted.")
        .default("20s");
const MIGRATE_WAIT: Setting =
    Setting::new("MIGRATE_WAIT", "time", "How long a migration run waits for another runner to finish.")
        .default("120s");
const LOCK_TIMEOUT: Setting = Setting::new(
    "MIGRATE_LOCK_TIMEOUT",
    "time",
    "How long a migration waits for a table's lock before it gives way to traffic and is tried again.",
)
.default("5s");
const CONCURRENT_LOCK_TIMEOUT: Setting = Setting::new(
    "MIGRATE_CONCURRENT_LOCK_TIMEOUT",
    "time",
    "The same for migrations outside a transaction (CREATE INDEX CONCURRENTLY), for which no traffic waits.",
)
.default("15m");

pub(super) const SETTINGS: &[Setting] = &[
    URL,
    DIRECT_URL,
    AUTH_MODE,
    PASSWORD,
    TRACK_USAGE,
    CA_FILE,
    POOL_SIZE,
    POOL_WAIT,
    MAX_AGE,
    CONNECT_TIMEOUT,
    STATEMENT_TIMEOUT,
    MIGRATE_WAIT,
    LOCK_TIMEOUT,
    CONCURRENT_LOCK_TIMEOUT,
];

/// How to log in to PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseAuth {
    Password,
    Entra,
}

/// How PostgreSQL is reached. Plain data: nothing here connects.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// Through the pooler. Secret because it may hold a password.
    pub url: SecretString,
    /// Past the pooler; `url` if unset.
    pub direct_url: SecretString,
    pub auth: DatabaseAuth,
    /// Overrides the password in the addresses.
    pub password: Option<SecretString>,
    /// PEM file of authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    pub track_usage: bool,
    pub pool_size: u32,
    /// How long a caller waits for a connection.
    pub pool_wait: Duration,
    /// Age at which a connection is replaced.
    pub max_age: Duration,
    pub connect_timeout: Duration,
    pub statement_timeout: Duration,
    /// How long a migration run waits for another runner.
    pub migrate_wait: Duration,
    /// How long a migration waits for a lock on a table.
    pub migrate_lock_timeout: Duration,
    /// The same for migrations outside a transaction.
    pub migrate_concurrent_lock_timeout: Duration,
}

impl DatabaseConfig {
    pub(super) fn read(reader: &Reader<'_>, app: AppEnvironment) -> Self {
        let expected = "an address like postgres://user@host:5432/database";
        let url = reader.required(&URL, expected, postgres_url);
        let direct_url = reader.optional(&DIRECT_URL, expected, postgres_url).unwrap_or_else(|| url.clone());
        let words = [("password", DatabaseAuth::Password), ("entra", DatabaseAuth::Entra)];
        let auth = match reader.word(&AUTH_MODE, &words) {
            Some(auth) => auth,
            None if app.is_dev() => DatabaseAuth::Password,
            None => DatabaseAuth::Entra,
        };
        let password = reader.secret(&PASSWORD);
        if !app.is_dev() && auth == DatabaseAuth::Password {
            reader.mistake(
                AUTH_MODE.name,
                format!("password is refused with APP_ENV={}; use entra", app.as_str()),
            );
        }
        if auth == DatabaseAuth::Entra {
            let named = [
                (URL.name, has_password(&url)),
                (DIRECT_URL.name, has_password(&direct_url) && direct_url != url),
            ];
            for (name, _) in named.into_iter().filter(|(_, has)| *has) {
                reader.mistake(name, "holds a password although DB_AUTH_MODE is entra; remove it");
            }
            if password.is_some() {
                reader.mistake(PASSWORD.name, "is set although DB_AUTH_MODE is entra; remove it");
            }
        }
        Self {
            url: url.into(),
            direct_url: direct_url.into(),
            auth,
            password,
            ca_file: reader.text(&CA_FILE).map(PathBuf::from),
            track_usage: reader.flag(&TRACK_USAGE),
            pool_size: reader.number_u32(&POOL_SIZE, 1, 15),
            pool_wait: reader.positive_duration(&POOL_WAIT),
            max_age: reader.positive_duration(&MAX_AGE),
            connect_timeout: reader.positive_duration(&CONNECT_TIMEOUT),
            statement_timeout: reader.positive_duration(&STATEMENT_TIMEOUT),
            migrate_wait: reader.positive_duration(&MIGRATE_WAIT),
            migrate_lock_timeout: reader.positive_duration(&LOCK_TIMEOUT),
            migrate_concurrent_lock_timeout: reader.positive_duration(&CONCURRENT_LOCK_TIMEOUT),
        }
    }

    /// Whether the pooled and the direct address are one.
    pub fn is_direct_only(&self) -> bool {
        self.url.expose_secret() == self.direct_url.expose_secret()
    }
}

fn postgres_url(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    matches!(url.scheme(), "postgres" | "postgresql").then(|| text.to_owned())
}

fn has_password(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| url.password().is_some())
}
