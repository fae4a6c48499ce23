//! What an HTTP caller is told when the SDK answers in a handler's place (RFC 9457).

use http::StatusCode;

/// A kind of problem: one type, one status, one title.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProblemType {
    /// What follows [`PROBLEM_TYPE`](super::PROBLEM_TYPE) in the `type`. Stable.
    pub slug: &'static str,
    pub status: StatusCode,
    pub title: &'static str,
}

impl ProblemType {
    pub const fn new(slug: &'static str, status: StatusCode, title: &'static str) -> Self {
        Self { slug, status, title }
    }
}

/// No route matches.
pub const NOT_FOUND: ProblemType = ProblemType::new("not-found", StatusCode::NOT_FOUND, "Not found");
/// The path holds an encoded NUL or is no UTF-8.
pub const MALFORMED_PATH: ProblemType =
    ProblemType::new("malformed-path", StatusCode::BAD_REQUEST, "Malformed path");
/// The route exists; `Allow` lists its methods.
pub const METHOD_NOT_ALLOWED: ProblemType =
    ProblemType::new("method-not-allowed", StatusCode::METHOD_NOT_ALLOWED, "Method not allowed");
/// Somebody other than the host posted to a queue or timer function.
pub const HOST_ONLY: ProblemType =
    ProblemType::new("host-only", StatusCode::FORBIDDEN, "Only the Functions host may call this function");
/// The handler was cut at its deadline; with `Retry-After`.
pub const TOOK_TOO_LONG: ProblemType =
    ProblemType::new("took-too-long", StatusCode::SERVICE_UNAVAILABLE, "The request took too long");
/// A defect: a handler panicked, or returned what is no JSON.
pub const INTERNAL: ProblemType =
    ProblemType::new("internal", StatusCode::INTERNAL_SERVER_ERROR, "Internal error");

/// The invocation of a queue or timer function failed; the detail begins with its code. The host reads the status alone.
pub const INVOCATION_FAILED: ProblemType =
    ProblemType::new("invocation-failed", StatusCode::INTERNAL_SERVER_ERROR, "The invocation failed");

/// Every type that the SDK itself answers with.
pub const PROBLEM_TYPES: &[ProblemType] =
    &[NOT_FOUND, MALFORMED_PATH, METHOD_NOT_ALLOWED, HOST_ONLY, TOOK_TOO_LONG, INTERNAL, INVOCATION_FAILED];
