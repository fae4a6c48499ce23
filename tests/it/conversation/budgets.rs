//! Answers whose length nobody limited, against budgets that are nearly spent.

use serde_json::{Value, json};

use crate::support::providers::{Ending, FakeProvider, Script, Wire};
use crate::support::server::Server;
use crate::support::{SOON, TestDatabase, TestStorage, eventually};

/// Micro-units a token of the answer: 100 a million.
const TOKEN: i64 = 100;
const MILLION: i64 = 1_000_000;

fn config(provider: &FakeProvider, total: &str) -> String {
    let more = "tokens_per_minute = 0\nrequests_per_minute = 0\nmax_output_tokens = 16000\n\
                price = { input = \"1\", output = \"100\" }";
    format!(
        "{}[models.it]\ndeployments = [\"d\"]\nfirst_event_seconds = 20\nsilence_seconds = 20\n\
         [budgets]\ntotal = \"{total}\"\n",
        provider.deployment("d", more)
    )
}

async fn server(database: &TestDatabase, storage: &TestStorage, config: &str) -> Server {
    let server = Server::of(database, storage).config(config).set("SPEND_HEARTBEAT", "100ms");
    server.start().await
}

/// So many pieces of eight tokens each, far more than any limit.
fn rambles(pieces: usize) -> Script {
    let text = vec!["on and on and on and on and on. ".to_owned(); pieces];
    Script { text, usage: (11, 0, 8 * pieces as u64, 0), ..Script::default() }
}

async fn spent(database: &TestDatabase) -> i64 {
    database.count("SELECT coalesce(sum(cost_micros), 0)::int8 FROM usage").await
}

#[tokio::test]
async fn long_answers_that_nobody_limited_never_overdraw_a_budget() {
    const TOTAL: i64 = 12 * MILLION;
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let provider = FakeProvider::start(Wire::Chat);
    let config = config(&provider, "12");
    let servers = [server(&database, &storage, &config).await, server(&database, &storage, &config).await];
    // As real ones do, most of it unseen; and one that takes no notice of a limit, with or without usage at its end.
    provider.always(Script::words(30).thinks_unseen(60_000).heeding());
    provider.next((0..60).map(|at| match at % 3 {
        0 => Script::words(30).thinks_unseen(60_000).heeding(),
        1 => rambles(20_000),
        _ => Script::words(5),
    }));
    let asked = |at: usize| match at % 3 {
        0 => ("/v1/responses", json!({ "model": "it", "input": "Tell me all that there is to tell of it." })),
        1 => (
            "/v1/responses",
            json!({ "model": "it", "input": "Tell me all that there is to tell of it.", "store": false }),
        ),
        _ => {
            let messages = json!([{ "role": "user", "content": "Tell me all that there is to tell of it." }]);
            ("/v1/chat/completions", json!({ "model": "it", "messages": messages }))
        }
    };
    let answers = futures_util::future::join_all((0..8).map(|worker: usize| {
        let server = &servers[worker % 2];
        async move {
            let mut answers = Vec::new();
            for at in worker.. {
                let (path, body) = asked(at);
                let (status, answer) = server.post(path, body).await;
                if status == 429 {
                    assert_eq!(answer["error"]["code"], "budget_spent", "{answer}");
                    break;
                }
                assert_eq!(status, 200, "{answer}");
                answers.push(answer);
            }
            answers
        }
    }))
    .await;
    let answers: Vec<Value> = answers.into_iter().flatten().collect();
    let cut = |answer: &&Value| {
        answer["incomplete_details"]["reason"] == "max_output_tokens"
            || answer["choices"][0]["finish_reason"] == "length"
    };
    assert!(answers.iter().any(|answer| cut(&answer)), "{answers:?}");
    let told = answers.iter().filter(cut).find(|answer| !answer["max_output_tokens"].is_null());
    let limit = told.expect("a response that names its limit")["max_output_tokens"].as_u64();
    assert!(limit.is_some_and(|limit| (4_096..=6_000).contains(&limit)), "5 % of the budget: {limit:?}");
    let seen = provider.seen();
    assert!(seen.iter().all(|seen| seen.body["max_completion_tokens"].is_u64()), "the provider was told");

    // Whoever was refused while others had money set aside may come again.
    let mut turns = 0;
    while servers[0].post("/v1/responses", asked(1).1).await.0 == 200 {
        turns += 1;
        assert!(turns < 60, "it does not end");
    }
    for mut server in servers {
        server.stop().await;
    }
    let spent = spent(&database).await;
    assert!(spent <= TOTAL, "{spent} of {TOTAL}");
    assert!(spent > TOTAL - 2 * 4_096 * TOKEN, "it was refused too early: {spent} of {TOTAL}");
    let booked = "SELECT (sum(spent_micros) + sum(held_micros))::int8 FROM budgets";
    assert_eq!(database.count(booked).await, spent);
}

