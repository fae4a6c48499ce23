//! A secret that will expire: from the vault's event until the new one is seen alone.

use serde_json::{Value, json};

use super::event;
use crate::support::{Consumer, FunctionApp, SOON, TestDatabase, TestStorage, eventually, sign_stripe};

/// What the vault sends of `colloquy-stripe-webhook`, a week before its end.
fn of_vault(kind: &str, version: &str) -> String {
    let expires = jiff::Timestamp::now().as_second() + 7 * 24 * 3600;
    json!([{
        "id": crate::support::unique("vault"), "topic": "/subscriptions/x/vaults/kv", "subject": "colloquy-stripe-webhook",
        "eventType": format!("Microsoft.KeyVault.{kind}"), "eventTime": "2026-11-21T09:00:00Z", "dataVersion": "1",
        "data": { "Id": "https://kv.vault.azure.net/x", "VaultName": "kv", "ObjectType": "Secret",
                  "ObjectName": "colloquy-stripe-webhook", "Version": version, "EXP": expires.to_string() },
    }])
    .to_string()
}

async fn told(app: &FunctionApp, kind: &str, version: &str) {
    let secret = [("x-webhook-secret", "secret-of-event-grid"), ("aeg-event-type", "Notification")];
    let answer = app.deliver("event-grid", &secret, of_vault(kind, version)).await;
    assert_eq!(answer.status(), 200);
}

/// A delivery under one of the source's secrets.
async fn proved_by(app: &FunctionApp, secret: &str, id: &str) {
    let body = event(id);
    let signature = sign_stripe(app.setting(secret), jiff::Timestamp::now().as_second(), body.as_bytes());
    assert_eq!(app.deliver("stripe", &[("stripe-signature", &signature)], body).await.status(), 200);
}

#[tokio::test]
async fn a_secret_that_will_expire_is_followed_until_the_new_one_is_seen_alone() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    let app = FunctionApp::of(&database, &storage).hurried().consumer(&consumer);
    // A day in production.
    let app =
        app.set("WEBHOOK_SECRET_STRIPE__NEW", "whsec_stripe_secret_of_tomorrow").set("ROTATION_ALONE", "3s");
    let app = app.start().await;
    told(&app, "SecretNearExpiry", "v1").await;
    let open = async || app.json(&["rotations", "list", "--json"]).await.as_array().expect("a list").clone();
    let mut rotations: Vec<Value> = Vec::new();
    eventually("a rotation", SOON, async || {
        rotations = open().await;
        !rotations.is_empty()
    })
    .await;
    let told_of = |name: &str| rotations[0][name].clone();
    assert_eq!((told_of("secret"), told_of("source")), (json!("colloquy-stripe-webhook"), json!("stripe")));
    assert_eq!((told_of("label"), told_of("secret_version")), (json!("default"), json!("v1")));
    let id = rotations[0]["id"].as_str().expect("an id").to_owned();
    told(&app, "SecretNewVersionCreated", "v2").await;

    proved_by(&app, "WEBHOOK_SECRET_STRIPE__NEW", "evt_1").await;
    proved_by(&app, "WEBHOOK_SECRET_STRIPE", "evt_2").await;
    let show = async || app.json(&["rotations", "show", &id, "--json"]).await;
    eventually("both secrets in use, and the new version known", SOON, async || {
        let shown = show().await;
        shown["labels"].as_array().expect("labels").len() == 2 && !shown["renewed_at"].is_null()
    })
    .await;
    let labels = app.json(&["rotations", "labels", "--source", "stripe", "--json"]).await;
    let seen: Vec<_> =
        labels.as_array().expect("labels").iter().map(|used| (&used["label"], &used["deliveries"])).collect();
    assert!(
        seen.contains(&(&json!("default"), &json!(1))) && seen.contains(&(&json!("NEW"), &json!(1))),
        "{seen:?}"
    );
    assert_eq!(show().await["state"], "open", "the old one came last");

    proved_by(&app, "WEBHOOK_SECRET_STRIPE__NEW", "evt_3").await;
    eventually("its end", SOON, async || show().await["state"] == "closed").await;
    assert_eq!(show().await["outcome"], "new-secret-alone");
    assert!(open().await.is_empty());
}
