//! What holds when processes die, freeze and lose their services: one fault a test, and all of them at once.

mod away;
mod combined;
mod conversations;
mod joined;
mod ledger;
mod outage;
mod senders;
mod soak;

use std::time::Duration;

use crate::support::{
    Answer, Consumer, FunctionApp, FunctionAppBuilder, PrivateAzurite, PrivatePostgres, SOON, TestDatabase,
    TestStorage, eventually,
};
use ledger::Ledger;
use senders::Senders;

/// Long enough for a lease to lapse and whatever follows, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

/// Short waits, and so few attempts that an outage would use them up many times over if it counted.
fn hurried(database: &TestDatabase, storage: &TestStorage, consumer: &Consumer) -> FunctionAppBuilder {
    FunctionApp::of(database, storage)
        .hurried()
        .consumer(consumer)
        .set("WORK_LEASE", "3s")
        .set("DB_CONNECT_TIMEOUT", "3s")
        .set("DB_STATEMENT_TIMEOUT", "5s")
        .set("DB_POOL_WAIT", "5s")
        .set("EVENT_MAX_ATTEMPTS", "3")
        .set("JOB_MAX_ATTEMPTS", "5")
        .set("CALLBACK_SCHEDULE", "0s,500ms,500ms,500ms,500ms,500ms,500ms,500ms")
}

#[tokio::test]
async fn a_killed_handlers_callback_is_sent_again_under_its_id() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    consumer.next([Answer::Never]);
    let app = hurried(&database, &storage, &consumer).start().await;
    let mut senders = Senders::new();
    senders.send_each_once(&[&app], 1).await;
    eventually("the callback to be under way", SOON, async || consumer.callbacks().len() == 1).await;
    app.kill_handler().await;
    Ledger::new(&database, &storage, &consumer, senders.accepted()).balances(PATIENCE).await;
    assert_eq!(consumer.callbacks().len(), 2);
    assert_eq!(
        database.count("SELECT attempts::int8 FROM callbacks").await,
        2,
        "a try that ended its process counts"
    );
}

#[tokio::test]
async fn a_lease_shorter_than_the_time_between_two_ticks_of_upkeep_lapses_all_the_same() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    consumer.next([Answer::Never]);
    let app = hurried(&database, &storage, &consumer).start_without(&["maintain"]).await;
    let mut senders = Senders::new();
    senders.send_each_once(&[&app], 1).await;
    eventually("the callback to be under way", SOON, async || consumer.callbacks().len() == 1).await;
    app.kill_handler().await;

    let upkeep = hurried(&database, &storage, &consumer).start_handler().await;
    let done = "SELECT count(*) FROM callbacks WHERE state = 'delivered'";
    eventually("the other instance to deliver it", PATIENCE, async || {
        assert_eq!(upkeep.tick("maintain").await, 200);
        // What is tested is the time between ticks: longer than the lease, every time.
        tokio::time::sleep(Duration::from_secs(4)).await;
        database.count(done).await == 1
    })
    .await;
    Ledger::new(&database, &storage, &consumer, senders.accepted()).balances(PATIENCE).await;
}

#[tokio::test]
async fn a_handler_frozen_beyond_its_lease_changes_nothing_when_it_wakes() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    // Answered while its sender is frozen.
    consumer.next([Answer::After(Duration::from_secs(2), Box::new(Answer::Status(500)))]);
    let app = hurried(&database, &storage, &consumer).start().await;
    let mut senders = Senders::new();
    senders.send_each_once(&[&app], 1).await;
    eventually("the callback to be under way", SOON, async || consumer.callbacks().len() == 1).await;
    let frozen = app.freeze_handler().await;

    // The frozen handler's host holds the timers, so upkeep is the test's; a second instance does the work.
    let upkeep = hurried(&database, &storage, &consumer).start_handler().await;
    let other = hurried(&database, &storage, &consumer).start().await;
    eventually("the other instance to deliver it", PATIENCE, async || {
        assert_eq!(upkeep.tick("maintain").await, 200);
        consumer.accepted().len() == 1
    })
    .await;
    let done = "SELECT count(*) FROM callbacks WHERE state = 'delivered' AND epoch = 2";
    eventually("the row to say so", SOON, async || database.count(done).await == 1).await;
    app.thaw(frozen);
    eventually("the woken handler to see that its lease is lost", PATIENCE, async || {
        app.log().iter().any(|line| line.contains("lease_lost"))
    })
    .await;
    assert_eq!(database.count(done).await, 1, "a delivered callback stays delivered");
    Ledger::new(&database, &storage, &consumer, senders.accepted()).balances(PATIENCE).await;
    drop(other);
}

