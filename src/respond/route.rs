//! A `respond` route, ready to be used: from an event to a request.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::event::{Context, EventData};
use super::framing;
use super::template::{Limits, Template, TemplateError};
use crate::config::app::{ActionKind, RouteConfig, RunsOn};
use crate::jobs::state::Failure;
use crate::openresponses::{
    Content, CreateResponse, Input, InputItem, Output, Role, TextFormat, TextParams, Tool, Truncation,
};
use crate::schema::Schema;

/// Longest key of a conversation, in characters.
const LONGEST_KEY: usize = 256;

/// A route with `action = "respond"`. Made from configuration that was checked.
#[derive(Clone, Debug)]
pub struct Route {
    pub name: String,
    /// Alias.
    pub model: String,
    pub owner: String,
    pub callback: Option<String>,
    pub runs_on: RunsOn,
    pub time_limit_seconds: Option<u32>,
    instructions: Template,
    input: Template,
    conversation: Option<Template>,
    payload_in_instructions: bool,
    format: Option<TextFormat>,
    pub(super) schema: Option<Schema>,
    tools: Vec<Tool>,
    /// By the tool's name.
    pub(super) arguments: BTreeMap<String, Option<Schema>>,
    max_output_tokens: Option<u32>,
    metadata: BTreeMap<String, String>,
}

/// What an event asks of a model.
#[derive(Debug)]
pub struct Asking {
    /// Without what goes before.
    pub request: CreateResponse,
    /// Under which key its conversation is found.
    pub conversation: Option<String>,
}

/// An answer that did not fit, and why.
#[derive(Debug)]
pub struct Repair<'a> {
    pub answer: &'a str,
    pub problems: &'a [String],
    /// The ids of its calls.
    pub calls: &'a [String],
}

impl Repair<'_> {
    /// Providers refuse a history in which a call has no output, so each of the calls gets one before the text.
    fn input(&self, job: Uuid) -> Input {
        let text = framing::repair(job, self.answer, self.problems);
        if self.calls.is_empty() {
            return Input::Text(text);
        }
        let why = framing::not_accepted(self.problems);
        let outputs = self.calls.iter().map(|call_id| InputItem {
            kind: Some("function_call_output".to_owned()),
            call_id: Some(call_id.clone()),
            output: Some(Output::Text(why.clone())),
            ..InputItem::default()
        });
        Input::Items(outputs.chain([said(text)]).collect())
    }
}

/// A user's message.
fn said(text: String) -> InputItem {
    InputItem { role: Some(Role::User), content: Some(Content::Text(text)), ..InputItem::default() }
}

/// A route of `colloquy.toml` that cannot be used: which key, and why.
#[derive(Debug, thiserror::Error)]
#[error("route `{route}`: {key}: {problem}")]
pub struct Unusable {
    pub route: String,
    pub key: &'static str,
    pub problem: String,
}

fn usable_key(rendered: &str) -> Result<&str, String> {
    let key = rendered.trim();
    let fits = !key.is_empty() && key.chars().count() <= LONGEST_KEY && !key.contains(char::is_control);
    fits.then_some(key).ok_or_else(|| format!("gives no key of 1 to {LONGEST_KEY} characters on one line"))
}

impl Route {
    /// Every route of `colloquy.toml` with this action, by its name, and what cannot be used.
    pub fn all(routes: &[RouteConfig]) -> (HashMap<String, Self>, Vec<Unusable>) {
        let (mut ready, mut unusable) = (HashMap::new(), Vec::new());
        for route in routes {
            match Self::new(route) {
                Ok(Some(made)) => drop(ready.insert(route.name.clone(), made)),
                Ok(None) => {}
                Err(error) => unusable.push(error),
            }
        }
        (ready, unusable)
    }

    /// `None` for a route with another action.
    pub fn new(config: &RouteConfig) -> Result<Option<Self>, Unusable> {
        if config.action != ActionKind::Respond {
            return Ok(None);
        }
        let respond = &config.respond;
        let refuse = |key, problem: String| Unusable { route: config.name.clone(), key, problem };
        let template =
            |key, source: &str| Template::new(source).map_err(|error| refuse(key, error.to_string()));
        let (format, schema) = respond.format().map_err(|problem| refuse("text.format", problem))?;
        let tools = respond.tools().map_err(|(_, problem)| refuse("tools", problem))?;
        let arguments = tools.iter().map(|(tool, schema)| (tool.name().to_owned(), schema.clone())).collect();
        Ok(Some(Self {
            name: config.name.clone(),
            model: respond.model.clone(),
            owner: config.owner(),
            callback: respond.callback.clone(),
            runs_on: respond.runs_on,
            time_limit_seconds: respond.time_limit_seconds,
            instructions: template("instructions", &respond.instructions)?,
            input: template("input", &respond.input)?,
            conversation: respond
                .conversation
                .as_deref()
                .map(|key| template("conversation", key))
                .transpose()?,
            payload_in_instructions: respond.payload_in_instructions,
            format,
            schema,
            tools: tools.into_iter().map(|(tool, _)| tool).collect(),
            arguments,
            max_output_tokens: respond.max_output_tokens,
            metadata: respond.metadata.clone(),
        }))
    }

