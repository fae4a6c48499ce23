//! SailPoint's ASYNC invocations: a secret that must be kept for a while, and a job that can fail.

use std::time::Duration;

use serde_json::json;

use super::dead_letters;
use crate::support::{
    Answer, Consumer, FunctionApp, FunctionAppBuilder, SOON, TestDatabase, TestStorage, eventually,
};

const SECRET: &str = "3b8a1f5e-invocation-secret-of-a-test";
const CONFIG: &str = r#"
    [sources.sailpoint]
    kind = "sailpoint"
    sailpoint = { async_output = { approved = true }, callback_hosts = ["tenant.invalid"] }
    [[routes]]
    source = "sailpoint"
    action = "job"
    job = "complete-invocation"
"#;

/// Everything an invocation leaves to be done, and what is left of its secret.
const DONE: &str = "SELECT count(*) FROM jobs JOIN events ON events.id = event_id
                    JOIN deliveries ON deliveries.id = delivery_id
                    WHERE jobs.state = 'succeeded' AND sealed IS NULL";

fn invocation() -> String {
    invocation_at("https://tenant.invalid")
}

fn invocation_at(tenant: &str) -> String {
    json!({
        "_metadata": {
            "triggerId": "idn:access-request-dynamic-approver", "triggerType": "REQUEST_RESPONSE",
            "responseMode": "ASYNC", "invocationId": "c9f1a6f2-1a55-4f0f-8f5e-0f8d6a1b2c3d", "secret": SECRET,
            "callbackURL": format!("{tenant}/beta/trigger-invocations/c9f1a6f2/complete"),
        },
        "accessRequestId": "4b4d982dddff4267ab12f0f1e72b5a6d",
    })
    .to_string()
}

#[tokio::test]
async fn an_invocations_secret_is_only_kept_encrypted_and_its_job_is_given_up_after_its_attempts() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let builder = FunctionApp::of(&database, &storage).hurried().config(CONFIG);
    let app = builder.set("JOB_MAX_ATTEMPTS", "2").start().await;
    let token = format!("Bearer {}", app.setting("WEBHOOK_SECRET_SAILPOINT"));
    let answer = app.deliver("sailpoint", &[("authorization", &token)], invocation()).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.text().await.unwrap(), "{}");

    let mut letters = Vec::new();
    eventually("a dead letter", SOON, async || {
        letters = dead_letters(&app).await;
        letters.len() == 1
    })
    .await;
    assert_eq!(letters[0]["kind"], "job");
    assert_eq!(letters[0]["attempts"], 2);
    assert_eq!(letters[0]["reason_code"], "connect_failed");

    assert_eq!(database.count("SELECT count(*) FROM deliveries WHERE sealed IS NOT NULL").await, 1);
    let rows = "SELECT string_agg(concat(deliveries, events, convert_from(payload, 'UTF8'),
                       convert_from(coalesce(body, ''), 'UTF8')), '')
                FROM deliveries JOIN events ON delivery_id = deliveries.id";
    let rows: String = database.client().await.query_one(rows, &[]).await.unwrap().get(0);
    assert!(rows.contains("access-request-dynamic-approver"), "the event is kept: {rows}");
    assert!(!rows.contains(SECRET), "{rows}");
    assert!(!app.log().join("\n").contains(SECRET));
    let id = app.json(&["events", "list", "--json"]).await[0]["id"].as_str().unwrap().to_owned();
    let shown = app.json(&["events", "show", &id, "--payload", "--json"]).await.to_string();
    assert!(!shown.contains(SECRET), "{shown}");
}

