//! How a new connection proves who it is.
//!
//! In `entra` mode the password of the PostgreSQL login is an access token, asked for per connection. Caching,
//! refresh before expiry and single flight belong to whoever implements [`TokenProvider`] (`azure`, the only
//! place with credentials).

use std::future::Future;
use std::pin::Pin;

use secrecy::SecretString;

/// The scope of tokens that Azure Database for PostgreSQL accepts as passwords.
/// (learn.microsoft.com: PostgreSQL flexible server, "Connect with managed identity".)
pub const ENTRA_SCOPE: &str = "https://ossrdbms-aad.database.windows.net/.default";

/// Hands out access tokens for [`ENTRA_SCOPE`].
///
/// Called once per new connection and expected to answer from a cache nearly always.
pub trait TokenProvider: Send + Sync + 'static {
    /// A token that is valid now and for the time of a login.
    fn token(&self) -> Pin<Box<dyn Future<Output = Result<SecretString, TokenError>> + Send + '_>>;
}

/// Why there is no token. The text reaches logs: it must hold no secret.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct TokenError(pub String);
