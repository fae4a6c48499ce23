//! What browsers need: CORS, and headers that keep other pages out.

use colloquy::config::{AppEnvironment, Origins};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    CONTENT_SECURITY_POLICY, ORIGIN, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, VARY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use warp::reply::Response;

/// Whether a page of this origin may call.
pub fn allows(origins: &Origins, origin: &HeaderValue) -> bool {
    match origins {
        Origins::Any => true,
        Origins::These(list) => list.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()),
    }
}

/// The answer to a preflight. An origin that is not allowed gets the same answer without the header that lets it go on.
pub fn preflight(origins: &Origins, headers: &HeaderMap) -> Response {
    let mut response = Response::new("".into());
    *response.status_mut() = StatusCode::NO_CONTENT;
    if headers.get(ORIGIN).is_some_and(|origin| allows(origins, origin)) {
        let answer = response.headers_mut();
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PUT, DELETE"));
        // Tokens are sent by the page's own code, never by the browser itself, so any header may come.
        if let Some(asked) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
        answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200"));
    }
    response
}

/// Lets a page of an allowed origin read the answer.
pub fn allow(headers: &mut HeaderMap, origins: &Origins, origin: Option<&HeaderValue>) {
    if *origins == Origins::These(Vec::new()) {
        return;
    }
    headers.append(VARY, HeaderValue::from_static("origin"));
    let Some(origin) = origin.filter(|origin| allows(origins, origin)) else { return };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static(
            "x-request-id, retry-after, retry-after-ms, x-should-retry, x-ratelimit-limit-requests, \
             x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-ratelimit-limit-tokens, \
             x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens",
        ),
    );
}

/// Against framing, sniffing, leaking addresses; and plain HTTP outside a developer's machine.
pub fn protect(headers: &mut HeaderMap, environment: AppEnvironment) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // The console's own page says more, and says it itself.
    headers
        .entry(CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    if !environment.is_dev() {
        headers.insert(
            STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=31536000; includeSubDomains"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_origins_may_read_answers() {
        let origins = Origins::These(vec!["https://chat.example.com".into()]);
        let answered = |origin: &'static str| {
            let mut headers = HeaderMap::new();
            allow(&mut headers, &origins, Some(&HeaderValue::from_static(origin)));
            headers.get(ACCESS_CONTROL_ALLOW_ORIGIN).cloned()
        };
        assert_eq!(
            answered("https://chat.example.com"),
            Some(HeaderValue::from_static("https://chat.example.com"))
        );
        for other in ["https://chat.example.com.evil.test", "http://chat.example.com", "null", ""] {
            assert_eq!(answered(other), None, "{other}");
        }
        let mut none = HeaderMap::new();
        allow(&mut none, &Origins::These(Vec::new()), Some(&HeaderValue::from_static("https://x.test")));
        assert!(none.is_empty());
    }
}
