//! The operator's commands as one types them: pipes, proxies, pages, ids.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{
    Answer, Consumer, FunctionApp, SOON, TestDatabase, TestStorage, eventually, handlers_program, repository,
};

fn command(app: &FunctionApp, arguments: &[&str]) -> Command {
    let mut command = Command::new(handlers_program());
    command.args(arguments).env_clear().envs(app.settings()).current_dir(app.root());
    command
}

#[tokio::test]
async fn a_reader_that_leaves_is_no_failure() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let mut app = FunctionApp::of(&database, &storage).start_without_waiting();
    app.kill();
    let arguments: [&[&str]; 5] = [
        &["settings"],
        &["settings", "--markdown"],
        &["events", "list"],
        &["dead-letters", "list", "--json"],
        &["callbacks", "list"],
    ];
    for arguments in arguments {
        let mut child =
            command(&app, arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        // Before it writes anything.
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("its end");
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && err.is_empty(), "{arguments:?}: {} {err}", output.status);
    }
    // Whoever cannot be written to for another reason is told.
    let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let output = command(&app, &["settings"]).stdout(full).stderr(Stdio::piped()).output().expect("it runs");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("stdout could not be written"));
}

#[tokio::test]
async fn check_looks_where_start_up_looks() {
    let (database, storage) = (TestDatabase::empty().await, TestStorage::create());
    let mut app = FunctionApp::of(&database, &storage).start_without_waiting();
    app.kill();
    let root = app.root();
    let check = |environment: &[(&str, &str)], arguments: &[&str]| {
        let mut command = Command::new(handlers_program());
        command.arg("check").args(arguments).env_clear().current_dir("/");
        let output = command.envs(environment.iter().copied()).output().expect("it runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let here = root.to_str().expect("text");
    let (good, said) = check(&[("FUNCTIONS_APP_ROOT_PATH", here)], &[]);
    assert!(good && said.contains(here), "{said}");
    let (good, said) = check(&[], &["--root", here]);
    assert!(good, "{said}");
    let (good, said) = check(&[], &[]);
    assert!(!good, "{said}");

    let broken = root.join("broken.toml");
    std::fs::write(&broken, "[sources.a]\nkind = \"gitlab\"\n").expect("written");
    let named = broken.to_str().expect("text");
    let (good, said) = check(&[("FUNCTIONS_APP_ROOT_PATH", here), ("COLLOQUY_CONFIG", named)], &[]);
    assert!(!good && said.contains("gitlab") && said.contains(named), "{said}");

    // Well-formed, and still nothing that could work.
    let hopeless = r#"
        [sources.stripe]
        kind = "stripe"
        [targets.metadata]
        url = "https://169.254.169.254/"
        [targets.loopback]
        url = "https://127.0.0.1/"
        [targets.plain]
        url = "http://example.com/"
        [[routes]]
        source = "stripe"
        action = "job"
        job = "complete-invocation"
        [sources.sailpoint]
        kind = "sailpoint"
        sailpoint = { callback_hosts = ["tenant.api.identitynow.com"] }
    "#;
    std::fs::write(&broken, hopeless).expect("written");
    let place = [("FUNCTIONS_APP_ROOT_PATH", here), ("COLLOQUY_CONFIG", named)];
    let (good, said) = check(&[place[0], place[1], ("APP_ENV", "production")], &[]);
    assert!(!good, "{said}");
    for part in [
        "targets.metadata",
        "targets.loopback",
        "targets.plain",
        "is for kind sailpoint",
        "neither `async_output` nor `output` says what completes them",
        "no route gives them to the job complete-invocation",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    // On a developer's machine, its own addresses may be called.
    let (good, said) = check(&place, &[]);
    assert!(!good && !said.contains("targets.loopback") && said.contains("targets.metadata"), "{said}");
}

#[tokio::test]
async fn send_finds_the_app_by_its_setting_and_past_a_proxy() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let app = FunctionApp::of(&database, &storage).start().await;
    let output = command(&app, &["webhooks", "send", "stripe", "--json"])
        .env("COLLOQUY_URL", app.url(""))
        .env("HTTP_PROXY", "http://127.0.0.1:9")
        .env("http_proxy", "http://127.0.0.1:9")
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let sent: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(sent["status"], 200);
}

#[tokio::test]
async fn what_programs_read_has_public_ids_and_names() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    consumer.always(Answer::Status(500));
    let app = FunctionApp::of(&database, &storage)
        .consumer(&consumer)
        .hurried()
        .set("CALLBACK_SCHEDULE", "0s,200ms")
        .start()
        .await;
    assert_eq!(app.deliver_stripe(r#"{"id":"evt_dead","type":"invoice.paid"}"#).await.status(), 200);
    eventually("a dead letter", SOON, async || {
        database.count("SELECT count(*) FROM dead_letters").await == 1
    })
    .await;
    let letters = app.json(&["dead-letters", "list", "--json"]).await;
    let subject = letters[0]["subject"].as_str().expect("a subject").to_owned();
    assert!(subject.starts_with("cb_"), "{letters}");
    let letter = app.json(&["dead-letters", "show", letters[0]["id"].as_str().unwrap(), "--json"]).await;
    assert_eq!(letter["work"]["tries"].as_array().map(Vec::len), Some(2), "{letter}");
    let shown = app.command(&["dead-letters", "show", letters[0]["id"].as_str().unwrap()]).await;
    assert!(String::from_utf8_lossy(&shown.stdout).contains("TRY"), "tries are shown to people, too");
    let callbacks = app.json(&["callbacks", "list", "--json"]).await;
    assert_eq!(callbacks["callbacks"][0]["id"], subject.as_str());
    let callback = app.json(&["callbacks", "show", &subject, "--json"]).await;
    assert_eq!((&callback["id"], &callback["state"]), (&json!(subject), &json!("dead")));
    let sources = app.json(&["sources", "list", "--json"]).await;
    let kinds: Vec<_> =
        sources.as_array().unwrap().iter().map(|source| source["kind"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"azure-devops") && kinds.contains(&"event-grid"), "{kinds:?}");
}

#[tokio::test]
async fn what_changes_something_tells_programs_what_it_changed() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    consumer.always(Answer::Status(410));
    let app = FunctionApp::of(&database, &storage).consumer(&consumer).hurried().start().await;
    let enable = ["callbacks", "enable", "consumer", "--yes", "--json"];
    assert_eq!(
        app.json(&enable).await,
        json!({ "target": "consumer", "enabled": true, "was_disabled": false })
    );
    assert_eq!(app.deliver_stripe(r#"{"id":"evt_gone","type":"invoice.paid"}"#).await.status(), 200);
    eventually("a disabled target", SOON, async || {
        database.count("SELECT count(*) FROM callback_targets").await == 1
    })
    .await;
    assert_eq!(
        app.json(&enable).await,
        json!({ "target": "consumer", "enabled": true, "was_disabled": true })
    );
    let begun = app.json(&["backfill", "reseal-secrets", "--yes", "--json"]).await;
    assert_eq!((&begun["kind"], &begun["begun"]), (&json!("reseal-secrets"), &json!(true)));
    assert!(begun["id"].as_str().is_some_and(|id| id.starts_with("job_")), "{begun}");
}

#[tokio::test]
async fn every_function_can_be_invoked_without_a_fixture() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let app = FunctionApp::of(&database, &storage).start().await;
    let invoke = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_devhost"));
        command.arg("invoke").args(arguments).args(["--port", &app.port().to_string()]);
        let output = command.env_clear().current_dir(repository()).output().expect("it runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    for function in
        ["receive-webhook", "health", "process-event", "run-job", "send-callback", "migrate", "maintain"]
    {
        for _ in 0..2 {
            let (good, said) = invoke(&[function]);
            assert!(good, "{function}: {said}");
        }
    }
    assert_eq!(database.count("SELECT count(*) FROM events").await, 1);
    let cut = app.root().join("cut.json");
    std::fs::write(&cut, r#"{"x":"#).expect("written");
    for function in ["maintain", "process-event"] {
        let (good, said) = invoke(&[function, cut.to_str().expect("text")]);
        assert!(!good && said.contains("not JSON"), "{function}: {said}");
    }
    let other = app.root().join("other.json");
    std::fs::write(&other, r#"{"x":1}"#).expect("written");
    let (good, said) = invoke(&["maintain", other.to_str().expect("text")]);
    assert!(!good && said.contains("whole envelope"), "{said}");
}

/// A forgotten transaction holds up the runner, and the runner holds up everybody else's migrations.
#[tokio::test]
async fn a_runner_that_another_session_blocks_is_shown_and_ended() {
    let (database, storage) = (TestDatabase::empty().await, TestStorage::create());
    let builder = FunctionApp::of(&database, &storage).set("MIGRATE_LOCK_TIMEOUT", "120s");
    let mut app = builder.start_without_waiting();
    app.kill();
    let forgotten = database.client().await;
    let begun = "BEGIN; CREATE TABLE deliveries (id integer)";
    forgotten.batch_execute(begun).await.expect("a transaction that goes on");
    let blocker: i32 = forgotten.query_one("SELECT pg_backend_pid()", &[]).await.expect("its process").get(0);

    let mut runner = app.begin(&["migrate"]);
    let mut holder = Value::Null;
    eventually("a runner that waits", SOON, async || {
        holder = app.json(&["migrate", "--who-holds", "--json"]).await;
        holder["blocked_by"] == json!([blocker])
    })
    .await;
    assert!(holder["application_name"].as_str().unwrap().starts_with("colloquy-migrate/"), "{holder}");
    let asked = app.command(&["migrate", "--terminate"]).await;
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(
        !asked.status.success() && said.contains("blocked by the sessions"),
        "nobody can be asked: {said}"
    );
    assert_eq!(app.json(&["migrate", "--who-holds", "--json"]).await["pid"], holder["pid"]);

    let ended = app.json(&["migrate", "--terminate", "--yes", "--json"]).await;
    assert_eq!((&ended["ended"], &ended["holder"]["pid"]), (&json!(true), &holder["pid"]), "{ended}");
    assert!(!runner.wait().await.expect("its end").success());
    assert_eq!(app.json(&["migrate", "--who-holds", "--json"]).await, Value::Null);
    let again = app.json(&["migrate", "--terminate", "--yes", "--json"]).await;
    assert_eq!(again, Value::Null, "there is nobody to end");

    forgotten.batch_execute("ROLLBACK").await.expect("an end");
    assert!(app.command(&["migrate"]).await.status.success());
    assert!(app.command(&["migrate", "--check"]).await.status.success());
}
