//! Settings: `colloquy.toml` and the environment. Nothing else in the tree reads either.
//!
//! [`Config::load`] reads everything in one run and reports every mistake of that run, each naming the variable or
//! the key to correct. The values are plain data; the modules that use them turn them into clients. Each environment
//! variable is declared once, as a [`Setting`] beside the struct it fills; `docs/settings.md` is made from those.

pub mod access;
pub mod app;
mod catalogue;
pub mod console;
pub mod database;
mod environment;
pub mod host;
mod load;
mod mistake;
pub mod models;
mod reader;
pub mod respond;
pub mod secrets;
pub mod server;
pub mod spend;
pub mod storage;
pub mod telemetry;
mod values;
pub mod work;

pub use access::{AccessConfig, ApiKeyConfig, JwtIssuerConfig, KeyLimits, OneOrMany, RateDefaults, Scope};
pub use app::AppConfig;
pub use catalogue::{catalogue, catalogue_markdown, is_known};
pub use console::{ConsoleConfig, SentToken, SignIn};
pub use database::{DatabaseAuth, DatabaseConfig};
pub use environment::{Environment, ProcessEnvironment, Replaced, fixed};
pub use host::AppEnvironment;
pub use load::{AppFile, Config};
pub use mistake::{ConfigErrors, Mistake};
pub use models::{LlmConfig, ModelKeys};
pub use reader::{Reader, Setting};
pub use respond::RespondLimits;
pub use secrets::{CallbackSecrets, EncryptionKeys, LabelledSecret, UNLABELLED, WebhookSecrets};
pub use server::{Origins, ServerConfig};
pub use spend::{RedisAuth, RedisConfig, SpendConfig};
pub use storage::{CredentialKind, IdentityConfig, QueueNames, StorageAccess, StorageConfig};
pub use telemetry::{InsightsAuth, InsightsConfig, Kept, Sampling, TelemetryConfig};
pub use values::{duration, durations};
pub use work::WorkLimits;
