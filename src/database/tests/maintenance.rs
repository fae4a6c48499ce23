use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::support::{Incoming, TestDatabase, count};
use crate::database::maintenance::{self, DeadMessage};
use crate::database::work::{self, Claim, ClaimLimits, Lease, Ticket};
use crate::database::{Client, Statements};
use crate::database::{callbacks, events};
use crate::events::routes::Plan;
use crate::events::state::EventState;
use crate::ids::DeliveryId;
use crate::jobs::state::{Failure, WorkKind};

const DAY: i64 = 24 * 3_600;

fn ago(days: i64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_secs(days * DAY)
}

async fn old(client: &mut Client, key: &str, days: i64) -> Incoming {
    let incoming = Incoming::at(key, -days * DAY);
    maintenance::ensure_partitions(client, incoming.received_at).await.expect("partitions");
    incoming
}

async fn claim(client: &impl Statements, kind: WorkKind, id: Uuid) -> Lease {
    let limits = ClaimLimits { lease: std::time::Duration::from_secs(60), max_attempts: 3, max_age: None };
    let ticket = Ticket { claim: Uuid::now_v7(), abandoned: &[], ..Ticket::default() };
    match work::claim(client, kind, id, &limits, ticket).await.expect("an answer") {
        Claim::Claimed(work) => Lease { kind, id, epoch: work.epoch },
        other => panic!("not claimed: {other:?}"),
    }
}

#[tokio::test]
async fn only_deliveries_that_are_old_and_done_expire() {
    let (test, database) = TestDatabase::migrated().await;
    let mut client = database.client().await.expect("a client");
    let mut made = Vec::new();
    for key in
        ["done", "held", "pending job", "leased job", "pending callback", "open letter", "settled letter"]
    {
        let incoming = old(&mut client, key, 100).await;
        match key {
            "held" => {
                incoming.store_as(&client, EventState::Held, &Plan::default()).await.expect("held");
            }
            _ => {
                let stored = incoming.store(&client).await;
                let (job, callback) = (stored.jobs[0].0, stored.callbacks[0].0);
                let failure = Failure::new("x", "y");
                if key != "pending callback" {
                    let lease = claim(&client, WorkKind::Callback, callback).await;
                    assert!(work::finish(&client, lease).await.expect("finished"));
                }
                match key {
                    "pending job" => {}
                    "leased job" => {
                        claim(&client, WorkKind::Job, job).await;
                    }
                    "open letter" | "settled letter" => {
                        let lease = claim(&client, WorkKind::Job, job).await;
                        assert!(work::give_up(&client, lease, &failure).await.expect("given up"));
                    }
                    _ => {
                        let lease = claim(&client, WorkKind::Job, job).await;
                        assert!(work::finish(&client, lease).await.expect("finished"));
                    }
                }
            }
        }
        made.push((key, incoming));
    }
    let session = test.session().await;
    let settle = "UPDATE dead_letters SET state = 'discarded' FROM events \
                  WHERE events.id = event_id AND key = 'settled letter'";
    session.batch_execute(settle).await.expect("settled");
    let young = Incoming::new("young");
    young.store(&client).await;

    let expired = maintenance::expired_deliveries(&client, "shop", ago(90), 100).await.expect("a list");
    let keys: Vec<&str> = expired
        .iter()
        .map(|gone| {
            made.iter().find(|(_, incoming)| incoming.delivery == gone.id).map_or("?", |(key, _)| key)
        })
        .collect();
    assert_eq!(keys, ["done", "settled letter"]);
    assert_eq!(maintenance::expired_deliveries(&client, "shop", ago(90), 1).await.expect("a list").len(), 1);
    assert!(maintenance::expired_deliveries(&client, "other", ago(90), 9).await.expect("a list").is_empty());
    assert!(maintenance::expired_deliveries(&client, "shop", ago(110), 9).await.expect("a list").is_empty());

    let ids: Vec<DeliveryId> = expired.iter().map(|gone| gone.id).collect();
    assert_eq!(maintenance::known_deliveries(&client, &ids).await.expect("a list").len(), 2);
    assert_eq!(maintenance::delete_deliveries(&client, &ids).await.expect("deleted"), 2);
    assert_eq!(maintenance::delete_deliveries(&client, &ids).await.expect("deleted"), 0);
    assert!(maintenance::known_deliveries(&client, &ids).await.expect("a list").is_empty());
    let mut counts = Vec::new();
    for table in ["deliveries", "events", "jobs", "callbacks", "dead_letters"] {
        counts.push(count(&session, table).await);
    }
    assert_eq!(counts, [6, 6, 5, 5, 1], "everything of the two is gone, nothing of the others");
}

