//! Entra tokens: for the storage account, and as the password of PostgreSQL.

mod credential;
mod managed_identity;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use azure_core::credentials::TokenCredential;
use azure_core::time::OffsetDateTime;
use azure_identity::DeveloperToolsCredential;
use futures_util::future::{BoxFuture, FutureExt as _, Shared, WeakShared};
use jiff::Timestamp;
use secrecy::SecretString;
use tokio::sync::OnceCell;

use self::credential::SdkCredential;
pub use self::managed_identity::ManagedIdentity;
use super::transport::LazyClient;

/// A token is replaced this long before it expires: longer than any call that carries it takes.
const REFRESH_BEFORE_EXPIRY: Duration = Duration::from_secs(120);
/// After an attempt to replace a token that still holds, that token serves for this long without another
/// attempt, so that an identity endpoint in trouble does not slow every call down.
const PAUSE_BETWEEN_REFRESHES: Duration = Duration::from_secs(10);
/// Longest wait for the replacement of a token that still holds.
const EARLY_REFRESH_TIMEOUT: Duration = Duration::from_secs(2);

/// Who asks for tokens. Chosen by setting, never by trying one after the other.
#[derive(Clone, Debug)]
pub enum Credential {
    /// The app's managed identity.
    ManagedIdentity(ManagedIdentity),
    /// The developer signed in with the Azure CLI (`az login`) or the Azure Developer CLI (`azd auth login`).
    Developer,
}

/// An access token.
#[derive(Clone, Debug)]
pub struct Token {
    /// The token itself. Send it over TLS only; log it never.
    pub secret: SecretString,
    pub expires_at: Timestamp,
}

/// Why there is no token. Holds nothing secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No connection to the identity endpoint, or one that broke.
    #[error(
        "the managed identity endpoint cannot be reached ({reason}); \
         check that the app has an identity, or set AZURE_CREDENTIAL=developer on a developer's machine"
    )]
    Unreachable { reason: String },
    /// No token within the time allowed.
    #[error(
        "no token within {after:?}; the identity service is slow or the machine overloaded, it will be asked again"
    )]
    Timeout { after: Duration },
    /// The identity endpoint answered with an error.
    #[error("the managed identity endpoint answered {status}; {advice}")]
    Refused { status: u16, advice: &'static str },
    /// The identity endpoint answered something that is not a token.
    #[error("the answer of the managed identity endpoint cannot be read: {problem}")]
    Malformed { problem: &'static str },
    /// The developer's tools gave no token.
    #[error("no token from the Azure CLI or the Azure Developer CLI; run `az login` or `azd auth login`")]
    Developer,
    /// The SDK gave up before asking us.
    #[error("the storage client could not obtain a token; check AZURE_CREDENTIAL and AZURE_CLIENT_ID")]
    Client,
}

impl TokenError {
    /// Stable name of the kind of failure.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "token_unreachable",
            Self::Timeout { .. } => "token_timeout",
            Self::Refused { .. } => "token_refused",
            Self::Malformed { .. } => "token_malformed",
            Self::Developer => "token_developer",
            Self::Client => "token_client",
        }
    }

    pub(super) fn opaque() -> Self {
        Self::Client
    }
}

/// Tokens by scope: cached, replaced 120 s before they expire, asked for once however many wait.
///
/// * Callers that need the same token at the same time share one request and its outcome.
/// * A failure is told to those who waited for it and then forgotten: the next caller asks anew.
/// * While a token still holds, one caller at a time waits for its replacement, for 2 s at most, and the others
///   go on with it; if there is no replacement, so does that caller, and a warning is logged.
/// * Every wait is bounded, by [`Self::DEFAULT_TIMEOUT`] unless set otherwise.
///
/// Clones share the cache. Nothing is asked before the first call of [`Self::token`].
#[derive(Clone)]
pub struct TokenSource {
    shared: Arc<Source>,
    timeout: Duration,
}

struct Source {
    requests: Arc<Requests>,
    slots: Mutex<HashMap<String, Slot>>,
    clock: Clock,
}

/// The time of day; tests set their own.
type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What is known of one scope's token.
struct Slot {
    token: Option<Token>,
    refresh_at: Timestamp,
    /// Weak: once every waiter has gone, the request is dropped rather than left standing half way.
    pending: Option<WeakShared<Pending>>,
}

type Pending = BoxFuture<'static, Result<Token, TokenError>>;

impl TokenSource {
    /// Default of the longest wait for a token.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(8);

    /// A source of tokens for `credential`. Connects to nothing.
    pub fn new(credential: Credential) -> Self {
        Self::with_clock(credential, Arc::new(Timestamp::now))
    }

    fn with_clock(credential: Credential, clock: Clock) -> Self {
        let requests = Arc::new(Requests::new(credential));
        let shared = Source { requests, slots: Mutex::new(HashMap::new()), clock };
        Self { shared: Arc::new(shared), timeout: Self::DEFAULT_TIMEOUT }
    }

