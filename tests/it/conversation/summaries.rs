//! What summaries may replace, who pays for them, and what is heard while they are written.

mod stopping;

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::socket;
use super::sse::{Came, Sse, kinds};
use crate::support::providers::{FakeProvider, Script, Wire};
use crate::support::server::{API_KEY, Server, ServerBuilder, Servers};
use crate::support::{SOON, TestDatabase, TestStorage, eventually};

/// A model with a window of 8,000 tokens, and another that writes its summaries.
struct Scene {
    model: FakeProvider,
    small: FakeProvider,
    database: TestDatabase,
    servers: Servers,
}

impl Scene {
    async fn start(more: impl Fn(ServerBuilder) -> ServerBuilder) -> Self {
        Self::with_small("", more).await
    }

    /// `small`: of the deployment that writes summaries.
    async fn with_small(small_settings: &str, more: impl Fn(ServerBuilder) -> ServerBuilder) -> Self {
        let (model, small) = (FakeProvider::start(Wire::Chat), FakeProvider::start(Wire::Chat));
        let free =
            "tokens_per_minute = 0\nrequests_per_minute = 0\nprice = { input = \"1\", output = \"10\" }";
        let config = format!(
            "{}{}[models.it]\ndeployments = [\"d\"]\nsmall = \"short\"\n\
             [models.short]\ndeployments = [\"s\"]\n[budgets]\ntotal = \"100\"\n",
            model.deployment("d", &format!("{free}\ncontext_window = 8000\nmax_output_tokens = 2000")),
            small.deployment("s", &format!("{free}\n{small_settings}")),
        );
        let (database, storage) = (TestDatabase::create().await, TestStorage::create());
        let server = Server::of(&database, &storage).config(config).set("SPEND_HEARTBEAT", "100ms");
        let servers = more(server).start_two().await;
        Self { model, small, database, servers }
    }

    async fn usual() -> Self {
        Self::start(|server| server).await
    }

    /// A conversation with so many bytes in it.
    async fn conversation(&self, bytes: usize) -> Value {
        const EACH: usize = 4_500;
        let said = |nth| format!("item-{nth:02} {}", "blue map ".repeat(EACH / 9 - 1));
        let items: Vec<Value> = (0..bytes / EACH)
            .map(|nth| json!({ "type": "message", "role": "user", "content": said(nth) }))
            .collect();
        let (status, conversation) = self.servers.post("/v1/conversations", json!({ "items": items })).await;
        assert_eq!(status, 200, "{conversation}");
        conversation["id"].clone()
    }

    async fn counted(&self, of: &str) -> i64 {
        self.database.count(&format!("SELECT count(*) FROM usage WHERE {of}")).await
    }

    /// Everything is paid by the end: what stands in the rows was taken off the budget, and nothing is held.
    async fn settled(mut self, summaries: i64) {
        eventually("every row to be settled", SOON, async || {
            self.counted("state = 'open'").await == 0
                && self.counted("model = 'short' AND cost_micros > 0").await == summaries
        })
        .await;
        for server in self.servers.each() {
            server.stop().await;
        }
        let spent = "SELECT sum(spent_micros)::int8 FROM budgets";
        let rows = "SELECT sum(cost_micros)::int8 FROM usage";
        assert_eq!(self.database.count(spent).await, self.database.count(rows).await);
        assert_eq!(self.database.count("SELECT sum(held_micros)::int8 FROM budgets").await, 0);
    }
}

/// A turn of a conversation that is to be summarised beyond 1,000 tokens.
fn asks(conversation: &Value) -> Value {
    json!({ "model": "it", "input": "What now?", "conversation": conversation,
            "context_management": [{ "type": "compaction", "compact_threshold": 1000 }] })
}

fn compacts() -> Value {
    json!({ "model": "it", "input": [{ "role": "user", "content": "My name is Ada." }] })
}

fn slow(script: Script) -> Script {
    script.delayed(Duration::from_millis(1_500))
}

