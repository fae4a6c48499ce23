//! `[deployments.*]` and `[models.*]`: which models there are, where, and what they cost.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;

use super::AppConfig;
use super::shape::{ADDRESS, Form, Key, Shape, key, required};
use super::walk::Walk;
use crate::config::host::AppEnvironment;
use crate::config::mistake::Mistake;
use crate::config::models::ModelKeys;

/// Whose wire format a deployment speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderKind {
    /// Chat completions on Azure OpenAI: the v1 address, or with `api_version` the dated one.
    Azure,
    /// Chat completions of OpenAI or anything compatible: LiteLLM, vLLM, Ollama, OpenRouter.
    Openai,
    /// The Responses API of OpenAI, of Azure OpenAI, or of another Open Responses server.
    Responses,
    /// Anthropic Messages.
    Anthropic,
    /// Built in: deterministic, without network. Refused with `APP_ENV=production`.
    Demo,
}

/// How we prove who we are to a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeploymentAuth {
    /// `LLM_<DEPLOYMENT>_API_KEY`.
    Key,
    /// A Microsoft Entra token for `scope`.
    Entra,
    None,
}

/// Under which name the limit of the answer is sent to a chat completions server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaxTokensField {
    #[default]
    MaxCompletionTokens,
    /// What older compatible servers know.
    MaxTokens,
}

/// How an Anthropic model is asked to think.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ThinkingStyle {
    /// `thinking: adaptive` with `output_config.effort` (from Claude 4.6).
    #[default]
    Adaptive,
    /// `budget_tokens`, taken from the effort (before).
    Budget,
}

/// Prices in micro-units of the deployment's currency per million tokens: `"2.50"` is 2,500,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceConfig {
    pub input: Option<u64>,
    /// Input read from the provider's cache. Default: the price of input.
    pub cached_input: Option<u64>,
    /// Input written to the provider's cache. Default: the price of input.
    pub cache_write: Option<u64>,
    pub output: Option<u64>,
}

/// One model at one provider.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeploymentConfig {
    pub provider: ProviderKind,
    /// Base address. azure: the resource's. openai and responses: up to and with `/v1`. anthropic: the host's.
    pub url: Option<String>,
    /// The provider's name for the model; on Azure the deployment's. Default: this deployment's name.
    pub model: Option<String>,
    /// Azure's dated address (`2024-10-21`); without it, the v1 address.
    pub api_version: Option<String>,
    pub auth: Option<DeploymentAuth>,
    #[serde(default = "cognitive_services")]
    pub scope: String,
    /// Our own limit, kept on our side so that the provider need not refuse: 0 is none.
    #[serde(default = "tokens_per_minute")]
    pub tokens_per_minute: u64,
    /// Likewise for requests.
    #[serde(default = "requests_per_minute")]
    pub requests_per_minute: u64,
    /// Input and output together, in tokens.
    #[serde(default = "context_window")]
    pub context_window: u64,
    /// Longest answer, in tokens.
    #[serde(default = "max_output_tokens")]
    pub max_output_tokens: u32,
    #[serde(default)]
    pub max_tokens_field: MaxTokensField,
    #[serde(default)]
    pub thinking: ThinkingStyle,
    #[serde(default)]
    pub price: PriceConfig,
    /// Whether the model takes images.
    #[serde(default = "yes")]
    pub vision: bool,
    /// Whether the model takes files.
    #[serde(default = "yes")]
    pub files: bool,
}

/// What callers name as `model`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// In order of preference.
    pub deployments: Vec<String>,
    /// A model that thinks before it speaks gets more patience.
    #[serde(default)]
    pub reasoning: bool,
    pub first_event_seconds: Option<u32>,
    pub silence_seconds: Option<u32>,
    #[serde(default)]
    pub description: String,
    /// Alias of the model that writes summaries. Default: the alias itself.
    pub small: Option<String>,
    /// What `GET /v1/models` says. Default: the first deployment's provider.
    pub owned_by: Option<String>,
}

