//! Our tokens in the SDK's terms, so that storage and PostgreSQL share one implementation.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::error::{Error, ErrorKind};
use azure_core::time::OffsetDateTime;
use secrecy::ExposeSecret as _;

use super::{TokenError, TokenSource};

pub(super) struct SdkCredential(pub(super) TokenSource);

impl fmt::Debug for SdkCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl SdkCredential {
    async fn access_token(&self, scopes: &[&str]) -> azure_core::Result<AccessToken> {
        let [scope] = scopes else {
            return Err(Error::new(ErrorKind::Credential, TokenError::opaque()));
        };
        let token = self.0.token(scope).await.map_err(|error| Error::new(ErrorKind::Credential, error))?;
        let expires = OffsetDateTime::from_unix_timestamp(token.expires_at.as_second())
            .map_err(|_| Error::new(ErrorKind::Credential, TokenError::opaque()))?;
        Ok(AccessToken::new(token.secret.expose_secret().to_owned(), expires))
    }
}

// What `#[async_trait]` writes, by hand, to do without the dependency.
impl TokenCredential for SdkCredential {
    fn get_token<'credential, 'scopes, 'scope, 'options, 'call>(
        &'credential self,
        scopes: &'scopes [&'scope str],
        _options: Option<TokenRequestOptions<'options>>,
    ) -> Pin<Box<dyn Future<Output = azure_core::Result<AccessToken>> + Send + 'call>>
    where
        'credential: 'call,
        'scopes: 'call,
        'scope: 'call,
        'options: 'call,
        Self: 'call,
    {
        Box::pin(self.access_token(scopes))
    }
}