    /// The key under which the turns of this route are counted and budgeted, beside its owner.
    pub fn account(&self) -> String {
        format!("route:{}", self.name)
    }

    /// What an event asks. `repair`: that an answer be given again; of a route with a conversation the event is said again,
    /// first of all.
    pub fn ask(
        &self,
        event: &EventData,
        job: Uuid,
        limits: Limits,
        repair: Option<&Repair<'_>>,
    ) -> Result<Asking, Failure> {
        let failed = |(key, error): (&'static str, TemplateError)| {
            Failure::new("template_failed", format!("route `{}`: {key}: {error}", self.name))
        };
        let (instructions, input, conversation) = self.rendered(event, limits).map_err(failed)?;
        let conversation = conversation.map(|key| self.key(&key)).transpose()?;
        let event_text = framing::as_data(job, &input);
        let input = match repair {
            None => Input::Text(event_text),
            // What did not fit is no part of the conversation, nor is what it was an answer to.
            Some(repair) if conversation.is_some() => Input::Items(vec![
                said(event_text),
                said(framing::repair(job, repair.answer, repair.problems)),
            ]),
            Some(repair) => repair.input(job),
        };
        let mut metadata = self.metadata.clone();
        metadata.insert("event".to_owned(), event.id.to_string());
        metadata.insert("route".to_owned(), self.name.clone());
        let request = CreateResponse {
            model: Some(self.model.clone()),
            input: Some(input),
            instructions: Some(framing::with_rule(&instructions)),
            text: self.format.clone().map(|format| TextParams { format: Some(format), verbosity: None }),
            tools: (!self.tools.is_empty()).then(|| self.tools.clone()),
            max_output_tokens: self.max_output_tokens,
            metadata: Some(metadata),
            // What was said long ago in a conversation must not keep the newest event from being answered.
            truncation: Some(Truncation::Auto),
            store: Some(true),
            ..CreateResponse::default()
        };
        Ok(Asking { request, conversation })
    }

    /// Instructions, input and the conversation's key. The error names the key of the route.
    fn rendered(
        &self,
        event: &EventData,
        limits: Limits,
    ) -> Result<(String, String, Option<String>), (&'static str, TemplateError)> {
        let all = event.context();
        let conversation = self.conversation.as_ref().map(|key| key.render(&all, limits)).transpose();
        Ok((
            self.instructed(event, &all, limits).map_err(|error| ("instructions", error))?,
            self.input.render(&all, limits).map_err(|error| ("input", error))?,
            conversation.map_err(|error| ("conversation", error))?,
        ))
    }

    fn instructed(&self, event: &EventData, all: &Context, limits: Limits) -> Result<String, TemplateError> {
        if self.payload_in_instructions {
            self.instructions.render(all, limits)
        } else {
            self.instructions.render(&event.trusted_context(), limits)
        }
    }

    /// Every template that an event cannot be filled into, or gives what cannot be used, by its key of the route: what
    /// [`Self::ask`] would fail with, one after the other.
    pub fn faults(&self, event: &EventData, limits: Limits) -> Vec<(&'static str, TemplateError)> {
        let all = event.context();
        let conversation = self.conversation.as_ref().map_or(Ok(()), |key| {
            let problem = |problem| TemplateError { problem, at: None };
            usable_key(&key.render(&all, limits)?).map(drop).map_err(problem)
        });
        let instructions = self.instructed(event, &all, limits).map(drop);
        let input = self.input.render(&all, limits).map(drop);
        let each = [("instructions", instructions), ("input", input), ("conversation", conversation)];
        each.into_iter().filter_map(|(key, came)| Some((key, came.err()?))).collect()
    }

    fn key(&self, rendered: &str) -> Result<String, Failure> {
        usable_key(rendered).map(str::to_owned).map_err(|problem| {
            let problem = format!("route `{}`: conversation: {problem}", self.name);
            Failure::new("conversation_key_invalid", problem)
        })
    }
}
