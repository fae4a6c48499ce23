//! Making one connection: token if needed, TLS if needed, a limit on the whole of it.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use deadpool_postgres::{ConfigConnectImpl, Connect};
use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::auth::{TokenError, TokenProvider};
use super::settings::SettingsError;
use super::tls;

/// Shared by the pool and by migrations. Connects to nothing until asked.
pub(super) struct Connector {
    tokens: Option<Arc<dyn TokenProvider>>,
    ca_file: Option<PathBuf>,
    tls: OnceLock<Result<MakeRustlsConnect, SettingsError>>,
    limit: Duration,
}

impl Connector {
    pub fn new(tokens: Option<Arc<dyn TokenProvider>>, ca_file: Option<PathBuf>, limit: Duration) -> Self {
        Self { tokens, ca_file, tls: OnceLock::new(), limit }
    }

    fn tls(&self) -> Result<MakeRustlsConnect, SettingsError> {
        self.tls.get_or_init(|| tls::connector(self.ca_file.as_deref())).clone()
    }

    fn needs_tls(config: &Config) -> bool {
        config.get_ssl_mode() == tokio_postgres::config::SslMode::Require
    }

    async fn open(&self, mut config: Config) -> Result<(Client, JoinHandle<()>), Error> {
        if let Some(tokens) = &self.tokens {
            match tokens.token().await {
                Ok(token) => config.password(token.expose_secret()),
                Err(error) => return Err(foreign_error(error).await),
            };
        }
        if !Self::needs_tls(&config) {
            return ConfigConnectImpl { tls: NoTls }.connect(&config).await;
        }
        match self.tls() {
            Ok(tls) => ConfigConnectImpl { tls }.connect(&config).await,
            Err(error) => Err(foreign_error(error).await),
        }
    }
}

impl Connect for Connector {
    fn connect(
        &self,
        config: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + '_>> {
        let config = config.clone();
        Box::pin(async move {
            match tokio::time::timeout(self.limit, self.open(config)).await {
                Ok(result) => result,
                Err(_) => Err(foreign_error(TimedOut(self.limit)).await),
            }
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no connection within {0:?} (DB_CONNECT_TIMEOUT)")]
struct TimedOut(Duration);

/// Carries an error of ours through deadpool, which knows only `tokio_postgres::Error`. That type cannot be made
/// from outside, except by failing the I/O of a connection.
async fn foreign_error(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    let mut config = Config::new();
    config.user("nobody").ssl_mode(tokio_postgres::config::SslMode::Disable);
    let stream = FailingStream(Some(io::Error::other(error)));
    match config.connect_raw(stream, NoTls).await {
        Err(error) => error,
        // The stream never answers anything but its error.
        Ok(_) => Error::__private_api_timeout(),
    }
}

struct FailingStream(Option<io::Error>);

impl FailingStream {
    fn fail<T>(&mut self) -> Poll<io::Result<T>> {
        Poll::Ready(Err(self.0.take().unwrap_or_else(|| io::ErrorKind::NotConnected.into())))
    }
}

impl AsyncRead for FailingStream {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.fail()
    }
}

impl AsyncWrite for FailingStream {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        self.fail()
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fail()
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Stands in for a missing provider, so that the mistake is named rather than a login without password tried.
pub(super) struct NoTokens;

impl TokenProvider for NoTokens {
    fn token(&self) -> Pin<Box<dyn Future<Output = Result<secrecy::SecretString, TokenError>> + Send + '_>> {
        Box::pin(async {
            Err(TokenError("DB_AUTH_MODE=entra, but this process has no credential".to_owned()))
        })
    }
}
