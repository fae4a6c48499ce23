//! What routes with `action = "respond"` say, and what has to hold between it and the rest of the file.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::shape::{Form, ROUTE};
use super::walk::Walk;
use super::{AppConfig, DeploymentConfig, RouteConfig};
use crate::config::host::AppEnvironment;
use crate::config::mistake::Mistake;
use crate::config::models::ModelKeys;
use crate::openresponses::{TextFormat, Tool};
use crate::respond::event::{OURS, SENDERS};
use crate::respond::template::Template;
use crate::schema::Schema;

/// Where a turn runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunsOn {
    /// In the function `run-job`: for answers that come within a function's time.
    #[default]
    Job,
    /// On the conversation server, as long as it takes.
    Server,
}

/// What only routes with `action = "respond"` have.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RespondConfig {
    /// Template of what the model is told to do.
    pub instructions: String,
    /// Template of what it is to work on: reaches it as data.
    pub input: String,
    /// Whether `instructions` may use what a sender wrote.
    pub payload_in_instructions: bool,
    /// Alias.
    pub model: String,
    pub text: TextConfig,
    /// Template of the key under which events of one matter share a conversation; unique per owner and route.
    pub conversation: Option<String>,
    /// Whose budget is spent and who finds the turns. Default `source:<source>`.
    pub owner: Option<String>,
    /// Target that the answer is sent to.
    pub callback: Option<String>,
    pub max_output_tokens: Option<u32>,
    /// Functions the model may call; its calls go to the callback.
    pub tools: Vec<Value>,
    pub runs_on: RunsOn,
    /// How long one answer may take with `runs_on = "job"`. Default `RESPOND_TIME_LIMIT`.
    pub time_limit_seconds: Option<u32>,
    pub metadata: BTreeMap<String, String>,
}

/// `text`, as in a request.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextConfig {
    pub format: Option<Value>,
}

pub(super) const OWNER: Form = Form {
    expected: "an owner of at most 512 characters",
    fits: |text| !text.trim().is_empty() && text.chars().count() <= 512,
    stand_in: "owner",
};
pub(super) const PAIR: Form = Form {
    expected: "text of at most 512 characters",
    fits: |text| text.chars().count() <= 512,
    stand_in: "value",
};

/// Keys of routes that every action may have, or that belong to another.
const NOT_OURS: [&str; 6] = ["name", "source", "type", "action", "target", "job"];

/// Metadata that every such turn has.
pub const OWN_METADATA: [&str; 2] = ["event", "route"];
/// As many pairs as a response may have, less our own.
const MOST_METADATA: usize = 14;

impl RouteConfig {
    /// Whose turns these are.
    pub fn owner(&self) -> String {
        self.respond.owner.clone().unwrap_or_else(|| format!("source:{}", self.source))
    }
}

/// A function that a model may call, and the schema of its arguments, if it has one.
pub type OfferedTool = (Tool, Option<Schema>);

impl RespondConfig {
    /// The form the answer must have, and the schema it is checked against.
    pub fn format(&self) -> Result<(Option<TextFormat>, Option<Schema>), String> {
        let Some(format) = &self.text.format else { return Ok((None, None)) };
        let mut format = format.clone();
        // A long schema is easier to read as JSON.
        if let Some(Value::String(json)) = format.get("schema") {
            let schema = serde_json::from_str(json).map_err(|error| format!("schema: not JSON: {error}"))?;
            format["schema"] = schema;
        }
        let schema = format.get("schema").cloned();
        let format: TextFormat =
            serde_json::from_str(&format.to_string()).map_err(|error| error.to_string())?;
        let schema = match (&format, schema) {
            (TextFormat::JsonSchema(_), Some(schema)) => {
                Some(Schema::new(schema).map_err(|error| format!("schema{error}"))?)
            }
            _ => None,
        };
        Ok((Some(format), schema))
    }

    /// The functions the model may call, and the schema of each one's arguments.
    pub fn tools(&self) -> Result<Vec<OfferedTool>, (usize, String)> {
        let each = self.tools.iter().enumerate();
        each.map(|(at, value)| {
            let tool: Tool =
                serde_json::from_str(&value.to_string()).map_err(|error| (at, error.to_string()))?;
            let schema = value.get("parameters").filter(|schema| !schema.is_null()).cloned();
            let schema =
                schema.map(Schema::new).transpose().map_err(|error| (at, format!("parameters{error}")))?;
            Ok((tool, schema))
        })
        .collect()
    }
}

