//! The signing keys of Microsoft Entra tenants: fetched when first needed, kept, fetched anew for an unknown key.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use colloquy::webhooks::KeySet;
use tokio::sync::Mutex;

/// Entra rolls its keys over weeks; a day-old set is good unless a token names another key.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// Anyone can name a key that does not exist.
const MIN_AGE: Duration = Duration::from_secs(60);
const MAX_BYTES: usize = 1024 * 1024;

/// Key sets by their address.
pub struct EntraKeys {
    timeout: Duration,
    client: OnceLock<reqwest::Client>,
    sets: Mutex<HashMap<String, (Arc<KeySet>, Instant)>>,
}

impl EntraKeys {
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, client: OnceLock::new(), sets: Mutex::default() }
    }

    /// The keys at an address, at most a day old; older ones serve on while the address cannot be reached.
    pub async fn get(&self, url: &str) -> anyhow::Result<Arc<KeySet>> {
        self.no_older_than(url, MAX_AGE).await
    }

    /// The keys anew, unless they were fetched a moment ago.
    pub async fn refetch(&self, url: &str) -> anyhow::Result<Arc<KeySet>> {
        self.no_older_than(url, MIN_AGE).await
    }

    async fn no_older_than(&self, url: &str, age: Duration) -> anyhow::Result<Arc<KeySet>> {
        // Held over the fetch: callers that wait get what the first one fetched.
        let mut sets = self.sets.lock().await;
        let known = sets.get(url);
        if let Some((keys, fetched)) = known
            && fetched.elapsed() < age
        {
            return Ok(keys.clone());
        }
        match self.fetch(url).await {
            Ok(keys) => {
                let keys = Arc::new(keys);
                sets.insert(url.to_owned(), (keys.clone(), Instant::now()));
                Ok(keys)
            }
            Err(error) => {
                tracing::error!(
                    code = "entra_keys_unavailable",
                    error = format!("{error:#}"),
                    "the keys that sign Entra tokens could not be fetched; check outbound network access"
                );
                known.map(|(keys, _)| keys.clone()).ok_or(error)
            }
        }
    }

    async fn fetch(&self, url: &str) -> anyhow::Result<KeySet> {
        let client = match self.client.get() {
            Some(client) => client,
            None => {
                let client = reqwest::Client::builder().timeout(self.timeout).build()?;
                self.client.get_or_init(|| client)
            }
        };
        let response = client.get(url).send().await?.error_for_status()?;
        let bytes = response.bytes().await?;
        anyhow::ensure!(bytes.len() <= MAX_BYTES, "more than {MAX_BYTES} bytes");
        KeySet::parse(&bytes).context("not a JSON Web Key Set")
    }
}
