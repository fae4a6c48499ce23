//! Every refusal. That `docs/webhooks.md` says the same is tested in `handlers/problems.rs`, with the others.

use std::time::Duration;

use super::support::{every_kind, post, source};
use crate::webhooks::{Malformed, Problem, ProblemKind, VerifyError};

#[test]
fn types_are_stable_and_told_apart() {
    let mut types: Vec<_> = ProblemKind::ALL.iter().map(|kind| kind.type_uri()).collect();
    assert!(
        types.iter().zip(ProblemKind::ALL).all(|(uri, kind)| *uri == format!("/problems/{}", kind.code()))
    );
    types.sort_unstable();
    types.dedup();
    assert_eq!(types.len(), ProblemKind::ALL.len());
}

#[test]
fn every_error_has_its_problem() {
    let of = |error: VerifyError| Problem::from(&error).kind;
    assert_eq!(of(VerifyError::NotSigned { expected: "x".into() }), ProblemKind::BadSignature);
    assert_eq!(of(VerifyError::BadSignature { reason: "x" }), ProblemKind::BadSignature);
    assert_eq!(of(VerifyError::NeedKeys), ProblemKind::BadSignature);
    assert_eq!(
        of(VerifyError::Stale { off_by_seconds: 301, tolerance_seconds: 300 }),
        ProblemKind::StaleSignature
    );
    let of = |error: Malformed| (Problem::from(&error).kind, Problem::from(&error).status.as_u16());
    assert_eq!(of(Malformed::Shape(String::new())), (ProblemKind::Malformed, 400));
    let many = Malformed::TooManyEvents { limit: 1, source_name: "a".into() };
    assert_eq!(of(many), (ProblemKind::TooLarge, 413));
    assert_eq!(of(Malformed::UnknownSubscription), (ProblemKind::UnknownSubscription, 403));
    assert_eq!(of(Malformed::CallbackHost), (ProblemKind::CallbackRefused, 400));
}

#[test]
fn a_body_is_a_problem_document() {
    let problem = Problem::too_large(1024, "sources.stripe.max_body_bytes");
    let body: serde_json::Value = serde_json::from_slice(&problem.body("req_1")).unwrap();
    let expected = serde_json::json!({
        "type": "/problems/too-large", "title": "Body too large", "status": 413, "request_id": "req_1",
        "detail": "The body is larger than 1024 bytes. The limit is set by `sources.stripe.max_body_bytes`.",
    });
    assert_eq!(body, expected);
}

#[test]
fn later_says_when_and_in_the_words_of_the_sender() {
    let later = Duration::from_secs(30);
    for source in every_kind() {
        let problem = Problem::rate_limited(&source, later);
        assert_eq!(problem.status, source.busy_status());
        assert!([429, 503].contains(&problem.status.as_u16()));
        assert_eq!(problem.retry_after, Some(later));
    }
    for problem in
        [Problem::queue_unavailable(later), Problem::keys_unavailable(later), Problem::source_stopped(later)]
    {
        assert_eq!((problem.status.as_u16(), problem.retry_after), (503, Some(later)));
    }
}

#[test]
fn no_refusal_repeats_what_the_sender_sent() {
    for source in every_kind() {
        let request = post("{\"canary\":")
            .path("path")
            .query("token=canary-q")
            .header("authorization", "Bearer canary-a");
        let request = [
            "stripe-signature",
            "x-hub-signature-256",
            "signature",
            "x-signature",
            "x-webhook-secret",
            "webhook-id",
        ]
        .iter()
        .fold(request, |request, name| request.header(name, "canary-h"));
        let refused = request.verify(&source).unwrap_err();
        assert!(!format!("{refused} {refused:?}").contains("canary"), "{source:?}");
        let signed = post("{\"canary\":").signed_by(&source);
        assert!(!format!("{:?} {signed:?}", source, signed = signed.0).contains("canary"));
        if let Err(malformed) = source.receive(&signed.verify(&source).unwrap()) {
            assert!(!format!("{malformed} {malformed:?}").contains("canary"), "{source:?}");
        }
    }
}

#[test]
fn an_empty_body_is_malformed_for_every_kind() {
    for source in every_kind() {
        let refused = post("").receive(&source).unwrap_err();
        assert_eq!(Problem::from(&refused).kind, ProblemKind::Malformed, "{source:?}");
    }
    assert!(post("x").receive(&source("kind = \"github\"", "s")).is_ok());
}
