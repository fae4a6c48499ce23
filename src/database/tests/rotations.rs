use std::time::Duration;

use super::support::TestDatabase;
use crate::database::audit::Actor;
use crate::database::rotations::{self, Announced};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn secret(source: Option<&'static str>) -> Announced<'static> {
    Announced {
        vault: "kv",
        secret: "colloquy-crm-webhook",
        version: "v1",
        expires_at: None,
        source,
        label: source.map(|_| "default"),
        expired: false,
    }
}

/// A delivery some hours ago, proved by a secret.
async fn delivered(session: &tokio_postgres::Client, hours: i32, label: &str) {
    const SQL: &str = "
        INSERT INTO deliveries (id, source, request_id, received_at, verdict, secret_label, headers, body_bytes, event_count)
        SELECT (left(uuid_floor(at)::text, 24) || right(md5(random()::text), 12))::uuid, 'crm', 'r', at, 'espocrm', $2,
               '[]', 0, 1
        FROM (SELECT now() - make_interval(hours => $1) AS at) AS past";
    session.execute(SQL, &[&hours, &label]).await.expect("a delivery");
}

async fn opened(session: &tokio_postgres::Client, hours: i32) {
    let sql = "UPDATE rotations SET opened_at = now() - make_interval(hours => $1)";
    session.execute(sql, &[&hours]).await.expect("aged");
}

#[tokio::test]
async fn a_rotation_ends_when_the_new_secret_is_seen_alone_for_a_day() {
    let (test, database) = TestDatabase::migrated().await;
    let (client, session) = (database.client().await.expect("a client"), test.session().await);
    assert!(rotations::announce(&client, &secret(Some("crm"))).await.expect("announced"));
    assert!(!rotations::announce(&client, &secret(Some("crm"))).await.expect("announced"), "told again");
    opened(&session, 72).await;
    let close = async || rotations::close_done(&client, DAY, 10).await.expect("looked").len();
    delivered(&session, 60, "default").await;
    assert_eq!(close().await, 0, "nobody uses another");
    delivered(&session, 50, "v2").await;
    delivered(&session, 30, "default").await;
    assert_eq!(close().await, 0, "the old one came after the new one");
    delivered(&session, 20, "v2").await;
    assert_eq!(close().await, 0, "the new one is alone for less than a day");
    let labels = rotations::labels(
        &client,
        Some("crm"),
        rotations::list(&client, false, 1).await.expect("rows")[0].opened_at,
    );
    let labels = labels.await.expect("labels");
    let seen: Vec<_> = labels.iter().map(|used| (&*used.label, used.deliveries)).collect();
    assert_eq!(seen, [("v2", 2), ("default", 2)]);
    delivered(&session, 26, "v2").await;
    assert_eq!(rotations::open(&client).await.expect("counts"), (1, 0));
    assert_eq!(close().await, 1);
    assert_eq!(close().await, 0);
    let closed = rotations::list(&client, true, 10).await.expect("rows").remove(0);
    assert_eq!((&*closed.state, closed.outcome.as_deref()), ("closed", Some("new-secret-alone")));
    // What the vault tells of it later opens nothing.
    let expired = Announced { expired: true, ..secret(Some("crm")) };
    assert!(!rotations::announce(&client, &expired).await.expect("announced"));
    assert_eq!(rotations::open(&client).await.expect("counts"), (0, 0));
}

#[tokio::test]
async fn a_secret_that_no_delivery_shows_ends_a_day_after_its_new_version_or_by_hand() {
    let (test, database) = TestDatabase::migrated().await;
    let (client, session) = (database.client().await.expect("a client"), test.session().await);
    let expired = Announced { expired: true, ..secret(None) };
    assert!(rotations::announce(&client, &expired).await.expect("announced"));
    assert_eq!(rotations::open(&client).await.expect("counts"), (0, 1));
    assert_eq!(
        rotations::renewed(&client, "kv", "colloquy-crm-webhook", "v1").await.expect("noted"),
        0,
        "its own"
    );
    assert_eq!(rotations::renewed(&client, "kv", "colloquy-crm-webhook", "v2").await.expect("noted"), 1);
    assert!(rotations::close_done(&client, DAY, 10).await.expect("looked").is_empty());
    session
        .execute("UPDATE rotations SET renewed_at = now() - interval '25 hours'", &[])
        .await
        .expect("aged");
    let closed = rotations::close_done(&client, DAY, 10).await.expect("closed");
    assert_eq!(closed[0].outcome.as_deref(), Some("new-version"));

    let other = Announced { version: "v2", ..secret(None) };
    assert!(rotations::announce(&client, &other).await.expect("announced"));
    let id = rotations::list(&client, false, 1).await.expect("rows")[0].id;
    let actor = Actor { name: "ops", reason: Some("replaced") };
    assert!(rotations::close(&client, id, actor).await.expect("closed"));
    assert!(!rotations::close(&client, id, actor).await.expect("looked"), "once");
    let audited = "SELECT count(*) FROM api_audit WHERE action = 'rotation.close'";
    assert_eq!(session.query_one(audited, &[]).await.expect("a count").get::<_, i64>(0), 1);
}
