//! What a sender is told: refusals by the table of the documentation, and odd deliveries that are none.

use std::time::{Duration, Instant};

use futures_util::stream;
use serde_json::{Value, json};

use crate::support::{
    Consumer, FunctionApp, PrivateAzurite, SOON, TestDatabase, TestStorage, eventually, sign_espocrm,
};

/// Where nothing listens: refusals need neither database nor queue.
const NOWHERE: &str = "postgres://nobody:nothing@127.0.0.1:9/none";
const STRIPE_LIMIT: usize = 1024 * 1024;

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

type Case<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>, &'a str, u16, &'a str);

/// A refusal as RFC 9457 and the documentation have it. Gives its `detail`.
async fn assert_refused(what: &str, answer: reqwest::Response, status: u16, slug: &str) -> String {
    assert_eq!(answer.status(), status, "{what}");
    let headers = answer.headers().clone();
    assert_eq!(headers["content-type"], "application/problem+json", "{what}");
    let request_id = headers["x-request-id"].to_str().expect("text").to_owned();
    let problem: Value = answer.json().await.expect("a problem");
    assert_eq!(problem["type"], format!("/problems/{slug}"), "{what}");
    assert_eq!(problem["status"], status, "{what}");
    assert_eq!(problem["request_id"], request_id.as_str(), "{what}");
    assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()), "{what}: {problem}");
    if status == 503 {
        assert!(headers.contains_key("retry-after"), "{what}: a sender is told when to come back");
    }
    problem["detail"].as_str().expect("a detail").to_owned()
}

#[tokio::test]
async fn every_refusal_has_its_status_and_its_type() {
    let storage = TestStorage::create();
    let app = FunctionApp::on(NOWHERE, NOWHERE, &storage).start().await;
    let body = r#"{"id":"evt_1","type":"invoice.paid"}"#;
    let good = app.stripe_signature(body);
    let signed = |at: i64| app.stripe_signature_at(at, body);
    let (old, early) = (signed(now() - 301), signed(now() + 303));
    let forged = format!("t={},v1={}", now(), "0".repeat(64));
    let half = r#"{"id":"evt_1","#;
    let half_signature = app.stripe_signature(half);
    let nameless = r#"{"type":"invoice.paid"}"#;
    let nameless_signature = app.stripe_signature(nameless);

    // What it is, the source, headers, body; then status and type.
    let cases: [Case<'_>; 10] = [
        ("an unknown source", "nobody", vec![("stripe-signature", &good)], body, 404, "unknown-source"),
        ("no signature", "stripe", vec![], body, 401, "bad-signature"),
        ("a forged signature", "stripe", vec![("stripe-signature", &forged)], body, 401, "bad-signature"),
        ("another body", "stripe", vec![("stripe-signature", &good)], "{}", 401, "bad-signature"),
        (
            "a signature of 301 s ago",
            "stripe",
            vec![("stripe-signature", &old)],
            body,
            401,
            "stale-signature",
        ),
        (
            "a signature of the future",
            "stripe",
            vec![("stripe-signature", &early)],
            body,
            401,
            "stale-signature",
        ),
        (
            "text",
            "stripe",
            vec![("stripe-signature", &good), ("content-type", "text/plain")],
            body,
            415,
            "wrong-type",
        ),
        ("half a body", "stripe", vec![("stripe-signature", &half_signature)], half, 400, "malformed"),
        ("no id", "stripe", vec![("stripe-signature", &nameless_signature)], nameless, 400, "malformed"),
        ("a wrong password", "legacy", vec![("authorization", "Basic eDp5")], body, 401, "bad-signature"),
    ];
    for (what, source, headers, body, status, slug) in cases {
        let answer = app.deliver(source, &headers, body.to_owned()).await;
        let detail = assert_refused(what, answer, status, slug).await;
        assert!(!detail.contains("evt_1"), "{what}: a part of the body is told: {detail}");
    }
    let answer =
        app.client().request(http::Method::OPTIONS, app.url("/api/webhooks/stripe")).send().await.unwrap();
    assert_eq!(answer.headers()["allow"], "POST");
    assert_refused("a method", answer, 405, "method-not-allowed").await;
    for method in [http::Method::GET, http::Method::PUT, http::Method::DELETE] {
        let answer = app.client().request(method, app.url("/api/webhooks/stripe")).send().await.unwrap();
        assert_eq!(answer.headers()["allow"], "POST");
        assert_refused("a method through the host", answer, 405, "method-not-allowed").await;
    }
    eventually("nothing was queued", SOON, async || storage.is_empty().await).await;
}

