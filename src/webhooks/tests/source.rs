//! What holds for sources of every kind: the checks before a body is read, limits, what is stored.

use http::{HeaderMap, Method, header};

use super::support::{every_kind, post, source, try_source};
use crate::config::app::Stop;
use crate::webhooks::{ProblemKind, Stored};

fn with_type(value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
    headers
}

#[test]
fn only_post_is_taken() {
    for source in every_kind() {
        for method in [Method::GET, Method::PUT, Method::DELETE, Method::HEAD, Method::PATCH, Method::OPTIONS]
        {
            let problem = source.open(&method, &with_type("application/json"), Some(2)).unwrap_err();
            assert_eq!(problem.kind, ProblemKind::MethodNotAllowed);
            assert_eq!(problem.allow, Some(source.methods()));
        }
        assert_eq!(source.open(&Method::POST, &with_type("application/json"), Some(2)), Ok(None));
    }
}

#[test]
fn the_limit_is_the_last_byte_that_passes() {
    for source in every_kind() {
        let limit = source.limits().max_body_bytes;
        let open = |length| source.open(&Method::POST, &with_type("application/json"), Some(length));
        assert_eq!(open(limit), Ok(None));
        let problem = open(limit + 1).unwrap_err();
        assert_eq!(problem.kind, ProblemKind::TooLarge);
        assert!(problem.detail.contains("sources.sender.max_body_bytes"), "{}", problem.detail);
    }
    let small = source("kind = \"stripe\"\nmax_body_bytes = 10", "s");
    assert!(small.open(&Method::POST, &with_type("application/json"), Some(11)).is_err());
    assert!(small.open(&Method::POST, &with_type("application/json"), None).is_ok());
}

#[test]
fn media_types_are_compared_without_case_and_parameters() {
    let taken =
        |source: &crate::webhooks::Source, value: &str| source.limits().takes_content_type(&with_type(value));
    let clerk = source("kind = \"standard-webhooks\"", "whsec_AAAA");
    for value in [
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/json ;v=1",
        "application/vnd.x+json",
    ] {
        assert!(taken(&clerk, value), "{value}");
    }
    for value in [
        "text/plain",
        "application/jsonx",
        "application/+json",
        "json",
        "",
        "application/x-www-form-urlencoded",
    ] {
        assert!(!taken(&clerk, value), "{value}");
    }
    assert!(!clerk.limits().takes_content_type(&HeaderMap::new()));
    let any = source("kind = \"stripe\"\ncontent_types = [\"*/*\"]", "s");
    assert!(taken(&any, "text/plain") && any.limits().takes_content_type(&HeaderMap::new()));
    let problem = clerk.open(&Method::POST, &with_type("text/plain"), Some(1)).unwrap_err();
    assert_eq!(problem.kind, ProblemKind::WrongType);
    assert!(
        problem.detail.contains("application/json")
            && problem.detail.contains("sources.sender.content_types")
    );
}

#[test]
fn settings_reach_the_source() {
    let table =
        "kind = \"github\"\nrate_per_minute = 7\nretention_days = 3\nstopped = \"refuse\"\nmax_events = 2";
    let set = source(table, "s");
    assert_eq!(
        (set.rate_per_minute(), set.retention(), set.stopped()),
        (7, Some(std::time::Duration::from_secs(3 * 24 * 3600)), Some(Stop::Refuse))
    );
    let plain = source("kind = \"github\"", "s");
    assert_eq!((plain.rate_per_minute(), plain.retention(), plain.stopped()), (0, None, None));
    assert_eq!(plain.limits().max_events, 5_000);
    assert_eq!(plain.variable("default"), "WEBHOOK_SECRET_SENDER");
    assert_eq!(plain.variable("OLD"), "WEBHOOK_SECRET_SENDER__OLD");
}

#[test]
fn every_mistake_is_told_at_once_and_no_secret() {
    let table = "kind = \"standard-webhooks\"";
    let errors =
        try_source(table, &[("A", "whsec_!!!"), ("B", "whsec_???"), ("C", "whsec_AAAA")]).unwrap_err();
    assert_eq!(errors.len(), 2);
    assert!(errors.iter().all(|error| !error.to_string().contains("whsec_!!!")));
}

#[test]
fn what_is_stored_splits_the_same_again_for_every_kind() {
    for source in every_kind() {
        let body = match source.kind() {
            crate::config::app::SourceKind::Espocrm | crate::config::app::SourceKind::EventGrid => {
                "[{\"id\":\"1\"}]"
            }
            _ => r#"{"id":"1","type":"t","eventType":"t","status":"s"}"#,
        };
        let kept = post(body).path("some.event").kept(&source);
        let stored = Stored { headers: &kept.headers, body: &kept.body, event_path: Some("some.event") };
        let first = source.split(stored).unwrap();
        assert_eq!(first, source.split(stored).unwrap());
        assert_eq!(first.len(), kept.events);
        assert!(first.iter().all(|event| !event.key.is_empty() && !event.event_type.is_empty()), "{first:?}");
        assert!(kept.reply.status.is_success());
    }
}

#[test]
fn header_values_are_kept_only_when_known_to_be_harmless() {
    let github = source("kind = \"github\"", "s");
    let request = post("{}")
        .header("user-agent", "GitHub-Hookshot/1")
        .header("x-anything", "maybe secret")
        .header("cookie", "session=1")
        .header("x-github-hook-id", "17");
    let kept = request.kept(&github);
    let value = |name: &str| kept.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    assert_eq!(value("user-agent"), Some("GitHub-Hookshot/1"));
    assert_eq!(value("x-github-hook-id"), Some("17"));
    assert_eq!(value("x-anything"), Some("[redacted]"));
    assert_eq!(value("cookie"), Some("[redacted]"));
    assert_eq!(value("content-type"), Some("application/json"));
}

#[test]
fn a_flood_of_headers_pushes_out_none_that_matters() {
    let clerk = source("kind = \"standard-webhooks\"", "whsec_AAAA");
    let flood = (0..500).fold(post("{}"), |post, n| post.header(&format!("x-flood-{n}"), &"v".repeat(50)));
    let kept = flood.clone().kept(&clerk);
    assert_eq!(kept.headers.len(), 100);
    assert!(flood.event(&clerk).key.starts_with("msg_"));
    let long = post("{}").header("user-agent", &"u".repeat(5000)).kept(&clerk);
    assert!(long.headers.iter().all(|(_, value)| value.len() <= 1024));
}

#[test]
fn a_name_in_the_path_is_printable_and_short() {
    for source in every_kind().iter().filter(|source| source.scheme_name() != "github") {
        for path in ["a\0b", "a\nb", &"x".repeat(201)] {
            let refused = post("[{}]").path(path).receive(source).unwrap_err();
            assert!(refused.to_string().contains("path"), "{refused}");
        }
    }
    let crm = source("kind = \"espocrm\"", "k");
    assert_eq!(post("[{}]").path(&"\u{e9}".repeat(200)).event(&crm).event_type.chars().count(), 200);
}
