//! SailPoint's ASYNC invocations: a secret that must be kept for a while, and a job that can fail.

use serde_json::json;

use super::dead_letters;
use crate::support::{FunctionApp, SOON, TestDatabase, TestStorage, eventually};

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

fn invocation() -> String {
    json!({
        "_metadata": {
            "triggerId": "idn:access-request-dynamic-approver", "triggerType": "REQUEST_RESPONSE",
            "responseMode": "ASYNC", "invocationId": "c9f1a6f2-1a55-4f0f-8f5e-0f8d6a1b2c3d", "secret": SECRET,
            "callbackURL": "https://tenant.invalid/beta/trigger-invocations/c9f1a6f2/complete",
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
