use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn answer(status: u16, headers: &[(&str, &str)], body: &Value) -> LlmError {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    from_answer(status, &map, body.to_string().as_bytes(), now())
}

#[test]
fn answers_are_sorted_by_what_follows() {
    use ErrorClass as C;
    let message = |text: &str| json!({"error": {"code": "429", "message": text}});
    for (status, body, class) in [
        (429, message("Rate limit is exceeded. Try again in 60 seconds."), C::RateLimited),
        (429, message("Requests exceeded the token rate limit of your current tier."), C::RateLimited),
        (429, message("The system is currently experiencing high demand."), C::Capacity),
        (429, message("Your limit was temporarily reduced."), C::Capacity),
        (429, message("No capacity is available for this model."), C::Capacity),
        (429, json!({"error": {"type": "insufficient_quota", "code": "insufficient_quota"}}), C::SpendLimit),
        (
            429,
            json!({"type": "error", "error": {"type": "rate_limit_error", "message": "Spend.",
                   "details": {"error_code": "enforced_spend_limit_reached"}}}),
            C::SpendLimit,
        ),
        (
            400,
            json!({"error": {"code": "content_filter", "param": "prompt", "status": 400, "message": "…",
                   "innererror": {"code": "ResponsibleAIPolicyViolation"}}}),
            C::ContentFilter,
        ),
        (
            400,
            json!({"error": {"message": "Rate limit is exceeded. Try again in 7 seconds."}}),
            C::RateLimited,
        ),
        (400, json!({"error": {"message": "bad", "param": "messages"}}), C::BadRequest),
        (413, json!({"error": {"type": "request_too_large"}}), C::BadRequest),
        (401, json!({"error": {"message": "Incorrect API key provided: sk-abc"}}), C::Auth),
        (403, Value::Null, C::Auth),
        (404, json!({"error": {"code": "DeploymentNotFound"}}), C::NotFound),
        (500, Value::Null, C::Server),
        (502, json!("<html>"), C::Server),
        (503, Value::Null, C::Overloaded),
        (529, json!({"type": "error", "error": {"type": "overloaded_error"}}), C::Overloaded),
        (302, Value::Null, C::Protocol),
    ] {
        let error = answer(status, &[], &body);
        assert_eq!((error.class, error.status), (class, Some(status)), "{status} {body}");
        assert!(!format!("{error} {error:?} {}", error.message).contains("sk-"), "{error:?}");
    }
    assert!(answer(400, &[], &json!({"error": {"code": "content_filter"}})).charged);
    assert!(!answer(429, &[], &Value::Null).charged);
}

#[test]
fn what_is_too_long_says_so_and_a_refusal_names_its_field() {
    let error = answer(
        400,
        &[],
        &json!({"error": {"code": "context_length_exceeded", "param": "messages",
                "message": "This model's maximum context length is 8192 tokens."}}),
    );
    assert_eq!((error.code, error.param.as_deref()), ("context_length_exceeded", Some("messages")));
    let api = error.to_api();
    assert_eq!(
        (api.status.as_u16(), api.message.as_str()),
        (400, "This model's maximum context length is 8192 tokens.")
    );
    let claude = json!({"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 1 > 0"}});
    assert_eq!(answer(400, &[], &claude).code, "context_length_exceeded");
}

#[test]
fn a_wait_is_found_wherever_it_is_said() {
    let quiet = json!({"error": {"message": "Too many."}});
    let words = |text: &str| json!({"error": {"message": text}});
    for (headers, body, wanted) in [
        (vec![("retry-after-ms", "1500"), ("retry-after", "9")], quiet.clone(), Some(1_500)),
        (vec![("retry-after", "9")], words("Try again in 60 seconds."), Some(9_000)),
        (vec![("retry-after", "Sat, 21 Nov 2026 12:01:00 GMT")], quiet.clone(), Some(60_000)),
        (vec![("retry-after", "Sat, 21 Nov 2026 11:00:00 GMT")], quiet.clone(), Some(0)),
        (vec![], words("Rate limit is exceeded. Try again in 60 seconds."), Some(60_000)),
        (vec![], words("Please try again in 1.2s. Visit …"), Some(1_200)),
        (vec![], words("Please try again in 1m30s."), Some(90_000)),
        (vec![], words("Please retry after 250 milliseconds."), Some(250)),
        (
            vec![
                ("x-ratelimit-remaining-tokens", "0"),
                ("x-ratelimit-reset-tokens", "6m0.5s"),
                ("x-ratelimit-remaining-requests", "5"),
                ("x-ratelimit-reset-requests", "1h"),
            ],
            quiet.clone(),
            Some(360_500),
        ),
        (
            vec![("x-ratelimit-remaining-tokens", "-1"), ("x-ratelimit-reset-tokens", "0")],
            quiet.clone(),
            None,
        ),
        (
            vec![
                ("anthropic-ratelimit-input-tokens-remaining", "0"),
                ("anthropic-ratelimit-input-tokens-reset", "2026-11-21T12:00:30Z"),
            ],
            quiet.clone(),
            Some(30_000),
        ),
        (vec![("retry-after", "soon")], quiet, None),
    ] {
        let error = answer(429, &headers, &body);
        assert_eq!(error.retry_after.map(|wait| wait.as_millis()), wanted, "{headers:?} {body}");
    }
}

#[test]
fn errors_inside_a_stream_are_sorted_too_and_may_be_charged() {
    use ErrorClass as C;
    for (event, class) in [
        (
            json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
            C::Overloaded,
        ),
        (json!({"error": {"message": "The server had an error", "type": "server_error"}}), C::Server),
        (json!({"error": {"code": 502, "message": "Provider disconnected"}}), C::Server),
        (json!({"error": {"code": "content_filter", "message": "x"}}), C::ContentFilter),
        (json!({"error": {"code": "429", "message": "Rate limit is exceeded."}}), C::RateLimited),
        (json!({"type": "error", "code": "rate_limit_exceeded", "message": "x"}), C::RateLimited),
        (json!({"error": "model crashed"}), C::Server),
    ] {
        let error = from_event(&event, now());
        assert_eq!((error.class, error.charged), (class, true), "{event}");
    }
}

#[test]
fn every_class_has_an_answer_for_the_caller() {
    let error = LlmError::new(ErrorClass::Unavailable).after(Some(Duration::from_secs(3)));
    let api = error.to_api();
    assert_eq!((api.status.as_u16(), api.code), (503, "provider_unavailable"));
    assert_eq!(api.retry_after, Some(Duration::from_secs(3)));
    let spent = LlmError::new(ErrorClass::SpendLimit).to_api();
    assert_eq!((spent.status.as_u16(), spent.should_retry), (429, Some(false)));
}
