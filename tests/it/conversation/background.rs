//! Background turns whose callers are told of their end: two servers, the function app, a consumer that checks
//! signatures.

mod callbacks;
mod orphans;
mod restarts;
mod waiting;

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::providers::{FakeProvider, Script, Wire};
use crate::support::server::{Server, ServerBuilder};
use crate::support::{
    Callback, Consumer, FunctionApp, FunctionAppBuilder, SOON, TestDatabase, TestStorage, eventually,
};

/// What every one of these tests has. Servers and function apps are started by the test.
struct Scene {
    database: TestDatabase,
    storage: TestStorage,
    consumer: Consumer,
    provider: FakeProvider,
}

impl Scene {
    async fn new() -> Self {
        Self::on(TestDatabase::create().await).await
    }

    async fn on(database: TestDatabase) -> Self {
        let provider = FakeProvider::start(Wire::Chat);
        let (storage, consumer) = (TestStorage::create(), Consumer::start().await);
        Self { database, storage, consumer, provider }
    }

    /// The consumer is a target below whose URL `tester` may name any; the provider is the model `it`.
    fn config(&self) -> String {
        let free =
            "requests_per_minute = 0\ntokens_per_minute = 0\nprice = { input = \"1\", output = \"4\" }";
        format!(
            "[targets.consumer]\nurl = \"${{CONSUMER_URL}}\"\nprefix = true\nowners = [\"tester\"]\n{}\n\
             [models.it]\ndeployments = [\"d\"]\n",
            self.provider.deployment("d", free)
        )
    }

    fn server(&self) -> ServerBuilder {
        Server::of(&self.database, &self.storage)
            .hurried()
            .config(self.config())
            .set("CONSUMER_URL", self.consumer.url())
            .set("LLM_RETRIES", "0")
            .set("LLM_BREAKER_PAUSE", "200ms")
            .set("RETRY_BASE", "300ms")
            .set("OUTAGE_RETRY", "1s")
            .set("SPEND_HEARTBEAT", "500ms")
            .set("SPEND_LEASE", "2s")
    }

    fn app(&self) -> FunctionAppBuilder {
        FunctionApp::of(&self.database, &self.storage)
            .hurried()
            .config(&self.config())
            .consumer(&self.consumer)
    }

    /// Waits for the callback, and then some: there is one, it is signed, and it tells of this turn.
    async fn told(&self, id: &str) -> Callback {
        let of = |callback: &Callback| callback.json()["data"]["id"] == id;
        eventually("the callback", SOON * 2, async || self.consumer.accepted().iter().any(of)).await;
        eventually("no message left", SOON, async || self.storage.is_empty().await).await;
        let rows = format!("SELECT count(*) FROM callbacks WHERE response_id = '{}'", uuid_of(id));
        assert_eq!(self.database.count(&rows).await, 1, "one row");
        let told: Vec<Callback> = self.consumer.accepted().into_iter().filter(of).collect();
        assert_eq!(told.len(), 1, "{told:#?}");
        assert_eq!(told[0].verified, Ok(()));
        told.into_iter().next().expect("one")
    }
}

fn uuid_of(id: &str) -> &str {
    id.strip_prefix("resp_").unwrap_or_else(|| panic!("{id}"))
}

/// A background turn that tells the consumer. Gives its id.
async fn begin(server: &Server, more: Value) -> String {
    let mut ask = json!({ "model": "it", "input": "Hello", "background": true, "callback": "consumer" });
    ask.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let (status, begun) = server.post("/v1/responses", ask).await;
    assert_eq!(status, 200, "{begun}");
    begun["id"].as_str().unwrap().to_owned()
}

async fn status_of(server: &Server, id: &str) -> Value {
    server.read(&format!("/v1/responses/{id}")).await.1["status"].clone()
}

async fn becomes(server: &Server, id: &str, status: &str) {
    eventually(&format!("{id} to be {status}"), SOON * 2, async || status_of(server, id).await == status)
        .await;
}

/// An answer that takes a while.
fn slow() -> Script {
    Script::words(200).pace(Duration::from_millis(50))
}
