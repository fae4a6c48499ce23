//! A storage account that takes every message at once and keeps none: what Azure Storage is to the intake, without what
//! Azure Storage costs.

use std::convert::Infallible;

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::stand_in::{Body, whole};

/// Messages and whatever else is written: 201. Everything that is read is not there.
pub async fn answer(request: Request<Incoming>, _connections: usize) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    body.collect().await.ok();
    let mut response = match parts.method {
        Method::POST | Method::PUT => Response::new(whole(TAKEN)),
        _ => Response::new(whole(&b""[..])),
    };
    let (status, header, value) = match parts.method {
        Method::POST | Method::PUT => (StatusCode::CREATED, "content-type", "application/xml"),
        _ => (StatusCode::NOT_FOUND, "x-ms-error-code", "BlobNotFound"),
    };
    *response.status_mut() = status;
    response.headers_mut().insert(header, http::HeaderValue::from_static(value));
    Ok(response)
}

/// As Azure Storage answers a put.
/// Source: <https://learn.microsoft.com/rest/api/storageservices/put-message>.
const TAKEN: &[u8] = b"<?xml version=\"1.0\" encoding=\"utf-8\"?><QueueMessagesList><QueueMessage>\
    <MessageId>5974b586-0df3-4e2d-ad0c-18e3892bfca2</MessageId>\
    <InsertionTime>Fri, 09 Oct 2026 21:04:30 GMT</InsertionTime>\
    <ExpirationTime>Fri, 31 Dec 9999 23:59:59 GMT</ExpirationTime><PopReceipt>AgAAAAMAAAAAAAAA</PopReceipt>\
    <TimeNextVisible>Fri, 09 Oct 2026 21:04:30 GMT</TimeNextVisible></QueueMessage></QueueMessagesList>";
