//! Who may call: API keys from the setting and from the database, JWTs of configured issuers; and how much.
//!
//! A key is 256 random bits behind `clq_`. Only its SHA-256 is kept; at that entropy a salt adds nothing. Keys from
//! the setting (`AUTH_API_KEYS`) work with the database down. [`Access`] is what the server asks.

mod authenticator;
mod bucket;
pub mod issuing;
mod jwks;
pub(crate) mod jwt;
mod limits;
pub mod owners;
mod principal;
mod stored_keys;

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::config::{AccessConfig, ApiKeyConfig, KeyLimits, Scope};

pub use authenticator::Access;
pub use jwks::{JwksCache, KeySet, KeySetError};
pub use jwt::TokenError;
pub use limits::{Admitted, Limited, RateLimits};
pub use principal::Principal;

/// What every key begins with, so that scanners and people recognise one.
pub const KEY_PREFIX: &str = "clq_";

/// The code of a caller who asked for another owner's conversation or response, and was told that there is none.
pub const OWNER_CROSSED: &str = "access.owner_crossed";

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
    pub limits: KeyLimits,
    pub expires_at: Option<Timestamp>,
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
    #[error("the token is not accepted: {0}")]
    Token(TokenError),
    #[error(
        "whether the key is valid cannot be known: the database, or the token's issuer, cannot be reached"
    )]
    Unavailable,
}

impl AccessError {
    /// The stable code by which logs and alerts know this failure.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "access.key_missing",
            Self::Unknown => "access.key_unknown",
            Self::Expired { .. } => "access.key_expired",
            Self::Forbidden { .. } => "access.scope_missing",
            Self::Token(error) => error.code(),
            Self::Unavailable => "access.unavailable",
        }
    }

    /// 401; 403 where the caller is known; 503 where nobody can tell.
    pub fn status(&self) -> http::StatusCode {
        match self {
            Self::Missing | Self::Unknown | Self::Expired { .. } | Self::Token(_) => {
                http::StatusCode::UNAUTHORIZED
            }
            Self::Forbidden { .. } => http::StatusCode::FORBIDDEN,
            Self::Unavailable => http::StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What the caller is told: not which keys exist, nor what they are called.
    pub fn public_message(&self) -> &'static str {
        match self {
            Self::Missing => "An API key is required: Authorization: Bearer <key>, or x-api-key.",
            Self::Unknown => "The API key is not valid.",
            Self::Expired { .. } => "The API key has expired.",
            Self::Forbidden { .. } => "The API key does not permit this.",
            Self::Token(_) => "The token is not valid here.",
            Self::Unavailable => "The API key cannot be checked at the moment. Please retry.",
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

    /// Identifies the caller of a request by its headers.
    pub fn identify(&self, headers: &HeaderMap, now: Timestamp) -> Result<Caller, AccessError> {
        self.verify(presented(headers).ok_or(AccessError::Missing)?, now)
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
                limits: known.limits.clone(),
                expires_at: known.expires_at,
            }),
        }
    }
}

/// The key a request presents: `Authorization: Bearer`, else `x-api-key`, else `api-key` (as Azure's clients send).
pub fn presented(headers: &HeaderMap) -> Option<&str> {
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

impl Scope {
    /// The scope that is written so.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Operator].into_iter().find(|scope| scope.to_string() == text)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Operator => "operator",
        })
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::*;

    fn key(name: &str, secret: &str, scopes: &[Scope], expires_at: Option<Timestamp>) -> ApiKeyConfig {
        ApiKeyConfig {
            name: name.into(),
            sha256: hash_key(secret),
            scopes: scopes.to_vec(),
            owner: "team".into(),
            expires_at,
            limits: Default::default(),
        }
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn a_key_is_taken_from_each_header_that_clients_use() {
        let keys = ApiKeys::new(&AccessConfig {
            api_keys: vec![key("other", "clq_b", &[], None), key("mine", "clq_a", &[Scope::Operator], None)],
            ..AccessConfig::default()
        });
        let now = Timestamp::now();
        for (name, value) in [
            ("authorization", "Bearer clq_a"),
            ("authorization", "bearer  clq_a"),
            ("x-api-key", "clq_a"),
            ("api-key", " clq_a"),
        ] {
            let caller = keys.authorize(&headers(name, value), Scope::Operator, now).unwrap();
            assert_eq!((caller.key.as_str(), caller.owner.as_str()), ("mine", "team"), "{name}: {value}");
        }
        let refused = |name, value| keys.authorize(&headers(name, value), Scope::Operator, now).unwrap_err();
        assert_eq!(refused("authorization", "Basic clq_a"), AccessError::Missing);
        assert_eq!(refused("x-api-key", ""), AccessError::Missing);
        assert_eq!(refused("x-api-key", "clq_c"), AccessError::Unknown);
        assert_eq!(refused("x-api-key", "clq_b").status(), http::StatusCode::FORBIDDEN);
    }

    #[test]
    fn keys_overlap_and_expire() {
        let now = Timestamp::now();
        let later = now + SignedDuration::from_secs(60);
        let keys = ApiKeys::new(&AccessConfig {
            api_keys: vec![key("old", "clq_old", &[], Some(later)), key("new", "clq_new", &[], None)],
            ..AccessConfig::default()
        });
        assert!(keys.verify("clq_old", now).is_ok() && keys.verify("clq_new", now).is_ok());
        let expired = keys.verify("clq_old", later).unwrap_err();
        assert_eq!(expired, AccessError::Expired { key: "old".into(), at: later });
        assert!(!expired.public_message().contains("old"), "the caller is not told the key's name");
        assert!(keys.verify("clq_new", later).is_ok());
    }

    #[test]
    fn without_keys_nobody_passes() {
        let keys = ApiKeys::default();
        assert!(keys.is_empty());
        assert_eq!(keys.verify("", Timestamp::now()), Err(AccessError::Unknown));
        assert_eq!(
            keys.authorize(&HeaderMap::new(), Scope::Operator, Timestamp::now()),
            Err(AccessError::Missing)
        );
    }

    #[test]
    fn a_generated_key_is_long_distinct_and_matches_its_hash() {
        let first = generate_key();
        let text = first.expose_secret();
        assert!(text.starts_with(KEY_PREFIX) && text.len() == KEY_PREFIX.len() + 43, "{}", text.len());
        assert_ne!(text, generate_key().expose_secret());
        let json = format!(
            r#"{{"name": "n", "sha256": "{}", "scopes": ["operator"], "owner": "o"}}"#,
            hash_key_hex(&first)
        );
        let config: ApiKeyConfig = serde_json::from_str(&json).unwrap();
        let keys = ApiKeys::new(&AccessConfig { api_keys: vec![config], ..AccessConfig::default() });
        assert_eq!(keys.verify(text, Timestamp::now()).map(|caller| caller.key), Ok("n".to_owned()));
        assert_eq!(
            hash_key_hex(&SecretString::from("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
