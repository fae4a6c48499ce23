//! One configured model at one provider, with everything it shares among requests.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::Instant;
use url::Url;

use super::breaker::Breaker;
use super::error::{ErrorClass, LlmError};
use super::prices::Price;
use super::quota::Quota;
use crate::azure::TokenSource;
use crate::config::LlmConfig;
use crate::config::app::{DeploymentAuth, DeploymentConfig, ProviderKind};

/// The version of the Messages API that the adapter is written for.
const ANTHROPIC_VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");

#[derive(Debug)]
pub(crate) struct Deployment {
    pub name: Arc<str>,
    /// The provider's name for the model.
    pub model: Arc<str>,
    pub config: DeploymentConfig,
    pub price: Price,
    /// OpenTelemetry's `gen_ai.provider.name`.
    pub provider: &'static str,
    pub breaker: Arc<Breaker>,
    pub quota: Arc<Quota>,
    pub url: Option<Url>,
    pub embeddings_url: Option<Url>,
    key: Option<SecretString>,
    /// Azure takes a key in a header of its own.
    api_key_header: bool,
    /// Until when the provider asked us to stay away.
    away: Mutex<Option<Instant>>,
}

impl Deployment {
    /// An error names the key of `colloquy.toml` that is wrong.
    pub fn new(name: &str, config: &DeploymentConfig, llm: &LlmConfig) -> Result<Arc<Self>, String> {
        let model: Arc<str> = config.model.as_deref().unwrap_or(name).into();
        let base = match &config.url {
            Some(url) => Some(Url::parse(url).map_err(|error| format!("deployments.{name}.url: {error}"))?),
            None => None,
        };
        let azure = config.provider == ProviderKind::Azure || base.as_ref().is_some_and(is_azure);
        let at = |path: &str| base.as_ref().and_then(|base| address(base, config, &model, path));
        Ok(Arc::new(Self {
            provider: match config.provider {
                ProviderKind::Demo => "colloquy.demo",
                ProviderKind::Anthropic => "anthropic",
                _ if azure => "azure.ai.openai",
                _ => "openai",
            },
            url: match config.provider {
                ProviderKind::Azure | ProviderKind::Openai => at("chat/completions"),
                ProviderKind::Responses => at("responses"),
                ProviderKind::Anthropic => at("messages"),
                ProviderKind::Demo => None,
            },
            embeddings_url: match config.provider {
                ProviderKind::Azure | ProviderKind::Openai => at("embeddings"),
                _ => None,
            },
            key: llm.keys.of(name).filter(|_| config.auth() == DeploymentAuth::Key).cloned(),
            api_key_header: azure,
            price: config.price.into(),
            // The demo fails because somebody said so, which is no reason to leave it alone.
            breaker: match config.provider {
                ProviderKind::Demo => Breaker::new(name, u32::MAX, llm.breaker_pause),
                _ => Breaker::new(name, llm.breaker_failures, llm.breaker_pause),
            },
            quota: Quota::new(
                config.tokens_per_minute,
                config.requests_per_minute,
                f64::from(llm.quota_share) / 100.0,
            ),
            name: name.into(),
            model,
            config: config.clone(),
            away: Mutex::new(None),
        }))
    }

    /// Whether it answers embeddings requests.
    pub fn embeds(&self) -> bool {
        self.embeddings_url.is_some() || self.config.provider == ProviderKind::Demo
    }

    /// Who we are, in the header the provider reads.
    pub async fn headers(&self, tokens: Option<&TokenSource>) -> Result<HeaderMap, LlmError> {
        let auth_failed = || LlmError::new(ErrorClass::Auth);
        let mut headers = HeaderMap::new();
        let bearer = match self.config.auth() {
            DeploymentAuth::None => None,
            DeploymentAuth::Entra => {
                let tokens = tokens.ok_or_else(auth_failed)?;
                let token = tokens.token(&self.config.scope).await.map_err(|error| {
                    tracing::warn!(
                        code = "llm.token_failed", error.code = error.code(), error = %error, deployment = &*self.name,
                        "no Entra token for a model deployment"
                    );
                    auth_failed()
                })?;
                Some(token.secret)
            }
            DeploymentAuth::Key => {
                let key = self.key.as_ref().ok_or_else(auth_failed)?;
                let name = match self.config.provider {
                    ProviderKind::Anthropic => Some("x-api-key"),
                    _ if self.api_key_header => Some("api-key"),
                    _ => None,
                };
                match name {
                    Some(name) => {
                        headers.insert(HeaderName::from_static(name), secret(key.expose_secret())?);
                        None
                    }
                    None => Some(key.clone()),
                }
            }
        };
        if let Some(bearer) = bearer {
            headers.insert(AUTHORIZATION, secret(&format!("Bearer {}", bearer.expose_secret()))?);
        }
        if self.config.provider == ProviderKind::Anthropic {
            headers.insert("anthropic-version", ANTHROPIC_VERSION);
        }
        Ok(headers)
    }

