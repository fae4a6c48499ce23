//! `host.json`: what serving takes from it, and what must not be in it.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::{Findings, read_json};
use crate::functions::app::{App, Trigger};
use crate::functions::deadline::budget;
use crate::functions::timespan;

const FILE: &str = "host.json";

/// The values of `host.json` that shape serving, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFile {
    /// `functionTimeout`; `None` is unlimited. Left out it is 5 minutes, the shortest default of any plan.
    pub function_timeout: Option<Duration>,
    /// `customHandler.initializationTimeout`, default 30 s.
    pub initialization_timeout: Duration,
    /// `extensions.http.routePrefix`, default `api`, without slashes at its ends.
    pub route_prefix: String,
}

impl Default for HostFile {
    fn default() -> Self {
        Self {
            function_timeout: Some(Duration::from_secs(300)),
            initialization_timeout: Duration::from_secs(30),
            route_prefix: "api".to_owned(),
        }
    }
}

impl HostFile {
    /// The time that every handler has, also in a process that has just started.
    pub fn least_time(&self) -> Duration {
        budget(self.function_timeout, self.initialization_timeout, Duration::ZERO)
    }
}

pub(super) fn read(app: &App, root: &Path, findings: &mut Findings) -> HostFile {
    let mut host = HostFile::default();
    let file = match read_json(&root.join(FILE)) {
        Ok(Some(file)) => file,
        Ok(None) => {
            let remedy = "set FUNCTIONS_APP_ROOT_PATH to the folder that holds it, or start there";
            findings.add(FILE, format!("does not exist under {}", root.display()), remedy);
            return host;
        }
        Err(error) => {
            findings.add(FILE, error, "correct it; comments are not taken here");
            return host;
        }
    };
    values(&file, &mut host, findings);
    demands(app, &file, findings);
    host
}

fn values(file: &Value, host: &mut HostFile, findings: &mut Findings) {
    if let Some(value) = file.get("functionTimeout") {
        match value
            .as_str()
            .map_or_else(|| Err(format!("`{value}` is not a string")), timespan::parse_timeout)
        {
            Ok(timeout) => host.function_timeout = timeout,
            Err(error) => findings.add(FILE, format!("functionTimeout: {error}"), "correct it"),
        }
    }
    if let Some(value) = file.pointer("/customHandler/initializationTimeout") {
        match value.as_str().map_or_else(|| Err(format!("`{value}` is not a string")), timespan::parse) {
            Ok(timeout) => host.initialization_timeout = timeout,
            Err(error) => {
                findings.add(FILE, format!("customHandler.initializationTimeout: {error}"), "correct it")
            }
        }
    }
    if let Some(value) = file.pointer("/extensions/http/routePrefix") {
        match value.as_str() {
            Some(prefix) => prefix.trim_matches('/').clone_into(&mut host.route_prefix),
            None => findings.add(FILE, "extensions.http.routePrefix is not a string", "correct it"),
        }
    }
}

fn demands(app: &App, file: &Value, findings: &mut Findings) {
    let mut demand = |met: bool, what: String, remedy: &str| {
        if !met {
            findings.add(FILE, what, remedy);
        }
    };
    let text = |pointer: &str| file.pointer(pointer).and_then(Value::as_str);
    demand(text("/version") == Some("2.0"), "version is not \"2.0\"".to_owned(), "set it to \"2.0\"");

    match text("/customHandler/description/defaultExecutablePath") {
        None | Some("") => demand(
            false,
            "customHandler.description.defaultExecutablePath is missing or empty".to_owned(),
            "name the executable at the app's root",
        ),
        Some(path) => demand(
            !path.starts_with("./") && !path.starts_with(".\\"),
            format!("customHandler.description.defaultExecutablePath is `{path}`"),
            "drop the leading `./`: with it, publishing loses the executable bit",
        ),
    }

    let any = |wanted: fn(&Trigger) -> bool| app.functions.iter().any(|f| wanted(&f.trigger));
    if any(|trigger| matches!(trigger, Trigger::Http(_))) {
        for flag in ["enableProxyingHttpRequest", "enableForwardingHttpRequest"] {
            demand(
                file.pointer(&format!("/customHandler/{flag}")) == Some(&Value::Bool(true)),
                format!("customHandler.{flag} is not true"),
                "set it to true: without, HTTP functions are called by envelope, which loses the raw body",
            );
        }
    }
    if any(|trigger| matches!(trigger, Trigger::Queue(_))) {
        let encoding = text("/extensions/queues/messageEncoding").unwrap_or("base64");
        demand(
            encoding.eq_ignore_ascii_case("base64"),
            format!("extensions.queues.messageEncoding is `{encoding}`"),
            "set it to \"base64\": the messages are put that way",
        );
        demand(
            text("/extensionBundle/id").is_some(),
            "extensionBundle is missing".to_owned(),
            "add it: queue triggers come from the bundle",
        );
    }
    demand(
        file.pointer("/customHandler/http/routes").is_none(),
        "customHandler.http.routes is set".to_owned(),
        "remove it: the host refuses to start with both routes and function folders",
    );
    let profile = text("/configurationProfile").unwrap_or("");
    demand(
        profile.is_empty() || profile.eq_ignore_ascii_case("default"),
        format!("configurationProfile is `{profile}`"),
        "remove it: profiles add routes, which exclude function folders",
    );
}
