//! Who sent a request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::jwks::JwksCache;
use super::jwt::Issuers;
use super::stored_keys::StoredKeys;
use super::{AccessError, KEY_PREFIX, Principal, hash_key};
use crate::config::AccessConfig;
use crate::database::Database;

/// A verified token is taken on its hash for so long, within its own life: verifying a signature costs more than all
/// the rest of a small request.
const TOKEN_FOR: Duration = Duration::from_secs(60);
const MOST_TOKENS: usize = 10_000;

type Hash = [u8; 32];

/// Identifies callers: by keys of the setting, keys of the database, and tokens.
///
/// The common case is one SHA-256 and one look into a map. Looking a hash up takes no constant time, and need not: who
/// measures it learns about the hashes of keys, of which 256 random bits cannot be inferred, and to steer a key's hash
/// towards a known one is as hard as guessing the key.
pub struct Access {
    configured: HashMap<Hash, Arc<Principal>>,
    stored: Option<StoredKeys>,
    issuers: Issuers,
    jwks: Arc<JwksCache>,
    tokens: Mutex<HashMap<Hash, (Arc<Principal>, Instant)>>,
}

impl Access {
    /// `database`: where keys made at run time are; `None` knows only those of the setting. `jwks` may be shared.
    pub fn new(config: &AccessConfig, database: Option<Database>, jwks: Arc<JwksCache>) -> Self {
        let configured = config.api_keys.iter().map(|key| {
            let principal = Principal {
                owner: key.owner.clone(),
                key: key.name.clone(),
                scopes: key.scopes.clone(),
                limits: key.limits.clone(),
                is_token: false,
                expires_at: key.expires_at,
            };
            (key.sha256, Arc::new(principal))
        });
        Self {
            configured: configured.collect(),
            stored: database.map(|database| StoredKeys::new(database, config.key_cache)),
            issuers: Issuers::new(&config.jwt_issuers),
            jwks,
            tokens: Mutex::default(),
        }
    }

    /// Whose key or token it is, at an instant; [`presented`](super::presented) finds it in a request.
    ///
    /// # Errors
    /// [`AccessError`] says which status and code to answer with. [`AccessError::Unavailable`] where only the database
    /// or an issuer that cannot be reached could tell.
    pub async fn verify(&self, presented: &str, now: Timestamp) -> Result<Arc<Principal>, AccessError> {
        let hash = hash_key(presented);
        if let Some(principal) = self.configured.get(&hash) {
            return match principal.expires_at {
                Some(at) if at <= now => Err(AccessError::Expired { key: principal.key.clone(), at }),
                _ => Ok(principal.clone()),
            };
        }
        // A key of ours never has a dot in it, a JWT has two.
        if !presented.starts_with(KEY_PREFIX) && presented.split('.').count() == 3 && !self.issuers.is_empty()
        {
            return self.token(hash, presented, now).await;
        }
        match &self.stored {
            Some(stored) => stored.verify(&hash, now).await,
            None => Err(AccessError::Unknown),
        }
    }

    async fn token(&self, hash: Hash, token: &str, now: Timestamp) -> Result<Arc<Principal>, AccessError> {
        let known = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(&hash).cloned();
        if let Some((principal, verified)) = known
            && verified.elapsed() < TOKEN_FOR
            && principal.expires_at.is_none_or(|end| now < end)
        {
            return Ok(principal);
        }
        let principal = Arc::new(self.issuers.verify(token, &self.jwks, now).await?);
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= MOST_TOKENS {
            tokens.retain(|_, (_, verified)| verified.elapsed() < TOKEN_FOR);
        }
        if tokens.len() < MOST_TOKENS {
            tokens.insert(hash, (principal.clone(), Instant::now()));
        }
        Ok(principal)
    }
}
