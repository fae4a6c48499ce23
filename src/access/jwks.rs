//! The signing keys of token issuers: fetched when first needed, kept, fetched anew for an unknown key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::telemetry::metrics::{self, System};

/// Issuers roll their keys over weeks; a day-old set is good unless a token names another key.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// Anyone can name a key that does not exist.
const MIN_AGE: Duration = Duration::from_secs(60);
/// After a failure callers get what there is, instead of each waiting for the next one.
const RETRY_AFTER: Duration = Duration::from_secs(15);
const MAX_BYTES: usize = 1024 * 1024;

/// The JSON is not a set of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key document holds no usable signing key (RSA, or EC on P-256)")]
pub struct KeySetError;

/// An issuer's signing keys.
#[derive(Clone)]
pub struct KeySet {
    keys: HashMap<String, (Algorithm, DecodingKey)>,
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeySet").field("keys", &self.keys.len()).finish()
    }
}

impl KeySet {
    /// Reads a JWKS document. Keys of other types and uses are passed over.
    pub fn parse(json: &[u8]) -> Result<Self, KeySetError> {
        #[derive(Deserialize)]
        struct Document<'a> {
            #[serde(borrow)]
            keys: Vec<&'a RawValue>,
        }
        let document: Document<'_> = serde_json::from_slice(json).map_err(|_| KeySetError)?;
        let usable = |raw: &RawValue| {
            let jwk: Jwk = serde_json::from_str(raw.get()).ok()?;
            let signs = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
            let algorithm = match &jwk.algorithm {
                AlgorithmParameters::RSA(_) => Algorithm::RS256,
                AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => Algorithm::ES256,
                _ => return None,
            };
            let key = DecodingKey::from_jwk(&jwk).ok()?;
            signs.then_some((jwk.common.key_id?, (algorithm, key)))
        };
        let keys: HashMap<_, _> = document.keys.into_iter().filter_map(usable).collect();
        if keys.is_empty() { Err(KeySetError) } else { Ok(Self { keys }) }
    }

    /// The key of this id, if it signs with this algorithm: a token does not choose what its key is used for.
    pub fn key(&self, id: &str, algorithm: Algorithm) -> Option<&DecodingKey> {
        self.keys.get(id).filter(|(of, _)| *of == algorithm).map(|(_, key)| key)
    }
}

/// The keys could not be fetched, and there are none from before.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(Arc<str>);

#[derive(Default)]
struct Entry {
    keys: Option<(Arc<KeySet>, Instant)>,
    failed: Option<(FetchError, Instant)>,
}

type Slot = Arc<tokio::sync::Mutex<Entry>>;

/// Key sets by where they are: the address of a JWKS document, or of an issuer whose discovery document names it.
pub struct JwksCache {
    timeout: Duration,
    client: OnceLock<reqwest::Client>,
    slots: Mutex<HashMap<String, Slot>>,
}

impl JwksCache {
    /// `timeout`: of one fetch.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, client: OnceLock::new(), slots: Mutex::default() }
    }

    /// The keys at an address, at most a day old; older ones serve on while the address cannot be reached.
    pub async fn get(&self, url: &str) -> Result<Arc<KeySet>, FetchError> {
        self.no_older_than(url, None, MAX_AGE).await
    }

    /// The keys anew, unless they were fetched a moment ago.
    pub async fn refetch(&self, url: &str) -> Result<Arc<KeySet>, FetchError> {
        self.no_older_than(url, None, MIN_AGE).await
    }

    /// The same for an issuer: `url`, or what its discovery document says.
    pub(super) async fn of_issuer(
        &self,
        issuer: &str,
        url: Option<&str>,
        anew: bool,
    ) -> Result<Arc<KeySet>, FetchError> {
        let age = if anew { MIN_AGE } else { MAX_AGE };
        match url {
            Some(url) => self.no_older_than(url, None, age).await,
            None => self.no_older_than(issuer, Some(issuer), age).await,
        }
    }

    async fn no_older_than(
        &self,
        name: &str,
        issuer: Option<&str>,
        age: Duration,
    ) -> Result<Arc<KeySet>, FetchError> {
        let slot = self
            .slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(name.to_owned())
            .or_default()
            .clone();
        // Held over the fetch: callers that wait get what the first one fetched.
        let mut entry = slot.lock().await;
        if let Some((keys, fetched)) = &entry.keys
            && fetched.elapsed() < age
        {
            return Ok(keys.clone());
        }
        let stale = entry.keys.as_ref().map(|(keys, _)| keys.clone());
        if let Some((error, at)) = &entry.failed
            && at.elapsed() < RETRY_AFTER
        {
            return stale.ok_or_else(|| error.clone());
        }
        let fetched = async {
            let url = match issuer {
                Some(issuer) => &self.discover(issuer).await?,
                None => name,
            };
            let bytes = self.fetch(url).await?;
            KeySet::parse(&bytes).map_err(|error| error.to_string())
        };
        match fetched.await {
            Ok(keys) => {
                let keys = Arc::new(keys);
                (entry.keys, entry.failed) = (Some((keys.clone(), Instant::now())), None);
                metrics::external(System::SigningKeys, name, None);
                Ok(keys)
            }
            Err(error) => {
                tracing::error!(
                    code = "jwks_unavailable",
                    address = name,
                    error,
                    "the keys that sign tokens could not be fetched; check outbound network access"
                );
                metrics::external(System::SigningKeys, name, Some("jwks_unavailable"));
                let error = FetchError(error.into());
                entry.failed = Some((error.clone(), Instant::now()));
                stale.ok_or(error)
            }
        }
    }

    /// OpenID Connect Discovery 1.0, section 4.
    async fn discover(&self, issuer: &str) -> Result<String, String> {
        #[derive(Deserialize)]
        struct Discovery {
            issuer: String,
            jwks_uri: String,
        }
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let bytes = self.fetch(&url).await?;
        let found: Discovery =
            serde_json::from_slice(&bytes).map_err(|_| "the discovery document cannot be read".to_owned())?;
        if found.issuer != issuer {
            return Err("the discovery document is another issuer's".to_owned());
        }
        Ok(found.jwks_uri)
    }

    async fn fetch(&self, url: &str) -> Result<Vec<u8>, String> {
        let client = match self.client.get() {
            Some(client) => client,
            None => {
                let client = reqwest::Client::builder()
                    .timeout(self.timeout)
                    .build()
                    .map_err(|error| error.to_string())?;
                self.client.get_or_init(|| client)
            }
        };
        let response = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
        let mut response = response.map_err(|error| error.to_string())?;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| error.to_string())? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_BYTES {
                return Err(format!("more than {MAX_BYTES} bytes"));
            }
        }
        Ok(bytes)
    }
}
