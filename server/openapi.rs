//! `GET /openapi.json`: every request and answer of this server, as `docs/openapi.json` says. A test compares both.

use bytes::Bytes;
use http::StatusCode;
use warp::reply::Response;

/// The document. It holds nothing of a deployment, so anybody may read it.
pub fn document() -> Response {
    const DOCUMENT: &str = include_str!("../docs/openapi.json");
    crate::http::bytes(StatusCode::OK, Bytes::from_static(DOCUMENT.as_bytes()))
}