fn cognitive_services() -> String {
    "https://cognitiveservices.azure.com/.default".to_owned()
}

fn tokens_per_minute() -> u64 {
    120_000
}

fn requests_per_minute() -> u64 {
    720
}

fn context_window() -> u64 {
    128_000
}

fn max_output_tokens() -> u32 {
    16_384
}

fn yes() -> bool {
    true
}

impl ProviderKind {
    /// The word in `colloquy.toml`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Azure => "azure",
            Self::Openai => "openai",
            Self::Responses => "responses",
            Self::Anthropic => "anthropic",
            Self::Demo => "demo",
        }
    }
}

impl DeploymentConfig {
    /// `auth`, or what is usual: a key, and none for the demo.
    pub fn auth(&self) -> DeploymentAuth {
        match self.auth {
            Some(auth) => auth,
            None if self.provider == ProviderKind::Demo => DeploymentAuth::None,
            None => DeploymentAuth::Key,
        }
    }
}

impl ModelConfig {
    /// Longest wait for the first event of an answer.
    pub fn first_event(&self) -> Duration {
        let usual = if self.reasoning { 300 } else { 60 };
        Duration::from_secs(u64::from(self.first_event_seconds.unwrap_or(usual)))
    }

    /// Longest silence within an answer.
    pub fn silence(&self) -> Duration {
        let usual = if self.reasoning { 300 } else { 35 };
        Duration::from_secs(u64::from(self.silence_seconds.unwrap_or(usual)))
    }
}

/// Aliases may be called what providers call their models: `gpt-4.1`, `qwen3:8b`, `openai/o3`.
pub(super) const ALIAS_NAME: Form = Form {
    expected: "letters, digits and . - _ : /, at most 64, beginning with a letter or digit",
    fits: |text| {
        let inner = |c: char| c.is_ascii_alphanumeric() || ".-_:/".contains(c);
        text.len() <= 64 && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(inner)
    },
    stand_in: "model",
};
const API_VERSION: Form = Form {
    expected: "a version such as 2024-10-21, or preview",
    fits: |text| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    },
    stand_in: "2024-10-21",
};

pub(super) const DEPLOYMENT: &[Key] = &[
    required("provider", Shape::Words(&["azure", "openai", "responses", "anthropic", "demo"])),
    key("url", Shape::Form(&ADDRESS)),
    key("model", Shape::Text),
    key("api_version", Shape::Form(&API_VERSION)),
    key("auth", Shape::Words(&["key", "entra", "none"])),
    key("scope", Shape::Text),
    key("tokens_per_minute", Shape::Whole(0, 1_000_000_000_000)),
    key("requests_per_minute", Shape::Whole(0, 1_000_000_000)),
    key("context_window", Shape::Whole(1_000, 100_000_000)),
    key("max_output_tokens", Shape::Whole(16, 10_000_000)),
    key("max_tokens_field", Shape::Words(&["max_completion_tokens", "max_tokens"])),
    key("thinking", Shape::Words(&["adaptive", "budget"])),
    key("price", Shape::Table(PRICE)),
    key("vision", Shape::Flag),
    key("files", Shape::Flag),
];

const PRICE: &[Key] = &[
    key("input", Shape::Money),
    key("cached_input", Shape::Money),
    key("cache_write", Shape::Money),
    key("output", Shape::Money),
];

pub(super) const ALIAS: &[Key] = &[
    required("deployments", Shape::List(&Shape::Text)),
    key("reasoning", Shape::Flag),
    key("first_event_seconds", Shape::Whole(1, 3_600)),
    key("silence_seconds", Shape::Whole(1, 3_600)),
    key("description", Shape::Text),
    key("small", Shape::Text),
    key("owned_by", Shape::Text),
];

