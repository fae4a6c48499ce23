//! The shape of `colloquy.toml`: sources, routes, callback targets. Structure only, never a secret.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;

use super::environment::Environment;
use super::host::AppEnvironment;
use super::mistake::Mistake;

mod budgets;
mod checks;
mod distance;
mod features;
mod models;
mod parse;
mod places;
mod respond;
mod retention;
mod shape;
mod substitute;
mod targets;
mod walk;

pub use budgets::{BudgetConfig, BudgetsConfig};
pub use features::FeaturesConfig;
pub use models::{
    DeploymentAuth, DeploymentConfig, MaxTokensField, ModelConfig, PriceConfig, ProviderKind, ThinkingStyle,
};
pub use places::Place;
pub use respond::{OWN_METADATA, RespondConfig, RunsOn, TextConfig};
pub use retention::{OwnerRetention, RetentionConfig};
pub use targets::TargetConfig;

/// Everything `colloquy.toml` says.
#[derive(Clone, Debug, Default)]
pub struct AppConfig {
    /// Senders by the name that stands in their URL: `/api/webhooks/{name}`.
    pub sources: BTreeMap<String, SourceConfig>,
    /// What an event does; every route that matches applies, in order.
    pub routes: Vec<RouteConfig>,
    /// Who receives callbacks, by name.
    pub targets: BTreeMap<String, TargetConfig>,
    /// Models at providers, by name.
    pub deployments: BTreeMap<String, DeploymentConfig>,
    /// What callers name as `model`: an alias of deployments in order of preference.
    pub models: BTreeMap<String, ModelConfig>,
    /// What may be spent in a day.
    pub budgets: BudgetsConfig,
    /// How long conversations and turns are kept.
    pub retention: RetentionConfig,
    /// What is on or off in which environment.
    pub features: FeaturesConfig,
    /// What `${ENV_NAME}` in the three tables above names and is not set; see [`AppConfig::models_refused_in`].
    unset_for_models: Vec<Mistake>,
}

/// Which sender's conventions a source follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    Stripe,
    StandardWebhooks,
    Github,
    Espocrm,
    EventGrid,
    AzureMonitor,
    AzureDevops,
    Sailpoint,
    Runpod,
    Hmac,
    Bearer,
    Basic,
}

impl SourceKind {
    /// As it stands in `colloquy.toml`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stripe => "stripe",
            Self::StandardWebhooks => "standard-webhooks",
            Self::Github => "github",
            Self::Espocrm => "espocrm",
            Self::EventGrid => "event-grid",
            Self::AzureMonitor => "azure-monitor",
            Self::AzureDevops => "azure-devops",
            Self::Sailpoint => "sailpoint",
            Self::Runpod => "runpod",
            Self::Hmac => "hmac",
            Self::Bearer => "bearer",
            Self::Basic => "basic",
        }
    }
}

/// One sender.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    pub kind: SourceKind,
    /// How a sender without a payload signature proves itself; each such kind has a default.
    pub auth: Option<AuthConfig>,
    /// Largest body taken, in bytes. Default: the kind's.
    pub max_body_bytes: Option<u64>,
    /// Most events taken in one delivery. Default 5,000.
    pub max_events: Option<u32>,
    /// Media types taken, `*/*` for all. Default: the kind's.
    pub content_types: Option<Vec<String>>,
    /// Requests a minute one process takes from this source; 0 (default) is no limit.
    #[serde(default)]
    pub rate_per_minute: u32,
    /// How far, in seconds, a signed timestamp may lie from arrival, either way. Default 300.
    pub tolerance_seconds: Option<u32>,
    /// How long a key stays claimed, in seconds. Default: the kind's (400 days for most).
    pub key_lifetime_seconds: Option<u64>,
    /// How long events are kept, in days. Default: `EVENT_RETENTION`.
    pub retention_days: Option<u32>,
    /// Set to stop the source without a switch.
    pub stopped: Option<Stop>,
    /// Only for `kind = "hmac"`.
    pub hmac: Option<HmacConfig>,
    /// Where `hmac`, `bearer` and `basic` sources find an event's key and type.
    pub event: Option<EventLocation>,
    /// Only for `kind = "sailpoint"`.
    pub sailpoint: Option<SailpointConfig>,
    /// Only for `kind = "event-grid"`: names of the subscriptions whose validation is answered. Empty: any.
    #[serde(default)]
    pub subscriptions: Vec<String>,
}