    /// The same tokens with another longest wait.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// A token for `scope`, such as `https://storage.azure.com/.default`, good for at least the next moments
    /// and normally for two minutes.
    pub async fn token(&self, scope: &str) -> Result<Token, TokenError> {
        let (pending, current) = match self.next_step(scope) {
            Step::Use(token) => return Ok(token),
            Step::Wait(pending, current) => (pending, current),
        };
        match (pending.await, current) {
            (Ok(token), _) => Ok(token),
            (Err(_), Some(current)) if (self.shared.clock)() < current.expires_at => Ok(current),
            (Err(error), _) => Err(error),
        }
    }

    /// These tokens as the SDK wants them.
    pub(super) fn credential(&self) -> Arc<dyn TokenCredential> {
        Arc::new(SdkCredential(self.clone()))
    }

    fn next_step(&self, scope: &str) -> Step {
        let now = (self.shared.clock)();
        let mut slots = self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.entry(scope.to_owned()).or_insert_with(Slot::empty);
        let current = slot.token.clone().filter(|token| now < token.expires_at);
        if let Some(token) = &current
            && now < slot.refresh_at
        {
            return Step::Use(token.clone());
        }
        if let Some(pending) = slot.pending.as_ref().and_then(WeakShared::upgrade)
            && pending.peek().is_none()
        {
            return Step::Wait(pending, current);
        }
        slot.refresh_at = now.saturating_add(PAUSE_BETWEEN_REFRESHES).unwrap_or(Timestamp::MAX);
        let limit = if current.is_some() { self.timeout.min(EARLY_REFRESH_TIMEOUT) } else { self.timeout };
        let pending = fetch(Arc::clone(&self.shared), scope.to_owned(), limit).boxed().shared();
        slot.pending = pending.downgrade();
        Step::Wait(pending, current)
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSource")
            .field("credential", &self.shared.requests.credential)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

enum Step {
    Use(Token),
    Wait(Shared<Pending>, Option<Token>),
}

impl Slot {
    fn empty() -> Self {
        Self { token: None, refresh_at: Timestamp::MIN, pending: None }
    }

    fn keep(&mut self, token: Token, now: Timestamp) {
        let pause_ends = now.saturating_add(PAUSE_BETWEEN_REFRESHES).unwrap_or(Timestamp::MAX);
        let wanted = token.expires_at.saturating_sub(REFRESH_BEFORE_EXPIRY).unwrap_or(now);
        self.refresh_at = wanted.max(pause_ends);
        self.token = Some(token);
    }

    /// A failure that no caller will see, because the present token still holds, is logged: here, once,
    /// however many wait. Any other reaches the callers, who log it.
    fn report(&self, error: &TokenError, now: Timestamp) {
        if let Some(token) = self.token.as_ref().filter(|token| now < token.expires_at) {
            tracing::warn!(
                error.code = error.code(),
                error = %error,
                token.expires_at = %token.expires_at,
                "an Entra token about to expire could not be replaced; it is used until then"
            );
        }
    }
}

/// Asks for a token and stores it.
async fn fetch(source: Arc<Source>, scope: String, limit: Duration) -> Result<Token, TokenError> {
    let outcome = match tokio::time::timeout(limit, source.requests.token(&scope)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(TokenError::Timeout { after: limit }),
    };
    let now = (source.clock)();
    let mut slots = source.slots.lock().unwrap_or_else(PoisonError::into_inner);
    let slot = slots.entry(scope).or_insert_with(Slot::empty);
    let token = match outcome {
        Ok(token) if token.expires_at <= now => Err(TokenError::Malformed {
            problem: "the token has expired already; check this machine's clock",
        }),
        outcome => outcome,
    };
    match &token {
        Ok(token) => slot.keep(token.clone(), now),
        Err(error) => slot.report(error, now),
    }
    token
}

/// Where tokens come from.
struct Requests {
    credential: Credential,
    client: LazyClient,
    developer: OnceCell<Arc<DeveloperToolsCredential>>,
}

impl Requests {
    fn new(credential: Credential) -> Self {
        let tls = matches!(&credential, Credential::ManagedIdentity(identity) if identity.endpoint.scheme() == "https");
        Self { credential, client: LazyClient::new(tls), developer: OnceCell::new() }
    }

    async fn token(&self, scope: &str) -> Result<Token, TokenError> {
        match &self.credential {
            Credential::ManagedIdentity(identity) => identity.token(&self.client, scope).await,
            Credential::Developer => self.developer_token(scope).await,
        }
    }

    async fn developer_token(&self, scope: &str) -> Result<Token, TokenError> {
        let tools = async { DeveloperToolsCredential::new(None).map_err(|_| TokenError::Developer) };
        let tools = self.developer.get_or_try_init(|| tools).await?;
        let token = tools.get_token(&[scope], None).await.map_err(|_| TokenError::Developer)?;
        Ok(Token { secret: SecretString::from(token.token.secret()), expires_at: expiry(token.expires_on) })
    }
}

fn expiry(time: OffsetDateTime) -> Timestamp {
    Timestamp::from_second(time.unix_timestamp()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