/// What has to hold of a route, whatever its action.
pub(super) fn check(
    walk: &mut Walk<'_>,
    path: &str,
    route: &RouteConfig,
    app: &AppConfig,
    (targets, aliases): (&BTreeSet<String>, &BTreeSet<String>),
    responds: bool,
) {
    let place = |key: &str| format!("{path}.{key}");
    if !responds {
        for key in ROUTE.iter().filter(|key| !NOT_OURS.contains(&key.name)) {
            if walk.has(&place(key.name)) {
                walk.mistake(&place(key.name), "belongs only to action = \"respond\"");
            }
        }
        return;
    }
    let config = &route.respond;
    for key in ["instructions", "input", "model"] {
        if !walk.has(&place(key)) {
            walk.mistake(&place(key), "is missing; action = \"respond\" needs one");
        }
    }
    template(walk, &place("instructions"), &config.instructions, config.payload_in_instructions);
    template(walk, &place("input"), &config.input, true);
    if let Some(key) = &config.conversation {
        template(walk, &place("conversation"), key, true);
    }
    if !config.model.is_empty() && !aliases.contains(&config.model) {
        walk.mistake(&place("model"), format!("there is no [models.{}]", config.model));
    }
    if let Some(target) = config.callback.as_ref().filter(|target| !targets.contains(*target)) {
        walk.mistake(&place("callback"), format!("there is no [targets.{target}]"));
    }
    if let Err(problem) = config.format() {
        walk.mistake(&place("text.format"), problem);
    }
    if let Err((at, problem)) = config.tools() {
        walk.mistake(&format!("{}[{at}]", place("tools")), problem);
    }
    if config.conversation.is_some() && !config.tools.is_empty() {
        let problem = "cannot be together with conversation: nobody answers the calls, and a model that finds a call \
                       without its answer in a conversation refuses to go on";
        walk.mistake(&place("tools"), problem);
    }
    if config.runs_on == RunsOn::Server && config.time_limit_seconds.is_some() {
        walk.mistake(&place("time_limit_seconds"), "belongs only to runs_on = \"job\"");
    }
    let longest = longest_answer(app, &config.model);
    if let (Some(asked), Some(longest)) = (config.max_output_tokens, longest)
        && asked > longest
    {
        walk.mistake(
            &place("max_output_tokens"),
            format!("is more than the {longest} that a deployment of {} may give", config.model),
        );
    }
    metadata(walk, &place("metadata"), &config.metadata);
}

fn longest_answer(app: &AppConfig, alias: &str) -> Option<u32> {
    let names = app.models.get(alias)?.deployments.iter();
    names.filter_map(|name| app.deployments.get(name)).map(|deployment| deployment.max_output_tokens).min()
}

fn metadata(walk: &mut Walk<'_>, place: &str, metadata: &BTreeMap<String, String>) {
    if metadata.len() > MOST_METADATA {
        walk.mistake(place, format!("has {} pairs; at most {MOST_METADATA} are allowed", metadata.len()));
    }
    for name in metadata.keys() {
        if OWN_METADATA.contains(&name.as_str()) {
            walk.mistake(&format!("{place}.{name}"), "is set for every event; take another name");
        } else if name.chars().count() > 64 {
            walk.mistake(&format!("{place}.{name}"), "is a name of more than 64 characters");
        }
    }
}

/// Syntax, and names that mean nothing, without filling anything in.
fn template(walk: &mut Walk<'_>, place: &str, source: &str, may_use_payload: bool) {
    if source.is_empty() {
        return;
    }
    let template = match Template::new(source) {
        Ok(template) => template,
        Err(error) => return walk.mistake_in(place, source, error.at, &error.problem),
    };
    for name in template.names() {
        let at = template.place_of(&name);
        let mut steps = name.split('.');
        let problem = match (steps.next(), steps.next()) {
            (Some("event"), Some(field)) if OURS.contains(&field) => continue,
            (Some("event"), Some(field)) if SENDERS.contains(&field) => {
                if may_use_payload {
                    continue;
                }
                format!(
                    "`{name}` is what a sender wrote, which must not instruct the model: use it in input, where it is \
                     data, or set payload_in_instructions = true if you are sure"
                )
            }
            (Some("event"), None) if !may_use_payload => {
                "`event` as a whole holds what a sender wrote; name its fields".to_owned()
            }
            (Some("event"), None) => continue,
            (Some("event"), Some(_)) => {
                let fields: Vec<&str> = OURS.iter().chain(SENDERS).copied().collect();
                format!("`{name}` is not defined; event has {}", fields.join(", "))
            }
            _ => format!("`{name}` is not defined; everything is under `event`"),
        };
        walk.mistake_in(place, source, at, &problem);
    }
}

impl AppConfig {
    /// Routes whose turns run in the function app.
    pub fn responding_in_jobs(&self) -> impl Iterator<Item = &RouteConfig> {
        let responds = |route: &&RouteConfig| route.action == super::ActionKind::Respond;
        self.routes.iter().filter(responds).filter(|route| route.respond.runs_on == RunsOn::Job)
    }

    /// [`AppConfig::models_refused_in`] for the models that the function app itself calls.
    pub fn models_of_jobs_refused_in(&self, environment: AppEnvironment, keys: &ModelKeys) -> Vec<Mistake> {
        let models = self.responding_in_jobs().filter_map(|route| self.models.get(&route.respond.model));
        let used: BTreeSet<&String> = models.flat_map(|model| &model.deployments).collect();
        let deployments = self.deployments.iter().filter(|(name, _)| used.contains(name));
        let deployments: BTreeMap<String, DeploymentConfig> =
            deployments.map(|(name, config)| (name.clone(), config.clone())).collect();
        let of_used = |mistake: &&Mistake| {
            used.iter().any(|name| mistake.place.starts_with(&format!("deployments.{name}.")))
        };
        let unset_for_models = self.unset_for_models.iter().filter(of_used).cloned().collect();
        Self { deployments, unset_for_models, ..Self::default() }.models_refused_in(environment, keys)
    }
}

#[cfg(test)]
mod tests;