/// Decimal text in micro-units: `2.5` is 2,500,000. Not negative, at most six places, below 10⁹.
pub(super) fn micros(text: &str) -> Option<u64> {
    let text = text.replace('_', "");
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || whole.len() > 9 || part.len() > 6 || !digits(whole) || !digits(part) {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let part: u64 = format!("{part:0<6}").parse().ok()?;
    Some(whole * 1_000_000 + part)
}

/// What has to hold between deployments and aliases.
pub(super) fn check(
    walk: &mut Walk<'_>,
    app: &AppConfig,
    deployments: &BTreeSet<String>,
    aliases: &BTreeSet<String>,
) {
    for (name, config) in &app.deployments {
        deployment(walk, &format!("deployments.{name}"), config);
    }
    for (name, config) in &app.models {
        let path = format!("models.{name}");
        if config.deployments.is_empty() {
            walk.mistake(&format!("{path}.deployments"), "is empty; an alias needs at least one deployment");
        }
        for (at, deployment) in config.deployments.iter().enumerate() {
            let place = format!("{path}.deployments[{at}]");
            if !deployments.contains(deployment) {
                walk.mistake(&place, format!("there is no [deployments.{deployment}]"));
            } else if config.deployments[..at].contains(deployment) {
                walk.mistake(&place, format!("{deployment:?} stands in the list before"));
            }
        }
        if let Some(small) = config.small.as_ref().filter(|small| !aliases.contains(*small)) {
            walk.mistake(&format!("{path}.small"), format!("there is no [models.{small}]"));
        }
    }
}

fn deployment(walk: &mut Walk<'_>, path: &str, config: &DeploymentConfig) {
    let demo = config.provider == ProviderKind::Demo;
    let provider = config.provider.as_str();
    match &config.url {
        None if !demo => {
            walk.mistake(&format!("{path}.url"), format!("is missing; provider = \"{provider}\" needs one"));
        }
        Some(_) if demo => {
            walk.mistake(&format!("{path}.url"), "belongs only to providers with an address");
        }
        _ => {}
    }
    let dated = matches!(config.provider, ProviderKind::Azure | ProviderKind::Responses);
    if config.api_version.is_some() && !dated {
        walk.mistake(&format!("{path}.api_version"), "belongs only to the providers azure and responses");
    }
    if demo && !matches!(config.auth, None | Some(DeploymentAuth::None)) {
        walk.mistake(&format!("{path}.auth"), "provider = \"demo\" needs none");
    }
    if u64::from(config.max_output_tokens) >= config.context_window {
        walk.mistake(&format!("{path}.max_output_tokens"), "leaves nothing of context_window for the input");
    }
}

impl AppConfig {
    /// What keeps the models from being used: variables and keys that are not set, and what `environment` does not
    /// allow. Asked only by a process that uses models.
    pub fn models_refused_in(&self, environment: AppEnvironment, keys: &ModelKeys) -> Vec<Mistake> {
        let mut mistakes = self.unset_for_models.clone();
        for (name, config) in &self.deployments {
            let place = |key: &str| format!("deployments.{name}.{key}");
            if config.provider == ProviderKind::Demo && environment == AppEnvironment::Production {
                let problem = "the demo model is refused with APP_ENV=production; name a provider, \
                               and take the deployment out of [models.*]";
                mistakes.push(Mistake::new(place("provider"), problem));
            }
            if config.auth() == DeploymentAuth::Key && keys.of(name).is_none() {
                let problem = format!(
                    "is not set; deployment {name} of colloquy.toml needs a key \
                     (or auth = \"entra\", or auth = \"none\")"
                );
                mistakes.push(Mistake::new(ModelKeys::variable(name), problem));
            }
            let plain = config.url.as_deref().is_some_and(|url| url.starts_with("http:"));
            if plain && environment == AppEnvironment::Production && config.auth() != DeploymentAuth::None {
                let problem = "a key or token does not go over plain http with APP_ENV=production";
                mistakes.push(Mistake::new(place("url"), problem));
            }
        }
        mistakes
    }
}

#[cfg(test)]
mod tests;
