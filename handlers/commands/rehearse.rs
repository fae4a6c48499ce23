//! Rehearses `respond` routes: every template filled in with sample events, and whether answers fit into a function's
//! time.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use colloquy::config::app::{ActionKind, AppConfig, RouteConfig, RunsOn, SourceConfig, SourceKind};
use colloquy::config::{Environment, RespondLimits};
use colloquy::events::routes;
use colloquy::functions::HostFile;
use colloquy::ids::EventId;
use colloquy::respond::template::Limits;
use colloquy::respond::{EventData, Route};
use colloquy::webhooks::{self, IncomingEvent};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::samples;

/// Of a function's time, what is needed to claim a job and to write down what came of it.
const AROUND: Duration = Duration::from_secs(7);

/// Where a deployment keeps samples of its own, under the app's root: `<source>.json`, `<source>.<type>.json`.
const SAMPLES: &str = "tests/fixtures/events";

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    pub mistakes: Vec<String>,
    /// What could not be rehearsed.
    pub notes: Vec<String>,
}

/// The text of `colloquy.toml`, what it is called, and the environment it was read with.
#[derive(Clone, Copy)]
pub struct Read<'a> {
    pub name: &'a str,
    pub text: &'a str,
    pub environment: Option<&'a dyn Environment>,
}

/// Fills in every template of every `respond` route of `app`, which was read from `file`.
pub fn templates(app: &AppConfig, file: Read<'_>, root: &Path, limits: &RespondLimits) -> Findings {
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
                "route `{}` was not rehearsed: there is no sample of an event of type {}. Put one into {}",
                config.name,
                config.event_type,
                place_of_samples(&config.source)
            ));
        }
        let open: Vec<&str> =
            KEYS.into_iter().filter(|key| AppConfig::is_open(template(config, key))).collect();
        if !open.is_empty() {
            findings.notes.push(format!(
                "route `{}`: not rehearsed: {}, of which the environment is a part; `check --env` does",
                config.name,
                open.join(", ")
            ));
        }
        for (sample, event) in events {
            for (key, error) in route.faults(&event, limits) {
                let inside = error.at.map(|at| (template(config, key), at));
                let read = (file.text, file.environment);
                let place = AppConfig::place_in_route(read, config.position, key, inside);
                let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
                let advice = if sample.is_own {
                    String::new()
                } else {
                    format!(
                        "; if `{}` sends something else, put a sample of it into {}",
                        config.source,
                        place_of_samples(&config.source)
                    )
                };
                let mistake = format!(
                    "{}: routes[{}].{key}{place}: {} with the sample {}{advice}",
                    file.name, config.position, error.problem, sample.name
                );
                if !findings.mistakes.contains(&mistake) {
                    findings.mistakes.push(mistake);
                }
            }
        }
    }
    findings
}

/// What a route has templates under.
const KEYS: [&str; 3] = ["instructions", "input", "conversation"];

fn template<'a>(route: &'a RouteConfig, key: &str) -> &'a str {
    match key {
        "instructions" => &route.respond.instructions,
        "input" => &route.respond.input,
        _ => route.respond.conversation.as_deref().unwrap_or_default(),
    }
}

fn place_of_samples(source: &str) -> String {
    format!("{SAMPLES}/{source}.<type>.json")
}

/// A sample of what a source sends.
struct Sample {
    /// For people.
    name: String,
    /// Of the deployment, not of us.
    is_own: bool,
    /// What the event is called, if that is known.
    event_type: Option<String>,
    body: Bytes,
}

/// Sample events that a route takes, with the samples they are of.
fn events(
    route: &RouteConfig,
    source: &SourceConfig,
    root: &Path,
) -> Result<Vec<(Rc<Sample>, EventData)>, String> {
    let mut samples = own_samples(&route.source, &root.join(SAMPLES))?;
    if samples.is_empty() {
        let kind = source.kind;
        samples = samples::all(source).map(|body| of_kind(kind, body)).collect();
    }
    let mut found = Vec::new();
    for sample in samples {
        let sample = Rc::new(sample);
        // Many senders say in a header or in the URL alone what an event is: this one is what the route is for.
        let event = sample.event_type.clone().unwrap_or_else(|| route.event_type.replace('*', "sample"));
        let split = webhooks::sample(&route.source, source, &sample.body, &event, Timestamp::now());
        let split = split.map_err(|problem| format!("the sample {}: {problem}", sample.name))?;
        let headers: Map<String, Value> =
            split.headers.into_iter().map(|(name, value)| (name, value.into())).collect();
        let taken =
            split.events.into_iter().filter(|event| routes::matches(&route.event_type, &event.event_type));
        found.extend(taken.map(|event| (Rc::clone(&sample), data(&route.source, event, headers.clone()))));
    }
    Ok(found)
}

fn of_kind(kind: SourceKind, body: &'static str) -> Sample {
    Sample {
        name: format!("of kind {}", kind.as_str()),
        is_own: false,
        // It can be nothing else.
        event_type: (kind == SourceKind::Github).then(|| "push".to_owned()),
        body: Bytes::from_static(body.as_bytes()),
    }
}

/// A source's samples in a folder.
fn own_samples(source: &str, folder: &Path) -> Result<Vec<Sample>, String> {
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
        samples.push(Sample { name, is_own: true, event_type, body: body.into() });
    }
    samples.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(samples)
}

fn data(source: &str, event: IncomingEvent, headers: Map<String, Value>) -> EventData {
    EventData {
        id: EventId::new(),
        source: source.to_owned(),
        event_type: event.event_type,
        key: event.key,
        subject: event.subject,
        received_at: Timestamp::now(),
        run: 1,
        payload: EventData::payload_of(&event.payload),
        headers,
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

#[cfg(test)]
mod tests;
