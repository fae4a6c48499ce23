//! Function folders: `<root>/<name>/function.json`, functions-host.md §8.

use std::path::Path;

use http::Method;
use serde_json::Value;
use thiserror::Error;

use crate::host_json::HandlerConfig;
use crate::settings::{self, Settings};

/// One function folder that could be read.
#[derive(Debug, Clone)]
pub struct Function {
    pub name: String,
    pub disabled: bool,
    pub trigger: Trigger,
    pub bindings: Vec<Binding>,
    /// function.json as it stands, for `GET /admin/functions`.
    pub config: Value,
}

#[derive(Debug, Clone)]
pub struct Binding {
    pub name: String,
    pub kind: String,
    pub direction: Direction,
    /// `dataType` is `binary`.
    pub binary: bool,
    /// `queueName`, resolved, of a queue output.
    pub queue: Option<String>,
    /// `connection`; empty means `AzureWebJobsStorage`.
    pub connection: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    In,
    Out,
}

#[derive(Debug, Clone)]
pub enum Trigger {
    /// `methods` empty means all.
    Http {
        route: String,
        methods: Vec<Method>,
    },
    Queue {
        queue: String,
        connection: String,
    },
    Timer {
        schedule: String,
        run_on_startup: bool,
        use_monitor: bool,
    },
}

/// How HTTP requests reach the handler: functions-host.md, table of the three modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpMode {
    Proxy,
    Forward,
    Envelope,
}

/// Why one function is not served. The others are.
#[derive(Debug, Error)]
#[error("The '{function}' function is in error: {reason}")]
pub struct FunctionError {
    pub function: String,
    pub reason: String,
}

impl Function {
    /// The binding that starts the function; its name is the key in `Data`.
    pub fn trigger_binding(&self) -> &Binding {
        // `read` puts the trigger first.
        &self.bindings[0]
    }

    pub fn outputs(&self) -> impl Iterator<Item = &Binding> {
        self.bindings.iter().filter(|binding| binding.direction == Direction::Out)
    }

    /// One httpTrigger and one http output are proxied or forwarded; anything more is an envelope.
    pub fn http_mode(&self, handler: &HandlerConfig) -> HttpMode {
        let [trigger, output] = self.bindings.as_slice() else { return HttpMode::Envelope };
        let http_only = trigger.kind.eq_ignore_ascii_case("httpTrigger")
            && output.direction == Direction::Out
            && output.kind.eq_ignore_ascii_case("http");
        match (http_only, handler.proxying, handler.forwarding) {
            (true, true, _) => HttpMode::Proxy,
            (true, false, true) => HttpMode::Forward,
            _ => HttpMode::Envelope,
        }
    }

    /// The line of the start-up list, as `func start` prints it.
    pub fn listing(&self, base: &str, route_prefix: &str) -> String {
        match &self.trigger {
            Trigger::Http { route, methods } => {
                let methods: Vec<&str> = methods.iter().map(Method::as_str).collect();
                let methods = if methods.is_empty() { "ALL".to_owned() } else { methods.join(",") };
                let path =
                    [route_prefix, route.trim_matches('/')].into_iter().filter(|part| !part.is_empty());
                let path = path.collect::<Vec<_>>().join("/");
                format!("{}: [{methods}] {base}/{path}", self.name)
            }
            Trigger::Queue { .. } => format!("{}: queueTrigger", self.name),
            Trigger::Timer { .. } => format!("{}: timerTrigger", self.name),
        }
    }
}

/// Reads every function folder of `root`, in order of name.
pub fn load(root: &Path, settings: &Settings) -> std::io::Result<(Vec<Function>, Vec<FunctionError>)> {
    let mut functions = Vec::new();
    let mut errors = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        let bytes = match std::fs::read(entry.path().join("function.json")) {
            Ok(bytes) => bytes,
            // Not a function folder.
            Err(_) => continue,
        };
        let name = entry.file_name().to_string_lossy().into_owned();
        match read(&name, settings::strip_bom(&bytes), settings) {
            Ok(function) => functions.push(function),
            Err(reason) => errors.push(FunctionError { function: name, reason }),
        }
    }
    functions.sort_by(|a, b| a.name.cmp(&b.name));
    errors.sort_by(|a, b| a.function.cmp(&b.function));
    Ok((functions, errors))
}

