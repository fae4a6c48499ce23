//! Every metric of ours is emitted, by the process that the table of signals names; of those that alert, in the state that
//! alerts. Nothing is looked up in the sources: real processes are brought into each of these states, and scraped. That
//! every metric has a row in that table says a test beside it.

use std::collections::BTreeSet;
use std::time::Duration;

use colloquy::telemetry::metrics::{METRICS, Measure, SIGNALS, Signal, Source};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use crate::support::providers::{FakeProvider, Script, Wire};
use crate::support::server::Server;
use crate::support::{
    Answer, Consumer, Endpoint, FunctionApp, Proxy, SOON, TestDatabase, TestStorage, eventually,
};

/// Where nobody listens.
const NOWHERE: &str = "postgres://nobody:x@127.0.0.1:9/none";

/// A connection string of a store on this machine.
fn store_at(port: u16) -> String {
    format!(
        "DefaultEndpointsProtocol=http;AccountName=nobody;AccountKey=aGVsbG8=;\
         QueueEndpoint=http://127.0.0.1:{port}/nobody;BlobEndpoint=http://127.0.0.1:{port}/nobody"
    )
}

pub async fn scrape(endpoint: &Endpoint, path: &str) -> String {
    let request = endpoint.client().get(endpoint.url(path)).bearer_auth(crate::support::server::API_KEY);
    request.send().await.expect("a scrape").text().await.expect("a text")
}

/// Of which metric a line of a scrape is. The beginning of one's name may be another's.
fn metric_of(line: &str) -> Option<&'static str> {
    let begins = |name: &&str| line.starts_with(&name.replace('.', "_"));
    METRICS.iter().map(|definition| definition.name).filter(begins).max_by_key(|name| name.len())
}

/// Whether a scrape has a sample that the signal counts.
fn has(text: &str, signal: &Signal) -> bool {
    let Source::Ours { metric, only, .. } = signal.source else { return false };
    let name = metric.definition().name;
    let matching = if let Measure::Share(matching) = signal.measure { matching } else { &[] };
    let wanted: Vec<(String, &str)> = only
        .iter()
        .chain(matching)
        .map(|(label, value)| {
            (format!("{}=\"{}", label.replace('.', "_"), value.trim_end_matches('*')), *value)
        })
        .collect();
    text.lines().any(|line| {
        metric_of(line) == Some(name)
            && wanted.iter().all(|(label, value)| {
                let exact = if value.ends_with('*') { label.clone() } else { format!("{label}\"") };
                line.contains(&exact)
            })
    })
}

/// The signals of a binary that no scrape shows.
fn unseen(binary: &str, scrapes: &[String]) -> Vec<&'static str> {
    let ours =
        |signal: &&Signal| matches!(signal.source, Source::Ours { emitter, .. } if emitter.includes(binary));
    let unseen = SIGNALS.iter().filter(ours).filter(|signal| !scrapes.iter().any(|text| has(text, signal)));
    unseen.map(|signal| signal.name).collect()
}

/// Metrics that a scrape of a binary shows and the table says are others'.
fn stray(binary: &str, scrapes: &[String]) -> Vec<&'static str> {
    let known = |name: &str| {
        let mut rows = SIGNALS.iter().filter_map(|signal| match signal.source {
            Source::Ours { metric, emitter, .. } => Some((metric.definition().name, emitter)),
            Source::Platform { .. } => None,
        });
        rows.any(|(metric, emitter)| metric == name && emitter.includes(binary))
    };
    let shown = scrapes.iter().flat_map(|text| text.lines()).filter_map(metric_of);
    let stray: BTreeSet<&str> = shown.filter(|name| !known(name)).collect();
    stray.into_iter().collect()
}

#[tokio::test]
async fn the_function_app_emits_every_metric_of_its_own() {
    let (mut scrapes, answering) = tokio::join!(working(), super::answering::scrapes());
    scrapes.extend(answering);
    assert_eq!(unseen("function-handlers", &scrapes), Vec::<&str>::new());
    assert_eq!(stray("function-handlers", &scrapes), Vec::<&str>::new());
}