#[tokio::test]
async fn a_signature_within_300_seconds_is_fresh() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let app = FunctionApp::of(&database, &storage).start().await;
    // The past side leaves a second for the request itself; the exact edge is the unit tests', whose clock stands still.
    for at in [now() - 298, now() + 300] {
        let body = json!({ "id": format!("evt_{at}"), "type": "invoice.paid" }).to_string();
        let signature = app.stripe_signature_at(at, &body);
        let answer = app.deliver("stripe", &[("stripe-signature", &signature)], body).await;
        assert_eq!(answer.status(), 200, "{} s", at - now());
    }
}

#[tokio::test]
async fn a_body_without_a_length_is_refused_and_one_of_the_wrong_length_too() {
    let storage = TestStorage::create();
    let handler = FunctionApp::on(NOWHERE, NOWHERE, &storage).start_handler().await;
    let head = "POST /api/webhooks/stripe HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                content-type: application/json\r\n";
    let answer = handler.raw(&format!("{head}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 411 "), "{answer}");
    assert!(answer.contains("/problems/length-required"), "{answer}");
    assert!(answer.contains("x-request-id: "), "{answer}");
    let answer = handler.raw(&format!("{head}content-length: 0\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "an empty body proves nothing: {answer}");
    let app = FunctionApp::on(NOWHERE, NOWHERE, &storage).start().await;
    // Chunked is what counts, and this is none: a sender's mistake and not the host's.
    let proof = app.stripe_signature("hello");
    let both =
        format!("{head}stripe-signature: {proof}\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n");
    let answer = app.raw(&format!("{both}hello")).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "two lengths, neither of them kept: {answer}");
}

#[tokio::test]
async fn one_byte_over_the_limit_is_too_large_announced_or_not() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let app = FunctionApp::of(&database, &storage).start().await;
    let sized = |size: usize| {
        let body = json!({ "id": format!("evt_{size}"), "type": "invoice.paid", "pad": "" }).to_string();
        body.replace(r#""pad":"""#, &format!(r#""pad":"{}""#, "x".repeat(size - body.len())))
    };
    for (size, status) in [(STRIPE_LIMIT, 200), (STRIPE_LIMIT + 1, 413)] {
        let body = sized(size);
        assert_eq!(body.len(), size);
        let signature = app.stripe_signature(&body);
        let headers = [("stripe-signature", signature.as_str())];
        let announced = app.deliver("stripe", &headers, body.clone()).await;
        assert_eq!(announced.status(), status, "{size} bytes");
        let streamed = app.deliver("stripe", &headers, chunked(body)).await;
        assert_eq!(streamed.status(), status, "{size} bytes in chunks");
        if status == 413 {
            let detail = assert_refused("in chunks", streamed, 413, "too-large").await;
            assert!(detail.contains("sources.stripe.max_body_bytes"), "the setting is named: {detail}");
            assert_refused("announced", announced, 413, "too-large").await;
        }
    }
}

/// A body whose length is not announced.
fn chunked(body: String) -> reqwest::Body {
    let chunks: Vec<Result<Vec<u8>, std::io::Error>> =
        body.as_bytes().chunks(10_000).map(|chunk| Ok(chunk.to_vec())).collect();
    reqwest::Body::wrap_stream(stream::iter(chunks))
}

#[tokio::test]
async fn chunked_escaped_and_large_bodies_reach_the_consumer_unbroken() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    let app = FunctionApp::of(&database, &storage).hurried().consumer(&consumer).start().await;
    let escaped = r#"{ "id":"evt_escaped", "type":"a","n":1.10,"s":"\u00fc\/\ud83d\ude00 ü😀" }"#.to_owned();
    let chunks = json!({ "id": "evt_chunked", "type": "a", "pad": "y".repeat(30_000) }).to_string();
    // Base64 makes of 48 KiB the 64 KiB that a queue takes.
    let large = json!({ "id": "evt_large", "type": "a", "pad": "zß".repeat(100_000) }).to_string();
    for (body, stream) in [(&escaped, false), (&chunks, true), (&large, false)] {
        let signature = app.stripe_signature(body);
        let content = if stream { chunked(body.clone()) } else { body.clone().into() };
        let answer = app.deliver("stripe", &[("stripe-signature", &signature)], content).await;
        assert_eq!(answer.status(), 200);
    }
    eventually("three callbacks", SOON, async || consumer.accepted().len() == 3).await;
    for body in [&escaped, &chunks, &large] {
        let data = format!(r#""data":{body}}}"#);
        let arrived = consumer.callbacks().iter().any(|callback| callback.body.ends_with(data.as_bytes()));
        assert!(arrived, "byte for byte: {}", &body[..40]);
    }
    let blobs = "SELECT count(*) FROM deliveries WHERE body_blob IS NOT NULL";
    assert_eq!(database.count(blobs).await, 1, "only the large one went through a blob");
}

#[tokio::test]
async fn a_body_that_is_no_text_is_kept_as_it_is() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    let config = r#"
        [sources.sensor]
        kind = "bearer"
        content_types = ["application/octet-stream"]
        [targets.consumer]
        url = "${CONSUMER_URL}"
        [[routes]]
        source = "sensor"
        action = "forward"
        target = "consumer"
    "#;
    let app = FunctionApp::of(&database, &storage).hurried().config(config).consumer(&consumer).start().await;
    let body: Vec<u8> = [0xff, 0x00, 0xfe].into_iter().chain(0..=255).collect();
    let token = format!("Bearer {}", app.setting("WEBHOOK_SECRET_SENSOR"));
    let headers = [("authorization", token.as_str()), ("content-type", "application/octet-stream")];
    assert_eq!(app.deliver("sensor/measured", &headers, body.clone()).await.status(), 200);
    eventually("the callback", SOON, async || consumer.accepted().len() == 1).await;
    use base64::Engine;
    let told = consumer.callbacks()[0].json();
    assert_eq!(told["data_base64"], base64::engine::general_purpose::STANDARD.encode(&body));
    assert_eq!(told["type"], "measured");
}

