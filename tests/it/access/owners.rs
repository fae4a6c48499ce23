//! What an owner's data comes to when they ask for it, and when they ask for its end.

use http::Method;
use serde_json::{Value, json};

use super::{key_of, talk, two};
use crate::support::providers::{FakeProvider, Script, Wire};
use crate::support::server::Server;
use crate::support::{
    CONSUMER_SECRET, Consumer, FunctionApp, SOON, TestDatabase, TestStorage, eventually, sign_stripe,
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
    let named = "SELECT count(*) FROM api_audit WHERE actor LIKE '%ada%' OR subject LIKE '%ada%'";
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