#[tokio::test]
async fn only_keys_whose_time_is_over_are_deleted() {
    let (test, database) = TestDatabase::migrated().await;
    let mut client = database.client().await.expect("a client");
    for key in ["a", "b", "c"] {
        old(&mut client, key, 3).await.store(&client).await;
    }
    Incoming::new("young").store(&client).await;
    let delete = async |client: &Client, days, limit| {
        maintenance::delete_expired_keys(client, ago(days), limit).await.expect("deleted")
    };
    assert_eq!(delete(&client, 4, 10).await, 0);
    assert_eq!(delete(&client, 1, 2).await, 2, "no more than asked for");
    assert_eq!(delete(&client, 1, 2).await, 1);
    assert_eq!(count(&test.session().await, "event_keys").await, 1);
    assert_eq!(events::holders(&client, "shop", &["young"]).await.expect("holders").len(), 1);
}

#[tokio::test]
async fn a_message_is_buried_once_and_goes_only_when_settled_and_old() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let message = DeadMessage {
        subject: Uuid::now_v7(),
        queue: "events",
        source: None,
        reason_code: "undecodable",
        reason: "not JSON",
        text: "nul \0 inside",
        attempts: 100,
    };
    assert!(maintenance::bury_message(&client, &message).await.expect("buried"));
    assert!(!maintenance::bury_message(&client, &message).await.expect("known"));
    assert_eq!(maintenance::open_message_letters(&client).await.expect("a number"), 1);

    let later = Timestamp::now() + SignedDuration::from_hours(1);
    let delete = async || maintenance::delete_settled_messages(&client, later, 10).await.expect("deleted");
    assert_eq!(delete().await, 0, "open");
    let session = test.session().await;
    let settle = "UPDATE dead_letters SET state = 'discarded', resolved_at = now()";
    session.batch_execute(settle).await.expect("settled");
    let before = maintenance::delete_settled_messages(&client, ago(1), 10).await.expect("deleted");
    assert_eq!(before, 0, "settled just now");
    assert_eq!(delete().await, 1);

    Incoming::new("k").store(&client).await;
    session
        .batch_execute(
            "INSERT INTO dead_letters (id, kind, subject_id, reason_code, reason, state, resolved_at) \
         SELECT gen_random_uuid(), 'job', id, 'x', 'y', 'discarded', now() - interval '1 year' FROM jobs",
        )
        .await
        .expect("a letter of a job");
    assert_eq!(delete().await, 0, "letters of work go with their event");
}

#[tokio::test]
async fn the_month_after_january_is_february() {
    let (test, database) = TestDatabase::migrated().await;
    let mut client = database.client().await.expect("a client");
    let last_day: Timestamp = "2023-01-31T23:59:59Z".parse().expect("a time");
    assert_eq!(maintenance::ensure_partitions(&mut client, last_day).await.expect("partitions"), 8);
    let made = "pg_class WHERE relname IN ('events_2023_01', 'events_2023_02', 'api_audit_2023_02')";
    assert_eq!(count(&test.session().await, made).await, 3);
}

