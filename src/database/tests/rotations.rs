use std::time::Duration;

use super::support::{TestDatabase, count, value};
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
async fn a_label_long_in_use_does_not_end_the_rotation_of_another() {
    let (test, database) = TestDatabase::migrated().await;
    let (client, session) = (database.client().await.expect("a client"), test.session().await);
    let months = "SELECT ensure_month_partition('deliveries', now() - make_interval(days => days))
                  FROM generate_series(0, 60, 20) AS days";
    session.query(months, &[]).await.expect("partitions");
    assert!(rotations::announce(&client, &secret(Some("crm"))).await.expect("announced"));
    opened(&session, 72).await;
    let close = async || rotations::close_done(&client, DAY, 10).await.expect("looked").len();
    // Two webhooks of one source, each with its secret; the other goes on while this one is silent.
    delivered(&session, 100, "other").await;
    delivered(&session, 60, "default").await;
    delivered(&session, 50, "other").await;
    assert_eq!(close().await, 0, "the other one is not new");
    let audited = "api_audit WHERE action = 'rotation.close'";
    assert_eq!(count(&session, audited).await, 0);
    // Taken up again after more than 30 days, a label is as good as new.
    delivered(&session, 72 + 31 * 24, "spare").await;
    delivered(&session, 30, "spare").await;
    assert_eq!(close().await, 1);
    let row = "SELECT actor || ' ' || (detail->>'outcome') || ' ' || (subject = 'rot_' || r.id)
               FROM api_audit, rotations r WHERE action = 'rotation.close'";
    assert_eq!(value::<String>(&session, row).await, "maintain new-secret-alone true");
    assert_eq!(close().await, 0);
    assert_eq!(count(&session, audited).await, 1);
}

#[tokio::test]
async fn a_secret_that_is_used_after_its_rotation_was_closed_opens_it_again_when_it_expires() {
    let (test, database) = TestDatabase::migrated().await;
    let (client, session) = (database.client().await.expect("a client"), test.session().await);
    let (near, expired) = (secret(Some("crm")), Announced { expired: true, ..secret(Some("crm")) });
    assert!(rotations::announce(&client, &near).await.expect("announced"));
    delivered(&session, 0, "default").await;
    let id = rotations::list(&client, false, 1).await.expect("rows")[0].id;
    assert!(rotations::close(&client, id, Actor { name: "ops", reason: None }).await.expect("closed"));
    assert!(!rotations::announce(&client, &expired).await.expect("announced"), "not used since");
    delivered(&session, 0, "other").await;
    assert!(!rotations::announce(&client, &expired).await.expect("announced"), "that is another");
    delivered(&session, 0, "default").await;
    assert!(!rotations::announce(&client, &near).await.expect("announced"), "it has not expired");
    assert!(rotations::announce(&client, &expired).await.expect("announced"), "used, and expired");
    assert!(!rotations::announce(&client, &expired).await.expect("announced"), "open already");
    let open = rotations::list(&client, false, 10).await.expect("rows").remove(0);
    assert_eq!((open.id, open.closed_at, open.outcome), (id, None, None));
    assert_eq!(rotations::open(&client).await.expect("counts"), (0, 1));
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
    let audited = "SELECT string_agg(actor, ' ' ORDER BY id) FROM api_audit WHERE action = 'rotation.close'";
    assert_eq!(value::<String>(&session, audited).await, "maintain ops");
}
