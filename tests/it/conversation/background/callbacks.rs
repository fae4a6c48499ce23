//! What a consumer receives, and who may have it sent.

use std::io::Write;
use std::process::Stdio;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Scene, becomes, begin, slow};
use crate::conversation::sdk::Sdk;
use crate::support::providers::Script;
use crate::support::server::{API_KEY, OTHER_KEY};
use crate::support::{Answer, CONSUMER_SECRET, Callback, FunctionApp, SOON, eventually, repository};

#[tokio::test]
async fn each_end_is_told_once_and_what_verifies_openais_webhooks_and_standard_ones_accepts_it() {
    let scene = Scene::new().await;
    let (first, second) = (scene.server().start().await, scene.server().start().await);
    let _app = scene.app().start().await;
    scene.provider.next([
        Script::says("Hello there"),
        Script::says("Hello th").finish("length"),
        Script::fails(400, "no"),
        slow(),
    ]);
    let mut told = Vec::new();
    for kind in ["completed", "incomplete", "failed", "cancelled"] {
        let id = begin(&first, json!({})).await;
        if kind == "cancelled" {
            eventually("the answer to begin", SOON, async || scene.provider.seen().len() == 4).await;
            let (status, stopped) = second.post(&format!("/v1/responses/{id}/cancel"), json!({})).await;
            assert_eq!((status, &stopped["status"]), (200, &json!("cancelled")), "{stopped}");
        }
        becomes(&second, &id, kind).await;
        let callback = scene.told(&id).await;
        assert_eq!((callback.path.as_str(), callback.method.as_str()), ("/callbacks", "POST"));
        assert_eq!(callback.headers["content-type"], "application/json");
        let body = callback.json();
        let uuid = callback.id.strip_prefix("cb_").expect("cb_");
        let wanted = json!({
            "object": "event", "id": format!("evt_{uuid}"), "type": format!("response.{kind}"),
            "created_at": body["created_at"], "data": { "id": id },
        });
        assert_eq!(body, wanted);
        told.push(callback);
    }
    let (_, response) =
        second.read(&format!("/v1/responses/{}", told[0].json()["data"]["id"].as_str().unwrap())).await;
    assert_eq!(response["completed_at"], told[0].json()["created_at"]);
    for sdk in [Sdk::Python, Sdk::Node] {
        let arguments: Vec<String> = told.iter().map(|callback| for_sdks(callback).to_string()).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        sdk.says_ok("webhooks", sdk.command("webhooks", &arguments)).await;
    }
    let verdicts = libraries_say(&told);
    assert_eq!(verdicts.len(), 4 * told.len(), "two libraries in two languages: {verdicts:?}");
    assert!(verdicts.iter().all(|verdict| verdict["verdict"] == "ok"), "{verdicts:?}");
}

fn headers(callback: &Callback) -> Value {
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    names.iter().map(|name| (*name, callback.headers[*name].to_str().unwrap())).collect()
}

fn for_sdks(callback: &Callback) -> Value {
    let body = callback.json();
    json!({
        "secret": CONSUMER_SECRET, "headers": headers(callback), "body": String::from_utf8_lossy(&callback.body),
        "type": body["type"], "response": body["data"]["id"],
    })
}

/// What the libraries of Standard Webhooks and Svix say, one verdict for each library and callback.
fn libraries_say(callbacks: &[Callback]) -> Vec<Value> {
    let mut command = std::process::Command::new(repository().join("tests/senders/generate"));
    command.arg("--verify").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = command.spawn().expect("tests/senders/generate");
    let mut input = process.stdin.take().expect("its input");
    for callback in callbacks {
        let line = json!({
            "name": callback.id, "scheme": "standard-webhooks", "secret": CONSUMER_SECRET,
            "headers": headers(callback), "body_base64": BASE64_STANDARD.encode(&callback.body),
        });
        writeln!(input, "{line}").expect("a line");
    }
    drop(input);
    let output = process.wait_with_output().expect("its end");
    assert!(output.status.success());
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}

#[tokio::test]
async fn a_url_below_a_target_is_told_instead_of_it() {
    let scene = Scene::new().await;
    let server = scene.server().start_two().await;
    let _app = scene.app().start().await;
    let url = format!("{}/of/mine?token=1", scene.consumer.url());
    let id = begin(&server, json!({ "callback": url })).await;
    assert_eq!(scene.told(&id).await.path, "/callbacks/of/mine?token=1");
}

