//! Who may call: API keys.
//!
//! A key is 256 random bits behind `clq_`. Only its SHA-256 is configured (`AUTH_API_KEYS`); at that entropy a salt
//! adds nothing. Keys from the setting work with the database down.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::config::{AccessConfig, ApiKeyConfig, Scope};

/// What every key begins with, so that scanners and people recognise one.
pub const KEY_PREFIX: &str = "clq_";

/// The keys in force.
#[derive(Clone, Debug, Default)]
pub struct ApiKeys(Vec<ApiKeyConfig>);

/// Whom a key identified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The key's name, for logs.
    pub key: String,
    /// On whose behalf the key acts.
    pub owner: String,
    pub scopes: Vec<Scope>,
}

/// Why a caller was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    #[error("no API key was presented")]
    Missing,
    #[error("the API key is not known")]
    Unknown,
    #[error("the API key {key} expired at {at}; issue another and put its hash into AUTH_API_KEYS")]
    Expired { key: String, at: Timestamp },
    #[error("the API key {key} lacks the scope {scope}; add it in AUTH_API_KEYS")]
    Forbidden { key: String, scope: Scope },
}

impl AccessError {
    /// The stable code by which logs and alerts know this failure.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "access.key_missing",
            Self::Unknown => "access.key_unknown",
            Self::Expired { .. } => "access.key_expired",
            Self::Forbidden { .. } => "access.scope_missing",
        }
    }

    /// 401, or 403 where the caller is known.
    pub fn status(&self) -> http::StatusCode {
        match self {
            Self::Missing | Self::Unknown | Self::Expired { .. } => http::StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } => http::StatusCode::FORBIDDEN,
        }
    }

    /// What the caller is told: not which keys exist, nor what they are called.
    pub fn public_message(&self) -> &'static str {
        match self {
            Self::Missing => "An API key is required: Authorization: Bearer <key>, or x-api-key.",
            Self::Unknown => "The API key is not valid.",
            Self::Expired { .. } => "The API key has expired.",
            Self::Forbidden { .. } => "The API key does not permit this.",
        }
    }
}

impl ApiKeys {
    pub fn new(config: &AccessConfig) -> Self {
        Self(config.api_keys.clone())
    }

    /// Whether there are none, in which case nobody can pass.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Identifies the caller of a request by its headers, and checks that it has `scope`.
    pub fn authorize(
        &self,
        headers: &HeaderMap,
        scope: Scope,
        now: Timestamp,
    ) -> Result<Caller, AccessError> {
        let caller = self.verify(presented(headers).ok_or(AccessError::Missing)?, now)?;
        if caller.scopes.contains(&scope) {
            Ok(caller)
        } else {
            Err(AccessError::Forbidden { key: caller.key, scope })
        }
    }

    /// Identifies the holder of `key`. Takes as long for a wrong key as for any right one.
    pub fn verify(&self, key: &str, now: Timestamp) -> Result<Caller, AccessError> {
        let hash = hash_key(key);
        let none = u64::MAX;
        let mut found = none;
        for (position, known) in (0_u64..).zip(&self.0) {
            let equal: Choice = known.sha256.ct_eq(&hash);
            found.conditional_assign(&position, equal);
        }
        let known = usize::try_from(found).ok().and_then(|position| self.0.get(position));
        let known = known.ok_or(AccessError::Unknown)?;
        match known.expires_at {
            Some(at) if at <= now => Err(AccessError::Expired { key: known.name.clone(), at }),
            _ => Ok(Caller {
                key: known.name.clone(),
                owner: known.owner.clone(),
                scopes: known.scopes.clone(),
            }),
        }
    }
}

/// The key a request presents: `Authorization: Bearer`, else `x-api-key`, else `api-key` (as Azure's clients send).
fn presented(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let named = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    bearer.or_else(|| named("x-api-key")).or_else(|| named("api-key")).filter(|key| !key.is_empty())
}

/// A new key: `clq_` and 256 random bits in base64url. Shown once, never stored.
pub fn generate_key() -> SecretString {
    let bits: [u8; 32] = rand::random();
    SecretString::from(format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(bits)))
}

/// SHA-256 of a key's text.
pub fn hash_key(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// The hash as `AUTH_API_KEYS` holds it: 64 hex digits.
pub fn hash_key_hex(key: &SecretString) -> String {
    hash_key(key.expose_secret()).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Operator => "operator",
        })
    }
}
