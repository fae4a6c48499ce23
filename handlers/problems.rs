//! Types of the problems that are no webhook's. With those of webhooks and of the SDK they are the table in
//! `docs/errors.md`, and a test compares them.

use colloquy::access::AccessError;
use colloquy::functions::ProblemType;
use http::StatusCode;

/// `/api/health/` and a word that names no check.
pub const UNKNOWN_CHECK: ProblemType =
    ProblemType::new("unknown-check", StatusCode::NOT_FOUND, "There is no such check");
/// The process was told to end while the request came in; with `Retry-After`.
pub const STOPPING: ProblemType =
    ProblemType::new("stopping", StatusCode::SERVICE_UNAVAILABLE, "The process is ending");
const KEY_MISSING: ProblemType = ProblemType::new("key-missing", StatusCode::UNAUTHORIZED, "API key missing");
const KEY_UNKNOWN: ProblemType =
    ProblemType::new("key-unknown", StatusCode::UNAUTHORIZED, "API key not valid");
const KEY_EXPIRED: ProblemType = ProblemType::new("key-expired", StatusCode::UNAUTHORIZED, "API key expired");
const SCOPE_MISSING: ProblemType =
    ProblemType::new("scope-missing", StatusCode::FORBIDDEN, "API key does not permit this");

const TOKEN_REFUSED: ProblemType =
    ProblemType::new("token-refused", StatusCode::UNAUTHORIZED, "Token not valid here");
const KEY_UNCHECKED: ProblemType =
    ProblemType::new("key-unchecked", StatusCode::SERVICE_UNAVAILABLE, "Cannot check the API key now");

/// Why an operator's page was refused.
pub fn access(error: &AccessError) -> ProblemType {
    match error {
        AccessError::Missing => KEY_MISSING,
        AccessError::Unknown => KEY_UNKNOWN,
        AccessError::Expired { .. } => KEY_EXPIRED,
        AccessError::Forbidden { .. } => SCOPE_MISSING,
        AccessError::Token(_) => TOKEN_REFUSED,
        AccessError::Unavailable => KEY_UNCHECKED,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use colloquy::functions::PROBLEM_TYPES;
    use colloquy::webhooks::ProblemKind;

    use super::*;

    const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/errors.md");

    /// Type, status, title: once each, although the SDK and the webhooks share some.
    fn every_type() -> BTreeSet<[String; 3]> {
        let webhooks = ProblemKind::ALL.iter().map(|kind| {
            [kind.type_uri().to_owned(), kind.status().as_u16().to_string(), kind.title().to_owned()]
        });
        let own = [
            UNKNOWN_CHECK,
            STOPPING,
            KEY_MISSING,
            KEY_UNKNOWN,
            KEY_EXPIRED,
            SCOPE_MISSING,
            TOKEN_REFUSED,
            KEY_UNCHECKED,
        ];
        let others = PROBLEM_TYPES.iter().copied().chain(own).map(|problem| {
            let uri = format!("/problems/{}", problem.slug);
            [uri, problem.status.as_u16().to_string(), problem.title.to_owned()]
        });
        webhooks.chain(others).collect()
    }

    #[test]
    fn the_documentation_has_every_problem_and_no_other() {
        let docs = std::fs::read_to_string(DOCS).expect("the documentation");
        let rows: Vec<[String; 3]> = docs
            .lines()
            .filter(|line| line.starts_with("| `/problems/"))
            .map(|line| {
                let mut cells =
                    line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned());
                [(); 3].map(|()| cells.next().unwrap_or_default())
            })
            .collect();
        let unique: BTreeSet<_> = rows.iter().cloned().collect();
        assert_eq!(unique.len(), rows.len(), "a row stands there twice");
        assert_eq!(unique, every_type());
    }

    #[test]
    fn one_error_has_one_type() {
        let types: BTreeSet<_> = every_type().into_iter().map(|[uri, ..]| uri).collect();
        assert_eq!(types.len(), every_type().len(), "a type with two statuses or titles");
        for error in [AccessError::Missing, AccessError::Unknown, AccessError::Unavailable] {
            assert_eq!(access(&error).status, error.status());
        }
    }
}
