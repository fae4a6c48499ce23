//! A backfill: secrets encrypted anew after a new key, in steps, while everything runs.

use colloquy::webhooks::Secrets;
use colloquy::webhooks::sealing::Sealer;
use serde_json::json;

use crate::support::{FunctionApp, SOON, TestDatabase, TestStorage, eventually};

const OLD_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const NEW_KEY: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";
const CONFIG: &str = r#"
    [sources.sailpoint]
    kind = "sailpoint"
    sailpoint = { async_output = { approved = true }, callback_hosts = ["tenant.invalid"] }
"#;

fn invocation(number: usize) -> String {
    json!({
        "_metadata": {
            "triggerId": "idn:access-request-dynamic-approver", "triggerType": "REQUEST_RESPONSE",
            "responseMode": "ASYNC", "invocationId": format!("invocation-{number}"),
            "secret": format!("secret-{number}"), "callbackURL": "https://tenant.invalid/complete",
        },
    })
    .to_string()
}

#[tokio::test]
async fn after_a_new_encryption_key_secrets_are_encrypted_anew_in_steps_and_the_old_key_may_go() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let builder = FunctionApp::of(&database, &storage).hurried().config(CONFIG);
    let mut app = builder.set("ENCRYPTION_KEY", OLD_KEY).set("MAINTAIN_BATCH", "2").start().await;
    let token = format!("Bearer {}", app.setting("WEBHOOK_SECRET_SAILPOINT"));
    for number in 0..5 {
        let answer = app.deliver("sailpoint", &[("authorization", &token)], invocation(number)).await;
        assert_eq!(answer.status(), 200);
    }
    let sealed = "SELECT count(*) FROM deliveries WHERE sealed IS NOT NULL";
    eventually("five sealed secrets", SOON, async || database.count(sealed).await == 5).await;

    app.stop().await;
    app.set("ENCRYPTION_KEY", NEW_KEY);
    app.set("ENCRYPTION_KEY__OLD", OLD_KEY);
    app.start_again().await;
    let begun = app.command(&["backfill", "reseal-secrets", "--yes", "--reason", "rotation"]).await;
    assert!(begun.status.success(), "{}", String::from_utf8_lossy(&begun.stderr));
    let done = "SELECT count(*) FROM jobs WHERE kind = 'reseal-secrets' AND state = 'succeeded'";
    eventually("the end of the backfill", SOON, async || database.count(done).await == 1).await;

    let steps: i64 = database.count("SELECT epoch FROM jobs WHERE kind = 'reseal-secrets'").await;
    assert!(steps >= 3, "five rows in steps of two, in {steps} claims");
    let new = Sealer::new(&Secrets::one(NEW_KEY)).expect("a sealer");
    let rows = "SELECT 'dlv_' || id, sealed->>0 FROM deliveries";
    for row in database.client().await.query(rows, &[]).await.expect("deliveries") {
        let (context, sealed): (String, String) = (row.get(0), row.get(1));
        new.open(&context, &sealed).expect("opens with the new key alone");
    }
    assert_eq!(database.count("SELECT count(*) FROM api_audit WHERE action = 'backfill.begin'").await, 1);
}
