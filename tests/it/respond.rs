//! Events that start model work: a CRM's feedback is answered by a model, and the answer goes to a callback.

mod checked;
mod exactly_once;
mod failing;
mod held;
mod joined;
mod on_server;
mod scene;
mod traced;

use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::providers::{FakeProvider, Script, Wire};
use crate::support::server::Server;
use crate::support::{
    CONSUMER_SECRET, Consumer, FunctionApp, FunctionAppBuilder, SOON, TestDatabase, TestStorage, eventually,
    sign_espocrm,
};

/// Waits of leases and retries in these tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// A key of the owner whose turns the route's are.
const CRM_KEY: &str = "clq_test_key_of_the_crm";

/// What the route of these tests asks for.
const SCHEMA: &str = r#"{ "type": "object", "additionalProperties": false, "required": ["mood", "reply"],
    "properties": { "mood": { "enum": ["good", "bad"] }, "reply": { "type": "string", "minLength": 1 } } }"#;

/// A CRM whose feedback is answered by the alias `small`.
fn config(provider: &FakeProvider, more: &str) -> String {
    format!(
        r#"
[sources.crm]
kind = "espocrm"

[targets.crm]
url = "${{CONSUMER_URL}}"
owners = ["source:crm"]

{deployment}
price = {{ input = "1.00", output = "2.00" }}

[models.small]
deployments = ["small"]

[[routes]]
name = "crm-answer"
source = "crm"
type = "feedback.*"
action = "respond"
model = "small"
instructions = "Answer feedback that came to {{{{ event.source }}}}."
input = "{{{{ event.payload.name }}}} gives {{{{ event.payload.rating }}}}: {{{{ event.payload.description }}}}"
conversation = "feedback {{{{ event.subject }}}}"
text.format = {{ type = "json_schema", name = "answer", schema = '''{SCHEMA}''' }}
callback = "crm"
max_output_tokens = 500
{more}
"#,
        deployment = provider.deployment("small", "")
    )
}

fn record(id: &str, description: &str) -> Value {
    json!({ "id": id, "name": "Ada", "rating": 4, "description": description })
}

fn good() -> Script {
    Script::says(r#"{"mood": "good", "reply": "Thank you!"}"#)
}

struct Crm {
    database: TestDatabase,
    storage: TestStorage,
    consumer: Consumer,
    provider: FakeProvider,
    app: FunctionApp,
}

impl Crm {
    async fn open() -> Self {
        Self::open_with("", |builder| builder).await
    }

    async fn open_with(more: &str, set: impl FnOnce(FunctionAppBuilder) -> FunctionAppBuilder) -> Self {
        Self::open_as(|provider| config(provider, more), set).await
    }

    async fn open_as(
        config: impl FnOnce(&FakeProvider) -> String,
        set: impl FnOnce(FunctionAppBuilder) -> FunctionAppBuilder,
    ) -> Self {
        Self::open_on(TestDatabase::create().await, config, set).await
    }

    async fn open_on(
        database: TestDatabase,
        config: impl FnOnce(&FakeProvider) -> String,
        set: impl FnOnce(FunctionAppBuilder) -> FunctionAppBuilder,
    ) -> Self {
        let storage = TestStorage::create();
        let consumer = Consumer::start().await;
        let provider = FakeProvider::start(Wire::Chat);
        provider.always(good());
        let builder = FunctionApp::of(&database, &storage)
            .config(&config(&provider))
            .hurried()
            .consumer(&consumer)
            .set("WORK_LEASE", "3s")
            .set("TURN_LEASE", "2s")
            .set("LLM_RETRY_BASE", "50ms")
            .set("LLM_BREAKER_PAUSE", "500ms")
            .set("RESPOND_IDLE", "5m");
        let app = set(builder).start().await;
        Self { database, storage, consumer, provider, app }
    }

    /// A conversation server beside the app, with the same `colloquy.toml`.
    async fn server(&self, more: &str) -> Server {
        let server = Server::of(&self.database, &self.storage).hurried().config(config(&self.provider, more));
        let server = server.set("CONSUMER_URL", self.consumer.url()).set("SPEND_LEASE", "3s");
        // The CRM's turns are its owner's: whoever has a key of that owner finds them over the API.
        let hash: String = Sha256::digest(CRM_KEY).iter().map(|byte| format!("{byte:02x}")).collect();
        let key = json!([{ "name": "crm", "sha256": hash, "scopes": ["operator"], "owner": "source:crm" }]);
        let server = server.set("AUTH_API_KEYS", key.to_string());
        server.set("CALLBACK_SECRET_CRM", CONSUMER_SECRET).start().await
    }

    /// Posts records, signed as the CRM signs.
    async fn post(&self, event: &str, records: &[Value]) {
        let body = Value::from(records.to_vec()).to_string();
        let signature =
            sign_espocrm(self.app.setting("WEBHOOK_SECRET_CRM"), "66f0c1d2a1b2c3d4e", body.as_bytes());
        let answer = self.app.deliver(&format!("crm/{event}"), &[("signature", &signature)], body).await;
        assert_eq!(answer.status(), 200);
    }

    async fn told(&self, count: usize) -> Vec<Value> {
        eventually("callbacks", PATIENCE, async || self.consumer.accepted().len() >= count).await;
        let accepted = self.consumer.accepted();
        assert!(accepted.iter().all(|callback| callback.verified.is_ok()));
        accepted.iter().map(|callback| callback.json()).collect()
    }

    async fn count(&self, sql: &str) -> i64 {
        self.database.count(sql).await
    }

    /// What a request showed the model: role and text of each message.
    fn asked(&self, request: usize) -> Vec<(String, String)> {
        let seen = self.provider.seen();
        let messages = seen[request].body["messages"].as_array().expect("messages").clone();
        let text = |message: &Value| match &message["content"] {
            Value::String(text) => text.clone(),
            parts => parts[0]["text"].as_str().unwrap_or_default().to_owned(),
        };
        messages.iter().map(|message| (message["role"].as_str().unwrap().to_owned(), text(message))).collect()
    }

    async fn dead_letters(&self, count: usize) -> Vec<Value> {
        let mut letters = Vec::new();
        eventually("dead letters", PATIENCE, async || {
            letters = self.app.json(&["dead-letters", "list", "--json"]).await.as_array().unwrap().clone();
            letters.len() == count
        })
        .await;
        letters
    }
}
