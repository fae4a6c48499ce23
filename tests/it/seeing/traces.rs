//! One trace leads through the processes, and holds nothing that a sender or a caller wrote.

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};

use crate::support::providers::{FakeProvider, Script, Wire};
use crate::support::server::{API_KEY, Server};
use crate::support::{
    Answer, Collector, Consumer, FunctionApp, SOON, SeenLine, SeenSpan, TestDatabase, TestStorage, eventually,
};

/// What the caller's own trace is called; that it is unsampled there is no reason not to keep our part.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// The one span of that name and parent.
fn only<'s>(spans: &'s [SeenSpan], name: &str, parent: &str) -> &'s SeenSpan {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name && span.parent == parent).collect();
    let tree: Vec<_> = spans.iter().map(|span| (&span.name, &span.id, &span.parent)).collect();
    assert_eq!(found.len(), 1, "{name} under {parent} in {tree:#?}");
    found[0]
}

fn names(spans: &[SeenSpan]) -> BTreeSet<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

#[tokio::test]
async fn one_trace_leads_from_a_delivery_through_the_queues_to_the_callback() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let (collector, consumer) = (Collector::start().await, Consumer::start().await);
    let mut app = FunctionApp::of(&database, &storage).hurried().consumer(&consumer);
    for (name, value) in collector.settings() {
        app = app.set(name, value);
    }
    let app = app.start().await;
    let body = r#"{"id":"evt_seen","type":"invoice.paid","note":"s3cret-of-the-sender"}"#;
    let signature = app.stripe_signature(body);
    let headers = [("stripe-signature", signature.as_str()), ("traceparent", PARENT)];
    assert_eq!(app.deliver("stripe", &headers, body.to_owned()).await.status(), 200);
    eventually("the callback", SOON, async || consumer.accepted().len() == 1).await;
    let [events, jobs, callbacks] = [&storage.events, &storage.jobs, &storage.callbacks];
    let process = |queue: &str| format!("process {queue}");
    eventually("every process's part of the trace", SOON, async || {
        let spans = collector.of(TRACE);
        let names = names(&spans);
        ["POST /api/webhooks/{source}", "POST", &process(events), &process(jobs), &process(callbacks)]
            .iter()
            .all(|name| names.contains(name))
    })
    .await;

    let spans = collector.of(TRACE);
    let received = only(&spans, "POST /api/webhooks/{source}", "00f067aa0ba902b7");
    assert_eq!((received.kind, received.service.as_str()), (SpanKind::Server, "function-handlers"));
    assert_eq!(received.attributes["http.response.status_code"], "200");
    let put = only(&spans, &format!("put {events}"), &received.id);
    assert_eq!(
        (put.kind, put.attributes["messaging.destination.name"].as_str()),
        (SpanKind::Producer, events.as_str())
    );
    let processed = only(&spans, &process(events), &received.id);
    assert_eq!(processed.kind, SpanKind::Consumer);
    let stored = only(&spans, "events.store", &processed.id);
    assert_eq!((stored.kind, stored.attributes["db.system.name"].as_str()), (SpanKind::Client, "postgresql"));
    for queue in [jobs, callbacks] {
        assert_eq!(only(&spans, &format!("put {queue}"), &processed.id).kind, SpanKind::Producer);
        assert_eq!(only(&spans, &process(queue), &processed.id).kind, SpanKind::Consumer);
    }
    let work = only(&spans, &process(callbacks), &processed.id);
    let post = only(&spans, "POST", &work.id);
    assert_eq!((post.kind, post.attributes["server.address"].as_str()), (SpanKind::Client, "127.0.0.1"));
    assert!(
        spans.iter().any(|span| span.parent == work.id && span.attributes.contains_key("db.query.summary"))
    );
    // The consumer can go on with it.
    let sent = consumer.accepted()[0].headers["traceparent"].to_str().unwrap().to_owned();
    assert_eq!(sent, format!("00-{TRACE}-{}-01", post.id));
    for span in collector.spans() {
        assert!(!span.text.contains("s3cret") && !span.text.contains(signature.as_str()), "{}", span.text);
        assert_ne!(span.name, "invocation", "the host's invocations begin no traces of their own");
    }

    let listed = app.json(&["events", "list", "--json"]).await;
    let id = listed[0]["id"].as_str().unwrap();
    assert_eq!(app.json(&["events", "show", id, "--json"]).await["trace_id"], TRACE);
    let shown = String::from_utf8(app.command(&["events", "show", id]).await.stdout).unwrap();
    assert!(shown.lines().any(|line| line.starts_with("trace ") && line.ends_with(TRACE)), "{shown}");
    for code in ["webhook_accepted", "events_stored", "work_done"] {
        let traced = app
            .log()
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .any(|line| line["code"] == code && line["trace_id"] == TRACE);
        assert!(traced, "no line {code} with the trace's id");
        let exported = |line: &SeenLine| {
            line.service == "function-handlers" && line.attributes.get("code").is_some_and(|it| it == code)
        };
        eventually("the line at the collector", SOON, async || {
            collector.lines().iter().any(|line| exported(line) && line.trace == TRACE)
        })
        .await;
    }
    for line in collector.lines() {
        assert!(!line.text.contains("s3cret") && !line.text.contains(signature.as_str()), "{}", line.text);
    }
}