#[tokio::test]
async fn only_a_summary_that_came_to_its_end_replaces_a_past() {
    let scene = Scene::usual().await;
    let refusing = Script { refusal: Some("I cannot help with that.".to_owned()), ..Script::default() };
    let mut paid = 0;
    for (reason, script) in [
        ("empty", Script::default()),
        ("empty", Script::says(" \n ")),
        ("refusal", refusing),
        ("content_filter", Script::says("They spoke of").finish("content_filter")),
        ("length", Script::says("They spoke of").finish("length")),
    ] {
        let conversation = scene.conversation(9_000).await;
        scene.small.next([script.clone(), script]);
        let asked =
            scene.servers.client().post(scene.servers.url("/v1/responses/compact")).bearer_auth(API_KEY);
        let refused = asked.json(&compacts()).send().await.unwrap();
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["x-should-retry"]),
            (502, &"false".parse().unwrap())
        );
        let refused: Value = refused.json().await.unwrap();
        assert_eq!(refused["error"]["code"], "compaction_unusable", "{refused}");
        assert!(refused["error"]["message"].as_str().unwrap().contains(reason), "{refused}");

        let (status, answer) = scene.servers.post("/v1/responses", asks(&conversation)).await;
        assert_eq!((status, &answer["output"][0]["type"]), (200, &json!("message")), "{reason}: {answer}");
        let shown = scene.model.seen().last().unwrap().body["messages"].to_string();
        assert!(shown.contains("blue map blue map"), "the past is shown as it is: {reason}");
        paid += 2;
        assert_eq!(scene.small.seen().len() as i64, paid, "and asked for once each");
    }
    // What follows is summarised as if nothing had been.
    let conversation = scene.conversation(9_000).await;
    scene.small.next([Script::fails(400, "no"), Script::says("They spoke of blue maps.")]);
    let (status, answer) = scene.servers.post("/v1/responses", asks(&conversation)).await;
    assert_eq!((status, &answer["output"][0]["type"]), (200, &json!("message")), "{answer}");
    let (status, answer) = scene.servers.post("/v1/responses", asks(&conversation)).await;
    assert_eq!((status, &answer["output"][0]["type"]), (200, &json!("compaction")), "{answer}");
    assert!(!scene.model.seen().last().unwrap().body["messages"].to_string().contains("blue map blue map"));
    scene.settled(paid + 1).await;
}

#[tokio::test]
async fn a_past_that_no_summary_makes_short_is_cut_only_if_that_was_asked_for() {
    let scene = Scene::usual().await;
    // Longer than is read: a summary would leave out the oldest, and every later turn with it.
    let conversation = scene.conversation(90_000).await;
    scene.small.always(Script::default());
    let (status, refused) = scene.servers.post("/v1/responses", asks(&conversation)).await;
    assert_eq!((status, &refused["error"]["code"]), (400, &json!("context_length_exceeded")), "{refused}");
    assert_eq!((scene.small.seen().len(), scene.model.seen().len()), (0, 0), "and nobody is asked");
    let mut cut = asks(&conversation);
    cut["truncation"] = "auto".into();
    let (status, answer) = scene.servers.post("/v1/responses", cut).await;
    assert_eq!((status, &answer["output"][0]["type"]), (200, &json!("message")), "{answer}");

    // What is read and does not fit: it was to be summarised, and that it was not is what the caller is told.
    let conversation = scene.conversation(67_500).await;
    let shown = scene.model.seen().len();
    let (status, refused) = scene.servers.post("/v1/responses", asks(&conversation)).await;
    assert_eq!((status, &refused["error"]["code"]), (502, &json!("compaction_unusable")), "{refused}");
    let message = refused["error"]["message"].as_str().expect("a message");
    assert!(message.contains("does not fit") && message.contains("empty"), "{message}");
    assert_eq!(scene.model.seen().len(), shown);
}

#[tokio::test]
async fn a_threshold_that_is_not_reached_cuts_nothing() {
    let scene = Scene::usual().await;
    let asks = |conversation: &Value| {
        let mut asks = asks(conversation);
        asks["context_management"][0]["compact_threshold"] = 1_000_000.into();
        asks
    };
    // More than the window by our estimate; what may fit is the provider's to judge.
    let conversation = scene.conversation(45_000).await;
    let (status, answer) = scene.servers.post("/v1/responses", asks(&conversation)).await;
    assert_eq!((status, &answer["output"][0]["type"]), (200, &json!("message")), "{answer}");
    let shown = scene.model.seen()[0].body["messages"].to_string();
    for nth in 0..10 {
        assert!(shown.contains(&format!("item-{nth:02}")), "item {nth}");
    }
    let conversation = scene.conversation(67_500).await;
    let (status, refused) = scene.servers.post("/v1/responses", asks(&conversation)).await;
    assert_eq!((status, &refused["error"]["code"]), (400, &json!("context_length_exceeded")), "{refused}");
    let mut cut = asks(&conversation);
    cut["truncation"] = "auto".into();
    let (status, answer) = scene.servers.post("/v1/responses", cut).await;
    assert_eq!((status, &answer["output"][0]["type"]), (200, &json!("message")), "{answer}");
    assert_eq!(scene.small.seen().len(), 0);
}