#[tokio::test]
async fn a_key_sees_its_own_budget_and_no_others() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let provider = FakeProvider::start(Wire::Chat);
    let config = format!(
        "{}each_owner = 5\n[budgets.keys.poor]\nper_day = \"0.000001\"\n[budgets.keys.rich]\nper_day = 5\n",
        config(&provider, "12")
    );
    let servers = Server::of(&database, &storage).config(config).set("SPEND_HEARTBEAT", "100ms");
    let servers = servers.key("poor", "clq_poor").key("rich", "clq_rich").start_two().await;
    for (key, status) in [("clq_poor", 429), ("clq_rich", 200)] {
        let ask = json!({ "model": "it", "input": "Hi" });
        let (refused, answer) = servers.call(http::Method::POST, "/v1/responses", Some(ask), key).await;
        assert_eq!(refused, status, "{answer}");
    }
    for (key, name) in [("clq_poor", "poor"), ("clq_rich", "rich")] {
        for server in servers.both() {
            let (_, usage) = server.call(http::Method::GET, "/v1/usage", None, key).await;
            let budgets: Vec<_> = usage["budgets"]
                .as_array()
                .expect("budgets")
                .iter()
                .filter(|budget| budget["scope"] == "key")
                .collect();
            assert_eq!(budgets.len(), 1, "{usage}");
            assert_eq!(budgets[0]["subject"], name);
            assert_eq!(budgets[0]["limit_micros"], if name == "poor" { 1 } else { 5 * MILLION }, "{usage}");
            let others = usage["budgets"].to_string();
            assert!(!others.contains("total"), "{others}");
        }
    }
}

#[tokio::test]
async fn with_plenty_of_budget_an_answer_is_as_long_as_the_model_makes_it() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let provider = FakeProvider::start(Wire::Responses);
    let server = server(&database, &storage, &config(&provider, "1000")).await;
    // Longer than the deployment says that it can be.
    provider.next([rambles(2_500)]);
    let (status, answer) = server.post("/v1/responses", json!({ "model": "it", "input": "Hi" })).await;
    assert_eq!((status, &answer["status"]), (200, &json!("completed")), "{}", answer["status"]);
    assert_eq!(
        (&answer["max_output_tokens"], &answer["usage"]["output_tokens"]),
        (&json!(null), &json!(20_000))
    );
    assert!(provider.seen()[0].body["max_output_tokens"].is_null(), "it needs no limit");
}

#[tokio::test]
async fn an_attempt_that_may_be_charged_is_tried_again_only_if_the_budget_pays_for_both() {
    let storage = TestStorage::create();
    let failing = || Script::says("x").ending_after(0, Ending::Eof);
    // What is asked costs about 10,000, the shortest answer 409,600.
    let body = json!({ "model": "it", "input": "x".repeat(30_000), "store": false });
    for (total, tries) in [("0.425", 1), ("0.435", 2)] {
        let database = TestDatabase::create().await;
        let provider = FakeProvider::start(Wire::Chat);
        let server = server(&database, &storage, &config(&provider, total)).await;
        provider.next([failing()]);
        let (status, answer) = server.post("/v1/responses", body.clone()).await;
        assert_eq!((status == 200, provider.seen().len()), (tries == 2, tries), "{total}: {answer}");
        eventually("the rows", SOON, async || {
            database.count("SELECT count(*) FROM usage WHERE state = 'settled'").await == tries as i64
        })
        .await;
        let charged = "SELECT count(*) FROM usage WHERE estimated AND cost_micros > 9000";
        assert_eq!(database.count(charged).await, 1, "the failed attempt");
    }
}

/// Of the processes that see a budget run out one says so, by log and by metric; also of those that begin anew.
#[tokio::test]
async fn that_a_budget_runs_out_is_told_once_a_day_whoever_sees_it() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let provider = FakeProvider::start(Wire::Chat);
    // Eleven parts in a hundred of the total, each.
    provider.always(Script { usage: (0, 0, 11_000, 0), ..Script::words(5) });
    let config = config(&provider, "10");
    let mut servers =
        vec![server(&database, &storage, &config).await, server(&database, &storage, &config).await];
    let ask = async |server: &Server| {
        let asked = json!({ "model": "it", "input": "Hi", "max_output_tokens": 11_000 });
        server.post("/v1/responses", asked).await.0
    };
    let metrics = async |server: &Server| server.get("/health/metrics").await.text().await.expect("metrics");
    for at in 0..9 {
        assert_eq!(ask(&servers[at % 2]).await, 200);
    }
    for (server, share) in servers.iter().zip(["0.99", "0.88"]) {
        eventually("every server to know", SOON, async || {
            metrics(server).await.contains(&format!("colloquy_budget_used_ratio {share}"))
        })
        .await;
    }
    servers.push(server(&database, &storage, &config).await);
    for server in &servers {
        assert_eq!(ask(server).await, 429);
    }
    let (mut lines, mut counted) = (Vec::new(), Vec::new());
    for server in &mut servers {
        let told = metrics(server).await;
        counted.extend(
            told.lines().filter(|line| line.starts_with("colloquy_budget_passed")).map(str::to_owned),
        );
        let log = server.process().log();
        lines.extend(log.into_iter().filter(|line| line.contains("budget_nearly_spent")));
    }
    assert_eq!((lines.len(), counted.len()), (1, 1), "{lines:#?} {counted:#?}");
    assert!(lines[0].contains("total") && counted[0].ends_with(" 1"), "{lines:?} {counted:?}");
}
