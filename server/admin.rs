//! `/admin`: what operators see and change; the same is there as commands. One file per group of routes.

mod audit;
mod dead_letters;
mod events;
mod grants;
mod keys;
mod money;
mod owners;
mod platform;
mod switches;
mod turns;
mod work;

use std::str::FromStr;
use std::sync::Arc;

use colloquy::access::Principal;
use colloquy::access::owners::ErasureError;
use colloquy::config::Scope;
use colloquy::database::audit::Actor;
use colloquy::database::responses::PageOf;
use colloquy::openresponses::{ApiError, ErrorType, excerpt, parse};
use colloquy::operations::OperationError;
use http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use warp::reply::Response;

use crate::app::App;
use crate::http::Request;
use crate::responses::Page;
use crate::routes::unknown;

/// The part of the map under `/admin`. `rest` is what follows it. Who is no operator learns nothing of it but that.
pub async fn dispatch(
    app: &Arc<App>,
    request: Request,
    rest: &[&str],
) -> (&'static str, Result<Response, ApiError>) {
    let operator = match Operator::of(app, &request).await {
        Ok(operator) => operator,
        Err(error) => return ("admin", Err(error)),
    };
    match rest {
        ["events", rest @ ..] => events::dispatch(app, &operator, request, rest).await,
        ["jobs", rest @ ..] => work::jobs(app, request, rest).await,
        ["callbacks", rest @ ..] => work::callbacks(app, request, rest).await,
        ["targets", rest @ ..] => work::targets(app, &operator, request, rest).await,
        ["dead-letters", rest @ ..] => dead_letters::dispatch(app, &operator, request, rest).await,
        ["turns", rest @ ..] => turns::dispatch(app, &operator, request, rest).await,
        ["queues", rest @ ..] => platform::queues(app, request, rest).await,
        ["migrations", rest @ ..] => platform::migrations(app, request, rest).await,
        ["audit", rest @ ..] => audit::dispatch(app, request, rest).await,
        ["budgets", rest @ ..] => money::budgets(app, request, rest).await,
        ["usage", rest @ ..] => money::all_usage(app, request, rest).await,
        ["switches", rest @ ..] => switches::dispatch(app, &operator, request, rest).await,
        ["grants", rest @ ..] => grants::dispatch(app, &operator, request, rest).await,
        ["keys", rest @ ..] => keys::dispatch(app, &operator, request, rest).await,
        ["owners", rest @ ..] => owners::dispatch(app, &operator, request, rest).await,
        _ => ("unknown", Err(unknown(&request.method, &format!("/admin/{}", rest.join("/"))))),
    }
}

/// A caller with the scope `operator`. Whoever holds one was let in.
pub struct Operator {
    name: String,
}

impl Operator {
    async fn of(app: &Arc<App>, request: &Request) -> Result<Self, ApiError> {
        let who: Arc<Principal> = app.authenticate(&request.headers).await?;
        app.require(&who, Scope::Operator)?;
        Ok(Self { name: who.actor() })
    }

    /// As the audit row of a change names who made it, and why.
    pub fn because<'a>(&'a self, reason: Option<&'a str>) -> Actor<'a> {
        Actor { name: &self.name, reason }
    }
}

/// The JSON body of a request.
async fn body<T: DeserializeOwned>(request: &mut Request) -> Result<T, ApiError> {
    parse_plain(&request.json_bytes().await?)
}

/// The JSON body of a request that may come without one.
async fn body_or_default<T: DeserializeOwned + Default>(request: &mut Request) -> Result<T, ApiError> {
    let body = request.json_bytes().await?;
    if body.is_empty() { Ok(T::default()) } else { parse_plain(&body) }
}

/// 400 on the field that holds control characters: nothing that operators name or say has any, they would break the lines
/// of lists, and PostgreSQL takes no NUL in text.
fn parse_plain<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let parsed = parse(body)?;
    let whole: Value = serde_json::from_slice(body).unwrap_or_default();
    match controlled(&whole, String::new()) {
        Some(field) => Err(crate::http::control_characters(&field)),
        None => Ok(parsed),
    }
}

