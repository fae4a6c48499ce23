use serde_json::{Value, json};

use super::support::{Incoming, TestDatabase, count, value};
use super::talk::{OWNER, turn};
use crate::access::owners::Erasure;
use crate::database::audit::{self, Entry};
use crate::database::owners::{self, OwnerData, Step};
use crate::database::threads::Anchor;
use crate::database::{Client, events};
use crate::events::routes::{Plan, PlannedJob};
use crate::events::state::EventState;
use crate::ids::{EventId, JobId};

fn owner(name: &str) -> OwnerData {
    OwnerData { owner: name.to_owned(), source: None, routes: Vec::new() }
}

fn entry(actor: &str, action: &'static str, subject: &str, detail: Value) -> Entry {
    Entry { actor: actor.to_owned(), action, subject: subject.to_owned(), detail: Some(detail) }
}

#[tokio::test]
async fn the_audit_trail_loses_the_owner_and_keeps_others_of_the_same_name() {
    let (test, database) = TestDatabase::migrated().await;
    let (client, session) = (database.client().await.expect("a client"), test.session().await);
    let others = [
        entry("command:ops", "source.hold", "crm", json!({ "reason": "crm" })),
        entry("command:ops", "feature.on", "a/crm", json!({ "crm": "crm", "names": ["crm"] })),
        entry("command:ops", "key.create", "key_1", json!({ "name": "crm", "owner": "sales" })),
        entry("crm2 (key_2)", "owner.export", "crm2", json!({ "owner": "crm2" })),
        entry("command:ops", "model.start", "m", json!(["crm"])),
    ];
    let theirs = [
        entry("crm (key_3)", "conversation.delete", "conv_1", json!(["crm"])),
        entry("command:ops", "key.create", "key_4", json!({ "name": "crm", "owner": "crm" })),
        entry("command:ops", "grant.give", "conv_1", json!({ "grantee": "crm", "access": "read" })),
        entry("command:ops", "grant.revoke", "conv_1/crm", json!({ "reason": null })),
        entry("command:ops", "owner.export", "crm", json!({ "owner": "crm", "grantee": "crm" })),
    ];
    audit::write(&client, &others).await.expect("written");
    audit::write(&client, &theirs).await.expect("written");
    let named = async || {
        let held = owners::counts(&client, &owner("crm")).await.expect("counts");
        held.into_iter().find(|held| held.what == "audit rows").expect("a count").rows
    };
    assert_eq!(named().await, 5);
    for taken in [2, 2, 1, 0] {
        assert_eq!(Step::Audit.take(&client, &owner("crm"), 2).await.expect("taken"), taken);
    }
    assert_eq!(named().await, 0);
    let rows = "SELECT actor, action, subject, detail::text FROM api_audit ORDER BY id";
    let rows = session.query(rows, &[]).await.expect("rows");
    let row = |row: &tokio_postgres::Row| -> (String, String, String, Value) {
        let detail: String = row.get(3);
        (row.get(0), row.get(1), row.get(2), serde_json::from_str(&detail).expect("JSON"))
    };
    let rows: Vec<_> = rows.iter().map(row).collect();
    let stay = others
        .map(|entry| (entry.actor, entry.action.to_owned(), entry.subject, entry.detail.expect("a detail")));
    assert_eq!(rows[..5], stay);
    let changed = [
        ("(erased)", "conversation.delete", "conv_1", json!(["crm"])),
        ("command:ops", "key.create", "key_4", json!({ "name": "crm", "owner": "(erased)" })),
        ("command:ops", "grant.give", "conv_1", json!({ "grantee": "(erased)", "access": "read" })),
        ("command:ops", "grant.revoke", "conv_1/(erased)", json!({ "reason": null })),
        ("command:ops", "owner.export", "(erased)", json!({ "owner": "(erased)", "grantee": "(erased)" })),
    ];
    let changed = changed.map(|(actor, action, subject, detail)| {
        (actor.to_owned(), action.to_owned(), subject.to_owned(), detail)
    });
    assert_eq!(rows[5..], changed);
}

/// A delivery of two events, each with a job of a route.
async fn two_events(client: &Client, routes: [&str; 2]) -> [JobId; 2] {
    let incoming = Incoming::new(routes[0]);
    let (mut delivery, mut second) = (incoming.new_delivery(), incoming.new_event());
    let other = format!("{} two", incoming.key);
    (delivery.event_count, delivery.body) = (2, Some(&b"[]"[..]));
    (second.id, second.position, second.key) = (EventId::of(incoming.delivery, 1), 1, &other);
    let ids = [JobId::new(), JobId::new()];
    let job = |place: usize, event| PlannedJob {
        id: ids[place],
        event,
        route: routes[place].to_owned(),
        kind: "respond".to_owned(),
    };
    let plan = Plan { jobs: vec![job(0, incoming.event()), job(1, second.id)], callbacks: Vec::new() };
    let both = [incoming.new_event(), second];
    events::store(client, &delivery, &both, EventState::Processed, &plan).await.expect("stored");
    ids
}

#[tokio::test]
async fn events_of_routes_that_are_gone_are_the_owners_by_their_turns() {
    let (test, database) = TestDatabase::migrated().await;
    let (client, session) = (database.client().await.expect("a client"), test.session().await);
    let [hers, _] = two_events(&client, ["gone", "of others"]).await;
    let [first, second] = two_events(&client, ["renamed", "renamed"]).await;
    two_events(&client, ["of others", "of others"]).await;
    for job in [hers, first, second] {
        let response = turn(&client, Anchor::New, "question", "reply").await;
        let answered = "UPDATE responses SET job_id = $1, job_turn = 1 WHERE id = $2";
        session.execute(answered, &[&job.0, &response.0]).await.expect("answered");
    }
    let events = async || {
        let held = owners::counts(&client, &owner(OWNER)).await.expect("counts");
        held.into_iter().find(|held| held.what == "events").expect("a count").rows
    };
    assert_eq!(events().await, 3);
    assert_eq!(
        Step::Turns.take(&client, &owner(OWNER), 10).await.expect("asked"),
        0,
        "without its turn nobody would know whose an event is"
    );
    let erasure = Erasure { database: &database, container: None, spooled: None, batch: 10 };
    let erased = erasure.run(&owner(OWNER), false, "ops", None).await.expect("erased");
    assert!(erased.is_complete(), "{erased:?}");
    assert_eq!(events().await, 0);
    let left = ["events", "jobs", "deliveries", "deliveries WHERE body IS NULL", "responses"];
    let mut rows = Vec::new();
    for what in left {
        rows.push(count(&session, what).await);
    }
    assert_eq!(rows, [3, 3, 2, 1, 0], "{left:?}");
    let others = "SELECT bool_and(route = 'of others') FROM jobs";
    assert!(value::<bool>(&session, others).await);
}
