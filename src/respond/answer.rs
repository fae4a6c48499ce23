//! What a model answered, and whether anything may act on it.

use serde_json::Value;

use super::route::Route;
use crate::openresponses::{ContentPart, Item, Response, Role};

/// Findings told to the model, and to the operator.
const MOST_FINDINGS: usize = 8;

/// An answer that is as the route wants it.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// JSON that fits the schema, or that was asked for without one.
    Json(Value),
    Text(String),
    /// Calls of functions that the route lists, with arguments that fit.
    Calls(Vec<Call>),
}

/// A function the model calls.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub call_id: String,
    pub name: String,
    pub arguments: Value,
}

/// An answer that nothing may act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// It does not have the form it must have; asked again, the model may do better.
    Misshapen {
        /// What was answered, for the model.
        answer: String,
        /// What is wrong, without anything of the answer.
        problems: Vec<String>,
        /// The ids of the calls it makes, if it makes any.
        calls: Vec<String>,
    },
    /// The model refuses.
    Refused,
    /// It says nothing.
    Empty,
    /// It is not there any more.
    Deleted,
}

impl Answer {
    /// Judges a response that completed.
    pub fn of(route: &Route, response: &Response) -> Result<Self, Rejected> {
        let mut text = String::new();
        let mut calls = Vec::new();
        for item in &response.output {
            match &**item {
                Item::Message(message) if message.role == Role::Assistant => {
                    for part in &message.content {
                        match part {
                            ContentPart::OutputText { text: words, .. } => text.push_str(words),
                            ContentPart::Refusal { .. } => return Err(Rejected::Refused),
                            _ => {}
                        }
                    }
                }
                Item::FunctionCall(call) => {
                    calls.push((call.call_id.as_str(), call.name.as_str(), call.arguments.as_str()));
                }
                _ => {}
            }
        }
        if !calls.is_empty() {
            return Self::of_calls(route, &calls);
        }
        if text.trim().is_empty() {
            return Err(Rejected::Empty);
        }
        let Some(format) = response_format(response) else { return Ok(Self::Text(text)) };
        let misshapen =
            |problems| Err(Rejected::Misshapen { answer: text.clone(), problems, calls: Vec::new() });
        let value: Value = match serde_json::from_str(&text) {
            Ok(value) => value,
            Err(error) => {
                let place = format!("line {}, column {}", error.line(), error.column());
                return misshapen(vec![format!("it is not JSON ({place})")]);
            }
        };
        if format == Format::Object && !value.is_object() {
            return misshapen(vec!["it is not a JSON object".to_owned()]);
        }
        let misfits = route.schema.as_ref().map(|schema| schema.misfits(&value, MOST_FINDINGS));
        match misfits.filter(|misfits| !misfits.is_empty()) {
            Some(misfits) => misshapen(misfits.iter().map(ToString::to_string).collect()),
            None => Ok(Self::Json(value)),
        }
    }

    fn of_calls(route: &Route, calls: &[(&str, &str, &str)]) -> Result<Self, Rejected> {
        let mut problems = Vec::new();
        let mut taken = Vec::new();
        for (number, (call_id, name, arguments)) in calls.iter().enumerate() {
            let Some(schema) = route.arguments.get(*name) else {
                problems.push(format!("call {number}: there is no such function"));
                continue;
            };
            let arguments = if arguments.trim().is_empty() { "{}" } else { arguments };
            let Ok(value) = serde_json::from_str::<Value>(arguments) else {
                problems.push(format!("call {number}: its arguments are not JSON"));
                continue;
            };
            let misfits = schema.as_ref().map(|schema| schema.misfits(&value, MOST_FINDINGS));
            problems.extend(misfits.into_iter().flatten().map(|misfit| format!("call {number}: {misfit}")));
            taken.push(Call { call_id: (*call_id).to_owned(), name: (*name).to_owned(), arguments: value });
        }
        if problems.is_empty() {
            return Ok(Self::Calls(taken));
        }
        problems.truncate(MOST_FINDINGS);
        let answer = calls.iter().map(|(_, name, arguments)| format!("{name}({arguments})\n")).collect();
        let calls = calls.iter().map(|(call_id, ..)| (*call_id).to_owned()).collect();
        Err(Rejected::Misshapen { answer, problems, calls })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Object,
    Schema,
}

fn response_format(response: &Response) -> Option<Format> {
    use crate::openresponses::TextFormat;
    match response.text.format {
        TextFormat::Text => None,
        TextFormat::JsonObject => Some(Format::Object),
        TextFormat::JsonSchema(_) => Some(Format::Schema),
    }
}

#[cfg(test)]
mod tests;
