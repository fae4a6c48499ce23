//! Forward mode: a rebuilt copy of the request, the answer buffered. functions-host.md §5.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, Uri, Version};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};
use url::form_urlencoded;

use super::Front;
use super::body::{self, Body};
use super::exchange::{Exchange, Failure, content_length};
use crate::functions::Function;
use crate::invoker::{HOST_VERSION, HOST_VERSION_HEADER, INVOCATION_ID, TIMEOUT_GRACE, user_agent};

/// .NET's content headers; only Content-Length and Content-Type of them survive the copy.
const DROPPED: [&str; 9] = [
    "allow",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-location",
    "content-md5",
    "content-range",
    "expires",
    "last-modified",
];

pub async fn forward(
    front: &Front,
    function: &Function,
    request: Request<Incoming>,
    exchange: &Exchange,
) -> Result<Response<Body>, Failure> {
    let generation = front.generation().await?;
    if request.headers().contains_key(header::TRANSFER_ENCODING) {
        // Transfer-Encoding is copied, the body is not, and .NET refuses to send that.
        return Err(Failure::internal(
            "a chunked body cannot be forwarded (enableProxyingHttpRequest can)".to_owned(),
        ));
    }
    let length = content_length(request.headers()).unwrap_or(0);
    let (parts, body) = request.into_parts();
    let body = match length {
        0 => body::empty(),
        _ => body::full(collect(body, front.body_limit).await?),
    };
    let mut copy = Request::new(body);
    *copy.method_mut() = parts.method;
    *copy.version_mut() = Version::HTTP_11;
    *copy.uri_mut() = rebuilt(&parts.uri);
    *copy.headers_mut() = copied(&parts.headers, exchange);

    let send = async {
        let response = front.pool.send(copy).await.map_err(Failure::broken_off)?;
        let (mut parts, body) = response.into_parts();
        let bytes = body.collect().await.map_err(Failure::broken_off)?.to_bytes();
        parts.headers.remove(header::TRANSFER_ENCODING);
        parts.headers.remove(header::CONNECTION);
        Ok(Response::from_parts(parts, body::full(bytes)))
    };
    let Some(limit) = front.invoker.function_timeout() else { return send.await };
    match timeout_at(Instant::now() + limit + TIMEOUT_GRACE, send).await {
        Ok(result) => result,
        Err(_) => {
            front.invoker.time_out(generation, &function.name, &exchange.id, limit);
            Err(Failure::timed_out())
        }
    }
}

/// A whole request body within `limit`.
pub async fn collect(body: Incoming, limit: u64) -> Result<bytes::Bytes, Failure> {
    let limit_in_memory = usize::try_from(limit).unwrap_or(usize::MAX);
    match Limited::new(body, limit_in_memory).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(cause) if cause.is::<http_body_util::LengthLimitError>() => Err(Failure::too_large(limit)),
        Err(cause) => Err(Failure::new(
            http::StatusCode::BAD_REQUEST,
            format!("the client broke off its body: {cause}"),
        )),
    }
}

/// The full public path; the query encoded anew, values of one key joined by commas.
fn rebuilt(uri: &Uri) -> Uri {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match pairs.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(&name)) {
            Some((_, values)) => {
                values.push(',');
                values.push_str(&value);
            }
            None => pairs.push((name.into_owned(), value.into_owned())),
        }
    }
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    let path = uri.path();
    let rebuilt = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    // What was parsed once parses again; the original is as good if it ever does not.
    rebuilt.parse().unwrap_or_else(|_| uri.clone())
}

/// Host stays the public one; a forged invocation id stays in front of the true one.
fn copied(headers: &HeaderMap, exchange: &Exchange) -> HeaderMap {
    let mut copy = HeaderMap::new();
    for (name, value) in headers {
        if !DROPPED.contains(&name.as_str()) && name != header::CONNECTION && name != header::EXPECT {
            copy.append(name.clone(), value.clone());
        }
    }
    let mut append = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            copy.append(HeaderName::from_static(name), value);
        }
    };
    append(INVOCATION_ID, &exchange.id);
    append(HOST_VERSION_HEADER, HOST_VERSION);
    let client = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    let agent = client.map_or_else(user_agent, |client| format!("{client} {}", user_agent()));
    if let Ok(agent) = HeaderValue::from_str(&agent) {
        copy.insert(header::USER_AGENT, agent);
    }
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_query_keys_become_one() {
        let uri: Uri = "/api/a?tag=a&tag=b&x=%20y&code=k".parse().unwrap();
        assert_eq!(rebuilt(&uri).to_string(), "/api/a?tag=a%2Cb&x=+y&code=k");
        assert_eq!(rebuilt(&"/api/a".parse().unwrap()).to_string(), "/api/a");
    }

    #[test]
    fn content_headers_are_lost_and_a_forged_id_stays_in_front() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "public"),
            ("content-encoding", "gzip"),
            ("content-type", "text/x"),
            ("user-agent", "curl"),
            (INVOCATION_ID, "forged"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let exchange = Exchange { id: "true".to_owned(), peer: "127.0.0.1:5".parse().unwrap() };
        let copy = copied(&headers, &exchange);
        assert_eq!(copy["host"], "public");
        assert_eq!(copy["content-type"], "text/x");
        assert!(!copy.contains_key("content-encoding"));
        assert_eq!(copy["user-agent"], format!("curl Azure-Functions-Host/{HOST_VERSION}"));
        let ids: Vec<_> = copy.get_all(INVOCATION_ID).iter().collect();
        assert_eq!(ids, ["forged", "true"]);
    }
}
