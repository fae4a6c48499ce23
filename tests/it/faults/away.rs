//! What is not stored goes on at full speed while what it does not need is away, whatever "away" looks like.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::providers::{FakeProvider, Script, Wire};
use crate::support::server::{API_KEY, Server, ServerBuilder};
use crate::support::{
    PrivatePostgres, PrivateRedis, Proxy, SOON, TestDatabase, TestStorage, eventually, report,
};

/// What may be asked for without a database.
const ASKS: [(&str, &str); 4] = [
    ("/v1/responses", r#"{"model": "it", "input": "hi", "store": false}"#),
    ("/v1/responses", r#"{"model": "it", "input": "hi", "store": false, "stream": true}"#),
    ("/v1/chat/completions", r#"{"model": "it", "messages": [{"role": "user", "content": "hi"}]}"#),
    ("/v1/embeddings", r#"{"model": "it", "input": "hi"}"#),
];
/// How often each is asked.
const TIMES: usize = 25;
/// What a busy machine may add to the usual time; less than any wait for something that is away.
const NOISE: Duration = Duration::from_millis(40);
/// The same for the slowest of all.
const HICCUP: Duration = Duration::from_millis(900);
/// One for each time that PostgreSQL is away: a draw that was on its way then may be granted once it is back.
const STRANGERS: [&str; 4] = ["clq_stranger_1", "clq_stranger_2", "clq_stranger_3", "clq_stranger_4"];

/// How long requests took.
#[derive(Clone, Copy, Debug)]
struct Pace {
    median: Duration,
    longest: Duration,
}

impl Pace {
    /// Of every kind of request, one after another.
    async fn of(server: &Server) -> Self {
        let mut times = Vec::new();
        for _ in 0..TIMES {
            for (path, body) in ASKS {
                let start = Instant::now();
                let request = server.client().post(server.url(path)).bearer_auth(API_KEY);
                let request = request.header("content-type", "application/json").body(body);
                let answer = request.send().await.unwrap_or_else(|error| panic!("{path}: {error:?}"));
                let status = answer.status();
                let text = answer.text().await.unwrap_or_else(|error| panic!("{path}: {error:?}"));
                assert!(status == 200 && !text.contains("\"failed\""), "{path}: {status} {text}");
                times.push(start.elapsed());
            }
        }
        times.sort();
        Self { median: times[times.len() / 2], longest: times[times.len() - 1] }
    }

    fn assert_as_usual(self, usual: Self, while_away: &str) -> String {
        let line = format!("{while_away}: {self:?}, usually {usual:?}\n");
        assert!(self.median <= usual.median * 2 + NOISE, "{line}");
        assert!(self.longest <= usual.longest + HICCUP, "{line}");
        line
    }
}

fn provider() -> FakeProvider {
    let provider = FakeProvider::start(Wire::Chat);
    provider.always(Script::words(5));
    provider
}

/// With budgets and limits to keep, so that there is something to ask for.
fn metered(builder: ServerBuilder, provider: &FakeProvider) -> ServerBuilder {
    let free = "requests_per_minute = 0\ntokens_per_minute = 0\nprice = { input = \"1\", output = \"4\" }";
    let deployment = provider.deployment("d", free);
    builder
        .config(format!(
            "[budgets]\ntotal = 1000\neach_owner = 500\neach_key = 400\n{deployment}[models.it]\ndeployments = [\"d\"]\n"
        ))
        .set("RATE_REQUESTS_PER_MINUTE", "1000000")
        .set("RATE_CONCURRENT_TURNS", "1000")
        // Rows are counted in the database, however long this machine takes for an outage.
        .set("USAGE_SPOOL_AFTER", "10m")
        .set("DB_CONNECT_TIMEOUT", "3s")
        .set("DB_STATEMENT_TIMEOUT", "5s")
        .set("DB_POOL_WAIT", "3s")
}

fn stored() -> Value {
    json!({ "model": "it", "input": "hi" })
}

/// Of a turn of somebody for whom nothing was drawn, and of one that is to be stored: each is told at once, once the
/// first has found out.
async fn assert_the_rest_is_refused(server: &Server, stranger: &str) {
    let budgeted = json!({ "model": "it", "input": "hi", "store": false });
    for (body, key, code) in
        [(budgeted, stranger, "budget_unavailable"), (stored(), API_KEY, "database_unavailable")]
    {
        let ask = async || {
            let start = Instant::now();
            let (status, error) =
                server.call(http::Method::POST, "/v1/responses", Some(body.clone()), key).await;
            assert_eq!((status, &error["error"]["code"]), (503, &json!(code)), "{error}");
            start.elapsed()
        };
        let first = ask().await;
        assert!(first < Duration::from_secs(12), "{code} after {first:?}");
        eventually(&format!("{code} to be told at once"), SOON, async || {
            ask().await < Duration::from_millis(300)
        })
        .await;
    }
}

#[tokio::test]
async fn while_postgresql_is_away_what_is_not_stored_goes_on_at_full_speed() {
    let mut postgres = PrivatePostgres::start().await;
    let database = TestDatabase::within(&postgres).await;
    let network = Proxy::to(postgres.pooled_port(), Duration::ZERO).await;
    let (storage, provider) = (TestStorage::create(), provider());
    let through = format!("postgres://colloquy:private@127.0.0.1:{}/{}", network.port(), database.name());
    let builder = metered(Server::on(&through, &database.direct_url, &storage), &provider);
    let builder = STRANGERS.iter().fold(builder, |builder, key| builder.key(key, key));
    let mut server = builder.start().await;
    let usual = Pace::of(&server).await;
    let mut text = String::new();

    postgres.stop().await;
    text += &Pace::of(&server).await.assert_as_usual(usual, "PostgreSQL stopped");
    assert_the_rest_is_refused(&server, STRANGERS[0]).await;
    text += &Pace::of(&server).await.assert_as_usual(usual, "PostgreSQL stopped for a while");
    postgres.start_again().await;
    await_stored(&server).await;

    postgres.freeze();
    text += &Pace::of(&server).await.assert_as_usual(usual, "PostgreSQL frozen");
    assert_the_rest_is_refused(&server, STRANGERS[1]).await;
    postgres.thaw();
    await_stored(&server).await;

    network.silence();
    text += &Pace::of(&server).await.assert_as_usual(usual, "the network to PostgreSQL silent");
    assert_the_rest_is_refused(&server, STRANGERS[2]).await;
    network.open();
    await_stored(&server).await;

    network.cut();
    text += &Pace::of(&server).await.assert_as_usual(usual, "the network to PostgreSQL cut");
    assert_the_rest_is_refused(&server, STRANGERS[3]).await;
    network.open();
    await_stored(&server).await;
    report("away-postgresql", &text);

    // Nothing that was paid meanwhile is missing. Waited for, since a stop that comes before the writer's next try puts
    // rows on a queue.
    let answered = i64::try_from(provider.answered().len()).expect("few");
    let rows = "SELECT count(*) FROM usage WHERE state = 'settled' AND NOT estimated AND cost_micros > 0";
    eventually("a row for each answer", SOON * 3, async || database.count(rows).await == answered).await;
    server.stop().await;
    assert_eq!(database.count(rows).await, answered);
    let held = "SELECT coalesce(sum(held_micros), 0)::int8 FROM budgets";
    assert_eq!(database.count(held).await, 0, "no slice is left");
}

async fn await_stored(server: &Server) {
    eventually("stored turns again", SOON * 2, async || {
        server.post("/v1/responses", stored()).await.0 == 200
    })
    .await;
}

/// Calls to Redis so far, of any outcome.
async fn calls(server: &Server) -> f64 {
    let text = server.get("/health/metrics").await.text().await.expect("metrics");
    let lines = text.lines().filter(|line| line.starts_with("colloquy_coordination_calls"));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

async fn is_connected(server: &Server) -> bool {
    let text = server.get("/health/metrics").await.text().await.expect("metrics");
    let mut lines = text.lines().filter(|line| line.starts_with("colloquy_coordination_connected"));
    lines.any(|line| line.ends_with(" 1"))
}

#[tokio::test]
async fn a_redis_that_is_away_or_never_answers_slows_no_turn_and_is_not_asked_for_each() {
    let (database, storage, provider) = (TestDatabase::create().await, TestStorage::create(), provider());
    let mut redis = PrivateRedis::start().await;
    let network = Proxy::to(redis.port(), Duration::ZERO).await;
    let url = format!("redis://127.0.0.1:{}", network.port());
    let builder = || metered(Server::of(&database, &storage), &provider).set("REDIS_URL", &url);
    let server = builder().start().await;
    eventually("Redis to be reached", SOON, async || is_connected(&server).await).await;
    let mut text = String::new();
    let mut usual = None;
    for (away, connected) in [("", true), ("Redis silent", false), ("Redis killed", false), ("", true)] {
        match away {
            "Redis silent" => network.silence(),
            "Redis killed" => {
                network.open();
                redis.kill();
            }
            _ if usual.is_some() => redis.start_again().await,
            _ => {}
        }
        let (start, before) = (Instant::now(), calls(&server).await);
        let pace = Pace::of(&server).await;
        let (made, seconds) = (calls(&server).await - before, start.elapsed().as_secs_f64());
        text += &pace.assert_as_usual(*usual.get_or_insert(pace), away);
        // Once a second limits are reconciled; the rest are wake-ups of nobody's turns.
        assert!(made <= seconds * 2.0 + 3.0, "{away}: {made} calls in {seconds:.1} s");
        // Stored turns tell others that they advance, and do not wait for that.
        let start = Instant::now();
        for _ in 0..10 {
            assert_eq!(server.post("/v1/responses", stored()).await.0, 200);
        }
        assert!(start.elapsed() < HICCUP * 2, "{away}: {:?}", start.elapsed());
        eventually("the server to know how Redis stands", SOON, async || {
            is_connected(&server).await == connected
        })
        .await;
        if away == "Redis silent" {
            // It begins without waiting for an answer too, and follows another's turn.
            let other = builder().start().await;
            let (_, turn) = server.post("/v1/responses", stored()).await;
            let path = format!("/v1/responses/{}?stream=true", turn["id"].as_str().expect("an id"));
            let start = Instant::now();
            let events = other.client().get(other.url(&path)).bearer_auth(API_KEY).send().await;
            let events = events.expect("an answer").text().await.expect("events");
            assert!(events.contains("response.completed") && start.elapsed() < HICCUP, "{events}");
        }
    }
    report("away-redis", &text);
}

#[tokio::test]
async fn without_tracking_usage_nothing_needs_to_be_reachable() {
    let provider = provider();
    // Nobody listens there.
    let nowhere = "postgres://nobody:x@127.0.0.1:9/none";
    let storage = TestStorage::within(
        "DefaultEndpointsProtocol=http;AccountName=none;AccountKey=eA==;\
         BlobEndpoint=http://127.0.0.1:9/none;QueueEndpoint=http://127.0.0.1:9/none;",
    );
    let builder = metered(Server::on(nowhere, nowhere, &storage), &provider);
    let builder = builder.set("REDIS_URL", "redis://127.0.0.1:9").set("DB_TRACK_USAGE", "false");
    let mut server = builder.start_without_database().await;
    let pace = Pace::of(&server).await;
    assert!(pace.longest < HICCUP, "{pace:?}");
    assert_eq!(server.read("/v1/models").await.0, 200);
    let start = Instant::now();
    for path in ["/v1/conversations", "/v1/usage"] {
        let (status, error) = server.read(path).await;
        assert_eq!(
            (status, &error["error"]["code"]),
            (503, &json!("database_unavailable")),
            "{path}: {error}"
        );
    }
    assert!(start.elapsed() < Duration::from_secs(2), "it says so at once");
    // Nothing waits to be written, so it ends at once.
    let start = Instant::now();
    server.stop().await;
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}