#[tokio::test]
async fn a_trace_that_was_not_chosen_is_exported_where_something_fails() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let (collector, consumer) = (Collector::start().await, Consumer::start().await);
    let mut app = FunctionApp::of(&database, &storage).hurried().consumer(&consumer);
    for (name, value) in collector.settings() {
        app = app.set(name, value);
    }
    let app = app.set("OTEL_TRACES_SAMPLER", "microsoft.rate_limited").set("OTEL_TRACES_SAMPLER_ARG", "0");
    let app = app.start().await;
    // Its callers ask for a trace, which is not theirs to decide.
    let parent = PARENT.replace("-00", "-01").replacen("4bf9", "5bf9", 1);
    consumer.next([Answer::Status(500)]);
    let body = r#"{"id":"evt_failing","type":"invoice.paid"}"#;
    let signature = app.stripe_signature(body);
    let headers = [("stripe-signature", signature.as_str()), ("traceparent", parent.as_str())];
    assert_eq!(app.deliver("stripe", &headers, body.to_owned()).await.status(), 200);
    let trace = &parent[3..35];
    let process = format!("process {}", storage.callbacks);
    eventually("the attempt that failed", SOON, async || {
        names(&collector.of(trace)).contains(process.as_str())
    })
    .await;
    let spans = collector.of(trace);
    assert!(spans.iter().any(|span| span.name == "POST" && span.failed), "{spans:#?}");
    assert!(!names(&spans).contains("POST /api/webhooks/{source}"), "nothing failed there");
    // The second attempt succeeds, and so leaves nothing.
    eventually("the callback", SOON, async || consumer.accepted().len() == 1).await;
    let succeeded = format!("00-{trace}-");
    let sent = consumer.accepted()[0].headers["traceparent"].to_str().unwrap().to_owned();
    assert!(sent.starts_with(&succeeded) && sent.ends_with("-00"), "{sent}");
    app.deliver_stripe(r#"{"id":"evt_fine","type":"invoice.paid"}"#).await;
    eventually("the other callback", SOON, async || consumer.accepted().len() == 2).await;
    let traces: BTreeSet<String> = collector.spans().into_iter().map(|span| span.trace).collect();
    let fine = consumer.accepted()[1].headers["traceparent"].to_str().unwrap()[3..35].to_owned();
    assert!(!traces.contains(&fine), "a trace without an error was exported");
}

/// A server with one model at a fake provider, exporting to a collector.
async fn server(collector: &Collector, provider: &FakeProvider) -> (TestDatabase, Server) {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let config = provider.deployment("gpt", "") + "[models.gpt]\ndeployments = [\"gpt\"]\n";
    let mut server = Server::of(&database, &storage).hurried().config(config).set("LLM_RETRIES", "0");
    for (name, value) in collector.settings() {
        server = server.set(name, value);
    }
    let redis = std::env::var("COLLOQUY_TEST_REDIS_URL").expect("COLLOQUY_TEST_REDIS_URL: run scripts/test");
    (database, server.set("REDIS_URL", redis).start().await)
}

