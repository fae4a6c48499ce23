//! Proxy mode: the real request, streamed both ways. functions-host.md §5.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until};

use super::Front;
use super::body::{Activity, Body, Broken, Download, Upload};
use super::exchange::{Exchange, Failure};
use crate::functions::Function;
use crate::invoker::{HOST_VERSION, HOST_VERSION_HEADER, INVOCATION_ID, TIMEOUT_GRACE};

/// Without a byte in either direction for this long, the exchange is cut.
const SILENCE: Duration = Duration::from_secs(240);
/// The host's own correlation header of proxied requests.
const CORRELATION: HeaderName = HeaderName::from_static("x-ms-invocation-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Concern one connection only.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    // Answered by the server in front; never sent on.
    header::EXPECT,
    header::TRAILER,
];

pub async fn proxy(
    front: &Front,
    function: &Function,
    request: Request<Incoming>,
    exchange: &Exchange,
) -> Result<Response<Body>, Failure> {
    let generation = front.generation().await?;
    let (mut parts, body) = request.into_parts();
    rewrite(&mut parts.headers, exchange, front.pool_host());
    // The path and the raw query, without scheme and host.
    if let Some(path) = parts.uri.path_and_query() {
        parts.uri = path.clone().into();
    }
    parts.version = http::Version::HTTP_11;
    let activity = Activity::new();
    let broken = Arc::new(Mutex::new(None));
    let upload = Upload::new(body, activity.clone(), front.body_limit, Arc::clone(&broken));
    let request = Request::from_parts(parts, upload.boxed_unsync());

    let deadline = front.invoker.function_timeout().map(|limit| (Instant::now() + limit, limit));
    let time_out = |limit: Duration| {
        let (invoker, function, id) = (front.invoker.clone(), function.name.clone(), exchange.id.clone());
        move || invoker.time_out(generation, &function, &id, limit)
    };
    let sent = tokio::select! {
        sent = front.pool.send(request) => sent,
        () = activity.silence(SILENCE) => return Err(Failure::new(StatusCode::GATEWAY_TIMEOUT, format!("no bytes for {SILENCE:?}"))),
        limit = past(deadline) => {
            time_out(limit)();
            return Err(Failure::timed_out());
        }
    };
    let response = match sent {
        Ok(response) => response,
        Err(cause) => {
            return Err(match *broken.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(Broken::TooLarge) => Failure::too_large(front.body_limit),
                Some(Broken::ByClient) => Failure::new(
                    StatusCode::BAD_REQUEST,
                    format!("the client broke off its body, or framed it wrongly: {cause}"),
                ),
                None => Failure::broken_off(cause),
            });
        }
    };
    let (mut parts, body) = response.into_parts();
    remove_hop_by_hop(&mut parts.headers);
    activity.touch();
    let deadline = deadline.map(|(at, limit)| (at, Box::new(time_out(limit)) as Box<dyn FnOnce() + Send>));
    Ok(Response::from_parts(parts, Download::new(body, activity, SILENCE, deadline).boxed_unsync()))
}

/// The function timeout and its grace time; never, without a limit.
async fn past(deadline: Option<(Instant, Duration)>) -> Duration {
    match deadline {
        Some((at, limit)) => {
            sleep_until(at + TIMEOUT_GRACE).await;
            limit
        }
        None => std::future::pending().await,
    }
}

fn rewrite(headers: &mut HeaderMap, exchange: &Exchange, handler: &str) {
    let host = headers.get(header::HOST).cloned();
    remove_hop_by_hop(headers);
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(header::HOST, handler);
    set(FORWARDED_FOR, &exchange.peer.ip().to_string());
    set(FORWARDED_PROTO, "http");
    set(HeaderName::from_static(INVOCATION_ID), &exchange.id);
    set(HeaderName::from_static(HOST_VERSION_HEADER), HOST_VERSION);
    set(CORRELATION, &exchange.id);
    match host {
        Some(host) => headers.insert(FORWARDED_HOST, host),
        None => headers.remove(FORWARDED_HOST),
    };
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forged_host_headers_are_overwritten_and_hops_removed() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "localhost:7071"),
            ("x-azure-functions-invocationid", "forged"),
            ("x-forwarded-for", "10.0.0.1"),
            ("connection", "close, x-secret-hop"),
            ("x-secret-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("user-agent", "curl"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let exchange = Exchange { id: "id-1".to_owned(), peer: "127.0.0.1:5".parse().unwrap() };
        rewrite(&mut headers, &exchange, "127.0.0.1:4000");
        let mut found: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        found.sort();
        let version = format!("x-azure-functions-hostversion: {HOST_VERSION}");
        assert_eq!(
            found,
            [
                "host: 127.0.0.1:4000",
                "user-agent: curl",
                version.as_str(),
                "x-azure-functions-invocationid: id-1",
                "x-forwarded-for: 127.0.0.1",
                "x-forwarded-host: localhost:7071",
                "x-forwarded-proto: http",
                "x-ms-invocation-id: id-1",
            ]
        );
    }
}
