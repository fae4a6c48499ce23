use std::time::{Duration, Instant};

use crate::azure::StorageError;
use crate::azure::testing::{Logged, Reply, StandIn, account_at, nowhere};

const LIMIT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_dead_account_is_reported_at_once() {
    let storage = account_at(&nowhere().await, Duration::from_secs(30));
    let started = Instant::now();
    let error = storage.queue("events").put("x", Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, StorageError::Unreachable { .. }), "{error:?}");
    assert!(error.is_outage());
    assert!(started.elapsed() < Duration::from_secs(2), "took {:?}", started.elapsed());
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_stalled_account_is_given_up_after_the_limit() {
    let server = StandIn::start(|_, _| Reply::Stall).await;
    let storage = account_at(&server.url, LIMIT).with_timeout(Duration::from_millis(200));
    let started = Instant::now();
    let error = storage.queue("events").put("x", Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, StorageError::Timeout { .. }), "{error:?}");
    assert!(error.is_outage());
    assert!(started.elapsed() < Duration::from_secs(2), "took {:?}", started.elapsed());
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_busy_account_is_tried_three_times() {
    let server = StandIn::start(|_, _| Reply::storage_error(503, "ServerBusy")).await;
    let error = account_at(&server.url, LIMIT).queue("events").put("x", Duration::ZERO).await.unwrap_err();
    assert!(
        matches!(&error, StorageError::Busy { status: 503, service_code, .. } if service_code == "ServerBusy")
    );
    assert!(error.is_outage());
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_moment_of_trouble_is_not_noticed() {
    let server = StandIn::start(|number, _| match number {
        0 => Reply::Cut,
        1 => Reply::storage_error(500, "OperationTimedOut"),
        _ => Reply::status(201, "<QueueMessagesList/>"),
    })
    .await;
    account_at(&server.url, LIMIT).queue("events").put("x", Duration::ZERO).await.unwrap();
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_refused_credential_is_not_tried_again() {
    let server = StandIn::start(|_, _| Reply::storage_error(403, "AuthenticationFailed")).await;
    let error = account_at(&server.url, LIMIT).queue("events").put("x", Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, StorageError::Denied { status: 403, .. }), "{error:?}");
    assert!(error.is_outage(), "the work is not to blame for a missing role");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn calls_one_after_another_share_a_connection() {
    let server = StandIn::start(|_, _| Reply::status(201, "<QueueMessagesList/>")).await;
    let storage = account_at(&server.url, LIMIT);
    for _ in 0..5 {
        storage.queue("events").put("x", Duration::ZERO).await.unwrap();
        storage
            .clone()
            .with_timeout(Duration::from_secs(1))
            .queue("jobs")
            .put("x", Duration::ZERO)
            .await
            .unwrap();
    }
    let seen = server.seen();
    assert_eq!(seen.len(), 10);
    assert!(seen.iter().all(|request| request.connection == 0), "more than one connection was opened");
}

#[tokio::test]
async fn making_clients_connects_to_nothing() {
    let server = StandIn::start(|_, _| Reply::status(201, "<QueueMessagesList/>")).await;
    let storage = account_at(&server.url, LIMIT);
    let (queue, _container) = (storage.queue("events"), storage.container("payloads"));
    assert_eq!(server.seen().len(), 0);
    queue.put("x", Duration::ZERO).await.unwrap();
    let seen = server.seen();
    let [request] = seen.as_slice() else { panic!("expected one request, saw {seen:?}") };
    assert_eq!(request.method, http::Method::POST);
    assert!(request.uri.starts_with("/events/messages?messagettl=-1&sv="), "{}", request.uri);
}

#[tokio::test]
async fn a_call_is_one_span_and_no_log_at_any_level_holds_a_secret() {
    let server = StandIn::start(|number, _| match number {
        0 => Reply::status(201, "<QueueMessagesList/>"),
        _ => Reply::storage_error(403, "AuthenticationFailed"),
    })
    .await;
    let storage = account_at(&server.url, LIMIT);
    let logged = Logged::start();
    storage.queue("events").put("the payload", Duration::ZERO).await.unwrap();
    storage.container("payloads").get("a/b").await.unwrap_err();
    let shown = logged.finish();
    for expected in [
        "otel.name=\"put events\"",
        "storage.resource=events",
        "otel.name=\"blob.get\"",
        "error.type=\"storage_denied\"",
        // The layers beneath were heard too.
        "hyper_util::client",
        "otel.status_code=\"ERROR\"",
    ] {
        assert!(shown.contains(expected), "{expected} is missing in:\n{shown}");
    }
    let base64_payload = "dGhlIHBheWxvYWQ";
    for secret in ["sig=", "the payload", base64_payload] {
        assert!(!shown.contains(secret), "{secret} is in:\n{shown}");
    }
}
