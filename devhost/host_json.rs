//! host.json with its `AzureFunctionsJobHost__` overrides: functions-host.md §2.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};
use thiserror::Error;

use crate::settings::{self, Settings};
use crate::timespan;

#[derive(Debug, Error)]
pub enum HostJsonError {
    #[error("cannot read {path}: {cause}. Run devhost in the app root or name it with --root")]
    Unreadable { path: PathBuf, cause: std::io::Error },
    #[error("{path} is not valid JSON: {cause}")]
    Malformed { path: PathBuf, cause: serde_json::Error },
    #[error("host.json: {key} is {found}, expected {expected}")]
    Invalid { key: String, found: String, expected: &'static str },
    #[error(
        "host.json: customHandler.description.defaultExecutablePath is missing or empty; name the handler's executable"
    )]
    NoExecutable,
    #[error("host.json: {0} needs a host of 2025 and is not supported by devhost; use function.json folders")]
    Unsupported(&'static str),
}

/// What devhost obeys of host.json.
#[derive(Debug, Clone, PartialEq)]
pub struct HostConfig {
    /// `None` is unlimited.
    pub function_timeout: Option<Duration>,
    pub route_prefix: String,
    pub handler: HandlerConfig,
    pub queues: QueueConfig,
}

/// `customHandler`.
#[derive(Debug, Clone, PartialEq)]
pub struct HandlerConfig {
    pub executable: String,
    pub working_directory: String,
    pub worker_directory: String,
    pub worker_path: String,
    pub arguments: Vec<String>,
    pub worker_arguments: Vec<String>,
    pub initialization_timeout: Duration,
    pub stderr_for_errors_only: bool,
    pub forwarding: bool,
    pub proxying: bool,
    /// A fixed `customHandler.port`.
    pub port: Option<u16>,
}

/// `extensions.queues`.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueConfig {
    pub batch_size: u8,
    pub new_batch_threshold: u32,
    pub max_dequeue_count: u32,
    pub visibility_timeout: Duration,
    pub max_polling_interval: Duration,
    pub encoding: MessageEncoding,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageEncoding {
    Base64,
    None,
}

impl HostConfig {
    /// Reads `host.json` of `root` and lays the overrides of `settings` over it.
    pub fn load(root: &Path, settings: &Settings) -> Result<Self, HostJsonError> {
        let path = root.join("host.json");
        let bytes =
            std::fs::read(&path).map_err(|cause| HostJsonError::Unreadable { path: path.clone(), cause })?;
        let json = serde_json::from_slice(settings::strip_bom(&bytes))
            .map_err(|cause| HostJsonError::Malformed { path, cause })?;
        Self::from_json(json, settings)
    }

    fn from_json(json: Value, settings: &Settings) -> Result<Self, HostJsonError> {
        let json = Reader(with_overrides(json, settings));
        if json
            .find("configurationProfile")
            .and_then(Value::as_str)
            .is_some_and(|name| !name.is_empty() && name != "default")
        {
            return Err(HostJsonError::Unsupported("configurationProfile"));
        }
        if json.find("customHandler.http.routes").is_some() {
            return Err(HostJsonError::Unsupported("customHandler.http.routes"));
        }
        Ok(HostConfig {
            function_timeout: json.function_timeout()?,
            route_prefix: json.text("extensions.http.routePrefix", "api")?.trim_matches('/').to_owned(),
            handler: json.handler()?,
            queues: json.queues()?,
        })
    }
}

/// host.json by dotted key; member names match in any case, scalars may be strings (overrides are).
struct Reader(Value);

impl Reader {
    fn find(&self, key: &str) -> Option<&Value> {
        key.split('.')
            .try_fold(&self.0, |value, name| {
                value
                    .as_object()?
                    .iter()
                    .find(|(member, _)| member.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value)
            })
            .filter(|value| !value.is_null())
    }

