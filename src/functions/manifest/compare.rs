//! One registration against one folder, member by member.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use serde_json::Value;

use super::Findings;
use super::folder::{Binding, Folder};
use crate::functions::app::{App, DEFAULT_CONNECTION, Function, HttpTrigger, Trigger};
use crate::functions::route::{Template, segments_of};

const EITHER: &str = "change one of the two";
pub(super) const RETRY_IS_OURS: &str =
    "remove it: what a handler or its settlement decides would be retried again, in the host's memory";

/// Names first, then what each pair says.
pub(super) fn functions(app: &App, folders: &BTreeMap<String, Folder>, findings: &mut Findings) {
    for name in folders.keys() {
        if !app.functions.iter().any(|f| *f.name == **name) {
            let what = "there is a folder and no registration of this name";
            findings.add(format!("{name}/function.json"), what, "register the function or remove the folder");
        }
    }
    for function in &app.functions {
        let place = format!("{}/function.json", function.name);
        match folders.get(&*function.name) {
            None => findings.add(
                place,
                format!("does not exist, but `{}` is registered", function.name),
                "add the folder or remove the registration",
            ),
            // Unreadable, which is a finding already.
            Some(folder) if folder.bindings.is_empty() => {}
            Some(folder) => Comparison { place, folder, findings }.function(function),
        }
    }
}

/// An HTTP route that an outside caller could use to post to a queue or timer function's own path.
pub(super) fn reach(app: &App, prefix: &str, findings: &mut Findings) {
    for (function, http) in app.functions.iter().filter_map(|f| match &f.trigger {
        Trigger::Http(http) => Some((f, http)),
        _ => None,
    }) {
        let Ok(template) = Template::parse(&format!("{prefix}/{}", http.route)) else { continue };
        for other in app.functions.iter().filter(|f| !matches!(f.trigger, Trigger::Http(_))) {
            let own = segments_of(&format!("/{}", other.name)).unwrap_or_default();
            if template.matches(&own).is_some() {
                findings.add(
                    format!("{}/function.json", function.name),
                    format!(
                        "route `{}` with prefix `{prefix}` also matches /{}, where the host posts envelopes",
                        http.route, other.name
                    ),
                    "set a routePrefix in host.json or narrow the route",
                );
            }
        }
    }
}

struct Comparison<'a> {
    place: String,
    folder: &'a Folder,
    findings: &'a mut Findings,
}

impl<'a> Comparison<'a> {
    fn function(mut self, function: &Function) {
        if self.folder.disabled {
            self.add(
                "`disabled` is set".to_owned(),
                "remove it; to stop a function for a while, set AzureWebJobs.<function>.Disabled",
            );
        }
        if self.folder.retried {
            self.add("`retry` is set".to_owned(), RETRY_IS_OURS);
        }
        for binding in &self.folder.bindings {
            let name = binding.text("name");
            let good = name.starts_with(|c: char| c.is_ascii_alphabetic())
                && name.bytes().all(|b| b.is_ascii_alphanumeric());
            if !good && name != "$return" {
                self.add(format!("binding name `{name}`"), "use a letter followed by letters and digits");
            }
        }
        match &function.trigger {
            Trigger::Http(http) => {
                let Some(trigger) = self.trigger("httpTrigger", &["http"]) else { return };
                let route = trigger.get("route").and_then(Value::as_str).unwrap_or(&function.name);
                self.same("route", route.trim_matches('/'), http.route.trim_matches('/'));
                let level = match trigger.text("authLevel") {
                    "" => "function".to_owned(),
                    level => level.to_ascii_lowercase(),
                };
                self.same("authLevel", &level, http.auth_level.as_str());
                self.methods(trigger, http);
            }
            Trigger::Queue(queue) => {
                let Some(trigger) = self.trigger("queueTrigger", &[]) else { return };
                self.same("queueName", trigger.text("queueName"), &queue.queue);
                let connection = match trigger.text("connection") {
                    "" => DEFAULT_CONNECTION,
                    connection => connection,
                };
                self.same("connection", connection, &queue.connection);
                let data_type = match trigger.text("dataType") {
                    "" => "string".to_owned(),
                    data_type => data_type.to_ascii_lowercase(),
                };
                self.same("dataType", &data_type, if queue.binary { "binary" } else { "string" });
            }
            Trigger::Timer(timer) => {
                let Some(trigger) = self.trigger("timerTrigger", &[]) else { return };
                self.same("schedule", trigger.text("schedule"), &timer.schedule);
            }
        }
    }

    /// The trigger, if it is of the registered kind; anything besides it and exactly `outputs` is reported.
    fn trigger(&mut self, kind: &str, outputs: &[&str]) -> Option<&'a Binding> {
        let folder = self.folder;
        let triggers: Vec<&'a Binding> = folder.bindings.iter().filter(|b| b.is_trigger()).collect();
        for output in outputs {
            if folder.bindings.iter().filter(|b| b.is(output, "out")).count() != 1 {
                self.add(
                    format!("has not exactly one binding of type {output}, direction out"),
                    "give it exactly one: any other number changes the protocol the host speaks",
                );
            }
        }
        for binding in &folder.bindings {
            if !binding.is_trigger() && !outputs.iter().any(|output| binding.is(output, "out")) {
                self.add(
                    format!("has a binding `{}` of type {}", binding.text("name"), binding.text("type")),
                    "remove it: handlers have no bindings but the trigger, and one too many changes the protocol",
                );
            }
        }
        match triggers[..] {
            [trigger] if trigger.is(kind, "in") => Some(trigger),
            [trigger] => {
                self.add(
                    format!(
                        "the trigger is {} ({}), registered is {kind} (in)",
                        trigger.text("type"),
                        trigger.text("direction")
                    ),
                    EITHER,
                );
                None
            }
            _ => {
                self.add(format!("has {} triggers", triggers.len()), "leave exactly one");
                None
            }
        }
    }

    fn methods(&mut self, trigger: &Binding, http: &HttpTrigger) {
        let in_file: BTreeSet<String> = match trigger.get("methods") {
            None => BTreeSet::new(),
            Some(list) => list
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_ascii_uppercase)
                .collect(),
        };
        let registered: BTreeSet<String> = http.methods.iter().map(Method::to_string).collect();
        let words = |set: &BTreeSet<String>| match set.len() {
            0 => "all".to_owned(),
            _ => set.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
        };
        self.same("methods", &words(&in_file), &words(&registered));
    }

    fn same(&mut self, member: &str, in_file: &str, registered: &str) {
        if in_file != registered {
            self.add(format!("{member} is `{in_file}`, registered is `{registered}`"), EITHER);
        }
    }

    fn add(&mut self, what: String, remedy: &str) {
        self.findings.add(self.place.clone(), what, remedy);
    }
}