/// What happens to the deliveries of a stopped source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stop {
    /// Accept, keep, process when started again.
    Hold,
    /// Answer 503.
    Refuse,
}

/// A credential instead of a payload signature: `auth = "bearer"`, or `auth.header.name = "x-token"`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum AuthConfig {
    /// `Authorization: Bearer <secret>`.
    Bearer {},
    /// `Authorization: Basic …`; the secret is `user:password`.
    Basic {},
    /// The secret stands in this header.
    Header { name: String },
    /// The secret stands in this query parameter.
    Query { name: String },
    /// A token from Microsoft Entra ID.
    Entra {
        /// Directory (tenant) id.
        tenant: String,
        /// Expected `aud`.
        audience: String,
        /// App role the token must carry.
        role: Option<String>,
        /// Application id the caller (`azp` or `appid`) must have.
        caller: Option<String>,
        /// Where the signing keys are; default is the tenant's.
        jwks_url: Option<String>,
    },
}

/// A generic HMAC scheme.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HmacConfig {
    /// Header with the signature.
    pub header: String,
    /// `sha256` (default), `sha512` or `sha1`.
    #[serde(default)]
    pub algorithm: HmacAlgorithm,
    /// `hex` (default) or `base64`.
    #[serde(default)]
    pub encoding: TextEncoding,
    /// What stands before the signature in the header, such as `sha256=` or `v0=`.
    #[serde(default)]
    pub prefix: String,
    /// How the secret's text becomes key bytes: `utf8` (default), `base64`, `hex`.
    #[serde(default)]
    pub key_encoding: KeyEncoding,
    /// Header with the time of signing, in Unix seconds. Without one there is no replay window.
    pub timestamp_header: Option<String>,
    /// What is signed: literal text with `{timestamp}` and `{body}`. Default `{body}`.
    #[serde(default = "body_alone")]
    pub signed: String,
}

fn body_alone() -> String {
    "{body}".to_owned()
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HmacAlgorithm {
    #[default]
    Sha256,
    Sha512,
    Sha1,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextEncoding {
    #[default]
    Hex,
    Base64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyEncoding {
    #[default]
    Utf8,
    Base64,
    Hex,
}

/// Where a generic source's events carry their identity. Without a key, the body's hash within a short window.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventLocation {
    /// Header with the key.
    pub key_header: Option<String>,
    /// JSON pointer to the key, inside one event.
    pub key_pointer: Option<String>,
    /// Header with the type.
    pub type_header: Option<String>,
    /// JSON pointer to the type, inside one event.
    pub type_pointer: Option<String>,
    /// JSON pointer to an array of events; without one, a delivery is one event.
    pub split_pointer: Option<String>,
}

/// How SailPoint's REQUEST_RESPONSE triggers are answered.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SailpointConfig {
    /// The decision returned at once to SYNC (and DYNAMIC) invocations.
    pub output: Option<serde_json::Value>,
    /// What the job that completes an ASYNC invocation sends as `output`. Default: `output`.
    pub async_output: Option<serde_json::Value>,
    /// Hosts (`tenant.api.identitynow.com`) that `callbackURL` may name, with a port if it is not the usual one.
    /// Required for ASYNC.
    #[serde(default)]
    pub callback_hosts: Vec<String>,
    /// Networks these hosts may lie in although they are private, such as a gateway's.
    #[serde(default)]
    pub allow_networks: Vec<IpNet>,
    /// Whether a `callbackURL` with plain `http` is taken (only with `allow_networks`).
    #[serde(default)]
    pub allow_http: bool,
}

/// One rule: which events, and what they do.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct RouteConfig {
    /// Names the route in rows, logs and commands. Default `{source}-{action}-{position}`.
    #[serde(default)]
    pub name: String,
    pub source: String,
    /// Pattern over the event's type: `*` stands for any run of characters. Default `*`.
    #[serde(rename = "type", default = "any")]
    pub event_type: String,
    pub action: ActionKind,
    /// For `forward`: the callback target.
    pub target: Option<String>,
    /// For `job`: the kind of job.
    pub job: Option<String>,
    /// For `respond`.
    #[serde(flatten)]
    pub respond: RespondConfig,
    /// Which of the file's routes it is, from 0.
    #[serde(skip)]
    pub position: usize,
}