    fn read<T>(
        &self,
        key: &str,
        default: T,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, HostJsonError> {
        let Some(value) = self.find(key) else { return Ok(default) };
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        parse(&text).ok_or_else(|| HostJsonError::Invalid {
            key: key.to_owned(),
            found: value.to_string(),
            expected,
        })
    }

    fn text(&self, key: &str, default: &str) -> Result<String, HostJsonError> {
        self.read(key, default.to_owned(), "text", |text| Some(text.to_owned()))
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, HostJsonError> {
        self.read(key, default, "true or false", |text| match text.to_ascii_lowercase().as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        })
    }

    fn span(&self, key: &str, default: Duration) -> Result<Duration, HostJsonError> {
        self.read(key, default, "a time span such as 00:00:30", timespan::parse)
    }

    /// A JSON array, or (in an override) one in a string.
    fn list(&self, key: &str) -> Result<Vec<String>, HostJsonError> {
        self.read(key, Vec::new(), "an array of strings", |text| serde_json::from_str(text).ok())
    }

    fn function_timeout(&self) -> Result<Option<Duration>, HostJsonError> {
        let default = Some(Duration::from_secs(5 * 60));
        let shape = "-1 or a time span of at least 00:00:01";
        self.read("functionTimeout", default, shape, |text| match text {
            "-1" => Some(None),
            text => timespan::parse(text).filter(|span| *span >= Duration::from_secs(1)).map(Some),
        })
    }

    fn handler(&self) -> Result<HandlerConfig, HostJsonError> {
        // `httpWorker` is the deprecated spelling; customHandler wins when both are there.
        let section = if self.find("customHandler").is_some() { "customHandler" } else { "httpWorker" };
        let key = |name: &str| format!("{section}.{name}");
        let executable = self.text(&key("description.defaultExecutablePath"), "")?;
        if executable.is_empty() {
            return Err(HostJsonError::NoExecutable);
        }
        let port = self.read(&key("port"), None, "a port from 1 to 65535", |text| {
            text.parse().ok().filter(|port| *port != 0).map(Some)
        })?;
        Ok(HandlerConfig {
            executable,
            working_directory: self.text(&key("description.workingDirectory"), "")?,
            worker_directory: self.text(&key("description.workerDirectory"), "")?,
            worker_path: self.text(&key("description.defaultWorkerPath"), "")?,
            arguments: self.list(&key("description.arguments"))?,
            worker_arguments: self.list(&key("description.workerArguments"))?,
            initialization_timeout: self.span(&key("initializationTimeout"), Duration::from_secs(30))?,
            stderr_for_errors_only: self.flag(&key("description.useStdErrorStreamForErrorsOnly"), true)?,
            forwarding: self.flag(&key("enableForwardingHttpRequest"), false)?,
            proxying: self.flag(&key("enableProxyingHttpRequest"), false)?,
            port,
        })
    }

    fn queues(&self) -> Result<QueueConfig, HostJsonError> {
        let within = |least: u32, most: u32| {
            move |text: &str| text.parse().ok().filter(|number| (least..=most).contains(number))
        };
        let batch_size =
            self.read("extensions.queues.batchSize", 16, "a number from 1 to 32", within(1, 32))?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threshold = batch_size / 2 * u32::try_from(processors).unwrap_or(1);
        let encoding = "extensions.queues.messageEncoding";
        Ok(QueueConfig {
            batch_size: u8::try_from(batch_size).unwrap_or(32),
            new_batch_threshold: self.read(
                "extensions.queues.newBatchThreshold",
                threshold,
                "a number",
                within(0, 10_000),
            )?,
            max_dequeue_count: self.read(
                "extensions.queues.maxDequeueCount",
                5,
                "a number from 1",
                within(1, u32::MAX),
            )?,
            visibility_timeout: self.span("extensions.queues.visibilityTimeout", Duration::ZERO)?,
            max_polling_interval: self.read(
                "extensions.queues.maxPollingInterval",
                Duration::from_secs(60),
                "a time span of at least 00:00:00.1",
                |text| timespan::parse(text).filter(|span| *span >= Duration::from_millis(100)),
            )?,
            encoding: self.read(encoding, MessageEncoding::Base64, "base64 or none", |text| {
                match text.to_ascii_lowercase().as_str() {
                    "base64" => Some(MessageEncoding::Base64),
                    "none" => Some(MessageEncoding::None),
                    _ => None,
                }
            })?,
        })
    }
}

fn with_overrides(mut json: Value, settings: &Settings) -> Value {
    for (name, value) in settings.all() {
        let path = ["AzureFunctionsJobHost__", "AzureFunctionsJobHost:"].iter().find_map(|prefix| {
            let head = name.get(..prefix.len())?;
            head.eq_ignore_ascii_case(prefix).then(|| &name[prefix.len()..])
        });
        if let Some(path) = path {
            let names: Vec<&str> = path.split("__").flat_map(|part| part.split(':')).collect();
            set(&mut json, &names, value);
        }
    }
    json
}

fn set(json: &mut Value, path: &[&str], value: &str) {
    let [name, rest @ ..] = path else {
        *json = Value::String(value.to_owned());
        return;
    };
    if !json.is_object() {
        *json = Value::Object(Map::new());
    }
    if let Some(members) = json.as_object_mut() {
        let known = members.keys().find(|member| member.eq_ignore_ascii_case(name)).cloned();
        set(members.entry(known.unwrap_or_else(|| (*name).to_owned())).or_insert(Value::Null), rest, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn load(json: Value, overrides: &[(&str, &str)]) -> Result<HostConfig, HostJsonError> {
        HostConfig::from_json(json, &Settings::from_pairs(overrides))
    }

    fn minimal() -> Value {
        json!({"version": "2.0", "customHandler": {"description": {"defaultExecutablePath": "app"}}})
    }

    #[test]
    fn absent_keys_take_the_hosts_defaults() {
        let config = load(minimal(), &[]).unwrap();
        assert_eq!(config.function_timeout, Some(Duration::from_secs(300)));
        assert_eq!(config.route_prefix, "api");
        assert_eq!(config.handler.initialization_timeout, Duration::from_secs(30));
        assert!(
            config.handler.stderr_for_errors_only && !config.handler.proxying && !config.handler.forwarding
        );
        let queues = config.queues;
        assert_eq!(
            (queues.batch_size, queues.max_dequeue_count, queues.encoding),
            (16, 5, MessageEncoding::Base64)
        );
        assert_eq!(
            (queues.visibility_timeout, queues.max_polling_interval),
            (Duration::ZERO, Duration::from_secs(60))
        );
    }

    #[test]
    fn app_settings_override_any_key_in_any_case() {
        let config = load(
            minimal(),
            &[
                ("AzureFunctionsJobHost__functionTimeout", "00:00:05"),
                ("AzureFunctionsJobHost__customHandler__enableProxyingHttpRequest", "true"),
                ("AzureFunctionsJobHost__customHandler__description__arguments", r#"["--serve"]"#),
                ("AzureFunctionsJobHost__Extensions__Queues__MaxDequeueCount", "2"),
            ],
        )
        .unwrap();
        assert_eq!(config.function_timeout, Some(Duration::from_secs(5)));
        assert!(config.handler.proxying);
        assert_eq!(config.handler.arguments, ["--serve"]);
        assert_eq!(config.queues.max_dequeue_count, 2);
    }

    #[test]
    fn an_unlimited_timeout_is_minus_one() {
        assert_eq!(
            load(minimal(), &[("AzureFunctionsJobHost__functionTimeout", "-1")]).unwrap().function_timeout,
            None
        );
        assert!(load(minimal(), &[("AzureFunctionsJobHost__functionTimeout", "00:00:00")]).is_err());
    }

    #[test]
    fn what_func_init_writes_is_refused_with_the_key_to_set() {
        let message =
            load(json!({"customHandler": {"description": {"defaultExecutablePath": ""}}}), &[]).unwrap_err();
        assert!(message.to_string().contains("customHandler.description.defaultExecutablePath"));
        assert!(load(json!({}), &[]).is_err());
    }

    #[test]
    fn a_wrong_value_names_its_key_and_what_was_expected() {
        let message = load(minimal(), &[("AzureFunctionsJobHost__extensions__queues__batchSize", "33")])
            .unwrap_err()
            .to_string();
        assert_eq!(
            message,
            r#"host.json: extensions.queues.batchSize is "33", expected a number from 1 to 32"#
        );
    }
}