/// Function apps that take deliveries and work, with and without what they stand on. Gives what they say of themselves.
async fn working() -> Vec<String> {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    let app = FunctionApp::of(&database, &storage).hurried().consumer(&consumer);
    let app = app.set("CALLBACK_SCHEDULE", "0s").start().await;
    // Given up after its one attempt.
    consumer.always(Answer::Status(500));
    assert_eq!(app.deliver_stripe(r#"{"id":"evt_1","type":"a"}"#).await.status(), 200);
    assert_eq!(app.deliver("stripe", &[], "{}").await.status(), 401);
    let mut scrapes = Vec::new();
    eventually("a dead letter", SOON, async || {
        scrapes = vec![scrape(&app, "/api/health/metrics").await];
        scrapes[0].lines().any(|line| line.starts_with("colloquy_dead_letters_open") && line.ends_with(" 1"))
    })
    .await;
    app.get("/api/health/ready").await;
    // Something for upkeep to take.
    let stray = format!(r#"v1 {{"id":"job_{}"}}"#, uuid::Uuid::now_v7());
    storage.put(&format!("{}-poison", storage.jobs), &stray).await;
    eventually("upkeep that took something", SOON, async || {
        scrape(&app, "/api/health/metrics").await.contains("colloquy_maintain_swept")
    })
    .await;
    scrapes.push(scrape(&app, "/api/health/metrics").await);

    // Storage away.
    let builder = FunctionApp::of(&database, &storage).hurried().set("AzureWebJobsStorage", store_at(9));
    let handler = builder.start_handler().await;
    assert_eq!(handler.deliver_stripe(r#"{"id":"evt_2","type":"a"}"#).await.status(), 503);
    scrapes.push(scrape(&handler, "/api/health/metrics").await);

    // Storage that never answers, and a sender that does not wait for it.
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let store = store_at(deaf.local_addr().unwrap().port());
    let builder = FunctionApp::of(&database, &storage).hurried().set("AzureWebJobsStorage", store);
    let handler = builder.start_handler().await;
    let body = r#"{"id":"evt_3","type":"a"}"#;
    let leaving = handler.client().post(handler.url("/api/webhooks/stripe")).body(body);
    let leaving = leaving.header("content-type", "application/json").timeout(Duration::from_millis(300));
    let left = leaving.header("stripe-signature", handler.stripe_signature(body)).send().await;
    assert!(left.unwrap_err().is_timeout());
    let mut text = String::new();
    eventually("an invocation that was cut", SOON, async || {
        text = scrape(&handler, "/api/health/metrics").await;
        text.contains("outcome=\"cut\"")
    })
    .await;
    scrapes.push(text);

    // The database away; and somebody without a key.
    let handler = FunctionApp::on(NOWHERE, NOWHERE, &storage).hurried().start_handler().await;
    assert_eq!(handler.tick("maintain").await, 200);
    let url = handler.url("/api/health/status");
    let from_elsewhere = handler.client().get(url).header("x-forwarded-for", "203.0.113.9:4711");
    assert_eq!(from_elsewhere.send().await.unwrap().status(), 401);
    scrapes.push(scrape(&handler, "/api/health/metrics").await);
    scrapes
}

#[tokio::test]
async fn the_conversation_server_emits_every_metric_of_its_own() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let (good, bad) = (FakeProvider::start(Wire::Chat), FakeProvider::start(Wire::Chat));
    bad.always(Script::fails(500, "x"));
    let price = "price = { input = \"1\", output = \"1\" }";
    let config = format!(
        "{}{}[models.good]\ndeployments = [\"good\"]\n[models.bad]\ndeployments = [\"bad\"]\n\
         [budgets]\ntotal = 1\neach_owner = \"0.05\"\n",
        good.deployment("good", price),
        bad.deployment("bad", price)
    );
    let pooled = reqwest::Url::parse(&database.url).unwrap();
    let proxy = Proxy::to(pooled.port().unwrap(), Duration::ZERO).await;
    let mut proxied = pooled.clone();
    proxied.set_port(Some(proxy.port())).unwrap();
    let redis = std::env::var("COLLOQUY_TEST_REDIS_URL").expect("COLLOQUY_TEST_REDIS_URL: run scripts/test");
    let server =
        Server::on(proxied.as_str(), &database.direct_url, &storage).config(config.clone()).hurried();
    let server = server
        .set("LLM_RETRIES", "0")
        .set("LOG_PATIENCE", "300ms")
        .set("CONNECTION_LIMIT", "16")
        .set("SPEND_HEARTBEAT", "200ms")
        .set("REDIS_URL", redis)
        .start()
        .await;
    let ask = |model: &str| json!({ "model": model, "input": "hello" });
    let (status, answer) = server.post("/v1/responses", ask("good")).await;
    assert_eq!(status, 200, "{answer}");
    for _ in 0..5 {
        assert_eq!(server.post("/v1/responses", ask("bad")).await.0, 503);
    }
    // More than its owner's budget of the day.
    let (status, refused) =
        server.post("/v1/responses", json!({ "model": "good", "input": "x ".repeat(140_000) })).await;
    assert_eq!((status, &refused["error"]["code"]), (429, &json!("budget_spent")), "{refused}");
    assert_eq!(server.call(http::Method::GET, "/v1/usage", None, "no such key").await.0, 401);
    server.read("/health/ready").await;
    let idle: Vec<_> =
        futures_util::future::join_all((0..32).map(|_| TcpStream::connect(("127.0.0.1", server.port()))))
            .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(idle);
    // The database hangs while a turn streams.
    good.always(Script::words(40).pace(Duration::from_millis(50)));
    let mut streamed = ask("good");
    streamed["stream"] = true.into();
    let post =
        || server.client().post(server.url("/v1/responses")).bearer_auth(crate::support::server::API_KEY);
    let mut streaming = post().json(&streamed).send().await.unwrap();
    // What the refused turn made scarce is free again a moment later.
    for _ in 0..50 {
        if streaming.status() == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        streaming = post().json(&streamed).send().await.unwrap();
    }
    assert_eq!(streaming.status(), 200);
    proxy.silence();
    let mut scrapes = Vec::new();
    eventually("a log that stalls", SOON, async || {
        scrapes = vec![scrape(&server, "/health/metrics").await];
        scrapes[0].contains("colloquy_log_stalled")
    })
    .await;
    proxy.open();
    drop(streaming);

    // A server that dies with a turn in flight, and one that takes it over.
    good.always(Script::words(400).pace(Duration::from_millis(50)));
    let both = || {
        let server = Server::of(&database, &storage).config(config.clone()).hurried();
        server.set("SPEND_LEASE", "2s").set("SPEND_HEARTBEAT", "200ms")
    };
    let (mut first, second) = (both().start().await, both().start().await);
    let mut background = ask("good");
    background["background"] = true.into();
    assert_eq!(first.post("/v1/responses", background).await.0, 200);
    first.kill();
    eventually("the turn to be taken over", SOON, async || {
        // By any that is left.
        scrapes.push(scrape(&second, "/health/metrics").await + &scrape(&server, "/health/metrics").await);
        scrapes.last().is_some_and(|text| text.contains("colloquy_turns_taken_over"))
    })
    .await;
    eventually("what it held of budgets to be given back", SOON, async || {
        scrapes.push(scrape(&second, "/health/metrics").await + &scrape(&server, "/health/metrics").await);
        scrapes.last().is_some_and(|text| text.contains("colloquy_maintain_swept"))
    })
    .await;

    // Neither database nor queue takes what was used.
    let mut alone = Server::on(NOWHERE, NOWHERE, &storage).set("USAGE_BUFFER", "100");
    alone = alone.set("AzureWebJobsStorage", store_at(9)).set("DB_CONNECT_TIMEOUT", "1s");
    let alone = alone.start_without_database().await;
    for _ in 0..120 {
        let (status, _) = alone.post("/v1/embeddings", json!({ "model": "demo", "input": "x" })).await;
        assert_eq!(status, 200);
    }
    scrapes.push(scrape(&alone, "/health/metrics").await);
    scrapes.push(within_limits().await);

    assert_eq!(unseen("conversation-server", &scrapes), Vec::<&str>::new());
    assert_eq!(stray("conversation-server", &scrapes), Vec::<&str>::new());
    genai_conventions_hold(&scrapes.concat());
}

/// A server that meets its limits: a provider's failure is tried again, a deployment's own quota makes a turn wait, a budget
/// is spent, a caller asks too often. Gives what it says of itself.
async fn within_limits() -> String {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let provider = FakeProvider::start(Wire::Chat);
    let (quota, price) = ("tokens_per_minute = 2400", "price = { input = \"1\", output = \"100\" }");
    let config = format!(
        "{}{}[models.slow]\ndeployments = [\"slow\"]\n[models.dear]\ndeployments = [\"dear\"]\n\
         [budgets]\neach_owner = \"0.05\"\n",
        provider.deployment("slow", quota),
        provider.deployment("dear", price)
    );
    let server = Server::of(&database, &storage).config(config).hurried();
    let server = server.set("LLM_RETRIES", "1").set("LLM_RETRY_BASE", "50ms").set("SPEND_HEARTBEAT", "50ms");
    let mut server = server.set("RATE_REQUESTS_PER_MINUTE", "100").start().await;
    let ask = async |model: &str, most: u32, background: bool| {
        let asked =
            json!({ "model": model, "input": "hello", "max_output_tokens": most, "background": background });
        server.post("/v1/responses", asked).await
    };
    provider.next([Script::fails(503, "x")]);
    let (status, again) = ask("slow", 50, false).await;
    assert_eq!((status, provider.seen().len()), (200, 2), "{again}");
    // It holds most of a minute's tokens until its end, so that the next one waits.
    provider.next([Script::words(30).pace(Duration::from_millis(100))]);
    let (status, long) = ask("slow", 2_100, true).await;
    assert_eq!(status, 200, "{long}");
    eventually("the long one to be asked", SOON, async || provider.seen().len() == 3).await;
    let (status, waited) = ask("slow", 500, false).await;
    assert_eq!(status, 200, "{waited}");
    let mut text = String::new();
    eventually("a budget that is spent and a caller that asks too often", SOON * 4, async || {
        for _ in 0..20 {
            assert_ne!(ask("dear", 20, false).await.0, 400);
        }
        text = scrape(&server, "/health/metrics").await;
        text.contains("colloquy_budget_passed") && text.contains("colloquy_rate_limited")
    })
    .await;
    let told = server.process().log().iter().filter(|line| line.contains("access.limited")).count();
    assert!((1..=2).contains(&told), "of many refusals within a minute or two: {told}");
    text
}

/// Names, units, buckets and attributes of OpenTelemetry's conventions for generative AI.
fn genai_conventions_hold(text: &str) {
    let sample = |start: &str, labels: &[&str]| {
        let found = text
            .lines()
            .any(|line| line.starts_with(start) && labels.iter().all(|label| line.contains(label)));
        assert!(found, "{start} with {labels:?}");
    };
    let of = [
        "gen_ai_operation_name=\"chat\"",
        "gen_ai_provider_name=\"openai\"",
        "gen_ai_request_model=\"m-good\"",
    ];
    for (kind, bucket) in [("input", "le=\"67108864\""), ("output", "le=\"4\"")] {
        let kind = format!("gen_ai_token_type=\"{kind}\"");
        sample("gen_ai_client_token_usage", &[of[0], of[1], of[2], &kind, bucket]);
    }
    sample("gen_ai_client_operation_duration_seconds_bucket", &[of[0], of[1], of[2], "le=\"0.64\""]);
    sample("gen_ai_client_operation_duration_seconds_count", &["error_type=\"provider_error\""]);
    sample("gen_ai_client_operation_time_to_first_chunk_seconds_bucket", &[of[0], of[2], "le=\"0.001\""]);
    sample("gen_ai_client_operation_time_per_output_chunk_seconds_bucket", &[of[0], of[2], "le=\"2.5\""]);
    let ours = ["gen_ai_provider_name=\"colloquy\"", "gen_ai_request_model=\"good\""];
    sample("gen_ai_server_request_duration_seconds_bucket", &[ours[0], ours[1], "le=\"81.92\""]);
    sample("gen_ai_server_request_duration_seconds_count", &[ours[0], "error_type=\"provider_error\""]);
    sample("gen_ai_server_time_to_first_token_seconds_bucket", &[ours[0], ours[1], "le=\"10\""]);
    sample("gen_ai_server_time_per_output_token_seconds_bucket", &[ours[0], ours[1], "le=\"0.01\""]);
}
