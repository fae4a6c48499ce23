//! Keys from the database, remembered for a short time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{AccessError, Principal};
use crate::database::{Database, DatabaseError, api_keys};

/// A hash that no key has is remembered for so long: a key works soon after it was made, and guessing asks the
/// database rarely.
const UNKNOWN_FOR: Duration = Duration::from_secs(3);
/// Beyond so many hashes the remembered unknown ones are forgotten first.
const MOST: usize = 10_000;
/// How long a caller waits for the database to say whose key it is.
const PATIENCE: Duration = Duration::from_secs(3);

type Hash = [u8; 32];

/// What is known of a hash.
#[derive(Clone)]
struct Known {
    principal: Option<Arc<Principal>>,
    at: Instant,
}

pub(super) struct StoredKeys {
    database: Database,
    remember: Duration,
    known: Mutex<HashMap<Hash, Known>>,
    /// One question at a time for a hash: what the first one learns, the others find.
    asking: Mutex<HashMap<Hash, Arc<tokio::sync::Mutex<()>>>>,
}

impl StoredKeys {
    pub fn new(database: Database, remember: Duration) -> Self {
        Self { database, remember, known: Mutex::default(), asking: Mutex::default() }
    }

    pub async fn verify(&self, hash: &Hash, now: Timestamp) -> Result<Arc<Principal>, AccessError> {
        let known = match self.remembered(hash, false) {
            Some(known) => known,
            None => self.ask(hash).await?,
        };
        let principal = known.principal.ok_or(AccessError::Unknown)?;
        match principal.expires_at {
            Some(at) if at <= now => Err(AccessError::Expired { key: principal.key.clone(), at }),
            _ => Ok(principal),
        }
    }

    fn remembered(&self, hash: &Hash, stale_too: bool) -> Option<Known> {
        let known = self.lock();
        let found = known.get(hash)?;
        let fresh = if found.principal.is_some() { self.remember } else { UNKNOWN_FOR };
        (stale_too || found.at.elapsed() < fresh).then(|| found.clone())
    }

    async fn ask(&self, hash: &Hash) -> Result<Known, AccessError> {
        let turn =
            self.asking.lock().unwrap_or_else(PoisonError::into_inner).entry(*hash).or_default().clone();
        let answer = {
            let _first = turn.lock().await;
            match self.remembered(hash, false) {
                Some(known) => Ok(known),
                None => self.look_up(hash).await,
            }
        };
        self.asking.lock().unwrap_or_else(PoisonError::into_inner).remove(hash);
        answer
    }

    async fn look_up(&self, hash: &Hash) -> Result<Known, AccessError> {
        let asked = async {
            let client = self.database.client().await?;
            api_keys::find(&client, hash).await
        };
        let found = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return self.without_database(hash, Some(&error)),
            Err(_) => return self.without_database(hash, None),
        };
        let principal = found.filter(|key| key.revoked_at.is_none()).map(|key| {
            Arc::new(Principal {
                owner: key.owner,
                key: key.id.to_string(),
                scopes: key.scopes,
                limits: key.limits,
                is_token: false,
                expires_at: key.expires_at,
            })
        });
        let known = Known { principal, at: Instant::now() };
        let mut all = self.lock();
        if all.len() >= MOST {
            all.retain(|_, known| known.principal.is_some() && known.at.elapsed() < self.remember);
        }
        all.insert(*hash, known.clone());
        Ok(known)
    }

    /// A key that was good when it was last asked for stays good while nobody can be asked. One that was never seen
    /// here cannot be told from a wrong one.
    fn without_database(&self, hash: &Hash, error: Option<&DatabaseError>) -> Result<Known, AccessError> {
        tracing::warn!(
            code = error.map_or("database_timeout", DatabaseError::code),
            "whether an API key is valid cannot be asked; keys seen before and those of AUTH_API_KEYS work on"
        );
        self.remembered(hash, true).filter(|known| known.principal.is_some()).ok_or(AccessError::Unavailable)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Hash, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