#[tokio::test]
async fn only_old_and_empty_partitions_are_dropped() {
    let (test, database) = TestDatabase::migrated().await;
    let mut client = database.client().await.expect("a client");
    let kept = old(&mut client, "k", 200).await;
    kept.store(&client).await;
    old(&mut client, "empty", 400).await;
    let session = test.session().await;
    let tables = "pg_inherits";
    let before = count(&session, tables).await;
    let dropped = maintenance::drop_empty_partitions(&mut client, ago(1_000)).await.expect("dropped");
    assert_eq!(dropped, 0);
    let dropped = maintenance::drop_empty_partitions(&mut client, ago(60)).await.expect("dropped");
    // 400 days ago: two months of four tables; 200 days ago: the same, less deliveries and events of the first.
    assert_eq!(dropped, 8 + 6);
    assert!(count(&session, tables).await < before);
    assert_eq!((count(&session, "events").await, count(&session, "deliveries").await), (1, 1));
    let again = maintenance::drop_empty_partitions(&mut client, ago(60)).await.expect("dropped");
    assert_eq!(again, 0);

    let expired = maintenance::expired_deliveries(&client, "shop", ago(90), 10).await.expect("a list");
    assert!(expired.is_empty(), "its work is not done");
    assert_eq!(maintenance::delete_deliveries(&client, &[kept.delivery]).await.expect("deleted"), 1);
    let dropped = maintenance::drop_empty_partitions(&mut client, ago(60)).await.expect("dropped");
    assert_eq!(dropped, 2, "now they are empty");
}

#[tokio::test]
async fn a_late_delivery_and_the_dropping_of_its_partition_do_not_lose_it() {
    let (test, database) = TestDatabase::migrated().await;
    let mut client = database.client().await.expect("a client");
    let late = old(&mut client, "late", 200).await;
    let mut writer = database.client().await.expect("a client");
    let writing = writer.transaction().await.expect("a transaction");
    late.store(&writing).await;
    // Dropping sees an empty table, waits for the writer, and then sees that it is not.
    let (dropping, ()) = tokio::join!(maintenance::drop_empty_partitions(&mut client, ago(60)), async {
        let waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() \
                         AND wait_event_type = 'Lock'";
        let session = test.session().await;
        super::support::eventually("the drop waits", async || {
            !session.query(waits, &[]).await.expect("activity").is_empty()
        })
        .await;
        writing.commit().await.expect("stored");
    });
    dropping.expect("dropped what was empty");
    assert_eq!(count(&test.session().await, "events").await, 1);
    assert_eq!(count(&test.session().await, "deliveries").await, 1);
}

#[tokio::test]
async fn the_backlog_is_counted_by_due_time() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    for n in 0..4 {
        Incoming::new(&format!("k{n}")).store(&client).await;
    }
    let session = test.session().await;
    let spread = "WITH numbered AS (SELECT id, row_number() OVER (ORDER BY id) AS n FROM jobs) \
                  UPDATE jobs SET state = CASE n WHEN 1 THEN 'leased' ELSE 'pending' END, \
                  due_at = now() + CASE n WHEN 2 THEN interval '1 hour' ELSE interval '-100 seconds' END \
                  FROM numbered WHERE numbered.id = jobs.id";
    session.batch_execute(spread).await.expect("spread");
    let backlog = maintenance::backlog(&client, WorkKind::Job).await.expect("a backlog");
    assert_eq!((backlog.kind, backlog.due, backlog.scheduled, backlog.leased), ("job", 2, 1, 1));
    assert!((100.0..200.0).contains(&backlog.oldest_due_seconds), "{backlog:?}");
    let of_callbacks = async || maintenance::backlog(&client, WorkKind::Callback).await.expect("a backlog");
    let backlog = of_callbacks().await;
    assert_eq!((backlog.due, backlog.target_disabled), (4, 0));
    // What waits for an operator is late for nobody.
    session.batch_execute("UPDATE callbacks SET due_at = now() - interval '1 day'").await.expect("older");
    let target = session.query_one("SELECT target FROM callbacks LIMIT 1", &[]).await.expect("one");
    callbacks::disable_target(&client, target.get(0), "gone").await.expect("disabled");
    let backlog = of_callbacks().await;
    assert_eq!((backlog.due, backlog.scheduled, backlog.target_disabled), (0, 0, 4));
    assert_eq!(backlog.oldest_due_seconds, 0.0);
    let now = maintenance::ping(&client).await.expect("the clock");
    assert!(now.duration_since(Timestamp::now()).abs() < SignedDuration::from_mins(1));
}
