//! What probes and operators see, and what `check` says before anything runs.

use std::process::Output;
use std::time::Duration;

use colloquy::telemetry::metrics::METRICS;
use serde_json::Value;

use crate::support::{Consumer, FunctionApp, Proxy, SOON, TestDatabase, TestStorage, eventually, repository};

async fn status_of(answer: reqwest::Response) -> (u16, Value) {
    assert!(answer.headers().contains_key("x-request-id"));
    assert_eq!(answer.headers()["cache-control"], "no-store");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

/// What `ready` says of a dependency.
fn check<'a>(ready: &'a Value, name: &str) -> &'a Value {
    let checks = ready["checks"].as_array().expect("checks");
    &checks.iter().find(|check| check["name"] == name).expect("its name")["ok"]
}

#[tokio::test]
async fn a_healthy_app_is_live_and_ready_and_tells_operators_more() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let handler = FunctionApp::of(&database, &storage).start_handler().await;
    for path in ["/api/health", "/api/health/live"] {
        let (status, live) = status_of(handler.get(path).await).await;
        assert_eq!((status, &live["status"]), (200, &"live".into()), "{path}");
    }
    let (status, ready) = status_of(handler.get("/api/health/ready").await).await;
    assert_eq!((status, &ready["status"]), (200, &"ready".into()));
    assert!(!ready.to_string().contains("version"), "anonymous callers learn no more: {ready}");
    let (status, told) = status_of(handler.get("/api/health/status").await).await;
    assert_eq!(status, 200);
    assert_eq!(told["environment"], "dev");
    assert!(told["queues"].as_array().is_some_and(|queues| queues.len() == 6), "{told}");
    assert!(told["sources"].as_array().is_some_and(|sources| sources.contains(&"stripe".into())), "{told}");
    let (status, problem) = status_of(handler.get("/api/health/everything").await).await;
    assert_eq!((status, &problem["type"]), (404, &"/problems/unknown-check".into()));
}