async fn ask(server: &Server, parent: &str) -> Value {
    let ask = json!({ "model": "gpt", "input": "s3cret-of-the-caller", "instructions": "s3cret-too",
                      "metadata": { "note": "s3cret-note" } });
    let request = server.client().post(server.url("/v1/responses")).bearer_auth(API_KEY);
    request.header("traceparent", parent).json(&ask).send().await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn a_turn_its_statements_and_its_model_call_are_one_trace() {
    let (collector, provider) = (Collector::start().await, FakeProvider::start(Wire::Azure));
    provider.always(Script::says("s3cret-of-the-model"));
    let (_database, server) = server(&collector, &provider).await;
    let answer = ask(&server, PARENT).await;
    assert_eq!(answer["status"], "completed", "{answer}");
    let both = async || ["turn", "POST"].iter().all(|name| names(&collector.of(TRACE)).contains(*name));
    eventually("the turn and its request", SOON, both).await;

    let spans = collector.of(TRACE);
    let request = only(&spans, "POST", "00f067aa0ba902b7");
    assert_eq!((request.kind, request.service.as_str()), (SpanKind::Server, "conversation-server"));
    assert_eq!(request.attributes["http.route"], "responses.create");
    let turn = only(&spans, "turn", &request.id);
    assert_eq!(turn.attributes["gen_ai.response.id"], answer["id"].as_str().unwrap());
    assert_eq!(turn.attributes["colloquy.turn.status"], "completed");
    let call = only(&spans, "chat m-gpt", &turn.id);
    assert_eq!(call.kind, SpanKind::Client);
    for (name, value) in [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "azure.ai.openai"),
        ("gen_ai.request.model", "m-gpt"),
        ("gen_ai.response.finish_reasons", "stop"),
        ("gen_ai.usage.input_tokens", "11"),
        ("gen_ai.usage.output_tokens", "7"),
        ("gen_ai.usage.cache_read.input_tokens", "4"),
        ("server.address", "127.0.0.1"),
    ] {
        assert_eq!(call.attributes.get(name).map(String::as_str), Some(value), "{name}: {call:#?}");
    }
    let statement = |of: &str| {
        spans.iter().any(|span| span.parent == of && span.attributes.contains_key("db.query.summary"))
    };
    assert!(statement(&request.id), "the turn's beginning is stored within the request");
    assert!(statement(&turn.id), "its end within the turn");
    // Calls to Redis go on behind the requests.
    let of_redis =
        |span: &SeenSpan| span.attributes.get("db.system.name").is_some_and(|name| name == "redis");
    eventually("a call to Redis", SOON, async || collector.spans().iter().any(of_redis)).await;
    for span in collector.spans() {
        assert!(!span.text.contains("s3cret") && !span.text.contains(API_KEY), "{}", span.text);
        assert!(
            !span.attributes.get("url.path").is_some_and(|path| path.starts_with("/health")),
            "{span:#?}"
        );
    }

    provider.always(Script::fails(500, "s3cret-of-the-provider"));
    let parent = PARENT.replacen("4bf9", "6bf9", 1);
    let refused = ask(&server, &parent).await;
    assert_eq!(refused["error"]["code"], "provider_error", "{refused}");
    let trace = &parent[3..35];
    eventually("the turn that failed", SOON, async || names(&collector.of(trace)).contains("turn")).await;
    eventually("its line at the collector", SOON, async || {
        collector.lines().iter().any(|line| line.trace == trace && line.text.contains("provider_error"))
    })
    .await;
    for line in collector.lines() {
        assert!(!line.text.contains("s3cret") && !line.text.contains(API_KEY), "{}", line.text);
    }
    for (name, code) in [("chat m-gpt", "provider_error"), ("turn", "provider_error")] {
        let spans = collector.of(trace);
        let span = spans.iter().find(|span| span.name == name).unwrap();
        assert!(span.failed && span.attributes["error.type"] == code, "{span:#?}");
        assert!(!span.text.contains("s3cret"), "{}", span.text);
    }
}