#[tokio::test]
async fn a_refused_source_answers_503_until_it_is_started_again() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let app = FunctionApp::of(&database, &storage).set("SWITCH_CACHE", "0s").start().await;
    let body = r#"{"id":"evt_1","type":"invoice.paid"}"#;
    assert!(
        app.command(&["sources", "stop", "stripe", "--yes", "--refuse", "--reason", "a test"])
            .await
            .status
            .success()
    );
    assert_refused("stopped", app.deliver_stripe(body).await, 503, "source-stopped").await;
    assert!(app.command(&["sources", "start", "stripe", "--yes"]).await.status.success());
    assert_eq!(app.deliver_stripe(body).await.status(), 200);
}

#[tokio::test]
async fn event_grid_shakes_hands_and_its_batches_become_events() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let app = FunctionApp::of(&database, &storage).hurried().start().await;
    let secret = app.setting("WEBHOOK_SECRET_EVENT_GRID").to_owned();
    let validation = json!([{
        "id": "1", "topic": "/t", "subject": "", "eventTime": "2026-11-21T09:00:00Z", "dataVersion": "1",
        "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "data": { "validationCode": "512d38b6-c7b8-40c8-89fe-f46f9e9622b6" },
    }])
    .to_string();
    let headers = [("aeg-event-type", "SubscriptionValidation"), ("x-webhook-secret", secret.as_str())];
    let answer = app.deliver("event-grid", &headers, validation.clone()).await;
    assert_eq!(answer.status(), 200);
    assert!(answer.headers().contains_key("x-request-id"));
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer, json!({ "validationResponse": "512d38b6-c7b8-40c8-89fe-f46f9e9622b6" }));
    let stranger = app.deliver("event-grid", &headers[..1], validation).await;
    assert_refused("a stranger's validation", stranger, 401, "bad-signature").await;

    let options = app.client().request(http::Method::OPTIONS, app.url("/api/webhooks/event-grid"));
    let answer = options.header("webhook-request-origin", "eventgrid.azure.net").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["webhook-allowed-origin"], "eventgrid.azure.net");
    assert!(answer.headers().contains_key("x-request-id"));

    let batch: Vec<Value> = (0..120)
        .map(|n| json!({ "id": n.to_string(), "topic": "/t", "eventType": "Made", "subject": "s", "data": {} }))
        .collect();
    let headers = [("aeg-event-type", "Notification"), ("x-webhook-secret", secret.as_str())];
    let answer = app.deliver("event-grid", &headers, Value::from(batch).to_string()).await;
    assert_eq!(answer.status(), 200);
    eventually("every event of the batch", SOON, async || {
        database.count("SELECT count(*) FROM events WHERE state = 'processed'").await == 120
    })
    .await;
}

