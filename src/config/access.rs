//! Who may call: API keys that work without the database, issuers of tokens, limits of those who have none of their own.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use url::Url;

use super::app::{AppConfig, TargetConfig};
use super::host::AppEnvironment;
use super::mistake::Mistake;
use super::reader::{Reader, Setting};
use super::values;

const API_KEYS: Setting = Setting::new(
    "AUTH_API_KEYS",
    "JSON list",
    "API keys: [{\"name\", \"sha256\" (64 hex digits), \"scopes\" ([\"operator\"]), \"owner\", \"expires_at\"? \
     (RFC 3339), \"limits\"? (requests_per_minute, tokens_per_minute, concurrent_turns, budget_micros_per_day, \
     callback, callback_targets)}]. Several may be valid at once, so that a key can be rotated. A key without scopes may use /v1 for its owner. A key's hash \
     is no secret, but who has keys is.",
)
.secret();
const JWT_ISSUERS: Setting = Setting::new(
    "AUTH_JWT_ISSUERS",
    "JSON list",
    "Issuers whose tokens are taken: [{\"issuer\" (as in `iss`), \"audience\" (one or a list), \
     \"authorized_parties\"? (list, for `azp` or `appid`), \"jwks_url\"? (default: by discovery), \"operator_role\"? \
     (a value of `roles` that makes an operator), \"limits\"? (as a key's)}]. The owner is the issuer with `tid` and \
     `oid` (Microsoft Entra) or with `sub`.",
);
const REQUESTS: Setting = Setting::new(
    "RATE_REQUESTS_PER_MINUTE",
    "requests, 0 is no limit",
    "Requests a minute that ask a model (responses, their compaction, chat completions, embeddings), of a key, or of an \
     owner with a token, that has no limit of its own; all instances together. Others do not count.",
)
.default("0");
const TOKENS: Setting = Setting::new(
    "RATE_TOKENS_PER_MINUTE",
    "tokens, 0 is no limit",
    "The same for the tokens of these requests, input and output, with those of summaries.",
)
.default("0");
const TURNS: Setting = Setting::new(
    "RATE_CONCURRENT_TURNS",
    "turns, 0 is no limit",
    "Turns at once of a key, or of an owner with a token, that has no limit of its own; all instances together.",
)
.default("0");
const KEY_CACHE: Setting = Setting::new(
    "API_KEY_CACHE",
    "time",
    "How long a key made at run time is remembered. A revoked one works on for so long.",
)
.default("30s");

const KEY_OVERLAP: Setting = Setting::new(
    "API_KEY_OVERLAP",
    "time",
    "How long a key made at run time goes on after it was rotated, unless the rotation says otherwise.",
)
.default("24h");

pub(super) const SETTINGS: &[Setting] =
    &[API_KEYS, JWT_ISSUERS, REQUESTS, TOKENS, TURNS, KEY_CACHE, KEY_OVERLAP];

/// What a key's holder may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// May see `/health/status`, `/health/metrics` and everybody's usage, and may use `/admin`.
    Operator,
}

/// One API key as configured: its hash, never itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyConfig {
    /// Names the key in logs.
    pub name: String,
    /// SHA-256 of the key's text.
    #[serde(deserialize_with = "sha256_hex")]
    pub sha256: [u8; 32],
    pub scopes: Vec<Scope>,
    /// On whose behalf the key acts.
    pub owner: String,
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    #[serde(default)]
    pub limits: KeyLimits,
}

/// Limits of one key, and whom it may have told. Absent: the default. Zero: none of that kind is let through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyLimits {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent_turns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_micros_per_day: Option<u64>,
    /// Who is told of the end of a background response that names nobody: a target, or a URL that one covers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callback: Option<String>,
    /// Targets that its background responses may name, beside those whose `keys` or `owners` say so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub callback_targets: Vec<String>,
}

impl KeyLimits {
    /// What is named as receiver of callbacks and is none of `targets`: by which field, and what is to be said of it. Of a
    /// URL not what it is: it may hold a secret.
    pub fn unknown_callbacks<'a>(
        &'a self,
        targets: &'a BTreeMap<String, TargetConfig>,
    ) -> impl Iterator<Item = (&'static str, String)> + 'a {
        let default = self.callback.iter().map(|callback| ("callback", callback));
        let named = default.chain(self.callback_targets.iter().map(|target| ("callback_targets", target)));
        named.filter_map(|(field, named)| {
            if field == "callback" && named.contains("://") {
                let covered =
                    Url::parse(named).is_ok_and(|url| targets.values().any(|target| target.covers(&url)));
                let problem = "names a callback URL that no target of colloquy.toml covers";
                return (!covered).then(|| (field, problem.to_owned()));
            }
            let problem = || format!("names the callback target {named:?}, which colloquy.toml has not");
            (!targets.contains_key(named)).then(|| (field, problem()))
        })
    }
}

/// An issuer of JWTs whose callers are let in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtIssuerConfig {
    /// As in the tokens' `iss`.
    pub issuer: String,
    /// What `aud` must be or contain.
    pub audience: OneOrMany,
    /// Whom `azp` (or `appid`) must name; empty: anybody.
    #[serde(default)]
    pub authorized_parties: Vec<String>,
    /// Where the signing keys are; default: where the issuer's discovery document says.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// A value of `roles` that makes an operator.
    #[serde(default)]
    pub operator_role: Option<String>,
    #[serde(default)]
    pub limits: KeyLimits,
}

