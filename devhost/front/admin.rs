//! `/admin/*`: the host's own endpoints, open to this machine, and devhost's control endpoint.

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::Front;
use super::body::{self, Body};
use super::exchange::{Exchange, Failure, answer, json as json_answer};
use super::forward::collect;
use crate::envelope::{self, Sys};
use crate::functions::{Function, Trigger};

/// Where `devhost invoke` posts envelopes: `POST /admin/devhost/invoke/<function>`.
pub const INVOKE_PATH: &str = "/admin/devhost/invoke/";

pub async fn admin(
    front: &Arc<Front>,
    request: Request<Incoming>,
    exchange: &Exchange,
) -> Result<Response<Body>, Failure> {
    let path = request.uri().path().trim_end_matches('/').to_owned();
    let parts: Vec<&str> = path.split('/').skip(2).collect();
    if parts != ["host", "ping"] && !exchange.peer.ip().is_loopback() {
        return Err(Failure::new(StatusCode::UNAUTHORIZED, format!("{path} is open to this machine only")));
    }
    let method = request.method().clone();
    match (&method, parts.as_slice()) {
        (&(Method::GET | Method::POST), ["host", "ping"]) => Ok(answer(StatusCode::OK, body::empty())),
        (&Method::GET, ["host", "status"]) => Ok(json_answer(StatusCode::OK, &front.status())),
        (&Method::GET, ["functions"]) => {
            let functions: Vec<Value> =
                front.functions.iter().map(|function| front.describe(function)).collect();
            Ok(json_answer(StatusCode::OK, &functions.into()))
        }
        (&Method::GET, ["functions", name]) => {
            Ok(json_answer(StatusCode::OK, &front.describe(&*front.function(name)?)))
        }
        (&Method::GET, ["functions", name, "status"]) => {
            Ok(json_answer(StatusCode::OK, &front.load_errors(name)?))
        }
        (&Method::POST, ["functions", name]) => start(front, name, request).await,
        (&Method::POST, ["devhost", "invoke", name]) => invoke(front, name, request).await,
        _ => Err(Failure::new(StatusCode::NOT_FOUND, format!("{method} {path} is no endpoint of the host"))),
    }
}

/// 202 at once; the outcome is in the log only.
async fn start(
    front: &Arc<Front>,
    name: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    let function = front.function(name)?;
    let value = json_body(front, request).await?;
    let input = value["input"].as_str().ok_or_else(|| bad_request("expected {\"input\":\"text\"}"))?;
    let envelope = admin_envelope(&function, input)?;
    let host = Arc::clone(front);
    front.tasks.spawn(async move {
        // Logged by the runner.
        host.runner
            .run(&function, envelope, "This function was programmatically called via the host APIs.")
            .await
            .ok();
    });
    Ok(answer(StatusCode::ACCEPTED, body::empty()))
}

/// Posts one envelope and answers with its outcome. A body with `Data` is posted as it is; `{"text":…}` becomes
/// the message of a queue function, `{}` a timer that is due.
async fn invoke(
    front: &Arc<Front>,
    name: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    let function = front.function(name)?;
    let value = json_body(front, request).await?;
    let envelope = match value.get("Data") {
        Some(_) => value.to_string().into_bytes(),
        None => invoke_envelope(&function, &value)?,
    };
    let outcome = match front.runner.run(&function, envelope, "devhost invoke").await {
        Ok(answer) => {
            json!({"succeeded": true, "answer": {"Outputs": answer.outputs, "Logs": answer.logs, "ReturnValue": answer.return_value}})
        }
        Err(cause) => json!({"succeeded": false, "error": cause.to_string()}),
    };
    Ok(json_answer(StatusCode::OK, &outcome))
}

async fn json_body(front: &Front, request: Request<Incoming>) -> Result<Value, Failure> {
    let content_type =
        request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !content_type.to_ascii_lowercase().starts_with("application/json") {
        return Err(Failure::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Content-Type must be application/json".to_owned(),
        ));
    }
    let bytes = collect(request.into_body(), front.body_limit).await?;
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|cause| bad_request(&format!("the body is not JSON: {cause}")))?;
    if value.is_object() { Ok(value) } else { Err(bad_request("the body is not a JSON object")) }
}

fn bad_request(reason: &str) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, reason.to_owned())
}

/// An admin invocation of a queue function has no message: no Id, no DequeueCount in its metadata.
fn admin_envelope(function: &Function, input: &str) -> Result<Vec<u8>, Failure> {
    let sys = Sys::new(&function.name);
    let binding = function.trigger_binding();
    let envelope = match &function.trigger {
        Trigger::Queue { .. } => envelope::bare_text(&binding.name, input, &sys),
        Trigger::Timer { .. } => {
            envelope::timer_info(&binding.name, None, false, &jiff::tz::TimeZone::system(), &sys)
        }
        Trigger::Http { .. } => return Err(bad_request("call HTTP functions by their address")),
    };
    envelope.map_err(|cause| Failure::internal(cause.to_string()))
}

fn invoke_envelope(function: &Function, value: &Value) -> Result<Vec<u8>, Failure> {
    let sys = Sys::new(&function.name);
    let binding = function.trigger_binding();
    let envelope = match &function.trigger {
        Trigger::Queue { .. } => {
            let text = value["text"].as_str().ok_or_else(|| {
                bad_request("a queue function needs {\"text\":…}, or a whole envelope with Data")
            })?;
            envelope::queue_message(&envelope::fresh_message(binding, text), &sys)
        }
        Trigger::Timer { .. } => {
            let now = jiff::Timestamp::now();
            let status = envelope::ScheduleStatus { last: None, next: now, last_updated: now };
            envelope::timer_info(&binding.name, Some(status), false, &jiff::tz::TimeZone::system(), &sys)
        }
        Trigger::Http { .. } => {
            return Err(bad_request(
                "this HTTP function needs a whole envelope with Data; otherwise call it by its address",
            ));
        }
    };
    envelope.map_err(|cause| Failure::internal(cause.to_string()))
}
