//! Everything at once: the environment and `colloquy.toml`.

use std::path::{Path, PathBuf};

use super::access::AccessConfig;
use super::app::AppConfig;
use super::database::{DatabaseAuth, DatabaseConfig};
use super::environment::Environment;
use super::host::{self, AppEnvironment};
use super::mistake::{ConfigErrors, Mistake};
use super::models::LlmConfig;
use super::reader::{Reader, Setting};
use super::respond::RespondLimits;
use super::secrets::{CallbackSecrets, EncryptionKeys, WebhookSecrets};
use super::server::ServerConfig;
use super::spend::{RedisAuth, RedisConfig, SpendConfig};
use super::storage::{IdentityConfig, QueueNames, StorageAccess, StorageConfig};
use super::telemetry::{InsightsAuth, TelemetryConfig};
use super::work::WorkLimits;

const CONFIG_FILE: Setting = Setting::new(
    "COLLOQUY_CONFIG",
    "path",
    "Another colloquy.toml. Unset: colloquy.toml in the app's root folder, else the one compiled in.",
);

pub(super) const SETTINGS: &[Setting] = &[CONFIG_FILE];

/// `colloquy.toml` as it was when this was built.
const COMPILED_IN: &str = include_str!("../../colloquy.toml");

/// Every setting of both binaries.
#[derive(Clone, Debug)]
pub struct Config {
    pub environment: AppEnvironment,
    pub database: DatabaseConfig,
    pub storage: StorageConfig,
    pub identity: IdentityConfig,
    pub queues: QueueNames,
    pub work: WorkLimits,
    pub respond: RespondLimits,
    pub server: ServerConfig,
    pub telemetry: TelemetryConfig,
    pub access: AccessConfig,
    pub spend: SpendConfig,
    /// `None`: what instances share is in memory.
    pub redis: Option<RedisConfig>,
    pub webhook_secrets: WebhookSecrets,
    pub callback_secrets: CallbackSecrets,
    pub encryption_keys: EncryptionKeys,
    /// `colloquy.toml`.
    pub app: AppConfig,
}

impl Config {
    /// Reads and checks everything. `job_kinds` are the kinds of job that routes may name.
    pub fn load(environment: &dyn Environment, job_kinds: &[&str]) -> Result<Self, ConfigErrors> {
        let reader = Reader::new(environment);
        let config = Self::read(&reader, environment, job_kinds, true);
        let mistakes = reader.mistakes();
        if mistakes.is_empty() { Ok(config) } else { Err(ConfigErrors(mistakes)) }
    }

    /// The same for the function app: with what the router needs if a route of its has a model answer in a job.
    pub fn load_with_models_of_jobs(
        environment: &dyn Environment,
        job_kinds: &[&str],
    ) -> Result<(Self, Option<LlmConfig>), ConfigErrors> {
        let reader = Reader::new(environment);
        let config = Self::read(&reader, environment, job_kinds, true);
        let mut llm = None;
        if config.app.responding_in_jobs().next().is_some() {
            let read = LlmConfig::read(&reader);
            reader.append(config.app.models_of_jobs_refused_in(config.environment, &read.keys));
            llm = Some(read);
        }
        let mistakes = reader.mistakes();
        if mistakes.is_empty() { Ok((config, llm)) } else { Err(ConfigErrors(mistakes)) }
    }

    /// The same for the conversation server, which calls models: their keys and limits too. It needs no storage.
    pub fn load_with_models(
        environment: &dyn Environment,
        job_kinds: &[&str],
    ) -> Result<(Self, LlmConfig), ConfigErrors> {
        let reader = Reader::new(environment);
        let config = Self::read(&reader, environment, job_kinds, false);
        let llm = LlmConfig::read(&reader);
        reader.append(config.app.models_refused_in(config.environment, &llm.keys));
        let mistakes = reader.mistakes();
        if mistakes.is_empty() { Ok((config, llm)) } else { Err(ConfigErrors(mistakes)) }
    }