#[tokio::test]
async fn fifty_records_of_espocrm_are_fifty_events_however_often_they_come() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    let app = FunctionApp::of(&database, &storage).hurried().consumer(&consumer).start().await;
    let records: Vec<Value> = (0..50).map(|n| json!({ "id": format!("66f0{n:013}"), "rating": n })).collect();
    let body = Value::from(records).to_string();
    let signature = sign_espocrm(app.setting("WEBHOOK_SECRET_CRM"), "66f0c1d2a1b2c3d4e", body.as_bytes());
    for _ in 0..2 {
        let answer = app.deliver("crm/feedback.create", &[("signature", &signature)], body.clone()).await;
        assert_eq!(answer.status(), 200);
    }
    eventually("fifty callbacks", SOON, async || consumer.accepted().len() == 50).await;
    eventually("the second delivery judged", SOON, async || {
        app.log().iter().filter(|line| line.contains("events_stored")).count() == 2
    })
    .await;
    assert_eq!(database.count("SELECT count(*) FROM events").await, 50);
    assert_eq!(consumer.ids().len(), 50);
    assert!(consumer.callbacks().iter().all(|callback| callback.json()["type"] == "feedback.create"));
}

#[tokio::test]
async fn with_the_queue_down_a_sender_is_told_to_come_back() {
    let mut azurite = PrivateAzurite::start().await;
    let storage = TestStorage::within(&azurite.connection_string());
    let database = TestDatabase::create().await;
    let builder = FunctionApp::of(&database, &storage).hurried().set("RETRY_AFTER", "17s");
    let handler = builder.start_handler().await;
    let body = r#"{"id":"evt_1","type":"invoice.paid"}"#;
    azurite.stop().await;
    let answer = handler.deliver_stripe(body).await;
    assert_eq!(answer.headers()["retry-after"], "17");
    assert_refused("queue down", answer, 503, "queue-unavailable").await;
    azurite.start_again().await;
    eventually("acceptance", SOON, async || handler.deliver_stripe(body).await.status() == 200).await;
}

#[tokio::test]
async fn with_storage_hanging_a_sender_is_told_to_come_back_before_it_gives_up() {
    let azurite = PrivateAzurite::start().await;
    let storage = TestStorage::within(&azurite.connection_string());
    let database = TestDatabase::create().await;
    let handler = FunctionApp::of(&database, &storage).start_handler().await;
    let small = r#"{"id":"evt_1","type":"invoice.paid"}"#.to_owned();
    // Goes to a blob first.
    let large = json!({ "id": "evt_2", "type": "a", "pad": "x".repeat(100_000) }).to_string();
    azurite.freeze();
    for body in [&small, &large] {
        let start = Instant::now();
        let answer = handler.deliver_stripe(body).await;
        let waited = start.elapsed();
        assert_refused("storage hangs", answer, 503, "queue-unavailable").await;
        // EspoCRM, GitHub and SailPoint hear nothing after 10 s.
        assert!(waited < Duration::from_secs(9), "{waited:?}");
    }
    azurite.thaw();
    eventually("acceptance", SOON, async || handler.deliver_stripe(&small).await.status() == 200).await;
}