#[tokio::test]
async fn what_the_small_model_cannot_hold_at_once_it_summarises_piece_by_piece() {
    let scene = Scene::with_small("context_window = 8000\nmax_output_tokens = 2048", |server| server).await;
    let conversation = scene.conversation(67_500).await;
    scene.small.next((1..=20).map(|nth| Script::says(&format!("Summary number {nth}."))));
    let (status, answer) = scene.servers.post("/v1/responses", asks(&conversation)).await;
    assert_eq!((status, &answer["output"][0]["type"]), (200, &json!("compaction")), "{answer}");
    let calls: Vec<String> =
        scene.small.seen().iter().map(|seen| seen.body["messages"].to_string()).collect();
    assert!(calls.len() > 2, "{}", calls.len());
    for nth in 0..15 {
        let tag = format!("item-{nth:02}");
        assert_eq!(calls.iter().filter(|call| call.contains(&tag)).count(), 1, "{tag} is in one of them");
    }
    for (nth, call) in calls.iter().enumerate().skip(1) {
        assert!(call.contains(&format!("Summary number {nth}.")), "{nth} goes on from the one before");
    }
    let shown = scene.model.seen()[0].body["messages"].to_string();
    assert!(shown.contains(&format!("Summary number {}.", calls.len())), "{shown}");
    assert!(!shown.contains("item-"), "{shown}");
    let calls = i64::try_from(calls.len()).expect("few");
    scene.settled(calls).await;
}

#[tokio::test]
async fn a_caller_that_leaves_while_a_summary_is_written_has_it_paid() {
    let scene = Scene::usual().await;
    let conversation = scene.conversation(9_000).await;
    // Neither comes to tell what it took.
    scene.small.next([
        Script::words(200).pace(Duration::from_millis(100)),
        Script::words(200).pace(Duration::from_millis(100)),
    ]);
    let mut of_turn = asks(&conversation);
    of_turn["stream"] = true.into();
    for (nth, (path, body)) in
        [("/v1/responses/compact", compacts()), ("/v1/responses", of_turn)].into_iter().enumerate()
    {
        let asked = scene.servers.client().post(scene.servers.url(path)).bearer_auth(API_KEY).json(&body);
        let asked = tokio::spawn(asked.send());
        eventually("the small model to write", SOON, async || {
            scene.small.charged().output > 3 + 3 * nth as u64
        })
        .await;
        asked.abort();
        eventually("the call to be ended", SOON, async || scene.small.abandoned() == 1 + nth as u64).await;
    }
    let left = "model = 'short' AND state = 'settled' AND reason = 'disconnected' AND estimated";
    eventually("both to be paid", SOON, async || scene.counted(left).await == 2).await;
    assert_eq!(scene.model.seen().len(), 0, "no turn began");
    scene.settled(2).await;
}