    fn read(
        reader: &Reader<'_>,
        environment: &dyn Environment,
        job_kinds: &[&str],
        needs_storage: bool,
    ) -> Self {
        let app_environment = AppEnvironment::read(reader);
        let app = match AppFile::find(environment) {
            Ok(file) => match AppConfig::parse(&file.text, Some(environment), job_kinds) {
                Ok(app) => Some(app),
                Err(mistakes) => {
                    reader.append(mistakes);
                    None
                }
            },
            Err(mistake) => {
                reader.append(vec![mistake]);
                None
            }
        };
        let access = AccessConfig::read(reader, app_environment);
        if let Some(app) = &app {
            reader.append(access.unknown_targets(app));
        }
        let config = Self {
            environment: app_environment,
            database: DatabaseConfig::read(reader, app_environment),
            storage: StorageConfig::read(reader, app_environment, needs_storage),
            identity: IdentityConfig::read(reader, app_environment),
            queues: QueueNames::read(reader),
            work: WorkLimits::read(reader),
            respond: RespondLimits::read(reader),
            server: ServerConfig::read(reader, app_environment),
            telemetry: TelemetryConfig::read(reader, app_environment),
            access,
            spend: SpendConfig::read(reader),
            redis: RedisConfig::read(reader, app_environment),
            webhook_secrets: WebhookSecrets::read(reader),
            callback_secrets: CallbackSecrets::read(reader),
            encryption_keys: EncryptionKeys::read(reader),
            app: app.unwrap_or_default(),
        };
        reader.append(config.missing_secrets());
        reader.append(config.app.refused_in(app_environment));
        config
    }

    /// The first setting by which something is reached with a Microsoft Entra token.
    fn token_user(&self) -> Option<&'static str> {
        let insights =
            self.telemetry.insights.as_ref().is_some_and(|insights| insights.auth != InsightsAuth::Key);
        if self.database.auth == DatabaseAuth::Entra {
            Some("DB_AUTH_MODE=entra")
        } else if self.redis.as_ref().is_some_and(|redis| redis.auth != RedisAuth::Password) {
            Some("REDIS_AUTH_MODE=entra")
        } else if matches!(self.storage.access, StorageAccess::Identity { .. }) {
            Some("AzureWebJobsStorage__…")
        } else {
            insights.then_some("APPLICATIONINSIGHTS_AUTHENTICATION_STRING")
        }
    }

    fn missing_secrets(&self) -> Vec<Mistake> {
        let mut missing = self.webhook_secrets.missing(&self.app);
        missing.extend(self.callback_secrets.missing(&self.app));
        missing.extend(self.encryption_keys.missing(&self.app));
        missing.extend(self.token_user().and_then(|user| self.identity.missing_for(user)));
        missing
    }
}

/// The `colloquy.toml` in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppFile {
    /// `None`: the one compiled in.
    pub path: Option<PathBuf>,
    pub text: String,
}

impl AppFile {
    /// The file `COLLOQUY_CONFIG` names, else `colloquy.toml` in `FUNCTIONS_APP_ROOT_PATH`, else the one compiled in.
    pub fn find(environment: &dyn Environment) -> Result<Self, Mistake> {
        let set = |name: &str| environment.get(name).filter(|text| !text.trim().is_empty());
        if let Some(named) = set(CONFIG_FILE.name) {
            let path = PathBuf::from(named.trim());
            return match std::fs::read_to_string(&path) {
                Ok(text) => Ok(Self { path: Some(path), text }),
                Err(error) => {
                    Err(Mistake::new(CONFIG_FILE.name, format!("cannot read {}: {error}", path.display())))
                }
            };
        }
        Self::in_root(&host::root(environment))
    }

    /// `colloquy.toml` in `root`, else the one compiled in.
    pub fn in_root(root: &Path) -> Result<Self, Mistake> {
        let path = root.join("colloquy.toml");
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Self { path: Some(path), text }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Self { path: None, text: COMPILED_IN.to_owned() })
            }
            Err(error) => Err(Mistake::new(path.display().to_string(), format!("cannot be read: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests;
