//! The scene the whole app is for: a signed event in, its effect once, a signed callback out.

use serde_json::{Value, json};

use crate::support::{Consumer, FunctionApp, SOON, TestDatabase, TestStorage, eventually, unique};

/// An app with a consumer, and what they stand on.
struct Scene {
    database: TestDatabase,
    storage: TestStorage,
    consumer: Consumer,
    app: FunctionApp,
}

impl Scene {
    async fn open() -> Self {
        let (database, storage) = (TestDatabase::create().await, TestStorage::create());
        let consumer = Consumer::start().await;
        let app = FunctionApp::of(&database, &storage).hurried().consumer(&consumer).start().await;
        Self { database, storage, consumer, app }
    }

    /// Waits until so many events are processed and all their work is done; gives them, youngest first.
    async fn processed(&self, count: usize) -> Vec<Value> {
        let mut events = Vec::new();
        eventually(&format!("{count} processed events with their work done"), SOON, async || {
            events = self.events().await;
            let done = |event: &&Value| {
                event["state"] == "processed" && event["work_done"] == 2 && event["work"] == 2
            };
            events.iter().filter(done).count() == count
        })
        .await;
        events
    }

    async fn events(&self) -> Vec<Value> {
        let list = self.app.json(&["events", "list", "--json"]).await;
        list.as_array().expect("a list of events").clone()
    }
}

fn invoice(id: &str, kind: &str) -> String {
    json!({
        "id": id, "object": "event", "created": 1_763_700_000, "type": kind,
        "data": { "object": { "id": "in_1", "amount_paid": 4200 } },
    })
    .to_string()
}

#[tokio::test]
async fn a_signed_stripe_event_has_its_effect_once_and_reaches_the_consumer_as_a_signed_callback() {
    let scene = Scene::open().await;
    let body = invoice("evt_paid", "invoice.paid");
    let answer = scene.app.deliver_stripe(&body).await;
    assert_eq!(answer.status(), 200);
    let request_id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();

    let events = scene.processed(1).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["source"], "stripe");
    assert_eq!(events[0]["type"], "invoice.paid");
    assert_eq!(events[0]["key"], "evt_paid");
    assert_eq!(events[0]["run"], 1);
    assert_eq!(events[0]["dead"], 0);

    let callbacks = scene.consumer.callbacks();
    assert_eq!(callbacks.len(), 1);
    assert_eq!(callbacks[0].verified, Ok(()));
    let told = callbacks[0].json();
    assert_eq!(told["type"], "invoice.paid");
    assert_eq!(told["source"], "stripe");
    assert_eq!(told["id"], events[0]["id"]);
    assert_eq!(told["data"], serde_json::from_str::<Value>(&body).unwrap());
    assert_eq!(scene.database.count("SELECT sum(events)::int8 FROM event_counts").await, 1);

    let id = events[0]["id"].as_str().unwrap();
    let event = scene.app.json(&["events", "show", id, "--payload", "--json"]).await;
    assert_eq!(event["request_id"], request_id.as_str());
    assert_eq!(event["verdict"], "stripe");
    assert_eq!(event["body_bytes"], body.len());
    assert_eq!(event["payload"], told["data"]);
    let signature = scene.app.stripe_signature(&body);
    let headers = event["headers"].to_string();
    assert!(headers.contains("content-type"), "{headers}");
    assert!(!headers.contains(signature.split_once("v1=").unwrap().1), "a signature is redacted: {headers}");
    let work: Vec<_> = event["work"].as_array().unwrap().iter().map(|work| &work["state"]).collect();
    assert_eq!(work, ["delivered", "succeeded"]);
    eventually("empty queues", SOON, async || scene.storage.is_empty().await).await;
}

