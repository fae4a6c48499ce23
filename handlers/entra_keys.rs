//! The signing keys of Microsoft Entra tenants: fetched when first needed, kept, fetched anew for an unknown key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use colloquy::webhooks::KeySet;

/// Entra rolls its keys over weeks; a day-old set is good unless a token names another key.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// Anyone can name a key that does not exist.
const MIN_AGE: Duration = Duration::from_secs(60);
/// After a failed fetch the next one waits so long; senders come back after 10 s and more.
const FAILED_FOR: Duration = Duration::from_secs(10);
/// A delivery waits for it, within what `INGRESS_TIMEOUT` leaves.
const PATIENCE: Duration = Duration::from_secs(3);
const MAX_BYTES: usize = 1024 * 1024;

/// Key sets by their address.
pub struct EntraKeys {
    patience: Duration,
    client: OnceLock<reqwest::Client>,
    sets: Mutex<HashMap<String, Known>>,
}

/// What is known of one address.
#[derive(Clone, Default)]
struct Known {
    keys: Option<(Arc<KeySet>, Instant)>,
    /// When the latest fetch began that brought nothing, or has not yet.
    tried: Option<Instant>,
    /// Held by whoever fetches.
    fetching: Arc<tokio::sync::Mutex<()>>,
}

impl Known {
    fn younger_than(&self, age: Duration) -> Option<Arc<KeySet>> {
        self.keys.as_ref().filter(|(_, fetched)| fetched.elapsed() < age).map(|(keys, _)| keys.clone())
    }

    fn any(&self) -> Option<Arc<KeySet>> {
        self.keys.as_ref().map(|(keys, _)| keys.clone())
    }
}

impl EntraKeys {
    pub fn new(timeout: Duration) -> Self {
        Self { patience: timeout.min(PATIENCE), client: OnceLock::new(), sets: Mutex::default() }
    }

    /// The keys at an address, at most a day old; older ones serve on while they are fetched anew, and while the
    /// address cannot be reached.
    pub async fn get(&self, url: &str) -> anyhow::Result<Arc<KeySet>> {
        let known = self.known(url);
        if let Some(keys) = known.younger_than(MAX_AGE) {
            return Ok(keys);
        }
        match (known.fetching.try_lock(), known.any()) {
            (Ok(turn), _) => self.fetch_unless_failed(url, turn).await,
            (Err(_), Some(old)) => Ok(old),
            (Err(_), None) => self.fetch_in_turn(url, &known, MAX_AGE).await,
        }
    }

    /// The keys anew, unless they were fetched a moment ago.
    pub async fn refetch(&self, url: &str) -> anyhow::Result<Arc<KeySet>> {
        let known = self.known(url);
        match known.younger_than(MIN_AGE) {
            Some(keys) => Ok(keys),
            None => self.fetch_in_turn(url, &known, MIN_AGE).await,
        }
    }

    /// Waits for a fetch that is under way; whoever waited takes what it brought, or learns that it failed.
    async fn fetch_in_turn(&self, url: &str, known: &Known, age: Duration) -> anyhow::Result<Arc<KeySet>> {
        let turn = known.fetching.lock().await;
        match self.known(url).younger_than(age) {
            Some(keys) => Ok(keys),
            None => self.fetch_unless_failed(url, turn).await,
        }
    }

    async fn fetch_unless_failed(
        &self,
        url: &str,
        _turn: tokio::sync::MutexGuard<'_, ()>,
    ) -> anyhow::Result<Arc<KeySet>> {
        let known = self.known(url);
        if known.tried.is_some_and(|at| at.elapsed() < FAILED_FOR) {
            return known.any().ok_or_else(|| anyhow!("they could not be fetched a moment ago"));
        }
        // Before the fetch: one that is cut, since its sender's time is up, is a failure too.
        self.sets().entry(url.to_owned()).or_default().tried = Some(Instant::now());
        match self.fetch(url).await {
            Ok(keys) => {
                let keys = Arc::new(keys);
                let mut sets = self.sets();
                let entry = sets.entry(url.to_owned()).or_default();
                entry.keys = Some((keys.clone(), Instant::now()));
                entry.tried = None;
                Ok(keys)
            }
            Err(error) => {
                tracing::error!(
                    code = "entra_keys_unavailable",
                    error = format!("{error:#}"),
                    "the keys that sign Entra tokens could not be fetched; check outbound network access"
                );
                // Counted from its end: it may have taken long.
                self.sets().entry(url.to_owned()).or_default().tried = Some(Instant::now());
                known.any().ok_or(error)
            }
        }
    }

