//! Queue and timer functions.

use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Barrier, mpsc};

use super::harness::{HOST_HEADERS, Ledger, options, read_answer, serve, serve_with};
use crate::functions::{
    App, HttpResponse, Invocation, Json, Outcome, Payload, PayloadError, QueueMessage, Timer,
};

fn fixture(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/functions");
    std::fs::read(folder.join(format!("{name}.json"))).expect(name)
}

#[derive(Debug, Deserialize, PartialEq)]
struct Order {
    order: u32,
}

#[tokio::test]
async fn a_queue_message_reaches_its_handler_typed() {
    let (seen, mut sees) = mpsc::unbounded_channel();
    let app = App::new().queue(
        "process-event",
        "%QUEUE_EVENTS%",
        move |message: QueueMessage<Json<Order>>, invocation: Invocation| {
            seen.send((message, invocation)).expect("watched");
            async { Outcome::Done }
        },
    );
    let running = serve(app);
    let answer = running.envelope("process-event", &fixture("queue-json-object")).await;
    assert!(answer.done().starts_with("process-event: done ("), "{answer:?}");
    assert!(answer.header("content-length").is_some(), "{answer:?}");

    let (message, invocation) = sees.recv().await.expect("called");
    assert_eq!(message.payload, Json(Order { order: 7 }));
    assert!(message.text.starts_with(r#"{"order":7"#));
    assert_eq!(invocation.id, "8d1f");
    assert_eq!(&*invocation.function, "process-event");
    assert_eq!(invocation.host_version.as_deref(), Some("4.1052.200"));
    let budget = invocation.deadline - invocation.received;
    assert_eq!(budget, Duration::from_secs(270), "5 min less 30 s");
}

#[tokio::test]
async fn a_timer_reaches_its_handler() {
    let (seen, mut sees) = mpsc::unbounded_channel();
    let app = App::new().timer("maintain", "*/15 * * * * *", move |timer: Timer, invocation: Invocation| {
        seen.send((timer, invocation)).expect("watched");
        async { Outcome::Done }
    });
    let running = serve(app);
    assert!(
        running.envelope("maintain", &fixture("timer-past-due")).await.done().starts_with("maintain: done")
    );
    let (timer, invocation) = sees.recv().await.expect("called");
    assert!(timer.past_due && timer.last.is_some());
    assert_eq!(invocation.retry, None);
    running.envelope("maintain", &fixture("timer-first-try")).await.done();
    let (_, invocation) = sees.recv().await.expect("called");
    assert_eq!(invocation.retry.map(|r| (r.count, r.max)), Some((0, None)));
}

#[tokio::test]
async fn chunked_envelopes_are_taken() {
    let app = App::new().queue("f", "q", async |_: QueueMessage<String>, _| Outcome::Done);
    let running = serve(app);
    let mut stream = running.connect().await;
    let body = fixture("queue-plain-text");
    let head = format!(
        "POST /f HTTP/1.1\r\n{HOST_HEADERS}Connection: close\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("head");
    for chunk in body.chunks(100) {
        stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await.expect("size");
        stream.write_all(chunk).await.expect("chunk");
        stream.write_all(b"\r\n").await.expect("end of chunk");
    }
    stream.write_all(b"0\r\n\r\n").await.expect("end");
    read_answer(&mut stream).await.done();
}

fn deciding(outcome: Outcome) -> App {
    App::new().queue("f", "%Q%", move |_: QueueMessage<String>, _| std::future::ready(outcome.clone()))
}

#[tokio::test]
async fn outcomes_are_carried_out_before_the_host_is_told() {
    let ledger = Ledger::default();
    let after = Duration::from_secs(5);
    let running = serve(deciding(Outcome::retry_after(after, "busy")).settlement(ledger.clone()));
    let line = running.envelope("f", &fixture("queue-plain-text")).await.done();
    assert!(line.starts_with("f: retry in 5s: busy ("), "{line}");
    assert_eq!(ledger.read(), ["retry f %Q% hi Some(5s) busy"]);

    let ledger = Ledger::default();
    let running = serve(deciding(Outcome::dead_letter("nonsense")).settlement(ledger.clone()));
    let line = running.envelope("f", &fixture("queue-json-array")).await.done();
    assert!(line.starts_with("f: dead-lettered: nonsense ("), "{line}");
    assert_eq!(ledger.read(), ["dead-letter f %Q% [1,2,3] nonsense"]);
}

#[tokio::test]
async fn an_outcome_that_cannot_be_carried_out_fails_the_invocation() {
    let body = fixture("queue-plain-text");
    let running = serve(deciding(Outcome::retry("busy")));
    let answer = running.envelope("f", &body).await;
    assert_eq!(answer.failure(), "settlement.absent");

    for (ledger, code) in [
        (Ledger { failing: true, ..Ledger::default() }, "settlement.failed"),
        (Ledger { panicking: true, ..Ledger::default() }, "settlement.panicked"),
        (Ledger { stuck: true, ..Ledger::default() }, "settlement.overran"),
    ] {
        let mut options = options();
        options.settlement_limit = Duration::from_millis(50);
        let running = serve_with(deciding(Outcome::dead_letter("no")).settlement(ledger), options);
        let answer = running.envelope("f", &body).await;
        assert_eq!(answer.failure(), code);
    }
}

#[tokio::test]
async fn a_timer_that_is_not_done_is_shown_as_failed() {
    for outcome in [Outcome::retry("busy"), Outcome::dead_letter("broken")] {
        let app = App::new()
            .settlement(Ledger::default())
            .timer("t", "* * * * * *", move |_, _| std::future::ready(outcome.clone()));
        let answer = serve(app).envelope("t", &fixture("timer-usual")).await;
        assert_eq!(answer.failure(), "handler.failed");
    }
}

#[tokio::test]
async fn a_message_that_does_not_decode_is_dead_lettered_at_once_unless_another_version_may_read_it() {
    struct Versioned;
    impl Payload for Versioned {
        fn decode(_: &str) -> Result<Self, PayloadError> {
            Err(PayloadError::of_another_version("payload.version", "of a later version"))
        }
    }
    let ledger = Ledger::default();
    let app = || {
        App::new().queue("f", "q", async |_: QueueMessage<Json<Order>>, _| Outcome::Done).queue(
            "v",
            "q",
            async |_: QueueMessage<Versioned>, _| Outcome::Done,
        )
    };
    let answer = serve(app()).envelope("f", &fixture("queue-plain-text")).await;
    assert_eq!(answer.failure(), "payload.json", "nobody to settle it");

    let running = serve(app().settlement(ledger.clone()));
    let answer = running.envelope("v", &fixture("queue-plain-text")).await;
    assert_eq!(answer.failure(), "payload.version");
    for name in ["not-an-envelope", "cut-off", "no-data", "data-null"] {
        let answer = running.envelope("f", &fixture(name)).await;
        assert_eq!(answer.failure(), "envelope.malformed", "{name}");
    }
    let answer = running.envelope("f", b"").await;
    assert_eq!(answer.failure(), "envelope.malformed");
    assert_eq!(ledger.read(), [""; 0], "nothing is settled that was never understood");
    let line = running.envelope("f", &fixture("queue-plain-text")).await.done();
    assert!(line.starts_with("f: dead-lettered: payload.json"), "{line}");
    assert_eq!(ledger.read().len(), 1);
}

#[tokio::test]
async fn a_panic_fails_its_own_invocation_only() {
    let together = Arc::new(Barrier::new(2));
    let app = App::new()
        .queue("built", "q", |_: QueueMessage<String>, _| {
            if true {
                panic!("while building: hi");
            }
            async { Outcome::Done }
        })
        .queue("polled", "q", move |message: QueueMessage<String>, _| {
            let together = Arc::clone(&together);
            async move {
                together.wait().await;
                assert!(message.payload != "hi", "while polled: {}", message.payload);
                Outcome::Done
            }
        })
        .timer("timed", "* * * * * *", async |_, _| -> Outcome { panic!("in a timer") });
    let running = serve(app);
    let answer = running.envelope("built", &fixture("queue-plain-text")).await;
    assert_eq!(answer.failure(), "handler.panicked");
    assert!(!answer.text().contains("hi\""), "{answer:?}");

    let (bad, good) = (fixture("queue-plain-text"), fixture("queue-number"));
    let (failed, done) = tokio::join!(running.envelope("polled", &bad), running.envelope("polled", &good));
    assert_eq!(failed.failure(), "handler.panicked");
    assert!(done.done().starts_with("polled: done"), "its neighbour is not touched");

    let answer = running.envelope("timed", &fixture("timer-usual")).await;
    assert_eq!(answer.failure(), "handler.panicked");
}

struct Dropped(mpsc::UnboundedSender<()>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.send(()).ok();
    }
}

#[tokio::test]
async fn a_handler_is_cut_at_its_deadline_and_the_message_retried() {
    let (dropped, mut drops) = mpsc::unbounded_channel();
    let ledger = Ledger::default();
    let for_timer = dropped.clone();
    let app = App::new()
        .settlement(ledger.clone())
        .queue("f", "q", move |_: QueueMessage<String>, _| {
            let guard = Dropped(dropped.clone());
            async move {
                pending::<()>().await;
                drop(guard);
                Outcome::Done
            }
        })
        .timer("t", "* * * * * *", move |_, _| {
            let guard = Dropped(for_timer.clone());
            async move {
                pending::<()>().await;
                drop(guard);
                Outcome::Done
            }
        });
    let mut options = options();
    options.function_timeout = Some(Duration::from_secs(1));
    let running = serve_with(app, options);
    let began = Instant::now();
    let line = running.envelope("f", &fixture("queue-plain-text")).await.done();
    let took = began.elapsed();
    let allowed = Duration::from_millis(500)..Duration::from_secs(1);
    assert!(allowed.contains(&took), "half of 1 s: {took:?}");
    assert!(line.starts_with("f: retry later: cut at its deadline"), "{line}");
    assert_eq!(ledger.read(), ["retry f q hi None cut at its deadline"]);
    drops.recv().await.expect("the future was dropped");
    let answer = running.envelope("t", &fixture("timer-usual")).await;
    assert_eq!(answer.failure(), "handler.overran");
    drops.recv().await.expect("the future was dropped");
}

#[tokio::test]
async fn a_young_process_gives_less() {
    let (seen, mut sees) = mpsc::unbounded_channel();
    let app = App::new().queue("f", "q", move |_: QueueMessage<String>, invocation: Invocation| {
        seen.send(invocation.deadline - invocation.received).expect("watched");
        async { Outcome::Done }
    });
    let mut options = options();
    options.started = Instant::now();
    let running = serve_with(app, options);
    running.envelope("f", &fixture("queue-plain-text")).await.done();
    let budget = sees.recv().await.expect("called");
    assert!((150..=155).contains(&budget.as_secs()), "300 - 30 - 120 s and the age so far: {budget:?}");
}

#[tokio::test]
async fn only_the_host_may_call_a_queue_or_timer_function() {
    let (called, mut calls) = mpsc::unbounded_channel();
    let app = App::new().queue("f", "q", move |_: QueueMessage<String>, _| {
        called.send(()).expect("watched");
        async { Outcome::Done }
    });
    let running = serve(app);
    let body = fixture("queue-plain-text");
    for (why, head) in [
        ("no headers", "POST /f HTTP/1.1\r\n".to_owned()),
        ("proxied", format!("POST /f HTTP/1.1\r\n{HOST_HEADERS}X-Forwarded-For: 203.0.113.9\r\n")),
        (
            "forwarded",
            format!("POST /f HTTP/1.1\r\n{}", HOST_HEADERS.replace("User-Agent: ", "User-Agent: curl/8 ")),
        ),
        ("with a query", format!("POST /f?code=1 HTTP/1.1\r\n{HOST_HEADERS}")),
        ("not posted", format!("PUT /f HTTP/1.1\r\n{HOST_HEADERS}")),
    ] {
        let answer = running.send(&head, &body).await;
        assert_eq!((answer.status, answer.problem().as_str()), (403, "host-only"), "{why}");
    }
    let answer = running.envelope("F", &body).await;
    assert_eq!(answer.status, 404, "a function's name is exact");
    running.envelope("f", &body).await.done();
    calls.recv().await.expect("the host's call");
    assert!(calls.try_recv().is_err(), "no other call came through");
}

#[tokio::test]
async fn an_http_function_refuses_an_envelope() {
    let (called, mut calls) = mpsc::unbounded_channel();
    let app =
        App::new().http("receive-webhook", "webhooks/{source}/{event?}", &[Method::POST], move |_, _| {
            called.send(()).expect("watched");
            async { HttpResponse::new(http::StatusCode::OK) }
        });
    let running = serve(app);
    for name in ["http-envelope", "http-envelope-binary", "http-envelope-chunked"] {
        let answer = running.envelope("receive-webhook", &fixture(name)).await;
        assert_eq!(answer.failure(), "envelope.http-function", "{name}");
    }
    assert!(calls.try_recv().is_err());
}

#[tokio::test]
async fn an_envelope_may_be_a_third_larger_than_a_body_and_no_more() {
    let app = App::new().queue("f", "q", async |message: QueueMessage<Json<Value>>, _| {
        Outcome::retry(format!("{} bytes", message.text.len()))
    });
    let mut options = options();
    options.request_body_limit = 3 * 1024 * 1024;
    let running = serve_with(app.settlement(Ledger::default()), options);
    let envelope = |size: usize| {
        format!(r#"{{"Data":{{"message":"\"[{}]\""}},"Metadata":{{}}}}"#, " ".repeat(size)).into_bytes()
    };
    // 3 MiB × 4/3 + 4 MiB
    let most = 8 * 1024 * 1024;
    let frame = envelope(0).len();
    let line = running.envelope("f", &envelope(most - frame)).await.done();
    assert!(line.contains(&format!("{} bytes", most - frame + 2)), "{line}");
    let answer = running.envelope("f", &envelope(most - frame + 1)).await;
    assert_eq!(answer.failure(), "envelope.too-large");
}
