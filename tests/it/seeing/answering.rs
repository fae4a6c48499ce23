//! A function app whose jobs ask models, brought into every state of which it tells: of models, of money, of turns that are
//! logged, stall and are taken up again.

use std::time::Duration;

use tokio_postgres::Client;

use super::metrics::scrape;
use crate::support::providers::{FakeProvider, Script, Wire};
use crate::support::{FunctionApp, Proxy, SOON, TestDatabase, TestStorage, eventually};

/// By an event's type: which model answers it.
const MODELS: [(&str, &str); 4] = [("ok", "good"), ("bad", "bad"), ("slow", "slow"), ("dear", "dear")];

struct Answering {
    app: FunctionApp,
    admin: Client,
    sent: u32,
    scrapes: Vec<String>,
}

impl Answering {
    async fn deliver(&mut self, kind: &str) {
        self.sent += 1;
        let event = format!(r#"{{"id":"evt_{}","type":"{kind}"}}"#, self.sent);
        assert_eq!(self.app.deliver_stripe(&event).await.status(), 200);
    }

    /// Until the app tells all of this. Keeps what it told then.
    async fn tells(&mut self, parts: &[&str]) {
        let mut text = String::new();
        eventually(&format!("{parts:?} to be told"), SOON * 3, async || {
            text = scrape(&self.app, "/api/health/metrics").await;
            parts.iter().all(|part| text.contains(part))
        })
        .await;
        self.scrapes.push(text);
    }

    async fn sql(&self, sql: &str) {
        self.admin.batch_execute(sql).await.expect(sql);
    }
}

fn config(good: &FakeProvider, bad: &FakeProvider, dear: &FakeProvider) -> String {
    let mut config = format!(
        "[sources.stripe]\nkind = \"stripe\"\n[budgets]\ntotal = \"0.01\"\n{}{}{}{}",
        good.deployment("good", ""),
        bad.deployment("bad", ""),
        good.deployment("slow", "tokens_per_minute = 2400"),
        dear.deployment("dear", "price = { input = \"0\", output = \"100\" }"),
    );
    for (kind, model) in MODELS {
        let most = if kind == "slow" { 1_300 } else { 20 };
        config += &format!(
            "[models.{model}]\ndeployments = [\"{model}\"]\n[[routes]]\nname = \"{kind}\"\nsource = \"stripe\"\n\
             type = \"{kind}\"\naction = \"respond\"\nmodel = \"{model}\"\ninstructions = \"Say yes.\"\n\
             input = \"{{{{ event.type }}}}\"\nmax_output_tokens = {most}\n"
        );
    }
    config
}

/// What it told in each state.
pub async fn scrapes() -> Vec<String> {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let [good, bad, dear] = [(); 3].map(|()| FakeProvider::start(Wire::Chat));
    bad.always(Script::fails(500, "x"));
    good.always(Script::words(6).pace(Duration::from_millis(20)));
    // An answer costs a fifth of the day's total.
    dear.always(Script { usage: (11, 0, 20, 0), ..Script::words(20) });
    let mut proxied = reqwest::Url::parse(&database.url).unwrap();
    let proxy = Proxy::to(proxied.port().unwrap(), Duration::ZERO).await;
    proxied.set_port(Some(proxy.port())).unwrap();
    let redis = std::env::var("COLLOQUY_TEST_REDIS_URL").expect("COLLOQUY_TEST_REDIS_URL: run scripts/test");
    let app = FunctionApp::on(proxied.as_str(), &database.direct_url, &storage).hurried();
    let settings = [
        ("LLM_RETRIES", "1"),
        ("LLM_RETRY_BASE", "50ms"),
        ("LLM_BREAKER_FAILURES", "2"),
        ("LLM_BREAKER_PAUSE", "2m"),
        ("LLM_QUOTA_WAIT", "1m"),
        ("LOG_PATIENCE", "300ms"),
        ("SPEND_HEARTBEAT", "100ms"),
        ("WORK_LEASE", "3s"),
        ("TURN_LEASE", "2s"),
        ("REDIS_URL", &redis),
    ];
    let app = settings
        .into_iter()
        .fold(app.config(&config(&good, &bad, &dear)), |app, (name, value)| app.set(name, value));
    let (app, admin) = (app.start().await, database.client().await);
    let mut answering = Answering { app, admin, sent: 0, scrapes: Vec::new() };

    // The first try fails, and what it says of itself is a row that the database refuses.
    answering.sql("ALTER TABLE usage ADD CONSTRAINT refused CHECK (reason <> 'failed')").await;
    good.next([Script::fails(503, "x"), Script::words(6).first_after(Duration::from_secs(6))]);
    answering.deliver("ok").await;
    answering.tells(&["fate=\"lost\"", "colloquy_llm_retries", "colloquy_turns_open"]).await;
    answering.sql("ALTER TABLE usage DROP CONSTRAINT refused").await;
    let ended = ["gen_ai_server_time_per_output_token", "colloquy_turns_ended", "gen_ai_client_token_usage"];
    answering.tells(&ended).await;

    answering.deliver("bad").await;
    answering.tells(&["colloquy_llm_breaker_opened", "colloquy_external_failing"]).await;

    // One holds most of a minute's tokens until its end, so that the next one waits.
    good.next([Script::words(30).pace(Duration::from_millis(100))]);
    for _ in 0..2 {
        answering.deliver("slow").await;
    }
    answering.tells(&["colloquy_llm_quota_wait"]).await;

    for _ in 0..7 {
        answering.deliver("dear").await;
    }
    let spent = [
        "colloquy_budget_passed",
        "percent=\"100\"",
        "colloquy_budget_refused",
        "colloquy_budget_used_ratio 1",
    ];
    answering.tells(&spent).await;
    assert_eq!(dear.seen().len(), 5, "no answer beyond the day's total");

    // The database hangs while a turn streams.
    let asked = good.seen().len();
    good.next([Script::words(100).pace(Duration::from_millis(50))]);
    answering.deliver("ok").await;
    eventually("a model that is asked", SOON, async || good.seen().len() > asked).await;
    proxy.silence();
    answering.tells(&["colloquy_log_stalled"]).await;
    proxy.open();

    // Its process dies with a turn in flight.
    let done = "SELECT count(*) FROM jobs WHERE route = 'ok' AND state = 'succeeded'";
    eventually("the job's end", SOON * 3, async || database.count(done).await == 2).await;
    let asked = good.seen().len();
    good.next([Script::words(400).pace(Duration::from_millis(50))]);
    answering.deliver("ok").await;
    let running = "SELECT count(*) FROM responses WHERE state = 'in_progress' AND asked_epoch IS NOT NULL";
    eventually("a turn in flight", SOON, async || {
        good.seen().len() > asked && database.count(running).await == 1
    })
    .await;
    answering.app.kill_handler().await;
    answering.tells(&["colloquy_turns_taken_over"]).await;
    answering.scrapes
}
