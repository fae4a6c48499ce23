//! API keys that work without the database.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use super::reader::{Reader, Setting};

const API_KEYS: Setting = Setting::new(
    "AUTH_API_KEYS",
    "JSON list",
    "API keys: [{\"name\", \"sha256\" (64 hex digits), \"scopes\" ([\"operator\"]), \"owner\", \"expires_at\"? \
     (RFC 3339), \"limits\"?}]. Several may be valid at once, so that a key can be rotated. A key's hash is no secret, \
     but who has keys is.",
)
.secret();

pub(super) const SETTINGS: &[Setting] = &[API_KEYS];

/// What a key's holder may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// May see `/health/status` and `/health/metrics`.
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
    /// Limits by name; what reads them says which there are.
    #[serde(default)]
    pub limits: BTreeMap<String, u64>,
}

/// Who may call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessConfig {
    pub api_keys: Vec<ApiKeyConfig>,
}

impl AccessConfig {
    pub(super) fn read(reader: &Reader<'_>) -> Self {
        let Some(text) = reader.text(&API_KEYS) else { return Self::default() };
        let entries: Vec<serde_json::Value> = match serde_json::from_str(&text) {
            Ok(entries) => entries,
            Err(error) => {
                reader.mistake(
                    API_KEYS.name,
                    format!(
                        "expected a JSON list of keys; it breaks at line {}, column {}",
                        error.line(),
                        error.column()
                    ),
                );
                return Self::default();
            }
        };
        let mut api_keys: Vec<ApiKeyConfig> = Vec::new();
        for (position, entry) in entries.into_iter().enumerate() {
            match serde_path_to_error::deserialize::<_, ApiKeyConfig>(entry) {
                Ok(key) if api_keys.iter().any(|other| other.name == key.name) => {
                    reader.mistake(
                        API_KEYS.name,
                        format!("entry {position}: its name is taken by an entry before it"),
                    );
                }
                Ok(key) => api_keys.push(key),
                // serde quotes the value it refuses, and a key pasted instead of its hash is a secret.
                Err(error) => reader.mistake(
                    API_KEYS.name,
                    format!("entry {position}: {} is not as expected{}", error.path(), hint(error.inner())),
                ),
            }
        }
        Self { api_keys }
    }
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