/// A text, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    /// Whether `text` is among them.
    pub fn contains(&self, text: &str) -> bool {
        match self {
            Self::One(one) => one == text,
            Self::Many(all) => all.iter().any(|one| one == text),
        }
    }
}

/// Limits of whoever has none of their own; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateDefaults {
    pub requests_per_minute: u64,
    pub tokens_per_minute: u64,
    pub concurrent_turns: u64,
}

/// Who may call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessConfig {
    pub api_keys: Vec<ApiKeyConfig>,
    pub jwt_issuers: Vec<JwtIssuerConfig>,
    pub rates: RateDefaults,
    /// How long a key from the database is remembered.
    pub key_cache: Duration,
    /// How long a key goes on after it was rotated.
    pub key_overlap: Duration,
}

impl AccessConfig {
    pub(super) fn read(reader: &Reader<'_>, app: AppEnvironment) -> Self {
        let mut api_keys: Vec<ApiKeyConfig> = Vec::new();
        for (position, key) in entries::<ApiKeyConfig>(reader, &API_KEYS) {
            if api_keys.iter().any(|other| other.name == key.name) {
                let problem = format!("entry {position}: its name is taken by an entry before it");
                reader.mistake(API_KEYS.name, problem);
            } else {
                api_keys.push(key);
            }
        }
        let mut jwt_issuers: Vec<JwtIssuerConfig> = Vec::new();
        for (position, issuer) in entries::<JwtIssuerConfig>(reader, &JWT_ISSUERS) {
            let secure = |text: &str| {
                values::http_url(text).is_some_and(|url| url.scheme() == "https" || app.is_dev())
            };
            if !secure(&issuer.issuer) || issuer.jwks_url.as_deref().is_some_and(|url| !secure(url)) {
                let problem = format!("entry {position}: issuer and jwks_url are https URLs");
                reader.mistake(JWT_ISSUERS.name, problem);
            } else if issuer.audience == OneOrMany::Many(Vec::new()) || issuer.audience.contains("") {
                reader.mistake(JWT_ISSUERS.name, format!("entry {position}: audience must not be empty"));
            } else if jwt_issuers.iter().any(|other| other.issuer == issuer.issuer) {
                reader.mistake(JWT_ISSUERS.name, format!("entry {position}: the issuer stands there twice"));
            } else {
                jwt_issuers.push(issuer);
            }
        }
        let rates = RateDefaults {
            requests_per_minute: reader.number(&REQUESTS, 0, 1_000_000_000),
            tokens_per_minute: reader.number(&TOKENS, 0, 1_000_000_000_000),
            concurrent_turns: reader.number(&TURNS, 0, 1_000_000),
        };
        Self {
            api_keys,
            jwt_issuers,
            rates,
            key_cache: reader.positive_duration(&KEY_CACHE),
            key_overlap: reader.duration(&KEY_OVERLAP),
        }
    }
}

impl AccessConfig {
    /// Targets and URLs of callbacks that keys or issuers name and that `app` does not have.
    pub(super) fn unknown_targets(&self, app: &AppConfig) -> Vec<Mistake> {
        let keys = self.api_keys.iter().map(|key| (API_KEYS.name, &key.name, &key.limits));
        let issuers =
            self.jwt_issuers.iter().map(|issuer| (JWT_ISSUERS.name, &issuer.issuer, &issuer.limits));
        let named = keys.chain(issuers).flat_map(|(setting, entry, limits)| {
            limits.unknown_callbacks(&app.targets).map(move |(_, problem)| (setting, entry, problem))
        });
        named
            .map(|(setting, entry, problem)| Mistake::new(setting, format!("entry {entry:?} {problem}")))
            .collect()
    }
}

/// The entries of a JSON list that are as expected, with their positions.
fn entries<T: DeserializeOwned>(reader: &Reader<'_>, setting: &Setting) -> Vec<(usize, T)> {
    let Some(text) = reader.text(setting) else { return Vec::new() };
    let list: Vec<serde_json::Value> = match serde_json::from_str(&text) {
        Ok(list) => list,
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            let problem = format!("expected a JSON list; it breaks at line {line}, column {column}");
            reader.mistake(setting.name, problem);
            return Vec::new();
        }
    };
    let read = |(position, entry)| match serde_path_to_error::deserialize::<_, T>(entry) {
        Ok(read) => Some((position, read)),
        // serde quotes the value it refuses, and a key pasted instead of its hash is a secret.
        Err(error) => {
            let (path, hint) = (error.path().to_string(), hint(error.inner()));
            reader.mistake(setting.name, format!("entry {position}: {path} is not as expected{hint}"));
            None
        }
    };
    list.into_iter().enumerate().filter_map(read).collect()
}

fn hint(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let telling = ["missing field", "unknown field"].iter().any(|start| text.starts_with(start));
    if telling { format!(" ({text})") } else { String::new() }
}

fn sha256_hex<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    from_hex(&text).ok_or_else(|| serde::de::Error::custom("expected 64 hex digits"))
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(bytes)
}