#[tokio::test]
async fn whoever_may_not_be_told_is_refused_by_name_before_anything_is_spent() {
    let scene = Scene::new().await;
    let server = scene.server().start_two().await;
    let port = scene.consumer.port();
    let ask = |more: Value| {
        let mut ask = json!({ "model": "it", "input": "Hello", "background": true });
        ask.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ask
    };
    let refused = [
        (API_KEY, json!({ "callback": "consumer", "background": false })),
        (API_KEY, json!({ "callback": "consumer", "background": true, "store": false })),
        (API_KEY, json!({ "callback": "nobody" })),
        (API_KEY, json!({ "callback": "" })),
        (API_KEY, json!({ "callback": "https://evil.invalid/" })),
        (API_KEY, json!({ "callback": "http://169.254.169.254/metadata" })),
        (API_KEY, json!({ "callback": format!("http://localhost:{port}/callbacks/1") })),
        (API_KEY, json!({ "callback": format!("http://127.0.0.1:{port}/elsewhere") })),
        (API_KEY, json!({ "callback": format!("http://127.0.0.1:{port}/callbacks/..%2f") })),
        (API_KEY, json!({ "callback": "x".repeat(3_000) })),
        (OTHER_KEY, json!({ "callback": "consumer" })),
    ];
    for (key, more) in refused {
        let (status, error) = server.call(Method::POST, "/v1/responses", Some(ask(more.clone())), key).await;
        assert_eq!((status, &error["error"]["param"]), (400, &json!("callback")), "{more}: {error}");
    }
    assert!(scene.provider.seen().is_empty());
    assert_eq!(scene.database.count("SELECT count(*) FROM responses").await, 0);
}

#[tokio::test]
async fn a_keys_default_is_told_of_what_names_nobody() {
    let scene = Scene::new().await;
    let hash: String = Sha256::digest(OTHER_KEY).iter().map(|byte| format!("{byte:02x}")).collect();
    let keys = json!([{ "name": "other", "sha256": hash, "scopes": [], "owner": "somebody-else",
                        "limits": { "callback": "consumer" } }]);
    let server = scene.server().set("AUTH_API_KEYS", keys.to_string()).start_two().await;
    let _app = scene.app().start().await;
    let ask = json!({ "model": "it", "input": "Hello", "background": true });
    let (status, begun) = server.call(Method::POST, "/v1/responses", Some(ask), OTHER_KEY).await;
    assert_eq!(status, 200, "{begun}");
    scene.told(begun["id"].as_str().unwrap()).await;
}

#[tokio::test]
async fn a_callback_given_up_keeps_its_id_and_body_when_it_is_replayed_and_each_key_signs() {
    let scene = Scene::new().await;
    scene.consumer.always(Answer::Status(500));
    let server = scene.server().start_two().await;
    let next = "whsec_bmV4dC1zZWNyZXQtb2YtdGhlLXRlc3RzLTAwMDAwMDAy";
    let app = scene.app().set("CALLBACK_SECRET_CONSUMER__NEXT", next).set("CALLBACK_SCHEDULE", "0s,100ms");
    let app = app.start().await;
    let id = begin(&server, json!({})).await;
    let mut letters = Value::Null;
    eventually("a dead letter", SOON * 2, async || {
        letters = app.json(&["dead-letters", "list", "--json"]).await;
        letters[0]["reason_code"] == "callback_refused"
    })
    .await;
    let shown = app.json(&["callbacks", "list", "--state", "dead", "--json"]).await;
    assert_eq!(shown["callbacks"][0]["response"], id.as_str(), "{shown}");
    // By now the consumer knows the new key alone.
    scene.consumer.trust(&[next]);
    scene.consumer.always(Answer::Status(200));
    let letter = letters[0]["id"].as_str().unwrap();
    app.json(&["dead-letters", "replay", "--yes", letter, "--json"]).await;
    let told = scene.told(&id).await;
    let tries = scene.consumer.callbacks();
    assert_eq!(tries.len(), 3);
    assert!(tries.iter().all(|one| one.id == told.id && one.body == told.body && one.verified.is_ok()));
}

#[tokio::test]
async fn without_storage_the_server_works_and_upkeep_hints() {
    let scene = Scene::new().await;
    let server = scene.server().set("AzureWebJobsStorage", "").start().await;
    let _app = scene.app().start().await;
    let id = begin(&server, json!({})).await;
    scene.told(&id).await;
}

#[tokio::test]
async fn a_replay_sends_nothing_to_a_url_that_its_target_no_longer_covers() {
    let scene = Scene::new().await;
    scene.consumer.always(Answer::Status(500));
    let server = scene.server().start().await;
    let app = scene.app().set("CALLBACK_SCHEDULE", "0s").start().await;
    begin(&server, json!({ "callback": format!("{}/of/mine", scene.consumer.url()) })).await;
    let letter = async |app: &FunctionApp, code: &str| {
        let mut letters = Value::Null;
        eventually(code, SOON * 2, async || {
            letters = app.json(&["dead-letters", "list", "--json"]).await;
            letters[0]["reason_code"] == code
        })
        .await;
        letters[0]["id"].as_str().unwrap().to_owned()
    };
    let given_up = letter(&app, "callback_refused").await;
    let heard = scene.consumer.callbacks().len();
    drop(app);
    let narrower = scene.app().set("CONSUMER_URL", format!("{}/of/others", scene.consumer.url()));
    let app = narrower.start().await;
    app.json(&["dead-letters", "replay", "--yes", &given_up, "--json"]).await;
    letter(&app, "url_not_allowed").await;
    assert_eq!(scene.consumer.callbacks().len(), heard);
}