fn read(name: &str, bytes: &[u8], settings: &Settings) -> Result<Function, String> {
    let valid_start = name.starts_with(|c: char| c.is_ascii_alphabetic());
    if !valid_start
        || name.len() > 128
        || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    {
        return Err(
            "the folder's name must start with a letter and hold letters, digits, - and _ only".to_owned()
        );
    }
    let config: Value =
        serde_json::from_slice(bytes).map_err(|cause| format!("function.json is not valid: {cause}"))?;
    let raw = config["bindings"].as_array().ok_or("function.json has no array `bindings`")?;
    let mut bindings =
        raw.iter().map(|binding| read_binding(binding, settings)).collect::<Result<Vec<_>, _>>()?;
    let triggers: Vec<usize> = (0..bindings.len()).filter(|at| is_trigger(&bindings[*at].kind)).collect();
    let [at] = triggers.as_slice() else {
        return Err(format!("expected exactly one trigger binding, found {}", triggers.len()));
    };
    let trigger = read_trigger(name, &raw[*at], settings)?;
    bindings.swap(0, *at);
    Ok(Function {
        name: name.to_owned(),
        disabled: is_disabled(name, &config, settings),
        trigger,
        bindings,
        config,
    })
}

fn read_binding(raw: &Value, settings: &Settings) -> Result<Binding, String> {
    let text = |key: &str| raw[key].as_str().unwrap_or_default().to_owned();
    let (name, kind) = (text("name"), text("type"));
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric());
    if !plain && name != "$return" {
        return Err(format!(
            "The binding name {name} is invalid. Please assign a valid name to the binding."
        ));
    }
    let direction = match text("direction").to_ascii_lowercase().as_str() {
        "in" | "" => Direction::In,
        "out" => Direction::Out,
        other => {
            return Err(format!(
                "binding {name}: direction {other} is not supported by devhost; use in or out"
            ));
        }
    };
    let supported = match direction {
        Direction::In => is_trigger(&kind),
        Direction::Out => kind.eq_ignore_ascii_case("http") || kind.eq_ignore_ascii_case("queue"),
    };
    if !supported {
        return Err(format!("The binding type(s) '{kind}' are not supported by devhost"));
    }
    let queue = raw["queueName"]
        .as_str()
        .map(|queue| settings.resolve(queue))
        .transpose()
        .map_err(|cause| cause.to_string())?;
    Ok(Binding {
        name,
        kind,
        direction,
        binary: text("dataType").eq_ignore_ascii_case("binary"),
        queue,
        connection: text("connection"),
    })
}

fn read_trigger(name: &str, raw: &Value, settings: &Settings) -> Result<Trigger, String> {
    let resolved = |key: &str| {
        let text = raw[key].as_str().ok_or_else(|| format!("the trigger has no `{key}`"))?;
        settings.resolve(text).map_err(|cause| cause.to_string())
    };
    match raw["type"].as_str().unwrap_or_default().to_ascii_lowercase().as_str() {
        "httptrigger" => {
            let route = match raw["route"].as_str() {
                Some(_) => resolved("route")?,
                None => name.to_owned(),
            };
            let first = route.trim_start_matches('/').split('/').next().unwrap_or_default();
            if first.eq_ignore_ascii_case("admin") || first.eq_ignore_ascii_case("runtime") {
                return Err("The specified route conflicts with one or more built in routes.".to_owned());
            }
            let methods = raw["methods"].as_array().map(Vec::as_slice).unwrap_or_default();
            let methods = methods.iter().map(|method| {
                let method = method.as_str().unwrap_or_default().to_ascii_uppercase();
                method
                    .parse::<Method>()
                    .map_err(|_| format!("`methods` names {method:?}, which is no method"))
            });
            Ok(Trigger::Http { route, methods: methods.collect::<Result<_, _>>()? })
        }
        "queuetrigger" => {
            let connection = raw["connection"].as_str().unwrap_or_default().to_owned();
            Ok(Trigger::Queue { queue: resolved("queueName")?.to_ascii_lowercase(), connection })
        }
        "timertrigger" => Ok(Trigger::Timer {
            schedule: resolved("schedule")?,
            run_on_startup: raw["runOnStartup"].as_bool().unwrap_or(false),
            use_monitor: raw["useMonitor"].as_bool().unwrap_or(true),
        }),
        other => Err(format!("trigger type {other} is not supported by devhost")),
    }
}

fn is_trigger(kind: &str) -> bool {
    kind.to_ascii_lowercase().ends_with("trigger")
}