#[tokio::test]
async fn a_replay_is_a_new_run_under_the_same_webhook_id_unless_new_ones_are_asked_for() {
    let scene = Scene::open().await;
    assert_eq!(scene.app.deliver_stripe(&invoice("evt_again", "invoice.paid")).await.status(), 200);
    let id = scene.processed(1).await[0]["id"].as_str().unwrap().to_owned();

    let replay = scene.app.json(&["events", "replay", "--yes", &id, "--reason", "a test", "--json"]).await;
    assert_eq!(replay["run"], 2);
    eventually("the second callback", SOON, async || scene.consumer.accepted().len() == 2).await;
    assert_eq!(scene.consumer.ids().len(), 1, "sent again under the id the consumer knows");

    scene.app.json(&["events", "replay", "--yes", &id, "--new-ids", "--json"]).await;
    eventually("the third callback", SOON, async || scene.consumer.accepted().len() == 3).await;
    assert_eq!(scene.consumer.ids().len(), 2, "the consumer is to take it for a new one");
    assert!(scene.consumer.callbacks().iter().all(|callback| callback.verified.is_ok()));

    let events = scene.processed(1).await;
    assert_eq!(events[0]["run"], 3);
    assert_eq!(
        scene.database.count("SELECT sum(events)::int8 FROM event_counts").await,
        3,
        "an effect a run"
    );
    let audited = "SELECT count(*) FROM api_audit WHERE action = 'event.replay'";
    assert_eq!(scene.database.count(audited).await, 2);
}

#[tokio::test]
async fn a_delivery_sent_five_times_has_one_effect() {
    let scene = Scene::open().await;
    let output =
        scene.app.command(&["webhooks", "send", "stripe", "--times", "5", "--url", &scene.app.url("")]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    eventually("five deliveries judged", SOON, async || {
        scene.app.log().iter().filter(|line| line.contains("events_stored")).count() == 5
    })
    .await;
    let events = scene.processed(1).await;
    assert_eq!(events.len(), 1);
    assert_eq!(scene.database.count("SELECT sum(events)::int8 FROM event_counts").await, 1);
    assert_eq!(scene.consumer.callbacks().len(), 1);
}

#[tokio::test]
async fn another_event_under_a_taken_id_is_kept_and_flagged_and_has_no_effect() {
    let scene = Scene::open().await;
    let first = invoice("evt_taken", "invoice.paid");
    assert_eq!(scene.app.deliver_stripe(&first).await.status(), 200);
    let holder = scene.processed(1).await[0]["id"].clone();

    let second = invoice("evt_taken", "invoice.voided");
    assert_eq!(scene.app.deliver_stripe(&second).await.status(), 200);
    let mut conflicts = Vec::new();
    eventually("the conflict", SOON, async || {
        conflicts = scene.events().await;
        conflicts.retain(|event| event["state"] == "conflict");
        conflicts.len() == 1
    })
    .await;
    assert_eq!(conflicts[0]["type"], "invoice.voided");
    assert_eq!(conflicts[0]["work"], 0);
    let id = conflicts[0]["id"].as_str().unwrap();
    let shown = scene.app.json(&["events", "show", id, "--payload", "--json"]).await;
    assert_eq!(shown["conflicts_with"], holder);
    assert_eq!(shown["payload"], serde_json::from_str::<Value>(&second).unwrap(), "it is kept");
    let replay = scene.app.command(&["events", "replay", "--yes", id]).await;
    assert!(!replay.status.success(), "there is nothing of it to run");
    assert_eq!(scene.consumer.callbacks().len(), 1);
    assert_eq!(scene.database.count("SELECT sum(events)::int8 FROM event_counts").await, 1);
}

#[tokio::test]
async fn events_tail_prints_what_arrives() {
    let scene = Scene::open().await;
    let mut command = crate::support::mortal(env!("CARGO_BIN_EXE_function-handlers"), "");
    command.args(["events", "tail", "--json"]).env_clear().envs(scene.app.settings());
    command.current_dir(scene.app.root());
    let mut tail = crate::support::Process::start("events tail", command);
    let key = unique("evt");
    // What arrives before the tail has begun is not its business: send until it shows one.
    let mut sent = 0;
    eventually("the tail to show an event", SOON, async || {
        sent += 1;
        let body = invoice(&format!("{key}-{sent}"), "invoice.paid");
        assert_eq!(scene.app.deliver_stripe(&body).await.status(), 200);
        tail.log().iter().any(|line| line.contains(&key))
    })
    .await;
    let shown = tail.log();
    let shown: Value = serde_json::from_str(&shown[0]).expect("a line of JSON");
    assert_eq!(shown["source"], "stripe");
    tail.signal("INT");
    tail.end(SOON).await;
}
