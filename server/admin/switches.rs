//! `/admin/switches`: what is stopped, and stopping and starting it without a deployment.

use std::sync::Arc;

use colloquy::config::app::Stop;
use colloquy::config::duration;
use colloquy::openresponses::ApiError;
use colloquy::operations::{Changed, NewSwitch, Operations, SwitchLine};
use colloquy::switches::SwitchKind;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use warp::reply::Response;

use super::{Because, Operator, body, body_or_default, failed, needed};
use crate::app::App;
use crate::grants::decoded;
use crate::http::Request;
use crate::routes::not_allowed;

/// The part of the map under `/admin/switches`.
pub async fn dispatch(
    app: &Arc<App>,
    operator: &Operator,
    request: Request,
    rest: &[&str],
) -> (&'static str, Result<Response, ApiError>) {
    match (request.method.clone(), rest) {
        (Method::GET, []) => ("admin.switches.list", index(app).await),
        (_, []) => ("admin.switches", Err(not_allowed("GET"))),
        (Method::PUT, [kind, name]) => {
            ("admin.switches.set", set(app, operator, request, kind, &decoded(name)).await)
        }
        (Method::DELETE, [kind, name]) => {
            ("admin.switches.clear", clear(app, operator, request, kind, &decoded(name)).await)
        }
        (_, [_, _]) => ("admin.switches", Err(not_allowed("PUT, DELETE"))),
        _ => ("unknown", Err(ApiError::not_found("Path", "/admin/switches"))),
    }
}

/// As they are written now, and how the features stand.
async fn index(app: &Arc<App>) -> Result<Response, ApiError> {
    let switches = app.operations.switches().read().await.map_err(|error| failed(error.into()))?;
    let now = Timestamp::now();
    let features = switches.features(&app.config.app.features, app.config.environment, now);
    let data = Operations::switch_lines(&switches, now);
    Ok(crate::http::json(&json!({ "object": "list", "data": data, "has_more": false, "features": features })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    stop: Option<Stop>,
    /// Only a feature: it is on, whatever its configuration says.
    on: Option<bool>,
    /// When it ends by itself.
    until: Option<Timestamp>,
    /// The same as a time from now, such as `2h`.
    #[serde(rename = "for")]
    lasts: Option<String>,
    reason: Option<String>,
}

impl Set {
    fn ends(&self, now: Timestamp) -> Result<Option<Timestamp>, ApiError> {
        let invalid = |param: &str, message: &str| ApiError::invalid_value(param, message);
        match (self.until, self.lasts.as_deref()) {
            (Some(_), Some(_)) => Err(invalid("for", "Give 'until' or 'for', not both.")),
            (Some(until), None) if until <= now => {
                Err(invalid("until", "Invalid 'until': it is in the past."))
            }
            (until, None) => Ok(until),
            (None, Some(lasts)) => {
                let time = duration(lasts).and_then(|time| SignedDuration::try_from(time).ok());
                let until = time.and_then(|time| now.checked_add(time).ok()).filter(|until| *until > now);
                let message = "Invalid 'for': expected a time with its unit, such as '2h'.";
                until.map(Some).ok_or_else(|| invalid("for", message))
            }
        }
    }

    fn stop(&self) -> Result<Option<Stop>, ApiError> {
        match (self.stop, self.on) {
            (Some(stop), None) => Ok(Some(stop)),
            (None, Some(true)) => Ok(None),
            (None, None) => Err(ApiError::missing("stop")),
            _ => Err(ApiError::invalid_value("on", "Give 'stop', or 'on' as true.")),
        }
    }
}

/// What is answered to a change.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    line: &'a SwitchLine,
    /// Whether its audit row could be written; the switch works without the database.
    audited: bool,
}

fn kind(text: &str) -> Result<SwitchKind, ApiError> {
    text.parse().map_err(|_| ApiError::not_found("Kind of switch", text))
}

async fn set(
    app: &Arc<App>,
    operator: &Operator,
    mut request: Request,
    kind_text: &str,
    name: &str,
) -> Result<Response, ApiError> {
    let wanted: Set = body(&mut request).await?;
    needed(wanted.reason.as_deref())?;
    let (stop, until) = (wanted.stop()?, wanted.ends(Timestamp::now())?);
    let switch = NewSwitch { kind: kind(kind_text)?, name: name.to_owned(), stop, until };
    let actor = operator.because(wanted.reason.as_deref());
    let Changed { to, audited } = app.operations.set_switch(&switch, actor).await.map_err(failed)?;
    Ok(crate::http::json(&Shown { line: &to, audited: audited.is_ok() }))
}

async fn clear(
    app: &Arc<App>,
    operator: &Operator,
    mut request: Request,
    kind_text: &str,
    name: &str,
) -> Result<Response, ApiError> {
    let wanted: Because = body_or_default(&mut request).await?;
    let kind = kind(kind_text)?;
    let actor = operator.because(wanted.reason.as_deref());
    let Changed { to, audited } = app.operations.clear_switch(kind, name, actor).await.map_err(failed)?;
    if !to {
        return Err(ApiError::not_found("Switch", &format!("{kind}/{name}")));
    }
    Ok(crate::http::json(&json!({ "kind": kind, "name": name, "cleared": true, "audited": audited.is_ok() })))
}