#[tokio::test]
async fn an_app_on_an_old_schema_is_live_but_not_ready_until_it_is_migrated() {
    let (database, storage) = (TestDatabase::empty().await, TestStorage::create());
    let handler = FunctionApp::of(&database, &storage).start_handler().await;
    assert_eq!(handler.get("/api/health/live").await.status(), 200);
    let (status, ready) = status_of(handler.get("/api/health/ready").await).await;
    assert_eq!(
        (status, check(&ready, "database"), check(&ready, "storage")),
        (503, &false.into(), &true.into())
    );
    let (_, told) = status_of(handler.get("/api/health/status").await).await;
    assert!(told["checks"].to_string().contains("function-handlers migrate"), "it says what to do: {told}");

    assert_eq!(handler.tick("migrate").await, 200);
    let (status, _) = status_of(handler.get("/api/health/ready").await).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn with_the_database_away_an_app_is_live_but_not_ready_and_takes_deliveries() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let url = reqwest::Url::parse(&database.url).unwrap();
    let proxy = Proxy::to(url.port().unwrap(), Duration::ZERO).await;
    let mut proxied = url.clone();
    proxied.set_port(Some(proxy.port())).unwrap();
    let builder = FunctionApp::on(proxied.as_str(), &database.direct_url, &storage).hurried();
    let builder =
        builder.set("DB_CONNECT_TIMEOUT", "3s").set("DB_STATEMENT_TIMEOUT", "3s").set("DB_POOL_WAIT", "3s");
    let handler = builder.start_handler().await;
    assert_eq!(handler.get("/api/health/ready").await.status(), 200);

    for (away, how) in [(Proxy::cut as fn(&Proxy), "refusing"), (Proxy::silence, "silent")] {
        away(&proxy);
        let (status, ready) = status_of(handler.get("/api/health/ready").await).await;
        assert_eq!((status, check(&ready, "database")), (503, &false.into()), "{how}");
        assert_eq!(check(&ready, "storage"), &true, "{how}");
        assert_eq!(handler.get("/api/health/live").await.status(), 200, "{how}");
        let answer = handler.deliver_stripe(r#"{"id":"evt_1","type":"a"}"#).await;
        assert_eq!(answer.status(), 200, "{how}: PostgreSQL is not needed to take a delivery");
        assert_eq!(handler.tick("maintain").await, 200, "{how}: upkeep waits");
        proxy.open();
        eventually("readiness", SOON, async || handler.get("/api/health/ready").await.status() == 200).await;
    }
}

#[tokio::test]
async fn metrics_have_the_names_of_the_table_and_count_what_happened() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    let app = FunctionApp::of(&database, &storage).hurried().consumer(&consumer).start().await;
    assert_eq!(app.deliver_stripe(r#"{"id":"evt_1","type":"a"}"#).await.status(), 200);
    assert_eq!(app.deliver("stripe", &[], "{}").await.status(), 401);
    eventually("the callback", SOON, async || consumer.accepted().len() == 1).await;
    app.get("/api/health/ready").await;
    let mut text = String::new();
    eventually("every attempt in the metrics", SOON, async || {
        text = app.get("/api/health/metrics").await.text().await.unwrap();
        text.contains("colloquy_callback_attempts") && text.contains("colloquy_job_attempts")
    })
    .await;
    // Of what nothing happened to there is nothing: `seeing::metrics` brings about all of it.
    let happened = [
        "callback.attempts",
        "callback.duration",
        "database.migrations.pending",
        "database.pool.connections",
        "database.pool.limit",
        "database.pool.utilization",
        "database.pool.waiting",
        "database.schema.version",
        "dead_letters.open",
        "due.oldest.age",
        "due.rows",
        "events.processed",
        "invocation.duration",
        "invocations",
        "job.attempts",
        "job.duration",
        "queue.depth",
        "queue.oldest.age",
        "rotations.open",
        "runtime.utilization",
        "turns.open",
        "webhook.duration",
        "webhook.requests",
    ];
    for name in happened {
        let name = format!("colloquy.{name}");
        assert!(METRICS.iter().any(|metric| metric.name == name), "{name} is no metric of ours");
        let shown = name.replace('.', "_");
        assert!(text.lines().any(|line| line.starts_with(&shown)), "{shown} is missing:\n{text}");
    }
    let counted = |start: &str, labels: [&str; 2]| {
        text.lines().any(|line| line.starts_with(start) && labels.iter().all(|label| line.contains(label)))
    };
    assert!(counted("colloquy_webhook_requests", [r#"outcome="accepted""#, r#"source="stripe""#]), "{text}");
    assert!(
        counted("colloquy_webhook_requests", [r#"outcome="bad-signature""#, r#"source="stripe""#]),
        "{text}"
    );
    assert!(counted("colloquy_events_processed", [r#"fate="processed""#, r#"source="stripe""#]), "{text}");
}

#[tokio::test]
async fn operators_need_a_key_unless_they_sit_at_the_machine() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let handler = FunctionApp::of(&database, &storage).start_handler().await;
    for path in ["status", "metrics"] {
        let url = handler.url(&format!("/api/health/{path}"));
        let answer =
            handler.client().get(&url).header("x-forwarded-for", "203.0.113.9:4711").send().await.unwrap();
        assert_eq!(answer.status(), 401, "{path} from elsewhere");
        let answer =
            handler.client().get(&url).header("x-forwarded-for", "127.0.0.1:4711").send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path} from here");
    }
}

/// `function-handlers check` in a folder, with an empty environment.
fn run_check(root: &std::path::Path) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_function-handlers"));
    command.arg("check").arg("--root").arg(root).env_clear().output().expect("it runs")
}

#[tokio::test]
async fn check_finds_nothing_in_the_repository_and_every_difference_elsewhere() {
    let output = run_check(&repository());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let (database, storage) = (TestDatabase::empty().await, TestStorage::create());
    let mut app = FunctionApp::of(&database, &storage).start_without_waiting();
    app.kill();
    let root = app.root();
    let edit = |name: &str, from: &str, to: &str| {
        let path = root.join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{name}: {text}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    };
    std::fs::remove_dir_all(root.join("migrate")).unwrap();
    std::fs::create_dir(root.join("stray")).unwrap();
    std::fs::copy(root.join("maintain/function.json"), root.join("stray/function.json")).unwrap();
    edit("maintain/function.json", "*/15", "*/20");
    edit("process-event/function.json", "%QUEUE_EVENTS%", "events");
    edit("receive-webhook/function.json", "webhooks/{source}", "hooks/{source}");
    edit("colloquy.toml", r#"job = "count-event""#, r#"job = "count-sheep""#);
    edit("colloquy.toml", r#"kind = "github""#, r#"kind = "gitlab""#);
    let output = run_check(root);
    assert!(!output.status.success());
    let found = String::from_utf8_lossy(&output.stderr);
    for difference in ["migrate", "stray", "*/20", "process-event", "hooks/{source}", "count-sheep", "gitlab"]
    {
        assert!(found.contains(difference), "{difference} is not in:\n{found}");
    }
    // Start-up refuses the same.
    let mut started = crate::support::mortal(env!("CARGO_BIN_EXE_function-handlers"), "");
    started.env_clear().envs(app.settings()).current_dir(root).env("FUNCTIONS_CUSTOMHANDLER_PORT", "14999");
    let status = crate::support::Process::start("function-handlers", started).end(SOON).await;
    assert!(!status.success());
}
