//! What keeps the handlers from starting, and what their log lines carry: JSON on stdout, a code, a request id.

use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{
    Consumer, FunctionApp, Port, SOON, Surroundings, TestDatabase, TestStorage, eventually, exists,
    handlers_program, signal,
};

/// Starts the handlers as the host does and waits for their end, which has to come by itself.
fn start(app: &FunctionApp, change: impl FnOnce(&mut Command)) -> Output {
    let mut command = Command::new("timeout");
    command.arg("20").arg(handlers_program());
    command.env_clear().envs(app.settings()).current_dir(app.root());
    let port = Port::claim(&Surroundings::read());
    command.env("FUNCTIONS_CUSTOMHANDLER_PORT", port.number().to_string());
    change(&mut command);
    command.output().expect("it runs")
}

#[tokio::test]
async fn what_keeps_the_handlers_from_starting_is_one_json_line_on_stdout() {
    let (database, storage) = (TestDatabase::empty().await, TestStorage::create());
    let mut app = FunctionApp::of(&database, &storage).start_without_waiting();
    app.kill();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = taken.local_addr().expect("its number").port().to_string();
    let refused = |code: &str, part: &str, output: Output| {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{code}: {out}{err}");
        assert_eq!(err, "", "{code}");
        assert_eq!(out.lines().count(), 1, "{code}: {out}");
        let line: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{code}: {error}: {out}"));
        assert_eq!((&line["code"], &line["level"]), (&code.into(), &"ERROR".into()), "{line}");
        assert!(line["error"].as_str().is_some_and(|error| error.contains(part)), "{line}");
        assert!(line["timestamp"].is_string() && line["request_id"].is_string(), "{line}");
    };
    refused(
        "port_not_free",
        &port,
        start(&app, |command| {
            command.env("FUNCTIONS_CUSTOMHANDLER_PORT", &port);
        }),
    );
    refused(
        "host_settings_invalid",
        "FUNCTIONS_CUSTOMHANDLER_PORT",
        start(&app, |command| {
            command.env("FUNCTIONS_CUSTOMHANDLER_PORT", "seven");
        }),
    );
    refused(
        "config.invalid",
        "DATABASE_URL",
        start(&app, |command| {
            command.env_remove("DATABASE_URL");
        }),
    );
    std::fs::rename(app.root().join("migrate"), app.root().join("stray")).expect("renamed");
    // After logging was set up: still the one line, though others may have been written before it.
    let output = start(&app, |_| {});
    let out = String::from_utf8_lossy(&output.stdout);
    assert_eq!((output.status.code(), output.stderr.len()), (Some(1), 0), "{out}");
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let last = lines.last().expect("a line");
    assert_eq!(last["code"], "functions_differ", "{out}");
    assert!(last["error"].as_str().is_some_and(|error| error.contains("stray")), "{last}");
}

/// Settings that nothing can be made of.
const BAD: [(&str, &str); 11] = [
    ("FUNCTIONS_REQUEST_BODY_SIZE_LIMIT", "abc"),
    ("AzureFunctionsJobHost__functionTimeout", "xx"),
    ("AzureFunctionsJobHost__customHandler__initializationTimeout", "1m"),
    ("APP_LOG_LEVEL", "inf0"),
    ("APP_LOG_LEVEL", "5"),
    ("APP_LOG_LEVEL", "colloquy=debug"),
    ("EVENT_RETENTION", "5000000d"),
    ("INGRESS_MAX_BYTES", "2097152"),
    ("ENCRYPTION_KEY", "short"),
    ("CALLBACK_SECRET_CONSUMER", "whsec_short"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "nonsense"),
];

#[tokio::test]
async fn check_refuses_the_environments_that_start_up_refuses() {
    let (database, storage) = (TestDatabase::empty().await, TestStorage::create());
    let mut app = FunctionApp::of(&database, &storage).start_without_waiting();
    app.kill();
    let check = |change: &[(&str, &str)]| {
        let mut command = Command::new(handlers_program());
        command.args(["check", "--env"]).env_clear().envs(app.settings()).current_dir(app.root());
        let output = command.envs(change.iter().copied()).output().expect("it runs");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (good, said) = check(&[]);
    assert!(good, "{said}");
    for (name, value) in BAD {
        let (good, said) = check(&[(name, value)]);
        assert!(!good && said.contains(name), "check, {name}={value}: {said}");
        let started = start(&app, |command| {
            command.env(name, value);
        });
        let out = String::from_utf8_lossy(&started.stdout);
        assert!(started.status.code() == Some(1) && out.contains(name), "start-up, {name}={value}: {out}");
    }
}

#[tokio::test]
async fn a_handler_that_is_told_to_end_is_started_again_and_devhost_ends_cleanly() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let mut app = FunctionApp::of(&database, &storage).start().await;
    for sent in ["TERM", "INT", "TERM", "TERM"] {
        let pid = app.handler_pid().await;
        signal(pid, sent);
        eventually("another handler", SOON, async || app.handler_pid().await != pid).await;
        app.await_ready().await;
    }
    // Were it counted as an error, the third would have ended the host.
    let log = app.log();
    assert_eq!(
        log.iter().filter(|line| line.contains("The handler exited with code 200")).count(),
        4,
        "{log:#?}"
    );
    assert_eq!(app.deliver_stripe(r#"{"id":"evt_1","type":"invoice.paid"}"#).await.status(), 200);
    // As Ctrl-C in a terminal: all at once.
    let handler = app.handler_pid().await;
    let process = app.process();
    signal(handler, "INT");
    process.signal("INT");
    assert_eq!(process.end(SOON).await.code(), Some(0));
    eventually("no handler is left", SOON, async || !exists(handler)).await;
}

/// Every line has one, and what comes of a delivery has that of the delivery.
#[tokio::test]
async fn the_request_id_of_a_delivery_is_on_every_line_that_comes_of_it() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    let app = FunctionApp::of(&database, &storage).consumer(&consumer).hurried().start().await;
    let body = r#"{"id":"evt_traced","type":"invoice.paid"}"#;
    let signature = app.stripe_signature(body);
    let headers = [("stripe-signature", signature.as_str()), ("x-request-id", "traced-from-outside")];
    let answer = app.deliver("stripe", &headers, body.to_owned()).await;
    assert_eq!(answer.headers()["x-request-id"], "traced-from-outside");
    let lines =
        || -> Vec<Value> { app.log().iter().filter_map(|line| serde_json::from_str(line).ok()).collect() };
    let traced = |code: &str| {
        lines().iter().any(|line| line["code"] == code && line["request_id"] == "traced-from-outside")
    };
    for code in ["webhook_accepted", "events_stored", "work_done"] {
        eventually(&format!("{code} with the request id"), SOON, async || traced(code)).await;
    }
    eventually("a callback's line", SOON, async || {
        lines().iter().any(|line| {
            line["function"] == "send-callback"
                && line["request_id"] == "traced-from-outside"
                && line["id"].as_str().is_some_and(|id| id.starts_with("cb_"))
        })
    })
    .await;
    for line in lines().iter().filter(|line| line["timestamp"].is_string()) {
        assert!(line["request_id"].as_str().is_some_and(|id| id.len() >= 8), "{line}");
    }
}
