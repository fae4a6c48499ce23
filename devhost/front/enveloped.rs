//! HTTP functions with more than an http output: the request travels in an envelope. functions-host.md §3, §4.

use http::header::{self, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::Front;
use super::body::{self, Body};
use super::exchange::{Failure, answer};
use super::forward::collect;
use super::routes::Params;
use crate::answer::Answer;
use crate::envelope::{self, HttpEnvelope, Sys};
use crate::functions::Function;

pub async fn enveloped(
    front: &Front,
    function: &Function,
    params: &Params,
    request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    let (parts, body) = request.into_parts();
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let url = format!("http://{host}{}", parts.uri);
    let query: Vec<(String, String)> =
        form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let body = collect(body, front.body_limit).await?;
    let request = HttpEnvelope {
        binding: &function.trigger_binding().name,
        url: &url,
        method: &parts.method,
        headers: &parts.headers,
        params,
        query: &query,
        body: &body,
    };
    let envelope = envelope::http_request(&request, &Sys::new(&function.name))
        .map_err(|cause| Failure::internal(cause.to_string()))?;
    let answered = front
        .runner
        .run(function, envelope, "This function was programmatically called via the host APIs.")
        .await;
    let answered = answered.map_err(|cause| Failure::internal(cause.to_string()))?;
    let output = function
        .outputs()
        .find(|output| output.kind.eq_ignore_ascii_case("http"))
        .map(|output| output.name.clone());
    output_response(&answered, output.as_deref())
}

/// What the caller sees of an answer.
fn output_response(answered: &Answer, output: Option<&str>) -> Result<Response<Body>, Failure> {
    let value = match (output, &answered.outputs) {
        (Some("$return"), _) => &answered.return_value,
        (Some(name), Some(outputs)) => match outputs.get(name) {
            Some(value) => value,
            None => return Ok(answer(StatusCode::OK, body::full("{}"))),
        },
        _ => return Ok(answer(StatusCode::OK, body::empty())),
    };
    match value {
        Value::Null => Ok(answer(StatusCode::OK, body::empty())),
        Value::Object(members) => described_response(members),
        other => Err(Failure::internal(format!(
            "the http output is {other}, not an object with statusCode, headers and body"
        ))),
    }
}

fn described_response(members: &Map<String, Value>) -> Result<Response<Body>, Failure> {
    let member = |name: &str| {
        members.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    let status = match member("statusCode").or_else(|| member("status")) {
        None | Some(Value::Null) => StatusCode::OK,
        Some(value) => {
            text(value).parse().map_err(|_| Failure::internal(format!("{value} is no status code")))?
        }
    };
    let content = match member("body") {
        None | Some(Value::Null) => String::new(),
        Some(value) => text(value),
    };
    let mut response = answer(status, body::full(content));
    for (name, value) in member("headers").and_then(Value::as_object).into_iter().flatten() {
        let name: HeaderName =
            name.parse().map_err(|_| Failure::internal(format!("{name:?} is no header name")))?;
        let value = HeaderValue::from_str(&text(value))
            .map_err(|_| Failure::internal(format!("the value of header {name} is not valid")))?;
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use serde_json::json;

    async fn respond(outputs: Value) -> (u16, String) {
        let answered = Answer { outputs: outputs.as_object().cloned(), ..Answer::default() };
        match output_response(&answered, Some("res")) {
            Ok(response) => {
                let status = response.status().as_u16();
                (
                    status,
                    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec())
                        .unwrap(),
                )
            }
            Err(failure) => (failure.status.as_u16(), String::new()),
        }
    }

    #[tokio::test]
    async fn the_http_output_is_read_in_any_case_and_by_either_name() {
        assert_eq!(
            respond(json!({"res": {"StatusCode": "201", "BODY": "made"}})).await,
            (201, "made".to_owned())
        );
        assert_eq!(
            respond(json!({"res": {"status": 202, "body": {"a": 1}}})).await,
            (202, r#"{"a":1}"#.to_owned())
        );
        // A null statusCode is found first and masks status.
        assert_eq!(respond(json!({"res": {"statusCode": null, "status": 404}})).await.0, 200);
        assert_eq!(respond(json!({"res": "text"})).await.0, 500);
        assert_eq!(respond(json!({"other": {}})).await, (200, "{}".to_owned()));
        assert_eq!(respond(Value::Null).await, (200, String::new()));
    }
}