    fn known(&self, url: &str) -> Known {
        self.sets().entry(url.to_owned()).or_default().clone()
    }

    /// Never held over an await.
    fn sets(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self, url: &str) -> anyhow::Result<KeySet> {
        let client = match self.client.get() {
            Some(client) => client,
            None => {
                let client = reqwest::Client::builder().timeout(self.patience).build()?;
                self.client.get_or_init(|| client)
            }
        };
        let response = client.get(url).send().await?.error_for_status()?;
        let bytes = response.bytes().await?;
        anyhow::ensure!(bytes.len() <= MAX_BYTES, "more than {MAX_BYTES} bytes");
        KeySet::parse(&bytes).context("not a JSON Web Key Set")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SET: &str =
        r#"{"keys":[{"kty":"RSA","use":"sig","kid":"one","n":"u1SU1LfVLPHCozMxH2Mo","e":"AQAB"}]}"#;

    fn keys(patience: Duration) -> EntraKeys {
        let keys = EntraKeys::new(patience);
        // Made before any time is taken: it reads the system's certificate authorities.
        keys.client.set(reqwest::Client::builder().timeout(patience).no_proxy().build().unwrap()).unwrap();
        keys
    }

    /// An address that gives a set of keys as long as it is `up`, and hangs otherwise.
    #[expect(clippy::disallowed_methods, reason = "a server that ends with its test")]
    async fn address(up: Arc<Mutex<bool>>) -> (String, Arc<AtomicUsize>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut connection, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                if *up.lock().unwrap() {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        request.push(connection.read_u8().await.unwrap());
                    }
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{SET}",
                        SET.len()
                    );
                    connection.write_all(answer.as_bytes()).await.unwrap();
                } else {
                    open.push(connection);
                }
            }
        });
        (url, asked)
    }

    fn age(keys: &EntraKeys, url: &str, by: Duration) {
        let mut sets = keys.sets();
        let known = sets.get_mut(url).unwrap();
        let (set, fetched) = known.keys.clone().unwrap();
        known.keys = Some((set, fetched.checked_sub(by).unwrap()));
    }

    #[tokio::test]
    async fn an_address_that_hangs_costs_one_wait_and_its_failure_is_remembered() {
        let (url, asked) = address(Arc::new(Mutex::new(false))).await;
        let keys = keys(Duration::from_millis(300));
        let start = Instant::now();
        let answers = join_all((0..20).map(|_| keys.get(&url))).await;
        assert!(answers.iter().all(Result::is_err));
        assert!(keys.get(&url).await.is_err() && keys.refetch(&url).await.is_err());
        assert!(start.elapsed() < Duration::from_millis(900), "{:?}: one after the other", start.elapsed());
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_fetch_that_is_cut_is_a_failure_too() {
        let (url, asked) = address(Arc::new(Mutex::new(false))).await;
        let keys = keys(Duration::from_secs(60));
        let cut = tokio::time::timeout(Duration::from_millis(100), keys.get(&url)).await;
        assert!(cut.is_err());
        assert!(keys.get(&url).await.is_err(), "at once");
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn old_keys_serve_on_while_new_ones_cannot_be_fetched() {
        let up = Arc::new(Mutex::new(true));
        let (url, asked) = address(up.clone()).await;
        let keys = keys(Duration::from_millis(300));
        let first = join_all((0..20).map(|_| keys.get(&url))).await;
        assert!(first.iter().all(Result::is_ok));
        assert_eq!(asked.load(Ordering::SeqCst), 1, "fetched once for all");
        keys.refetch(&url).await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 1, "a moment ago is new enough");

        *up.lock().unwrap() = false;
        age(&keys, &url, MIN_AGE * 2);
        let start = Instant::now();
        // Anyone may name a key that does not exist.
        let unknown = join_all((0..20).map(|_| keys.refetch(&url)));
        let known = async {
            let start = Instant::now();
            assert!(keys.get(&url).await.is_ok());
            assert!(start.elapsed() < Duration::from_millis(200), "good keys wait for nobody");
        };
        let (unknown, ()) = tokio::join!(unknown, known);
        assert!(unknown.iter().all(Result::is_ok), "with the old ones");
        assert!(start.elapsed() < Duration::from_millis(900), "{:?}: one after the other", start.elapsed());
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }
}
