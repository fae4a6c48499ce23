use std::time::Duration;

use bytes::Bytes;

use crate::azure::testing::{Reply, Seen, StandIn, account_at, answer, nowhere};
use crate::azure::{Call, Storage, StorageError, TokenError};

/// Neither form of an error may show what the request's address carried.
fn assert_scrubbed(error: &StorageError) {
    let mut shown = format!("{error} {error:?}");
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        shown.push_str(&format!(" {inner} {inner:?}"));
        source = inner.source();
    }
    for secret in ["sig=", "sig%3D", "http://", "popreceipt", "127.0.0.1", "c2VjcmV0"] {
        assert!(!shown.contains(secret), "{shown:?} contains {secret:?}");
    }
}

async fn failures(storage: &Storage) -> Vec<StorageError> {
    let (queue, container) = (storage.queue("events"), storage.container("payloads"));
    vec![
        queue.put("x", Duration::ZERO).await.unwrap_err(),
        queue.receive(1, Duration::from_secs(1)).await.unwrap_err(),
        queue.create_if_missing().await.unwrap_err(),
        container.put("a/b", Bytes::from_static(b"x"), "text/plain").await.unwrap_err(),
        container.get("a/b").await.unwrap_err(),
        container.list("a").await.unwrap_err(),
    ]
}

/// The signature of a request, as a careless server would repeat it.
fn echo(seen: &Seen) -> String {
    assert!(seen.uri.contains("sig="), "the request was not signed: {}", seen.uri);
    format!("http://127.0.0.1{}", seen.uri)
}

#[tokio::test]
async fn no_failure_shows_the_signature() {
    let limit = Duration::from_millis(200);
    let status = |status| {
        StandIn::start(move |_, seen| {
            let mut response = answer(status, format!("<Error><Message>{}</Message></Error>", echo(seen)));
            response.headers_mut().insert("x-ms-error-code", echo(seen).parse().unwrap());
            Reply::Answer(response)
        })
    };
    for code in [400, 403, 404, 409, 412, 500, 503] {
        let server = status(code).await;
        let storage = account_at(&server.url, limit);
        assert_scrubbed(&storage.queue("events").put("x", Duration::ZERO).await.unwrap_err());
    }
    let server = status(400).await;
    let stalled = StandIn::start(|_, _| Reply::Stall).await;
    let cut = StandIn::start(|_, _| Reply::Cut).await;
    let garbage = StandIn::start(|_, seen| Reply::status(200, echo(seen))).await;
    for endpoint in [server.url.clone(), stalled.url.clone(), cut.url.clone(), nowhere().await] {
        let errors = failures(&account_at(&endpoint, limit)).await;
        errors.iter().for_each(assert_scrubbed);
    }
    let storage = account_at(&garbage.url, limit);
    let error = storage.queue("events").receive(1, Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(error.code(), "storage_malformed");
    assert_scrubbed(&error);
}

#[tokio::test]
async fn failures_are_classed_by_what_to_do_about_them() {
    for (status, service_code, code, outage) in [
        (401, "InvalidAuthenticationInfo", "storage_denied", true),
        (403, "AuthorizationPermissionMismatch", "storage_denied", true),
        (404, "ResourceNotFound", "storage_not_found", false),
        (409, "QueueBeingDeleted", "storage_busy", true),
        (400, "InvalidResourceName", "storage_refused", false),
        (412, "ConditionNotMet", "storage_refused", false),
        (429, "TooManyRequests", "storage_busy", true),
        (500, "InternalError", "storage_busy", true),
    ] {
        let server = StandIn::start(move |_, _| Reply::storage_error(status, service_code)).await;
        let storage = account_at(&server.url, Duration::from_secs(5));
        let error = storage.queue("events").put("x", Duration::ZERO).await.unwrap_err();
        assert_eq!((error.code(), error.is_outage()), (code, outage), "{status} {service_code}");
        let shown = error.to_string();
        assert!(shown.contains("queue.put events") && shown.contains(service_code), "{shown}");
    }
}

#[test]
fn with_all_its_causes_an_error_says_everything_once() {
    let call = Call { operation: "queue.put", resource: "events".to_owned() };
    let error = anyhow::Error::from(StorageError::NoToken { call, reason: TokenError::opaque() });
    assert_eq!(format!("{error:#}"), error.to_string());
}
