//! `host.json`: what serving takes from it, and what must not be in it.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::compare::RETRY_IS_OURS;
use super::{Findings, member, read_json};
use crate::functions::app::{App, Trigger};
use crate::functions::deadline::budget;
use crate::functions::timespan;

const FILE: &str = "host.json";

/// The fewest tries of the host's before it gives a message up. Its own default is 5.
const LEAST_DEQUEUES: i64 = 20;

/// What must not be there, and what to do about it.
const UNWANTED: [(&str, &str); 4] = [
    (
        "customHandler.http.routes",
        "remove it: the host refuses to start with both routes and function folders",
    ),
    (
        "customHandler.port",
        "remove it: the host does not start where the port is taken, and chooses a free one itself",
    ),
    ("httpWorker", "remove it: it is the old name of customHandler, which is read instead"),
    ("retry", RETRY_IS_OURS),
];

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

/// The value at a path of names.
fn at<'a>(file: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(file, |value, name| member(value.as_object()?, name))
}

fn text_at<'a>(file: &'a Value, path: &str) -> Option<&'a str> {
    at(file, path).and_then(Value::as_str)
}

fn values(file: &Value, host: &mut HostFile, findings: &mut Findings) {
    if let Some(value) = at(file, "functionTimeout") {
        match value
            .as_str()
            .map_or_else(|| Err(format!("`{value}` is not a string")), timespan::parse_timeout)
        {
            Ok(timeout) => host.function_timeout = timeout,
            Err(error) => findings.add(FILE, format!("functionTimeout: {error}"), "correct it"),
        }
    }
    if let Some(value) = at(file, "customHandler.initializationTimeout") {
        match value.as_str().map_or_else(|| Err(format!("`{value}` is not a string")), timespan::parse) {
            Ok(timeout) => host.initialization_timeout = timeout,
            Err(error) => {
                findings.add(FILE, format!("customHandler.initializationTimeout: {error}"), "correct it")
            }
        }
    }
    if let Some(value) = at(file, "extensions.http.routePrefix") {
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
    let text = |path: &str| text_at(file, path);
    demand(text("version") == Some("2.0"), "version is not \"2.0\"".to_owned(), "set it to \"2.0\"");

    match text("customHandler.description.defaultExecutablePath") {
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
    for (path, remedy) in UNWANTED {
        demand(at(file, path).is_none_or(Value::is_null), format!("{path} is set"), remedy);
    }

    let any = |wanted: fn(&Trigger) -> bool| app.functions.iter().any(|f| wanted(&f.trigger));
    if any(|trigger| matches!(trigger, Trigger::Http(_))) {
        for flag in ["enableProxyingHttpRequest", "enableForwardingHttpRequest"] {
            demand(
                at(file, &format!("customHandler.{flag}")) == Some(&Value::Bool(true)),
                format!("customHandler.{flag} is not true"),
                "set it to true: without, HTTP functions are called by envelope, which loses the raw body",
            );
        }
    }
    let profile = text("configurationProfile").unwrap_or("");
    demand(
        profile.is_empty() || profile.eq_ignore_ascii_case("default"),
        format!("configurationProfile is `{profile}`"),
        "remove it: profiles add routes, which exclude function folders",
    );
    if any(|trigger| matches!(trigger, Trigger::Queue(_))) {
        queues(file, findings);
    }
}

/// What the host's queue extension must be told.
fn queues(file: &Value, findings: &mut Findings) {
    let encoding = text_at(file, "extensions.queues.messageEncoding").unwrap_or("base64");
    if !encoding.eq_ignore_ascii_case("base64") {
        findings.add(
            FILE,
            format!("extensions.queues.messageEncoding is `{encoding}`"),
            "set it to \"base64\": the messages are put that way",
        );
    }
    if text_at(file, "extensionBundle.id").is_none() {
        findings.add(FILE, "extensionBundle is missing", "add it: queue triggers come from the bundle");
    }
    let mut whole = |name: &str, default: i64, range: RangeInclusive<i64>, remedy: &str| {
        let path = format!("extensions.queues.{name}");
        let value = at(file, &path).cloned().unwrap_or(default.into());
        if !value.as_i64().is_some_and(|number| range.contains(&number)) {
            findings.add(FILE, format!("{path} is {value}"), remedy);
        }
    };
    whole("batchSize", 16, 1..=32, "set it to 1 to 32: the host does not start with any other");
    whole(
        "maxDequeueCount",
        5,
        LEAST_DEQUEUES..=i64::from(i32::MAX),
        &format!(
            "set it to {LEAST_DEQUEUES} or more: the host counts a message that was under way when another killed the \
             process, and gives it up at this number"
        ),
    );
    let delay = text_at(file, "extensions.queues.visibilityTimeout").unwrap_or("00:00:00");
    if !timespan::parse(delay).is_ok_and(|delay| delay >= Duration::from_secs(1)) {
        findings.add(
            FILE,
            format!("extensions.queues.visibilityTimeout is `{delay}`"),
            "set it to 00:00:01 or more: what failed is shown again after it, and without it the host's tries are over \
             in seconds",
        );
    }
}
