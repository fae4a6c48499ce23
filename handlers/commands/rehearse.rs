//! Rehearses `respond` routes: every template filled in with sample events, and whether answers fit into a function's
//! time.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use colloquy::config::RespondLimits;
use colloquy::config::app::{ActionKind, AppConfig, RouteConfig, RunsOn, SourceConfig, SourceKind};
use colloquy::events::routes;
use colloquy::functions::HostFile;
use colloquy::ids::EventId;
use colloquy::respond::template::Limits;
use colloquy::respond::{EventData, Route};
use colloquy::webhooks::{IncomingEvent, events_of_sample};
use jiff::Timestamp;
use serde_json::json;

use super::samples;

/// Of a function's time, what is needed to claim a job and to write down what came of it.
const AROUND: Duration = Duration::from_secs(7);

/// Where a deployment keeps samples of its own, under the app's root: `<source>.json`, `<source>.<type>.json`.
const SAMPLES: &str = "tests/fixtures/events";

/// What was found.
#[derive(Default)]
pub struct Findings {
    pub mistakes: Vec<String>,
    /// What could not be rehearsed.
    pub notes: Vec<String>,
}

/// Fills in every template of every `respond` route. `file`: the text of `colloquy.toml`, called `name`.
pub fn templates(app: &AppConfig, name: &str, file: &str, root: &Path, limits: &RespondLimits) -> Findings {
    let mut findings = Findings::default();
    let limits = Limits { fuel: limits.template_fuel, max_bytes: limits.text_max_bytes };
    for config in app.routes.iter().filter(|route| route.action == ActionKind::Respond) {
        let (Ok(Some(route)), Some(source)) = (Route::new(config), app.sources.get(&config.source)) else {
            // Said already.
            continue;
        };
        let events = match events(config, source, root) {
            Ok(events) => events,
            Err(problem) => {
                findings.mistakes.push(format!("route `{}`: {problem}", config.name));
                continue;
            }
        };
        if events.is_empty() {
            findings.notes.push(format!(
                "route `{}` was not rehearsed: there is no sample of an event of type {}. Put one into {SAMPLES}/{}.<type>.json",
                config.name, config.event_type, config.source
            ));
        }
        for (sample, event) in events {
            if let Err((key, error)) = route.rendered(&event, limits) {
                let source = match key {
                    "instructions" => config.respond.instructions.as_str(),
                    "input" => config.respond.input.as_str(),
                    _ => config.respond.conversation.as_deref().unwrap_or_default(),
                };
                let place = error.at.map(|at| {
                    match AppConfig::place_in_route(file, config.position, key, source, at) {
                        Some((line, column)) => format!(" (line {line}, column {column})"),
                        None => format!(" (byte {at} of it)"),
                    }
                });
                let place = place.unwrap_or_default();
                let mistake = format!(
                    "{name}: routes[{}].{key}{place}: {} with the sample {sample}",
                    config.position, error.problem
                );
                if !findings.mistakes.contains(&mistake) {
                    findings.mistakes.push(mistake);
                }
            }
        }
    }
    findings
}

/// Sample events that a route takes, with the names of their files.
fn events(
    route: &RouteConfig,
    source: &SourceConfig,
    root: &Path,
) -> Result<Vec<(String, EventData)>, String> {
    let mut samples = own_samples(&route.source, &root.join(SAMPLES))?;
    if samples.is_empty() {
        let body = Bytes::from_static(samples::of(source).0.as_bytes());
        samples.push((format!("of kind {}", source.kind.as_str()), None, body));
    }
    let mut found = Vec::new();
    for (name, event_type, body) in samples {
        // EspoCRM says in the URL alone what an event is.
        let path = event_type.unwrap_or_else(|| route.event_type.replace('*', "sample"));
        let path = (source.kind == SourceKind::Espocrm).then_some(path.as_str());
        let events = events_of_sample(&route.source, source, &body, path);
        let events = events.map_err(|problem| format!("the sample {name}: {problem}"))?;
        let taken = events.into_iter().filter(|event| routes::matches(&route.event_type, &event.event_type));
        found.extend(taken.map(|event| (name.clone(), data(&route.source, event))));
    }
    Ok(found)
}

/// Name, type and body of each sample of a source in a folder.
fn own_samples(source: &str, folder: &Path) -> Result<Vec<(String, Option<String>, Bytes)>, String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut samples = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(stem) = name.strip_suffix(".json") else { continue };
        let event_type = match stem.strip_prefix(source) {
            Some("") => None,
            Some(rest) => match rest.strip_prefix('.') {
                Some(event_type) => Some(event_type.to_owned()),
                None => continue,
            },
            None => continue,
        };
        let body = std::fs::read(entry.path()).map_err(|error| format!("the sample {name}: {error}"))?;
        samples.push((name, event_type, body.into()));
    }
    samples.sort();
    Ok(samples)
}

fn data(source: &str, event: IncomingEvent) -> EventData {
    EventData {
        id: EventId::new(),
        source: source.to_owned(),
        event_type: event.event_type,
        key: event.key,
        subject: event.subject,
        received_at: Timestamp::now(),
        run: 1,
        payload: EventData::payload_of(&event.payload),
        headers: EventData::headers_of(&json!([["content-type", "application/json"]])),
    }
}

/// Routes whose answers do not fit into a function's time: they have to run on the server.
pub fn too_long(app: &AppConfig, host: &HostFile, limits: &RespondLimits) -> Vec<String> {
    let time = host.least_time().saturating_sub(AROUND);
    let mut mistakes = Vec::new();
    for route in app.routes.iter().filter(|route| route.action == ActionKind::Respond) {
        if route.respond.runs_on != RunsOn::Job {
            continue;
        }
        let own = route.respond.time_limit_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        let limit = own.unwrap_or(limits.time_limit);
        let (seconds, key) =
            (limit.as_secs(), if own.is_some() { "time_limit_seconds" } else { "RESPOND_TIME_LIMIT" });
        if limit > time {
            mistakes.push(format!(
                "route `{}`: an answer may take {seconds} s ({key}), and a function that has just started has {} s by \
                 functionTimeout in host.json; make it shorter, or set runs_on = \"server\"",
                route.name,
                time.as_secs()
            ));
        }
        let first = app.models.get(&route.respond.model).map(|model| model.first_event());
        if let Some(first) = first.filter(|first| *first > limit) {
            mistakes.push(format!(
                "route `{}`: the model {} may take {} s to its first event, and an answer {seconds} s in all ({key}); \
                 set runs_on = \"server\", or another limit",
                route.name,
                route.respond.model,
                first.as_secs()
            ));
        }
    }
    mistakes
}
