use serde_json::{Value, json};

use super::support::TestDatabase;
use crate::database::audit::{self, Entry};
use crate::database::owners::{self, OwnerData, Step};

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
    let stay = others.map(|entry| {
        (entry.actor, entry.action.to_owned(), entry.subject, entry.detail.expect("a detail"))
    });
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