#[tokio::test]
async fn forged_deliveries_use_up_nothing_of_what_a_sender_may_send() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let config = "[sources.limited]\nkind = \"bearer\"\nrate_per_minute = 3\n";
    let builder = FunctionApp::of(&database, &storage).config(config).set("FORGERIES_PER_MINUTE", "2");
    let handler = builder.start_handler().await;
    let token = format!("Bearer {}", handler.setting("WEBHOOK_SECRET_LIMITED"));
    for _ in 0..9 {
        let forged = handler.deliver("limited", &[("authorization", "Bearer guessed")], r#"{"n":1}"#).await;
        assert_refused("forged", forged, 401, "bad-signature").await;
    }
    for n in 0..4 {
        let answer =
            handler.deliver("limited", &[("authorization", &token)], format!(r#"{{"n":{n}}}"#)).await;
        assert_eq!(answer.status(), if n < 3 { 200 } else { 429 }, "genuine delivery {n}");
    }
    assert!(handler.log().iter().any(|line| line.contains(r#""code":"forgeries""#)));
}

#[tokio::test]
async fn neither_secrets_nor_payloads_nor_signatures_reach_a_log() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    let app = FunctionApp::of(&database, &storage)
        .hurried()
        .consumer(&consumer)
        .set("APP_LOG_LEVEL", "debug")
        .start()
        .await;
    let body = r#"{"id":"evt_1","type":"invoice.paid","data":{"object":{"id":"in_1","iban":"DE02120300000000202051"}}}"#;
    let signature = app.stripe_signature(body);
    assert_eq!(
        app.deliver("stripe", &[("stripe-signature", &signature)], body.to_owned()).await.status(),
        200
    );
    let refused = app.deliver("stripe", &[("stripe-signature", &signature)], format!("{body} ")).await;
    assert_eq!(refused.status(), 401);
    let token = format!("Bearer {}", app.setting("WEBHOOK_SECRET_PIPELINE"));
    let headers = [("authorization", token.as_str()), ("x-request-id", "request-of-a-test-01")];
    let accepted = app.deliver("pipeline", &headers, r#"{"id":"p1","type":"run"}"#).await;
    assert_eq!(accepted.status(), 200);
    assert_eq!(accepted.headers()["x-request-id"], "request-of-a-test-01", "a sender's own id is kept");
    eventually("the callback", SOON, async || consumer.accepted().len() == 1).await;
    eventually("both log lines", SOON, async || {
        let log = app.log().join("\n");
        log.contains("webhook_accepted")
            && log.contains("bad-signature")
            && log.contains("request-of-a-test-01")
    })
    .await;
    let log = app.log().join("\n");
    let password = |name: &str| {
        app.setting(name)
            .split_once("://")
            .unwrap()
            .1
            .split_once('@')
            .unwrap()
            .0
            .split_once(':')
            .unwrap()
            .1
            .to_owned()
    };
    let mut secrets = vec![
        "DE02120300000000202051".to_owned(),
        signature.split_once("v1=").unwrap().1.to_owned(),
        consumer.callbacks()[0].headers["webhook-signature"].to_str().unwrap().to_owned(),
        app.setting("ENCRYPTION_KEY").to_owned(),
        password("DATABASE_URL"),
    ];
    let names = ["STRIPE", "PIPELINE", "CRM", "EVENT_GRID"];
    secrets.extend(names.map(|name| app.setting(&format!("WEBHOOK_SECRET_{name}")).to_owned()));
    secrets.push(app.setting("CALLBACK_SECRET_CONSUMER").to_owned());
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret} is in the log");
    }
}
