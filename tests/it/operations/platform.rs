//! Queues, the schema and the audit trail, by request.

use serde_json::json;

use super::{id, list};
use crate::support::server::{API_KEY, Server};
use crate::support::{SOON, TestDatabase, TestStorage, eventually};

#[tokio::test]
async fn what_was_changed_is_listed_and_found_again() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let server = Server::of(&database, &storage).start().await;
    let mut keys = Vec::new();
    for name in ["one", "two"] {
        let wanted = json!({ "name": name, "owner": "sales", "reason": "a test" });
        let (status, key) = server.post("/admin/keys", wanted).await;
        assert_eq!(status, 200, "{key}");
        keys.push(id(&key).to_owned());
    }
    let all = list(&server, "/admin/audit?action=key").await;
    let subjects: Vec<&str> = all.iter().map(|row| row["subject"].as_str().unwrap()).collect();
    assert_eq!(subjects, [keys[1].as_str(), keys[0].as_str()], "newest first");
    assert_eq!((&all[0]["action"], &all[0]["actor"]), (&json!("key.create"), &json!("tester (test)")));
    assert_eq!(all[0]["detail"]["reason"], "a test");

    let (_, first) = server.read("/admin/audit?limit=1&action=key.create").await;
    assert_eq!((&first["has_more"], &first["last_id"]), (&json!(true), &all[0]["id"]));
    let rest = list(&server, &format!("/admin/audit?action=key&after={}", id(&all[0]))).await;
    assert_eq!(rest, all[1..]);
    for (filter, found) in [
        ("actor=tester%20(test)", 2),
        ("actor=nobody", 0),
        ("action=ke", 0),
        (format!("subject={}", keys[0]).as_str(), 1),
        ("since=2020-01-01T00:00:00Z", 2),
        ("since=2999-01-01T00:00:00Z", 0),
    ] {
        assert_eq!(list(&server, &format!("/admin/audit?{filter}")).await.len(), found, "{filter}");
    }
    for wrong in ["audit?since=now", "audit?what=key", "audit?after=x", "queues?of=jobs", "migrations?of=x"] {
        assert_eq!(server.read(&format!("/admin/{wrong}")).await.0, 400, "{wrong}");
    }
}

#[tokio::test]
async fn queues_tell_how_much_waits_and_the_schema_where_it_stands() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let server = Server::of(&database, &storage).start().await;
    storage.put(&storage.jobs, "v1 a message that nobody takes").await;
    eventually("the message to be counted", SOON, async || {
        let (status, found) = server.read("/admin/queues").await;
        assert_eq!(status, 200, "{found}");
        let queues = found["queues"].as_array().expect("queues");
        let jobs = queues.iter().find(|queue| queue["queue"] == json!(storage.jobs)).expect("the queue");
        let idle = queues.iter().filter(|queue| queue["oldest_seconds"].is_null()).count();
        jobs["messages"] == 1 && jobs["oldest_seconds"].as_f64() >= Some(0.0) && idle == 5
    })
    .await;
    let (_, found) = server.read("/admin/queues").await;
    assert_eq!(found["work"][1]["kind"], "callback");
    assert_eq!(found["work"][0]["due"], 0);

    let (status, standing) = server.read("/admin/migrations").await;
    assert_eq!(status, 200, "{standing}");
    assert_eq!(standing["current"], standing["latest"]);
    let applied = standing["applied"].as_array().expect("applied");
    assert_eq!(applied[0]["version"], standing["latest"], "newest first");
    assert!(applied.iter().all(|one| one["applied_at"].is_string()), "{standing}");
    database
        .client()
        .await
        .execute("UPDATE refinery_schema_history SET checksum = '1' WHERE version = 1", &[])
        .await
        .expect("changed");
    let (_, edited) = server.read("/admin/migrations").await;
    assert!(edited["problem"].as_str().is_some_and(|problem| problem.contains("V0001")), "{edited}");
}

#[tokio::test]
async fn without_storage_only_rows_are_known() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let server = Server::of(&database, &storage).set("AzureWebJobsStorage", "").start().await;
    let (status, found) = server.read("/admin/queues").await;
    assert_eq!((status, &found["queues"]), (200, &json!(null)), "{found}");
    assert_eq!(found["work"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn metrics_and_status_name_the_same_process() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let server = Server::of(&database, &storage).start().await;
    let (_, status) = server.read("/health/status").await;
    let asked = server.client().get(server.url("/health/metrics")).bearer_auth(API_KEY);
    let text = asked.send().await.expect("an answer").text().await.expect("a text");
    assert_eq!(text.lines().next(), Some(&*format!("# instance {}", status["instance"].as_str().unwrap())));
}
