//! Limits of a deployment that several servers share.

use std::time::Instant;

use serde_json::json;

use crate::support::providers::{FakeProvider, Script, Wire};
use crate::support::server::Server;
use crate::support::{PrivateRedis, SOON, TestDatabase, TestStorage, eventually};

/// Two a second, and ten seconds' worth at once.
const A_MINUTE: u32 = 120;
const AT_ONCE: f64 = 20.0;

struct Scene {
    provider: FakeProvider,
    _database: TestDatabase,
    servers: [Server; 2],
}

impl Scene {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let provider = FakeProvider::start(Wire::Chat);
        provider.always(Script::words(1));
        let (database, storage) = (TestDatabase::create().await, TestStorage::create());
        let config = format!(
            "{}[models.it]\ndeployments = [\"d\"]\nfirst_event_seconds = 20\nsilence_seconds = 20\n",
            provider.deployment("d", &format!("tokens_per_minute = 0\nrequests_per_minute = {A_MINUTE}"))
        );
        let server = || {
            let server = Server::of(&database, &storage).config(config.clone()).set("LLM_QUOTA_WAIT", "0s");
            settings.iter().fold(server, |server, (name, value)| server.set(name, *value))
        };
        let servers = [server().start().await, server().start().await];
        Self { provider, _database: database, servers }
    }

    /// Asks both servers as fast as they answer. Gives how many requests went through, and how many may at most: one
    /// limit for both.
    async fn flood(&self) -> (f64, f64) {
        let (before, began) = (self.provider.seen().len(), Instant::now());
        let asked = futures_util::future::join_all(self.servers.iter().map(|server| async move {
            for _ in 0..50 {
                let body = json!({ "model": "it", "input": "Hi", "store": false });
                let (status, answer) = server.post("/v1/responses", body).await;
                assert!(
                    status == 200 || answer["error"]["code"] == "deployment_quota_exceeded",
                    "{status} {answer}"
                );
            }
        }));
        asked.await;
        let passed = self.provider.seen().len() - before;
        (passed as f64, AT_ONCE + began.elapsed().as_secs_f64() * f64::from(A_MINUTE) / 60.0)
    }
}

/// Waits until both servers were counted in two slots of time: by then each knows of the other.
async fn know_each_other(redis: &PrivateRedis) {
    let client = redis::Client::open(redis.url()).expect("an address");
    let connection = client.get_multiplexed_async_connection().await.expect("a connection");
    eventually("both servers to be counted", SOON, async || {
        let mut connection = connection.clone();
        let keys: Vec<String> =
            redis::cmd("KEYS").arg("*quota:processes:*").query_async(&mut connection).await.expect("keys");
        let mut counted = Vec::new();
        for key in keys {
            let count: Option<i64> =
                redis::cmd("GET").arg(&key).query_async(&mut connection).await.expect("a count");
            counted.extend(count.filter(|count| *count == 2).map(|_| key));
        }
        counted.len() >= 2
    })
    .await;
}

#[tokio::test]
async fn with_redis_two_servers_keep_one_limit_and_keep_to_it_when_redis_goes() {
    let mut redis = PrivateRedis::start().await;
    let url = redis.url();
    let scene = Scene::start(&[("REDIS_URL", &url)]).await;
    know_each_other(&redis).await;
    let (passed, most) = scene.flood().await;
    assert!(passed <= most + 2.0, "{passed} of {most}");
    assert!(passed >= 5.0, "{passed}");
    redis.kill();
    // What is left is divided; before they notice, it is what they knew.
    let (passed, most) = scene.flood().await;
    assert!(passed <= most + 2.0, "{passed} of {most}");
}

#[tokio::test]
async fn without_redis_each_server_keeps_to_its_share() {
    let scene = Scene::start(&[("LLM_QUOTA_SHARE", "50")]).await;
    let (passed, most) = scene.flood().await;
    assert!(passed <= most + 2.0 && passed >= AT_ONCE, "{passed} of {most}");
}

#[tokio::test]
async fn with_redis_away_from_the_start_each_server_keeps_to_its_share() {
    // Nobody listens there.
    let scene = Scene::start(&[("REDIS_URL", "redis://127.0.0.1:1"), ("LLM_QUOTA_SHARE", "50")]).await;
    let (passed, most) = scene.flood().await;
    assert!(passed <= most + 2.0 && passed >= AT_ONCE, "{passed} of {most}");
}