#[tokio::test]
async fn an_outage_of_the_database_costs_no_attempt_however_long_it_lasts() {
    let mut postgres = PrivatePostgres::start().await;
    let (database, storage) = (TestDatabase::within(&postgres).await, TestStorage::create());
    let consumer = Consumer::start().await;
    let app =
        hurried(&database, &storage, &consumer).set("RETRY_CAP", "300ms").set("DB_CONNECT_TIMEOUT", "2s");
    let app = app.start().await;
    let mut senders = Senders::new();
    senders.send_each_once(&[&app], 3).await;
    postgres.stop().await;
    senders.send_each_once(&[&app], 4).await;
    eventually("all four to be put off more often than an event may fail", PATIENCE, async || {
        let fourth = |line: &&String| line.contains("event_put_off") && line.contains(r#""deferrals":4,"#);
        app.log().iter().filter(fourth).count() >= 4
    })
    .await;
    postgres.start_again().await;
    Ledger::new(&database, &storage, &consumer, senders.accepted()).balances(PATIENCE).await;
}

#[tokio::test]
async fn what_was_accepted_before_storage_went_away_is_done_when_it_is_back() {
    let mut azurite = PrivateAzurite::start().await;
    let (database, storage) =
        (TestDatabase::create().await, TestStorage::within(&azurite.connection_string()));
    let consumer = Consumer::start().await;
    let app = hurried(&database, &storage, &consumer).start().await;
    let mut senders = Senders::new();
    senders.send_each_once(&[&app], 10).await;
    azurite.stop().await;
    let body = senders::event("while-away");
    let refused = app.deliver_stripe(&body).await;
    assert_eq!(refused.status(), 503, "what cannot be kept is not accepted");
    azurite.start_again().await;
    senders.send_each_once(&[&app], 5).await;
    Ledger::new(&database, &storage, &consumer, senders.accepted()).balances(PATIENCE).await;
}

#[tokio::test]
async fn messages_that_a_killed_azurite_brings_back_have_no_second_effect() {
    let mut azurite = PrivateAzurite::start().await;
    let (database, storage) =
        (TestDatabase::create().await, TestStorage::within(&azurite.connection_string()));
    let consumer = Consumer::start().await;
    let app = hurried(&database, &storage, &consumer).start().await;
    let mut senders = Senders::new();
    // Azurite writes every few seconds what it was told. Killed after everything is done, it forgets that messages were
    // deleted, and no delivery: those are in the database.
    for _ in 0..2 {
        senders.send_doubled(&[&app], 20).await;
        Ledger::new(&database, &storage, &consumer, senders.accepted()).balances(PATIENCE).await;
        azurite.kill();
        azurite.start_again().await;
    }
    senders.send_each_once(&[&app], 1).await;
    Ledger::new(&database, &storage, &consumer, senders.accepted()).balances(PATIENCE).await;
}

#[tokio::test]
async fn a_killed_host_goes_on_where_it_was_when_its_supervisor_starts_it_again() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    let mut app = hurried(&database, &storage, &consumer).start().await;
    let mut senders = Senders::new();
    for _ in 0..2 {
        senders.send_each_once(&[&app], 10).await;
        let handler = app.handler_pid().await;
        app.kill();
        eventually("the handler to die with its host", SOON, async || !crate::support::exists(handler)).await;
        app.start_again().await;
    }
    Ledger::new(&database, &storage, &consumer, senders.accepted()).balances(PATIENCE).await;
}

#[tokio::test]
async fn deliveries_doubled_and_reordered_over_several_hosts_have_their_effect_once() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    let one = hurried(&database, &storage, &consumer).start().await;
    let other = hurried(&database, &storage, &consumer).start().await;
    let mut senders = Senders::new();
    senders.send_doubled(&[&one, &other], 40).await;
    Ledger::new(&database, &storage, &consumer, senders.accepted()).balances(PATIENCE).await;
}

#[tokio::test]
async fn any_number_of_maintain_may_run_and_rows_without_a_hint_are_found() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    // Queues of which nobody reads: the rows are there, their hints are not.
    let lost = TestStorage::create();
    let mut senders = Senders::new();
    {
        let app = hurried(&database, &storage, &consumer);
        let app = app.set("QUEUE_JOBS", &lost.jobs).set("QUEUE_CALLBACKS", &lost.callbacks);
        let app = app.start_without(&["run-job", "send-callback", "maintain"]).await;
        senders.send_each_once(&[&app], 40).await;
        let stored = "SELECT count(*) FROM callbacks WHERE state = 'pending'";
        eventually("forty callbacks without a hint", SOON, async || database.count(stored).await == 40).await;
    }
    let mut upkeep = Vec::new();
    for _ in 0..4 {
        upkeep.push(hurried(&database, &storage, &consumer).start_handler().await);
    }
    let app = hurried(&database, &storage, &consumer).start().await;
    let done = "SELECT count(*) FROM callbacks WHERE state = 'delivered'";
    eventually("all callbacks", PATIENCE, async || {
        futures_util::future::join_all(upkeep.iter().map(|handler| handler.tick("maintain"))).await;
        database.count(done).await == 40
    })
    .await;
    Ledger::new(&database, &storage, &consumer, senders.accepted()).balances(PATIENCE).await;
    assert_eq!(consumer.callbacks().len(), 40, "and none was sent twice");
    drop(app);
}