/// Where the first text with control characters stands.
fn controlled(value: &Value, place: String) -> Option<String> {
    match value {
        Value::String(text) => text.contains(char::is_control).then_some(place),
        Value::Array(all) => {
            all.iter().enumerate().find_map(|(at, value)| controlled(value, format!("{place}[{at}]")))
        }
        Value::Object(members) => members.iter().find_map(|(name, value)| {
            let dot = if place.is_empty() { "" } else { "." };
            controlled(value, format!("{place}{dot}{name}"))
        }),
        _ => None,
    }
}

/// The body of a change that needs no more than a reason.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Because {
    reason: Option<String>,
}

/// 400 without a reason, where it is all that will be left to say.
fn needed(reason: Option<&str>) -> Result<(), ApiError> {
    reason.filter(|reason| !reason.trim().is_empty()).map(drop).ok_or_else(|| ApiError::missing("reason"))
}

/// What an operator is told of something that was not done.
fn failed(error: OperationError) -> ApiError {
    let (code, message) = (error.code(), error.to_string());
    let refused = |status, kind| ApiError::new(status, kind, code, message.clone()).should_retry(false);
    match error {
        OperationError::Database(error) | OperationError::Erasure(ErasureError::Database(error)) => {
            App::away(error)
        }
        OperationError::Storage(_)
        | OperationError::NoStorage
        | OperationError::Erasure(
            ErasureError::NoStorage | ErasureError::Storage(_) | ErasureError::Spooled(_),
        ) => {
            tracing::warn!(code = "storage_unavailable", %error, "an operator's request needs storage");
            ApiError::unavailable("storage_unavailable", message)
        }
        OperationError::Switches(error) => {
            tracing::warn!(code, %error, "switches could not be reached");
            ApiError::unavailable("switches_unavailable", message)
        }
        OperationError::OnlyFeatures
        | OperationError::OwnerName
        | OperationError::Erasure(ErasureError::Nobody) => {
            refused(StatusCode::BAD_REQUEST, ErrorType::InvalidRequestError)
        }
        OperationError::NotFound { .. } | OperationError::PayloadGone | OperationError::Unknown { .. } => {
            refused(StatusCode::NOT_FOUND, ErrorType::InvalidRequestError)
        }
        _ => refused(StatusCode::CONFLICT, ErrorType::ConflictError),
    }
}

/// An id out of a path; 404 if it is none.
fn id<T: FromStr>(what: &str, text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| ApiError::not_found(what, text))
}

/// An instant out of a query. Nothing here is from before 1970, and ids do not reach further back.
fn instant(name: &str, value: &str) -> Result<Option<Timestamp>, ApiError> {
    let message = format!(
        "Invalid '{name}': expected an instant such as 2026-01-31T12:00:00Z, not '{}'.",
        excerpt(value)
    );
    let at: Result<Timestamp, _> = value.parse();
    at.map(|at| Some(at.max(Timestamp::UNIX_EPOCH))).map_err(|_| ApiError::invalid_value(name, message))
}

/// A state out of a query, as its type writes it.
fn state<T: FromStr<Err = String> + ToString>(value: &str) -> Result<Option<String>, ApiError> {
    value
        .parse::<T>()
        .map(|state| Some(state.to_string()))
        .map_err(|problem| ApiError::invalid_value("state", problem))
}

/// A page of a list of what has ids.
fn page_of<T: FromStr>(what: &str, page: &Page) -> Result<PageOf<T>, ApiError> {
    let after = page.after.as_deref().map(|after| {
        let message = format!("No {what} with id '{}'.", excerpt(after));
        after.parse().map_err(|_| ApiError::invalid_value("after", message))
    });
    Ok(PageOf { after: after.transpose()?, limit: page.limit, order: page.order })
}
