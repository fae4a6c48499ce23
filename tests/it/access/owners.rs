//! What an owner's data comes to when they ask for it, and when they ask for its end.

use bytes::Bytes;
use colloquy::events::message::{self, EventMessage};
use http::Method;
use serde_json::{Value, json};

use super::{key_of, talk, two};
use crate::support::providers::{FakeProvider, Script, Wire};
use crate::support::server::{API_KEY, Server};
use crate::support::{
    CONSUMER_SECRET, Consumer, FunctionApp, Gate, SOON, TestDatabase, TestStorage, eventually, sign_stripe,
};

/// What the command said of how many rows there are, after it.
fn after(told: &Value) -> Vec<(String, i64)> {
    let of = |held: &Value| (held["what"].as_str().unwrap().to_owned(), held["rows"].as_i64().unwrap());
    told["after"].as_array().unwrap().iter().map(of).collect()
}

fn left(told: &Value) -> Vec<(String, i64)> {
    after(told).into_iter().filter(|(_, rows)| *rows > 0).collect()
}

#[tokio::test]
async fn an_owner_is_exported_and_deleted_and_others_keep_what_is_theirs() {
    let (database, server, other) = two().await;
    let (ada, bob) = (key_of(&server, "ada").await, key_of(&server, "bob").await);
    let (hers, turn) = talk(&server, &ada).await;
    let (his, _) = talk(&server, &bob).await;
    for (conversation, key, grantee) in [(&hers, &ada, "bob"), (&his, &bob, "ada")] {
        let grant = json!({ "grantee": grantee, "access": "write" });
        let path = format!("/v1/conversations/{conversation}/grants");
        assert_eq!(server.call(Method::POST, &path, Some(grant), key).await.0, 200);
    }
    // She writes in his conversation; he forks hers.
    let said = json!({ "model": "demo", "input": "Hello from Ada.", "conversation": his });
    assert_eq!(server.call(Method::POST, "/v1/responses", Some(said), &ada).await.0, 200);
    let fork = format!("/v1/conversations/{hers}/fork");
    let (status, fork) = server.call(Method::POST, &fork, Some(json!({})), &bob).await;
    assert_eq!(status, 200, "{fork}");
    let spent = "SELECT sum(cost_micros)::int8 FROM usage";
    eventually("everything paid", SOON, async || {
        database.count("SELECT count(*) FROM usage WHERE state = 'settled'").await == 3
    })
    .await;
    let cost = database.count(spent).await;

    let directory = std::env::temp_dir().join(crate::support::unique("export"));
    let to = directory.to_str().unwrap();
    let told = server.json(&["owners", "export", "ada", "--to", to, "--json"]);
    let lines = |name: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(directory.join(format!("{name}.jsonl"))).expect("a file");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    assert_eq!(told["lines"].as_array().unwrap().len(), 9);
    assert_eq!(lines("conversations")[0]["id"], hers.as_str());
    assert_eq!(lines("turns")[0]["id"], turn.as_str());
    let items = lines("items");
    assert_eq!(items.len(), 2);
    assert!(items[0]["item"].to_string().contains("My name is Ada."), "{items:?}");
    assert_eq!((lines("usage").len(), lines("keys").len(), lines("grants").len()), (2, 1, 2));
    let everything = std::fs::read_to_string(directory.join("keys.jsonl")).unwrap();
    assert!(!everything.contains("sha256") && !everything.contains(&ada), "no secret leaves");
    assert!(
        !server.command(&["owners", "export", "ada", "--to", to]).status.success(),
        "not over another export"
    );
    std::fs::remove_dir_all(&directory).expect("removed");

    // Not while something runs; then it is stopped first.
    let many = "Say ".to_owned() + &"many words ".repeat(60);
    let asked = json!({ "model": "demo", "input": many, "background": true });
    let (status, running) = server.call(Method::POST, "/v1/responses", Some(asked), &ada).await;
    assert_eq!(status, 200, "{running}");
    let refused = server.command(&["owners", "delete", "ada", "--yes"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("1 turns are in progress"), "{said}");
    let dry = server.json(&["owners", "delete", "ada", "--dry-run", "--json"]);
    assert_eq!(dry["live"]["turns"], 1);
    let told =
        server.json(&["owners", "delete", "ada", "--yes", "--cancel", "--reason", "asked for", "--json"]);
    assert_eq!(left(&told), []);

    for table in ["conversations", "threads", "responses", "api_keys", "usage", "usage_days", "budgets"] {
        let column = if table == "budgets" { "subject" } else { "owner" };
        let rows = format!("SELECT count(*) FROM {table} WHERE {column} = 'ada'");
        assert_eq!(database.count(&rows).await, 0, "{table}");
    }
    let items = "SELECT count(*) FROM items i LEFT JOIN threads t ON t.id = i.thread_id
                 WHERE t.owner IS DISTINCT FROM 'bob'";
    assert_eq!(database.count(items).await, 0);
    assert!(database.count(spent).await >= cost, "what was spent stays");
    let (status, items) =
        other.call(Method::GET, &format!("/v1/conversations/{his}/items"), None, &bob).await;
    assert_eq!((status, items["data"].as_array().map(Vec::len)), (200, Some(4)), "{items}");
    let forked = format!("/v1/conversations/{}/items", fork["id"].as_str().unwrap());
    let (status, items) = other.call(Method::GET, &forked, None, &bob).await;
    assert_eq!((status, &items["data"]), (200, &json!([])), "what he inherited was hers");
    let said = json!({ "model": "demo", "input": "Still here?", "conversation": fork["id"] });
    let (status, turn) = other.call(Method::POST, "/v1/responses", Some(said), &bob).await;
    assert_eq!(status, 200, "{turn}");

    // Once more, as after a cut: nothing to do, and no trace of her but by a hash.
    let again = server.json(&["owners", "delete", "ada", "--yes", "--json"]);
    assert_eq!(left(&again), []);
    // As a word: an id may have these letters by chance.
    let named = r"SELECT count(*) FROM api_audit WHERE actor ~ '\yada\y' OR subject ~ '\yada\y'";
    assert_eq!(database.count(named).await, 0);
    let done = "SELECT count(*) FROM api_audit WHERE action = 'owner.delete' AND subject LIKE 'owner:%'";
    assert_eq!(database.count(done).await, 2);
}

#[tokio::test]
async fn a_source_as_owner_is_deleted_with_its_events_their_bodies_and_what_waits() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let (consumer, provider) = (Consumer::start().await, FakeProvider::start(Wire::Chat));
    provider.always(Script::says("Thank you."));
    let config = format!(
        "[sources.crm]\nkind = \"stripe\"\n[targets.crm]\nurl = \"${{CONSUMER_URL}}\"\n{}\n[models.small]\n\
         deployments = [\"small\"]\n[[routes]]\nname = \"answer\"\nsource = \"crm\"\naction = \"respond\"\n\
         model = \"small\"\ninstructions = \"Answer.\"\ninput = \"{{{{ event.payload.text }}}}\"\ncallback = \"crm\"\n",
        provider.deployment("small", "")
    );
    let app = FunctionApp::of(&database, &storage).config(&config).hurried().consumer(&consumer);
    let app = app.set("RETRY_CAP", "5m").set("RETRY_BASE", "5m").start().await;
    let server = Server::of(&database, &storage).hurried().config(config.clone());
    let server =
        server.set("CONSUMER_URL", consumer.url()).set("CALLBACK_SECRET_CRM", CONSUMER_SECRET).start().await;
    let post = async |id: &str, text: &str| {
        let body = json!({ "id": id, "type": "feedback", "text": text }).to_string();
        let now = jiff::Timestamp::now().as_second();
        let signature = sign_stripe(app.setting("WEBHOOK_SECRET_CRM"), now, body.as_bytes());
        let answer = app.deliver("crm", &[("stripe-signature", &signature)], body).await;
        assert_eq!(answer.status(), 200);
    };
    post("r1", "Small.").await;
    // Too large for a message: it lies in a blob.
    post("r2", &"Large. ".repeat(20_000)).await;
    eventually("both told", SOON, async || consumer.accepted().len() == 2).await;
    provider.always(Script::fails(503, "out"));
    post("r3", "Waits.").await;
    let waits = "SELECT count(*) FROM jobs WHERE state = 'pending' AND outages > 0";
    eventually("one that waits for its provider", SOON, async || database.count(waits).await == 1).await;
    let container = storage.account().container(&storage.container);
    let blobs = async || container.list("deliveries/").await.expect("blobs").len();
    assert_eq!(blobs().await, 1);

    let to = std::env::temp_dir().join(crate::support::unique("export"));
    server.json(&["owners", "export", "source:crm", "--to", to.to_str().unwrap(), "--json"]);
    let events = std::fs::read_to_string(to.join("events.jsonl")).expect("a file");
    assert_eq!(events.lines().count(), 3);
    assert_eq!(std::fs::read_dir(to.join("blobs")).expect("bodies").count(), 1);
    std::fs::remove_dir_all(&to).expect("removed");

    let told = server.json(&["owners", "delete", "source:crm", "--yes", "--json"]);
    let budgets = |left: &(String, i64)| left.0 != "budgets";
    assert_eq!(left(&told).into_iter().filter(budgets).collect::<Vec<_>>(), []);
    for table in
        ["events", "deliveries", "jobs", "callbacks", "callback_attempts", "responses", "items", "threads"]
    {
        assert_eq!(database.count(&format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
    assert_eq!(blobs().await, 0);
    let spent = "SELECT count(*) FROM usage WHERE owner = '(erased)' AND api_key IS NULL AND raw IS NULL";
    assert_eq!(database.count(spent).await, database.count("SELECT count(*) FROM usage").await);
}

#[tokio::test]
async fn an_owner_is_shown_read_out_and_deleted_by_request_too() {
    let (database, server, other) = two().await;
    let ada = key_of(&server, "ada|x/1").await;
    let (hers, turn) = talk(&server, &ada).await;
    let path = "/admin/owners/ada%7Cx%2F1";
    let (status, _) = server.call(Method::GET, path, None, &ada).await;
    assert_eq!(status, 403);
    let (status, shown) = server.read(path).await;
    assert_eq!((status, &shown["owner"]), (200, &json!("ada|x/1")), "{shown}");
    assert_eq!(shown["live"], json!({ "turns": 0, "work": 0 }));

    let read = async |query: &str| server.read(&format!("{path}/export?{query}")).await;
    let (status, items) = read("file=items&limit=1").await;
    assert_eq!((status, &items["has_more"]), (200, &json!(true)), "{items}");
    assert!(items["data"][0]["item"].to_string().contains("My name is Ada."), "{items}");
    let (_, rest) = read(&format!("file=items&after={}", items["last_id"].as_str().unwrap())).await;
    assert_eq!((&rest["data"][0]["turn"], &rest["has_more"]), (&json!(turn), &json!(false)), "{rest}");
    assert_eq!(read("file=conversations").await.1["data"][0]["id"], hers.as_str());
    for (query, code) in [("", "missing_required_parameter"), ("file=secrets", "invalid_value")] {
        let (status, refused) = read(query).await;
        assert_eq!((status, &refused["error"]["code"]), (400, &json!(code)), "{refused}");
    }

    let asked = json!({ "model": "demo", "input": "/slow 1 Tell me a story.", "background": true });
    assert_eq!(server.call(Method::POST, "/v1/responses", Some(asked), &ada).await.0, 200);
    let delete = async |body: Value| server.call(Method::DELETE, path, Some(body), API_KEY).await;
    let (status, refused) = delete(json!({})).await;
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("owner_busy")), "{refused}");
    let (status, would) = delete(json!({ "dry_run": true })).await;
    assert_eq!(
        (status, &would["dry_run"], &would["live"]["turns"]),
        (200, &json!(true), &json!(1)),
        "{would}"
    );
    let (status, told) = delete(json!({ "cancel": true, "reason": "asked for" })).await;
    assert_eq!((status, left(&told)), (200, Vec::new()), "{told}");
    assert_eq!(told["complete"], true);
    assert_eq!(other.call(Method::GET, "/v1/conversations", None, &ada).await.0, 401, "her key is gone");
    let audited = "SELECT count(*) FROM api_audit WHERE actor = 'tester (test)' AND subject LIKE 'owner:%'
                   AND action IN ('owner.export', 'owner.delete.begin', 'owner.delete')";
    assert_eq!(database.count(audited).await, 4, "two files read out, and the deletion");
    assert_eq!(server.post(path, json!({})).await.0, 405);
}

/// A message that was given up, with its body in a blob.
fn given_up(source: &str, blob: &str) -> String {
    let text = json!({
        "delivery": format!("dlv_{}", uuid::Uuid::now_v7()), "source": source, "request_id": "request-of-a-test-03",
        "received_at": jiff::Timestamp::now(), "verdict": { "scheme": "stripe" }, "headers": [], "body_bytes": 2,
        "body": { "blob": blob },
    });
    let message: EventMessage = serde_json::from_value(text).expect("a message");
    message::encode(&message).expect("its text")
}

/// Usage that the database did not take.
fn spooled(owner: &str) -> String {
    let settlement = json!({
        "attempt": { "id": uuid::Uuid::now_v7(), "response": null, "owner": owner, "key": "k", "model": "m",
                     "deployment": "d", "provider": "p", "reserved": 5, "holder": null,
                     "day": jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).date(),
                     "started_at": jiff::Timestamp::now() },
        "reason": "completed", "usage": { "input": 1, "cached": 0, "cache_written": 0, "output": 1, "reasoning": 0 },
        "cost": 7, "estimated": false, "raw": null,
    });
    format!("v1 {}", json!([settlement]))
}