/// An app whose SailPoint is a local server.
fn with_sailpoint(
    database: &TestDatabase,
    storage: &TestStorage,
    sailpoint: &Consumer,
) -> FunctionAppBuilder {
    let host = format!("127.0.0.1:{}", sailpoint.port());
    let local =
        format!(r#"callback_hosts = ["{host}"], allow_networks = ["127.0.0.1/32"], allow_http = true"#);
    let config = CONFIG.replace(r#"callback_hosts = ["tenant.invalid"]"#, &local);
    FunctionApp::of(database, storage).hurried().config(&config)
}

async fn invoke(app: &FunctionApp, sailpoint: &Consumer) {
    let token = format!("Bearer {}", app.setting("WEBHOOK_SECRET_SAILPOINT"));
    let body = invocation_at(&format!("http://127.0.0.1:{}", sailpoint.port()));
    assert_eq!(app.deliver("sailpoint", &[("authorization", &token)], body).await.status(), 200);
}

#[tokio::test]
async fn an_invocation_is_completed_with_its_secret_which_is_then_forgotten() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let sailpoint = Consumer::start().await;
    sailpoint.next([Answer::Status(500), Answer::Status(204)]);
    let app = with_sailpoint(&database, &storage, &sailpoint).start().await;
    invoke(&app, &sailpoint).await;
    eventually("the end of the job", SOON, async || database.count(DONE).await == 1).await;
    let completions = sailpoint.callbacks();
    assert_eq!(completions.len(), 2, "once more after the 500");
    for completion in &completions {
        assert_eq!(completion.path, "/beta/trigger-invocations/c9f1a6f2/complete");
        assert_eq!(completion.json(), json!({ "secret": SECRET, "output": { "approved": true } }));
    }
    assert!(dead_letters(&app).await.is_empty());
    assert!(!app.log().join("\n").contains(SECRET));

    // SailPoint takes one completion: a run of later has nothing to send, and is told why.
    let id = app.json(&["events", "list", "--json"]).await[0]["id"].as_str().unwrap().to_owned();
    assert!(app.command(&["events", "replay", "--yes", &id]).await.status.success());
    let done = "SELECT count(*) FROM jobs WHERE state = 'succeeded' AND run = 2";
    eventually("the end of the second run", SOON, async || database.count(done).await == 1).await;
    assert_eq!(sailpoint.callbacks().len(), 2);
    assert!(dead_letters(&app).await.is_empty());
    assert!(app.log().iter().any(|line| line.contains("invocation_completed_before")));
}

#[tokio::test]
async fn a_completion_whose_answer_was_lost_is_done_when_the_next_one_is_refused() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let sailpoint = Consumer::start().await;
    // Taken, with the answer cut off; then away; then no longer open.
    sailpoint.next([Answer::Cut, Answer::Status(503)]);
    sailpoint.always(Answer::Status(400));
    let builder = with_sailpoint(&database, &storage, &sailpoint);
    let app = builder.set("JOB_MAX_ATTEMPTS", "4").start().await;
    invoke(&app, &sailpoint).await;
    eventually("the end of the job", SOON, async || database.count(DONE).await == 1).await;
    assert_eq!(sailpoint.callbacks().len(), 3);
    assert!(dead_letters(&app).await.is_empty());
}

#[tokio::test]
async fn a_completion_whose_process_was_killed_before_the_end_was_written_is_done_when_refused() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let sailpoint = Consumer::start().await;
    sailpoint.next([Answer::Never]);
    sailpoint.always(Answer::Status(400));
    let app = with_sailpoint(&database, &storage, &sailpoint).set("WORK_LEASE", "3s").start().await;
    invoke(&app, &sailpoint).await;
    eventually("the completion to be under way", SOON, async || sailpoint.callbacks().len() == 1).await;
    app.kill_handler().await;
    let patience = Duration::from_secs(40);
    eventually("the end of the job", patience, async || database.count(DONE).await == 1).await;
    assert_eq!(sailpoint.callbacks().len(), 2);
    assert!(dead_letters(&app).await.is_empty());
}

#[tokio::test]
async fn a_completion_that_is_refused_from_the_first_on_is_given_up_with_its_secret_kept_for_a_replay() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let sailpoint = Consumer::start().await;
    sailpoint.always(Answer::Status(400));
    let builder = with_sailpoint(&database, &storage, &sailpoint);
    let app = builder.set("JOB_MAX_ATTEMPTS", "2").start().await;
    invoke(&app, &sailpoint).await;
    eventually("a dead letter", SOON, async || dead_letters(&app).await.len() == 1).await;
    let letters = dead_letters(&app).await;
    assert_eq!(letters[0]["reason_code"], "invocation_refused");
    sailpoint.always(Answer::Status(204));
    let id = letters[0]["id"].as_str().unwrap();
    assert!(app.command(&["dead-letters", "replay", "--yes", id]).await.status.success());
    eventually("the end of the job", SOON, async || database.count(DONE).await == 1).await;
}

#[tokio::test]
async fn an_invocation_that_names_a_strangers_host_is_refused_while_its_sender_listens() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let app = FunctionApp::of(&database, &storage).config(CONFIG).start().await;
    let token = format!("Bearer {}", app.setting("WEBHOOK_SECRET_SAILPOINT"));
    let body = invocation().replace("https://tenant.invalid/", "https://evil.invalid/");
    let answer = app.deliver("sailpoint", &[("authorization", &token)], body).await;
    assert_eq!(answer.status(), 400);
    let problem: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(problem["type"], "/problems/callback-refused");
}