fn any() -> String {
    "*".to_owned()
}

/// What a route does with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActionKind {
    /// Keep it, nothing more.
    Record,
    /// Send it on, as a signed callback.
    Forward,
    /// Run a job.
    Job,
    /// Have a model answer it.
    Respond,
}

impl SourceConfig {
    /// How far a signed timestamp may lie from arrival, either way.
    pub fn tolerance(&self) -> Duration {
        Duration::from_secs(u64::from(self.tolerance_seconds.unwrap_or(300)))
    }
}

impl AppConfig {
    /// Parses and checks `colloquy.toml`; `Err` lists every mistake of the file with its path and position.
    ///
    /// `${ENV_NAME}` in any string is replaced from `environment`. With `None`, values that need it are taken on
    /// trust: the structure alone is checked, and the result is not to be used. What is missing in deployments, models
    /// and budgets is told by [`AppConfig::models_refused_in`], since not every process uses them. `job_kinds` are the kinds of job that
    /// routes may name. Secrets are not looked at; see [`WebhookSecrets::missing`](super::WebhookSecrets::missing) and
    /// its like.
    pub fn parse(
        text: &str,
        environment: Option<&dyn Environment>,
        job_kinds: &[&str],
    ) -> Result<Self, Vec<Mistake>> {
        parse::parse(text, environment, job_kinds)
    }

    /// Where the value of `key` of a route stands in the text of `colloquy.toml`; `inside`: where in the file something
    /// comes from that is found so many bytes from the beginning of that value, which is given as it was read with
    /// `environment`.
    pub fn place_in_route(
        file: (&str, Option<&dyn Environment>),
        route: usize,
        key: &str,
        inside: Option<(&str, usize)>,
    ) -> Option<Place> {
        walk::place_in_route(file, route, key, inside)
    }

    /// Whether a text is not what the file says but stands for it: it has `${ENV_NAME}`, and the file was read without an
    /// environment.
    pub fn is_open(text: &str) -> bool {
        text == walk::STAND_IN
    }

    /// What `environment` does not allow although it is well-formed.
    pub fn refused_in(&self, environment: AppEnvironment) -> Vec<Mistake> {
        let refused = |(name, target): (&String, &TargetConfig)| {
            if environment == AppEnvironment::Production && target.allow_http {
                let place = format!("targets.{name}.allow_http");
                return Some(Mistake::new(place, "plain http is refused with APP_ENV=production"));
            }
            let exempt = target.allow_http || (environment.is_dev() && target.is_on_this_machine());
            (target.url.starts_with("http:") && !exempt).then(|| {
                let problem = "plain http needs allow_http = true and allow_networks; \
                               only this machine needs neither, with APP_ENV=dev";
                Mistake::new(format!("targets.{name}.url"), problem)
            })
        };
        let plain = |(name, source): (&String, &SourceConfig)| {
            let allowed = source.sailpoint.as_ref().is_some_and(|sailpoint| sailpoint.allow_http);
            (environment == AppEnvironment::Production && allowed).then(|| {
                let place = format!("sources.{name}.sailpoint.allow_http");
                Mistake::new(place, "plain http is refused with APP_ENV=production")
            })
        };
        let targets = self.targets.iter().filter_map(refused);
        targets.chain(self.sources.iter().filter_map(plain)).collect()
    }
}