mod faults {
    use super::*;

    #[tokio::test]
    async fn a_deletion_that_is_cut_again_and_again_comes_to_nothing_left_in_rows_and_blobs() {
        let (database, storage) = (TestDatabase::create().await, TestStorage::create());
        let consumer = Consumer::start().await;
        let mut app = FunctionApp::of(&database, &storage).hurried().consumer(&consumer).start().await;
        let server =
            Server::of(&database, &storage).hurried().set("LLM_DEMO_TOKENS_PER_SECOND", "0").start().await;
        let owner = "source:stripe";
        let key = key_of(&server, owner).await;
        let _talked = talk(&server, &key).await;
        assert_eq!(app.deliver_stripe(r#"{"id":"evt_1","type":"a"}"#).await.status(), 200);
        let large = json!({ "id": "evt_2", "type": "a", "text": "Large. ".repeat(20_000) }).to_string();
        assert_eq!(app.deliver_stripe(&large).await.status(), 200);
        let container = storage.account().container(&storage.container);
        let lost = "deliveries/given-up.json";
        container.put(lost, Bytes::from_static(b"{}"), "application/json").await.expect("a blob");
        storage.put(&format!("{}-poison", storage.events), &given_up("stripe", lost)).await;
        let all_in = "SELECT (SELECT count(*) FROM events WHERE state = 'processed') + (SELECT count(*) FROM dead_letters)
                           - (SELECT count(*) FROM jobs WHERE state = 'pending')";
        eventually("everything taken in", SOON, async || database.count(all_in).await == 3).await;
        eventually("no work under way", SOON, async || storage.is_empty().await).await;
        app.stop().await;
        storage.put(&storage.usage, &spooled(owner)).await;
        let blobs = async || container.list("deliveries/").await.expect("blobs").len();
        assert_eq!(blobs().await, 2);

        // What each cut is to leave behind, so that it was one in the middle.
        let rows = async |table: &str| database.count(&format!("SELECT count(*) FROM {table}")).await;
        for (table, letters, turns, items) in
            [("deliveries", 1, 1, 2), ("dead_letters", 1, 1, 2), ("responses", 0, 1, 2), ("items", 0, 0, 2)]
        {
            let gate = Gate::shut(&database, table, "DELETE", "true").await;
            gate.cut(server.begin(&["owners", "delete", owner, "--yes"])).await;
            let left = (rows("dead_letters").await, rows("responses").await, rows("items").await);
            assert_eq!(left, (letters, turns, items), "cut at {table}");
        }
        let told = server.json(&["owners", "delete", owner, "--yes", "--json"]);
        assert_eq!(left(&told), []);
        assert_eq!(blobs().await, 0, "bodies of deliveries and of what was given up");
        assert_eq!(rows("events").await + rows("deliveries").await + rows("threads").await, 0);
        assert_eq!(database.count("SELECT count(*) FROM usage WHERE owner <> '(erased)'").await, 0);
        assert_eq!(
            database.count("SELECT count(*) FROM usage WHERE cost_micros = 7").await,
            1,
            "what waited is home"
        );
        let begun = "SELECT count(*) FROM api_audit WHERE action = 'owner.delete.begin'";
        assert_eq!(database.count(begun).await, 5, "every try is audited");
    }
}