#[tokio::test]
async fn nothing_is_silent_while_a_summary_is_written() {
    let scene = Scene::start(|server| server.set("HEARTBEAT", "200ms").set("JSON_KEEP_ALIVE", "300ms")).await;
    scene.small.always(slow(Script::says("They spoke of blue maps.")));
    let (mut conversations, servers) = (Vec::new(), &scene.servers);
    for bytes in [9_000, 9_000, 9_000, 67_500, 67_500] {
        conversations.push(scene.conversation(bytes).await);
    }
    let streamed = async |conversation: &Value| {
        let mut stream = Sse::post(servers, asks(conversation)).await;
        let (events, end) = stream.rest().await;
        let signs = stream.comments.iter().filter(|comment| *comment == "heartbeat").count();
        assert!(signs >= 3, "{signs} signs of life before {:?}", kinds(&events));
        assert_eq!(end, Came::Done, "{events:?}");
        events
    };
    let whole = async |path: &str, body: Value| {
        let answer = servers.client().post(servers.url(path)).bearer_auth(API_KEY).json(&body);
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status(), 200, "it has begun");
        let text = answer.text().await.unwrap();
        assert!(text.starts_with("   "), "{text}");
        serde_json::from_str::<Value>(text.trim()).unwrap()
    };
    let over_a_socket = async |conversation: &Value| {
        let mut socket = socket::open(servers).await;
        let mut ask = asks(conversation);
        ask["type"] = "response.create".into();
        socket.send(Message::text(ask.to_string())).await.unwrap();
        socket.send(Message::Ping("alive?".into())).await.unwrap();
        socket.send(Message::text(ask.to_string())).await.unwrap();
        let (mut pings, mut pongs, mut refused) = (0, 0, 0);
        loop {
            match tokio::time::timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap() {
                Message::Ping(_) => pings += 1,
                Message::Pong(_) => pongs += 1,
                Message::Text(text) => {
                    let event: Value = serde_json::from_str(&text).unwrap();
                    if event["error"]["code"] == "response_in_progress" {
                        refused += 1;
                        continue;
                    }
                    assert_eq!(event["type"], "response.created", "{event}");
                    return (pings, pongs, refused);
                }
                other => panic!("{other:?}"),
            }
        }
    };
    let (events, turn, compacted, (pings, pongs, refused)) = tokio::join!(
        streamed(&conversations[0]),
        whole("/v1/responses", asks(&conversations[1])),
        whole("/v1/responses/compact", compacts()),
        over_a_socket(&conversations[2]),
    );
    let ended = events.last().unwrap();
    assert_eq!(
        (&ended["type"], &ended["response"]["output"][0]["type"]),
        (&json!("response.completed"), &json!("compaction"))
    );
    assert_eq!(
        (&turn["status"], &turn["output"][0]["type"]),
        (&json!("completed"), &json!("compaction")),
        "{turn}"
    );
    assert_eq!(compacted["object"], "response.compaction", "{compacted}");
    assert!(pings >= 3, "{pings} pings");
    assert_eq!((pongs, refused), (1, 1));

    // What fails after that is told under the status that is out.
    scene.small.always(slow(Script::default()));
    let (events, turn, compacted) = tokio::join!(
        streamed(&conversations[3]),
        whole("/v1/responses", asks(&conversations[4])),
        whole("/v1/responses/compact", compacts()),
    );
    let [failed] = &events[..] else { panic!("{events:?}") };
    assert_eq!((&failed["type"], &failed["error"]["code"]), (&json!("error"), &json!("compaction_unusable")));
    assert_eq!(failed["sequence_number"], 0);
    assert_eq!(turn["error"]["code"], "compaction_unusable", "{turn}");
    assert_eq!(compacted["error"]["code"], "compaction_unusable", "{compacted}");
    // What fails at once has a status of its own, as ever.
    for (path, mut body) in
        [("/v1/responses", asks(&conversations[0])), ("/v1/responses/compact", compacts())]
    {
        body["model"] = "none".into();
        let (status, refused) = servers.post(path, body).await;
        assert_eq!((status, &refused["error"]["code"]), (404, &json!("model_not_found")), "{refused}");
    }
}

#[tokio::test]
async fn summaries_count_against_the_limit_of_tokens() {
    const MOST: i64 = 1_000_000;
    let scene = Scene::start(|server| server.set("RATE_TOKENS_PER_MINUTE", MOST.to_string())).await;
    let [server, _] = scene.servers.both();
    let left = async || {
        let ask = json!({ "model": "it", "input": "hi", "store": false });
        let answer = server.client().post(server.url("/v1/responses")).bearer_auth(API_KEY).json(&ask);
        let answer = answer.send().await.unwrap();
        let left = answer.headers()["x-ratelimit-remaining-tokens"].to_str().unwrap().parse::<i64>().unwrap();
        assert_eq!(answer.status(), 200);
        left
    };
    // So much that what comes back meanwhile is little beside it.
    let summary = || Script { usage: (400_000, 0, 50_000, 0), ..Script::says("They spoke of maps.") };
    scene.small.next([summary(), summary()]);
    let (status, compacted) = server.post("/v1/responses/compact", compacts()).await;
    assert_eq!(status, 200, "{compacted}");
    let after_one = left().await;
    assert!((500_000..700_000).contains(&after_one), "{after_one}");
    let conversation = scene.conversation(9_000).await;
    let (status, answer) = server.post("/v1/responses", asks(&conversation)).await;
    assert_eq!((status, &answer["output"][0]["type"]), (200, &json!("compaction")), "{answer}");
    let after_two = left().await;
    assert!(after_two < after_one - 250_000, "{after_one}, then {after_two}");
}

#[tokio::test]
async fn turns_that_race_on_one_head_pay_for_a_summary_once_each() {
    let scene = Scene::usual().await;
    let said = json!({ "model": "it", "input": "blue map ".repeat(1_000) });
    let (status, first) = scene.servers.post("/v1/responses", said).await;
    assert_eq!(status, 200, "{first}");
    scene.small.always(Script::says("They spoke of maps.").delayed(Duration::from_millis(700)));
    let next = json!({ "model": "it", "input": "What now?", "previous_response_id": first["id"],
                       "context_management": [{ "type": "compaction", "compact_threshold": 1000 }] });
    let answers =
        futures_util::future::join_all((0..4).map(|_| scene.servers.post("/v1/responses", next.clone())));
    for (status, answer) in answers.await {
        assert_eq!((status, &answer["output"][0]["type"]), (200, &json!("compaction")), "{answer}");
    }
    assert_eq!((scene.small.seen().len(), scene.model.seen().len()), (4, 5));
    scene.settled(4).await;
}
