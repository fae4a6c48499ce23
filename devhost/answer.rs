//! The envelope answer: what the host makes of the handler's response, functions-host.md §4.

use http::StatusCode;
use serde_json::{Map, Value};
use thiserror::Error;

/// A valid answer. Member names match in any case.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// `None` when `Outputs` is absent or null.
    pub outputs: Option<Map<String, Value>>,
    pub logs: Vec<String>,
    pub return_value: Value,
}

/// Why an invocation failed.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum AnswerError {
    #[error("Response status code does not indicate success: {0}; its body and Logs are discarded")]
    Status(StatusCode),
    #[error(
        "Invalid HttpResponseMessage: content type {content_type:?}, expected application/json; body: {body}"
    )]
    ContentType { content_type: String, body: String },
    #[error("Invalid HttpResponseMessage: {cause}; body: {body}")]
    Malformed { cause: String, body: String },
    /// devhost differs on purpose: the real host waits until functionTimeout and then kills the process.
    #[error(
        "the handler answered {status} with {what}. The real host would hang here until functionTimeout and then kill the process with everything it runs. Answer at least {{}} as application/json"
    )]
    WouldHang { status: StatusCode, what: &'static str },
}

/// Judges a response.
pub fn read(status: StatusCode, content_type: Option<&str>, body: &[u8]) -> Result<Answer, AnswerError> {
    if !status.is_success() {
        return Err(AnswerError::Status(status));
    }
    if status == StatusCode::NO_CONTENT || body.is_empty() {
        return Err(AnswerError::WouldHang { status, what: "an empty body" });
    }
    let content_type = content_type.unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !["application/json", "text/json"].iter().any(|json| media_type.eq_ignore_ascii_case(json)) {
        return Err(AnswerError::ContentType { content_type: content_type.to_owned(), body: excerpt(body) });
    }
    match serde_json::from_slice(body) {
        Ok(Value::Null) => Err(AnswerError::WouldHang { status, what: "JSON null" }),
        Ok(Value::Object(members)) => from_members(members),
        Ok(_) => Err(AnswerError::Malformed { cause: "not a JSON object".to_owned(), body: excerpt(body) }),
        Err(cause) => Err(AnswerError::Malformed { cause: cause.to_string(), body: excerpt(body) }),
    }
}

fn from_members(members: Map<String, Value>) -> Result<Answer, AnswerError> {
    let mut answer = Answer::default();
    for (name, value) in members {
        let wrong = |value: &Value| AnswerError::Malformed {
            cause: format!("{name} has the wrong type"),
            body: excerpt(value.to_string().as_bytes()),
        };
        match (name.to_ascii_lowercase().as_str(), value) {
            ("outputs", Value::Object(outputs)) => answer.outputs = Some(outputs),
            ("outputs" | "logs", Value::Null) => {}
            ("outputs", other) => return Err(wrong(&other)),
            ("logs", Value::Array(lines)) => answer.logs = lines.iter().map(line).collect(),
            ("logs", other) => return Err(wrong(&other)),
            ("returnvalue", value) => answer.return_value = value,
            _ => {}
        }
    }
    Ok(answer)
}

fn line(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Enough of a wrong body to recognise it.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const JSON: Option<&str> = Some("application/json; charset=utf-8");

    #[test]
    fn members_match_in_any_case() {
        let body = br#"{"outputs":{"jobs":[1]},"LOGS":["one",2],"returnValue":null,"other":1}"#;
        let answer = read(StatusCode::OK, JSON, body).unwrap();
        assert_eq!(answer.outputs.unwrap()["jobs"], json!([1]));
        assert_eq!(answer.logs, ["one", "2"]);
        assert_eq!(read(StatusCode::CREATED, Some("text/json"), b"{}").unwrap(), Answer::default());
    }

    #[test]
    fn what_would_hang_the_real_host_fails_and_says_so() {
        let no_content = StatusCode::NO_CONTENT;
        for (status, content_type, body) in [
            (StatusCode::OK, JSON, ""),
            (StatusCode::OK, None, ""),
            (no_content, None, ""),
            (StatusCode::OK, JSON, " null "),
        ] {
            let failure = read(status, content_type, body.as_bytes()).unwrap_err();
            assert!(
                failure.to_string().contains("The real host would hang here until functionTimeout"),
                "{failure}"
            );
        }
    }

    #[test]
    fn other_statuses_types_and_bodies_fail() {
        assert_eq!(
            read(StatusCode::BAD_GATEWAY, JSON, b"{}").unwrap_err(),
            AnswerError::Status(StatusCode::BAD_GATEWAY)
        );
        assert!(matches!(
            read(StatusCode::OK, Some("text/plain"), b"{}"),
            Err(AnswerError::ContentType { .. })
        ));
        assert!(matches!(read(StatusCode::OK, None, b"{}"), Err(AnswerError::ContentType { .. })));
        for wrong in ["{", "[]", "\"x\"", r#"{"Outputs":[]}"#] {
            assert!(
                matches!(read(StatusCode::OK, JSON, wrong.as_bytes()), Err(AnswerError::Malformed { .. })),
                "{wrong}"
            );
        }
    }
}
