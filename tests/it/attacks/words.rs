//! What is said to a server stays out of its logs, and what it must not tell stays out of its errors.

use serde_json::{Value, json};

use crate::conversation::sse::Sse;
use crate::support::providers::{FakeProvider, Script, Wire};
use crate::support::server::{API_KEY, Server};
use crate::support::{SOON, TestDatabase, TestStorage, eventually};

const PROVIDERS_KEY: &str = "sk-of-the-provider-4711";
/// In everything that callers say and models answer.
const SAID: &str = "xyzzy-plugh";

/// As much as there is to log.
async fn scene() -> (TestDatabase, FakeProvider, Server) {
    let provider = FakeProvider::start(Wire::Chat);
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let deployment = provider.deployment("d", "").replace("auth = \"none\"", "auth = \"key\"");
    let config = format!("{deployment}[models.it]\ndeployments = [\"d\"]\n");
    let server = Server::of(&database, &storage)
        .config(config)
        .set("LLM_D_API_KEY", PROVIDERS_KEY)
        .set("APP_LOG_LEVEL", "debug")
        .set("LLM_RETRIES", "0")
        .start()
        .await;
    (database, provider, server)
}

#[tokio::test]
async fn what_is_said_to_models_and_by_them_is_in_no_log_however_it_ends() {
    let (_database, provider, mut server) = scene().await;
    let quoting = json!({ "error": { "message": format!("no {SAID} with {PROVIDERS_KEY}"), "code": SAID, "type": SAID } });
    let said = || Script::says(&format!("You said {SAID}, did you?"));
    provider.next([
        said(),
        said(),
        Script::fails_with(400, quoting.clone()),
        Script::fails_with(500, quoting.clone()),
        Script::fails_with(401, quoting),
        Script::fails_with(503, Value::from(format!("<html>{SAID}</html>"))),
        said().finish("content_filter"),
    ]);
    let ask = |more: Value| {
        let mut body = json!({
            "model": "it", "input": format!("Say {SAID}."), "instructions": SAID, "metadata": { SAID: SAID },
            "tools": [{ "type": "function", "name": "f", "description": SAID, "parameters": { "title": SAID } }],
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let mut answers = Vec::new();
    let (status, answer) = server.post("/v1/responses", ask(json!({}))).await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer.to_string().contains("did you?"), "{answer}");
    Sse::post(&server, ask(json!({}))).await.all().await;
    for _ in 0..5 {
        answers.push(server.post("/v1/responses", ask(json!({ "store": false }))).await);
    }
    // What is refused before anybody is asked.
    for body in [
        json!({ "model": SAID, "input": SAID }),
        json!({ "model": "it", "input": { SAID: SAID } }),
        json!({ "model": "it", "input": SAID, SAID: SAID }),
        json!({ "model": "it", "input": SAID, "previous_response_id": SAID }),
    ] {
        let (status, answer) = server.post("/v1/responses", body).await;
        assert!((400..500).contains(&status), "{answer}");
    }
    server
        .post(
            "/v1/chat/completions",
            json!({ "model": "it", "messages": [{ "role": "user", "content": SAID }] }),
        )
        .await;
    server
        .post(
            "/v1/conversations",
            json!({ "items": [{ "role": "user", "content": SAID }], "metadata": { "a": SAID } }),
        )
        .await;
    server.read(&format!("/v1/conversations?search={SAID}")).await;
    for (_, answer) in &answers {
        assert!(!answer.to_string().contains(PROVIDERS_KEY), "the provider's key is told: {answer}");
    }
    // What is logged last is what was asked last.
    let last = server.client().get(server.url("/v1/nowhere")).header("x-request-id", "the-last-of-all");
    assert_eq!(last.send().await.expect("an answer").status(), 404);
    let is_there = |log: &[String]| log.iter().any(|line| line.contains("the-last-of-all"));
    eventually("the last line", SOON, async || is_there(&server.process().log())).await;
    let log = server.process().log();
    assert!(log.iter().any(|line| line.contains("turn")), "{log:?}");
    for line in log {
        assert!(!line.contains(SAID) && !line.contains(PROVIDERS_KEY), "{line}");
    }
}

#[tokio::test]
async fn what_strangers_write_makes_no_line_of_its_own_and_no_secret_is_told() {
    let (_database, _provider, server) = scene().await;
    let forged = r#"{"level":"ERROR","code":"forged"}"#;
    let encoded: String = format!("\r\n{forged}\r\n").bytes().map(|byte| format!("%{byte:02X}")).collect();
    for path in [format!("/v1/{encoded}"), format!("/v1/models?x={encoded}"), format!("/admin/{encoded}/a")] {
        let answer =
            server.client().get(server.url(&path)).bearer_auth(API_KEY).send().await.expect("an answer");
        let (status, headers) = (answer.status(), answer.headers().clone());
        assert!(status.is_client_error(), "{path}: {status}");
        let names: Vec<String> = headers.keys().map(ToString::to_string).collect();
        assert!(!names.iter().any(|name| name.contains("forged")), "{names:?}");
    }
    let answer = server
        .client()
        .get(server.url("/v1/models"))
        .bearer_auth(API_KEY)
        .header("x-request-id", format!("mine {forged}"))
        .header("user-agent", forged)
        .header("traceparent", forged)
        .header("x-forwarded-for", forged)
        .send()
        .await
        .expect("an answer");
    let id = answer.headers()["x-request-id"].to_str().expect("text").to_owned();
    assert!(!id.contains("mine"), "{id}");
    assert_eq!(
        server
            .client()
            .get(server.url("/v1/models"))
            .bearer_auth("clq_wrong_4711")
            .send()
            .await
            .unwrap()
            .status(),
        401
    );
    let mut server = server;
    eventually("lines of the log", SOON, async || server.process().log().len() > 3).await;
    for line in server.process().log() {
        let parsed: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_ne!(parsed["code"], "forged", "{line}");
        for secret in [API_KEY, PROVIDERS_KEY, "clq_wrong_4711", server.setting("DATABASE_URL")] {
            assert!(!line.contains(secret), "{line}");
        }
    }
}