fn is_disabled(name: &str, config: &Value, settings: &Settings) -> bool {
    let by_setting = ["AzureWebJobs.{}.Disabled", "AzureWebJobs_{}_Disabled", "AzureWebJobs__{}__Disabled"]
        .iter()
        .find_map(|pattern| settings.get(&pattern.replace("{}", name)));
    match by_setting {
        Some(text) => settings::is_true(text),
        None => config["disabled"].as_bool().unwrap_or(false),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde_json::json;

    pub fn function(name: &str, config: Value, settings: &[(&str, &str)]) -> Result<Function, String> {
        read(name, config.to_string().as_bytes(), &Settings::from_pairs(settings))
    }

    fn http(methods: Value, route: &str) -> Value {
        json!({"bindings": [
            {"type": "http", "direction": "out", "name": "res"},
            {"type": "httpTrigger", "direction": "in", "name": "req", "methods": methods, "route": route}]})
    }

    fn handler(proxying: bool, forwarding: bool) -> HandlerConfig {
        HandlerConfig {
            executable: "app".into(),
            working_directory: String::new(),
            worker_directory: String::new(),
            worker_path: String::new(),
            arguments: vec![],
            worker_arguments: vec![],
            initialization_timeout: std::time::Duration::from_secs(30),
            stderr_for_errors_only: true,
            forwarding,
            proxying,
            port: None,
        }
    }

    #[test]
    fn listing_reads_like_func_start() {
        let receive =
            function("receive-webhook", http(json!(["post", "options"]), "webhooks/{source}/{event?}"), &[])
                .unwrap();
        let line = receive.listing("http://localhost:7071", "api");
        assert_eq!(
            line,
            "receive-webhook: [POST,OPTIONS] http://localhost:7071/api/webhooks/{source}/{event?}"
        );
        assert_eq!(
            receive.listing("http://localhost:1", ""),
            "receive-webhook: [POST,OPTIONS] http://localhost:1/webhooks/{source}/{event?}"
        );
        let queue = json!({"bindings": [{"type": "queueTrigger", "direction": "in", "name": "message", "queueName": "%Q%"}]});
        let queue = function("process-event", queue, &[("Q", "events")]).unwrap();
        assert_eq!(queue.listing("http://localhost:7071", "api"), "process-event: queueTrigger");
        assert!(matches!(queue.trigger, Trigger::Queue { ref queue, .. } if queue == "events"));
    }

    #[test]
    fn an_unresolved_setting_puts_the_function_in_error() {
        let queue = json!({"bindings": [{"type": "queueTrigger", "direction": "in", "name": "message", "queueName": "%Q%"}]});
        assert!(function("process-event", queue, &[]).unwrap_err().contains("%Q% names no app setting"));
    }

    #[test]
    fn a_second_output_switches_to_the_envelope() {
        let plain = function("health", http(json!(["get"]), "health"), &[]).unwrap();
        assert_eq!(plain.http_mode(&handler(true, true)), HttpMode::Proxy);
        assert_eq!(plain.http_mode(&handler(false, true)), HttpMode::Forward);
        assert_eq!(plain.http_mode(&handler(false, false)), HttpMode::Envelope);
        let mut config = http(json!(["get"]), "health");
        config["bindings"]
            .as_array_mut()
            .unwrap()
            .push(json!({"type": "queue", "direction": "out", "name": "jobs", "queueName": "jobs"}));
        assert_eq!(
            function("health", config, &[]).unwrap().http_mode(&handler(true, true)),
            HttpMode::Envelope
        );
    }

    #[test]
    fn a_setting_disables_and_enables() {
        let config = http(json!(["get"]), "health");
        assert!(
            function("health", config.clone(), &[("AzureWebJobs.health.Disabled", "True")]).unwrap().disabled
        );
        let mut disabled = config;
        disabled["disabled"] = json!(true);
        assert!(function("health", disabled.clone(), &[]).unwrap().disabled);
        assert!(
            !function("health", disabled, &[("AzureWebJobs.health.Disabled", "false")]).unwrap().disabled
        );
    }

    #[test]
    fn reserved_routes_wrong_names_and_missing_triggers_are_errors() {
        assert!(function("x", http(json!(["get"]), "admin/x"), &[]).is_err());
        assert!(function("1x", http(json!(["get"]), "x"), &[]).is_err());
        assert!(function("x", json!({"bindings": []}), &[]).unwrap_err().contains("found 0"));
        assert!(function("x", json!({"bindings": [{"type": "blobTrigger", "name": "b"}]}), &[]).is_err());
    }
}