    /// The provider asked us to stay away for so long.
    pub fn stay_away(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        *away = Some(away.map_or(until, |before| before.max(until)));
    }

    /// How long that still is.
    pub fn away(&self) -> Duration {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        let left = away.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            *away = None;
        }
        left
    }
}

fn secret(text: &str) -> Result<HeaderValue, LlmError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| LlmError::new(ErrorClass::Auth))?;
    value.set_sensitive(true);
    Ok(value)
}

fn is_azure(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    [".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com", ".azure-api.net"]
        .iter()
        .any(|suffix| host.ends_with(suffix))
}

/// Azure: `/openai/v1/…`, or with a version `/openai/deployments/{model}/…?api-version=`. The others: below the base.
fn address(base: &Url, config: &DeploymentConfig, model: &str, path: &str) -> Option<Url> {
    let mut url = base.clone();
    let dated = config.api_version.as_deref();
    {
        let mut segments = url.path_segments_mut().ok()?;
        segments.pop_if_empty();
        let has = |tail: &str| base.path().trim_end_matches('/').ends_with(tail);
        match (config.provider, dated) {
            (ProviderKind::Azure, Some(_)) => {
                if !has("/openai") {
                    segments.push("openai");
                }
                segments.extend(["deployments", model]);
            }
            (ProviderKind::Azure, None) if has("/openai/v1") => {}
            (ProviderKind::Azure, None) if has("/openai") => {
                segments.push("v1");
            }
            (ProviderKind::Azure, None) => {
                segments.extend(["openai", "v1"]);
            }
            (ProviderKind::Anthropic, _) if !has("/v1") => {
                segments.push("v1");
            }
            _ => {}
        }
        segments.extend(path.split('/'));
    }
    if let Some(version) = dated {
        url.query_pairs_mut().append_pair("api-version", version);
    }
    Some(url)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_are_what_each_provider_documents() {
        for (provider, url, version, wanted) in [
            (
                "azure",
                "https://r.openai.azure.com",
                None,
                "https://r.openai.azure.com/openai/v1/chat/completions",
            ),
            (
                "azure",
                "https://r.openai.azure.com/openai/v1/",
                None,
                "https://r.openai.azure.com/openai/v1/chat/completions",
            ),
            (
                "azure",
                "https://r.openai.azure.com/",
                Some("2024-10-21"),
                "https://r.openai.azure.com/openai/deployments/m%2Fx/chat/completions?api-version=2024-10-21",
            ),
            ("openai", "https://api.openai.com/v1", None, "https://api.openai.com/v1/chat/completions"),
            ("openai", "http://127.0.0.1:4000/v1/", None, "http://127.0.0.1:4000/v1/chat/completions"),
            (
                "responses",
                "https://r.openai.azure.com/openai/v1",
                None,
                "https://r.openai.azure.com/openai/v1/responses",
            ),
            (
                "responses",
                "https://r.openai.azure.com/openai",
                Some("preview"),
                "https://r.openai.azure.com/openai/responses?api-version=preview",
            ),
            ("anthropic", "https://api.anthropic.com", None, "https://api.anthropic.com/v1/messages"),
            ("anthropic", "https://api.anthropic.com/v1", None, "https://api.anthropic.com/v1/messages"),
        ] {
            let config = json!({"provider": provider, "url": url, "model": "m/x", "api_version": version});
            let config: DeploymentConfig = serde_json::from_value(config).unwrap();
            let deployment = Deployment::new("d", &config, &LlmConfig::default()).unwrap();
            assert_eq!(deployment.url.as_ref().map(Url::as_str), Some(wanted));
        }
    }
}
