use tokio::task::JoinSet;
use uuid::Uuid;

use super::support::{Incoming, TestDatabase, count, refuse_audits, value};
use crate::database::audit::Actor;
use crate::database::events::{self, NewEvent};
use crate::database::{Client, Database, maintenance};
use crate::events::routes::Plan;
use crate::events::state::EventState;
use crate::ids::EventId;

const ACTOR: Actor<'static> = Actor { name: "ada", reason: Some("the model was wrong") };
const YEAR: i64 = 365 * 24 * 3_600;

async fn client(database: &Database) -> Client {
    database.client().await.expect("a client")
}

/// Stores all of them at the same time, and gives how many events, jobs and callbacks came of it.
async fn store_at_once(database: &Database, deliveries: Vec<Incoming>) -> (usize, usize, usize) {
    let mut calls = JoinSet::new();
    for incoming in deliveries {
        let database = database.clone();
        calls.spawn(async move { incoming.store(&client(&database).await).await });
    }
    let mut sum = (0, 0, 0);
    for stored in calls.join_all().await {
        sum = (sum.0 + stored.events.len(), sum.1 + stored.jobs.len(), sum.2 + stored.callbacks.len());
    }
    sum
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_identical_deliveries_at_once_one_claims_the_key() {
    let (test, database) = TestDatabase::migrated().await;
    let deliveries = (0..20).map(|_| Incoming::new("k")).collect();
    assert_eq!(store_at_once(&database, deliveries).await, (1, 1, 1));
    let session = test.session().await;
    let tables = ["events", "event_keys", "jobs", "callbacks", "deliveries"];
    let mut counts = Vec::new();
    for table in tables {
        counts.push(count(&session, table).await);
    }
    assert_eq!(counts, [1, 1, 1, 1, 20], "every delivery is kept, its effect once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_twenty_times_at_once_is_stored_once() {
    let (test, database) = TestDatabase::migrated().await;
    let incoming = Incoming::new("k");
    assert_eq!(store_at_once(&database, vec![incoming.clone(); 20]).await, (1, 1, 1));
    assert_eq!(store_at_once(&database, vec![incoming.clone(); 2]).await, (0, 0, 0));
    let session = test.session().await;
    assert_eq!((count(&session, "deliveries").await, count(&session, "jobs").await), (1, 1));

    // Its key may be gone by the time the message is seen again: the event itself is remembered as well.
    session.batch_execute("DELETE FROM event_keys").await.expect("no keys");
    assert_eq!(store_at_once(&database, vec![incoming; 2]).await, (0, 0, 0));
    assert_eq!((count(&session, "events").await, count(&session, "jobs").await), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_share_keys_in_different_order_do_not_deadlock() {
    let (test, database) = TestDatabase::migrated().await;
    let mut calls = JoinSet::new();
    for turn in 0..20_usize {
        let database = database.clone();
        calls.spawn(async move {
            let incoming = Incoming::new("batch");
            let mut keys: Vec<String> = (0..50).map(|n| format!("k{n}")).collect();
            keys.rotate_left(turn * 7 % 50);
            let events: Vec<NewEvent<'_>> = (0_u32..)
                .zip(&keys)
                .map(|(position, key)| NewEvent {
                    id: EventId::of(incoming.delivery, position),
                    position: i32::try_from(position).expect("small"),
                    key,
                    ..incoming.new_event()
                })
                .collect();
            let (delivery, plan) = (incoming.new_delivery(), Plan::default());
            let client = client(&database).await;
            events::store(&client, &delivery, &events, EventState::Processed, &plan)
                .await
                .expect("no deadlock")
        });
    }
    let stored: usize = calls.join_all().await.iter().map(|stored| stored.events.len()).sum();
    assert_eq!(stored, 50);
    assert_eq!(count(&test.session().await, "events").await, 50);
}

#[tokio::test]
async fn a_duplicate_and_a_conflict_are_told_apart_by_the_holder() {
    let (test, database) = TestDatabase::migrated().await;
    let client = client(&database).await;
    let first = Incoming::new("k").with_content("paid");
    assert_eq!(first.store(&client).await.events, [first.event()]);
    let other = Incoming::new("k").with_content("refunded");
    assert!(other.store(&client).await.events.is_empty());

    let holders = events::holders(&client, "shop", &["k", "unknown"]).await.expect("holders");
    let [holder] = holders.as_slice() else { panic!("one holder: {holders:?}") };
    assert_eq!((holder.key.as_str(), holder.event), ("k", first.event()));
    assert_eq!(holder.fingerprint, b"paid");
    assert!(events::holders(&client, "other", &["k"]).await.expect("holders").is_empty());

    let (delivery, event) = (other.new_delivery(), other.new_event());
    for new in [true, false] {
        let stored = events::store_conflict(&client, &delivery, &event, holder.event).await.expect("kept");
        assert_eq!(stored, new, "kept once");
    }
    let session = test.session().await;
    let flagged = "SELECT conflicts_with FROM events WHERE state = 'conflict' AND processed_at IS NULL";
    assert_eq!(value::<Uuid>(&session, flagged).await, first.event().0);
    assert_eq!(count(&session, "jobs").await, 1, "a conflict has no effect");
}

#[tokio::test]
async fn a_key_is_free_again_when_its_time_is_over_counted_from_arrival() {
    let (_test, database) = TestDatabase::migrated().await;
    let client = client(&database).await;
    let fresh = async |incoming: &Incoming| incoming.store(&client).await.events.len() == 1;
    // Keys live an hour. The clock of the test stands still: only arrival counts, not the time of processing.
    assert!(fresh(&Incoming::at("k", -20_000)).await);
    assert!(!fresh(&Incoming::at("k", -20_000 + 3_590)).await, "within the hour");
    assert!(fresh(&Incoming::at("k", -20_000 + 3_610)).await, "after it");
    assert!(!fresh(&Incoming::at("k", -20_000 + 7_190)).await, "the second event has an hour of its own");
    assert!(fresh(&Incoming::at("k", -20_000 + 7_230)).await);
}

#[tokio::test]
async fn deliveries_handed_over_late_and_out_of_order_are_judged_by_their_arrival() {
    let (test, database) = TestDatabase::migrated().await;
    let client = client(&database).await;
    let fresh = async |incoming: &Incoming| incoming.store(&client).await.events.len() == 1;
    assert!(fresh(&Incoming::at("k", -1_000)).await);
    assert!(!fresh(&Incoming::at("k", -1_010)).await, "a retry of the sender, handed over before the first");
    assert!(
        fresh(&Incoming::at("k", -10_000)).await,
        "hours earlier: an event of its own, though handed over late"
    );
    assert!(!fresh(&Incoming::at("k", -900)).await, "the later one is remembered still");
    assert!(!fresh(&Incoming::at("k", -9_000)).await, "and so is the earlier one");

    // A later event takes the key over; then the first one's message is seen again.
    let (first, second) = (Incoming::at("again", -9_000), Incoming::at("again", -1_000));
    assert!(fresh(&first).await && fresh(&second).await);
    assert!(!fresh(&first).await && !fresh(&second).await, "both are known");
    assert!(!fresh(&Incoming::at("again", -500)).await, "a duplicate of the second");
    assert_eq!(count(&test.session().await, "events WHERE key = 'again'").await, 2);
}

#[tokio::test]
async fn held_events_have_no_work_until_they_are_released_once() {
    let (test, database) = TestDatabase::migrated().await;
    let client = client(&database).await;
    let incoming = [Incoming::at("a", -3), Incoming::at("b", -2), Incoming::at("c", -1)];
    for held in &incoming {
        held.store_as(&client, EventState::Held, &Plan::default()).await.expect("held");
    }
    assert!(Incoming::new("a").store(&client).await.events.is_empty(), "a held event has its key");
    assert_eq!(events::sources_with_held(&client).await.expect("sources"), ["shop"]);
    let oldest = events::held(&client, "shop", 2).await.expect("held");
    let oldest: Vec<EventId> = oldest.iter().map(|held| held.id).collect();
    assert_eq!(oldest, [incoming[0].event(), incoming[1].event()]);
    let session = test.session().await;
    assert_eq!(count(&session, "jobs").await, 0);

    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let (database, incoming) = (database.clone(), incoming.clone());
        calls.spawn(async move {
            let mut plan = Plan::default();
            for held in &incoming {
                plan.jobs.extend(held.plan().jobs);
                plan.callbacks.extend(held.plan().callbacks);
            }
            let ids: Vec<EventId> = incoming.iter().map(Incoming::event).collect();
            events::release(&self::client(&database).await, &ids, &plan).await.expect("released")
        });
    }
    let mut released = (0, 0, 0);
    for stored in calls.join_all().await {
        released.0 += stored.events.len();
        released.1 += stored.jobs.len();
        released.2 += stored.callbacks.len();
    }
    assert_eq!(released, (3, 3, 3), "once each, whoever did it");
    let done = "events WHERE state = 'processed' AND processed_at IS NOT NULL";
    assert_eq!((count(&session, done).await, count(&session, "jobs").await), (3, 3));
    assert_eq!(count(&session, "callbacks WHERE trace_parent = '00-trace' AND run = 1").await, 3);
    assert!(events::sources_with_held(&client).await.expect("sources").is_empty());
}

#[tokio::test]
async fn a_replay_is_the_next_run_and_keeps_the_webhook_id_unless_told() {
    let (test, database) = TestDatabase::migrated().await;
    let client = client(&database).await;
    let incoming = Incoming::new("k");
    let stored = incoming.store(&client).await;
    let event = incoming.event();
    let first = stored.callbacks[0].0;
    let session = test.session().await;
    let webhook_id = async |run: i32| {
        value::<Uuid>(&session, &format!("SELECT webhook_id FROM callbacks WHERE run = {run}")).await
    };
    assert_eq!(webhook_id(1).await, first);

    let replay = async |run: i32, new_ids: bool| {
        events::replay(&client, event, run, &incoming.plan(), new_ids, ACTOR).await.expect("an answer")
    };
    assert!(replay(7, false).await.is_none(), "not the run that was looked at");
    let second = replay(1, false).await.expect("replayed");
    assert_eq!((second.jobs.len(), second.callbacks.len()), (1, 1));
    assert!(replay(1, false).await.is_none(), "another replay came first");
    let third = replay(2, true).await.expect("replayed");
    replay(3, false).await.expect("replayed");
    assert_eq!(webhook_id(2).await, first);
    assert_eq!(webhook_id(3).await, third.callbacks[0].0, "a new one, as told");
    assert_eq!(webhook_id(4).await, first, "the first one again");
    assert_eq!(value::<i32>(&session, "SELECT run FROM events").await, 4);
    for table in ["jobs", "callbacks"] {
        let traced = format!("{table} WHERE trace_parent = '00-trace'");
        assert_eq!(count(&session, &traced).await, 4, "the delivery's trace, in {table}");
    }
    let audited = format!(
        "api_audit WHERE actor = 'ada' AND action = 'event.replay' AND subject = '{event}'
         AND detail ->> 'reason' = 'the model was wrong'"
    );
    assert_eq!(count(&session, &audited).await, 3, "those that happened");

    assert!(
        events::replay(&client, EventId::new(), 1, &Plan::default(), false, ACTOR)
            .await
            .expect("none")
            .is_none()
    );
    let held = Incoming::new("held");
    held.store_as(&client, EventState::Held, &Plan::default()).await.expect("held");
    let answer =
        events::replay(&client, held.event(), 1, &held.plan(), false, ACTOR).await.expect("an answer");
    assert!(answer.is_none(), "a held event is released, not replayed");
}

#[tokio::test]
async fn a_replay_that_cannot_be_audited_does_not_happen() {
    let (test, database) = TestDatabase::migrated().await;
    let client = client(&database).await;
    let incoming = Incoming::new("k");
    incoming.store(&client).await;
    let session = test.session().await;
    refuse_audits(&session).await;
    let answer = events::replay(&client, incoming.event(), 1, &incoming.plan(), false, ACTOR).await;
    assert!(answer.is_err(), "{answer:?}");
    assert_eq!(value::<i32>(&session, "SELECT run FROM events").await, 1);
    assert_eq!((count(&session, "jobs").await, count(&session, "callbacks").await), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_replays_of_one_run_one_happens() {
    let (test, database) = TestDatabase::migrated().await;
    let incoming = Incoming::new("k");
    incoming.store(&client(&database).await).await;
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let (database, incoming) = (database.clone(), incoming.clone());
        calls.spawn(async move {
            let client = client(&database).await;
            events::replay(&client, incoming.event(), 1, &incoming.plan(), false, ACTOR)
                .await
                .expect("an answer")
        });
    }
    assert_eq!(calls.join_all().await.into_iter().flatten().count(), 1);
    assert_eq!(count(&test.session().await, "callbacks").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_without_partition_is_said_made_once_and_then_stored_into() {
    let (test, database) = TestDatabase::migrated().await;
    let mut client = client(&database).await;
    let late = Incoming::at("k", -YEAR);
    let error = late.store_as(&client, EventState::Processed, &late.plan()).await.expect_err("no partition");
    assert!(events::is_missing_partition(&error), "{error}");
    let session = test.session().await;
    assert_eq!(
        (count(&session, "event_keys").await, count(&session, "jobs").await),
        (0, 0),
        "all or nothing"
    );

    let mut calls = JoinSet::new();
    for _ in 0..10 {
        let (database, at) = (database.clone(), late.received_at);
        calls.spawn(async move {
            let mut client = self::client(&database).await;
            maintenance::ensure_partitions(&mut client, at).await.expect("partitions")
        });
    }
    assert_eq!(calls.join_all().await.iter().sum::<usize>(), 8, "four tables, two months, once");
    assert_eq!(late.store(&client).await.events.len(), 1);
    let again = maintenance::ensure_partitions(&mut client, late.received_at).await.expect("partitions");
    assert_eq!(again, 0);

    let error = session.execute("UPDATE events SET state = 'odd'", &[]).await.expect_err("checked");
    let error = crate::database::DatabaseError::of_statement("odd", &error);
    assert!(!events::is_missing_partition(&error), "not every violation is: {error}");
}
