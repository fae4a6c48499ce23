use std::time::Duration;

use super::support::*;
use crate::azure::testing;
use crate::database::tests::support::{TestDatabase, connect, eventually, test_url, value};
use crate::database::{Database, usage};
use crate::llm::spend::{
    NewAttempt, Reason, Settlement, Spend, SpendError, WithoutDatabase, bring_home, system_clock,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_costs_what_was_set_aside_and_returns_the_rest() {
    let (test, database) = TestDatabase::migrated().await;
    let clock = TestClock::at(MIDDAY);
    let (victim, other) = (
        Process::start(&test, &clock, settings(total(10_000))),
        Process::start(&test, &clock, settings(total(10_000))),
    );
    let caller = who("ada", "k");
    turn(&victim.spend, &caller, 100, 60).await.expect("there is plenty");
    let reservation = victim.spend.reserve(&caller, 90).await.expect("there is plenty");
    let attempt = reservation.attempt(new_attempt());
    victim.spend.open(&attempt);
    let session = test.session().await;
    let open = "SELECT count(*) FROM usage WHERE state = 'open'";
    eventually("the row is open", || async { value::<i64>(&session, open).await == 1 }).await;
    let dead = victim.spend.clone();
    victim.kill().await;
    // As a killed process leaves it: nothing is given back.
    let _lost = std::mem::ManuallyDrop::new(reservation);

    let mut client = database.client().await.expect("a client");
    let swept = sweep(&mut client, &test, &dead).await;
    assert_eq!((swept.holders, swept.rows), (1, 1));
    let crashed = "SELECT count(*) FROM usage WHERE estimated AND reason = 'crashed' AND cost_micros = 90";
    assert_eq!(value::<i64>(&session, crashed).await, 1);
    assert_eq!(crate::llm::spend::settle_dead(&mut client, Duration::ZERO).await.expect("swept").holders, 0);
    assert_held_is_sliced(&test).await;

    // Whoever takes the turn over knows better.
    let known = Settlement { reason: Reason::Interrupted, estimated: true, ..settled(attempt, 40) };
    for _ in 0..2 {
        usage::settle(&client, std::slice::from_ref(&known), true).await.expect("settled");
    }
    turn(&other.spend, &caller, 100, 7).await.expect("there is plenty");
    other.end().await;
    assert_eq!(books(&test).await, (107, 0, 107));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_was_given_up_begins_anew() {
    let (test, database) = TestDatabase::migrated().await;
    let clock = TestClock::at(MIDDAY);
    let process = Process::start(&test, &clock, settings(total(10_000)));
    let caller = who("ada", "k");
    turn(&process.spend, &caller, 100, 50).await.expect("there is plenty");
    let mut under_way = process.spend.reserve(&caller, 100).await.expect("there is plenty");
    let before = process.spend.holder();
    let mut client = database.client().await.expect("a client");
    // What it had not written yet comes after its slices were closed.
    sweep(&mut client, &test, &process.spend).await;
    eventually("it noticed", || async { process.spend.holder() != before }).await;
    pay(&process.spend, &mut under_way, 80);
    drop(under_way);
    turn(&process.spend, &caller, 100, 1).await.expect("there is plenty");
    process.end().await;
    assert_eq!(books(&test).await, (131, 0, 131));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_database_what_is_held_is_spent_and_then_refused_or_allowed() {
    let (test, database) = TestDatabase::migrated().await;
    let clock = TestClock::at(MIDDAY);
    for (without_database, allowed) in [(WithoutDatabase::Refuse, false), (WithoutDatabase::Allow, true)] {
        let mut settings = settings(total(100_000));
        settings.without_database = without_database;
        // Directly: a pooler goes on refusing for 15 s after the database is back.
        let mut connection = test.settings();
        connection.url = test.direct.as_str().to_owned().into();
        let process = Process::connected(connection, &clock, settings);
        let caller = who("ada", "k");
        turn(&process.spend, &caller, 10, 10).await.expect("there is plenty");
        let admin = connect(&test_url("COLLOQUY_TEST_DATABASE_DIRECT_URL")).await;
        close(&admin, &test.name, true).await;
        let mut turns = 0;
        let refused = loop {
            match turn(&process.spend, &caller, 10, 10).await {
                Ok(()) if turns > 1_000 => break None,
                Ok(()) => turns += 1,
                Err(error) => break Some(error),
            }
        };
        assert!(turns >= 190, "{turns} turns out of a slice of 2,000");
        assert_eq!(refused, (!allowed).then_some(SpendError::Unavailable));
        close(&admin, &test.name, false).await;
        // What was written meanwhile waited in memory.
        process.end().await;
        assert_held_is_sliced(&test).await;
        let (spent, held, cost) = books(&test).await;
        assert_eq!((spent, held), (cost, 0));
        let session = test.session().await;
        let rows = value::<i64>(&session, "SELECT count(*) FROM usage").await;
        assert!(rows > i64::from(turns), "{rows} rows of {turns} turns");
    }
    drop(database);
}

/// Refuses the database's connections and ends those there are, or lets them in again.
async fn close(session: &tokio_postgres::Client, name: &str, closed: bool) {
    let allow = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {}", !closed);
    session.batch_execute(&allow).await.expect("changed");
    if closed {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
        session.execute(end, &[&name]).await.expect("ended");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_the_database_does_not_take_come_home_by_queue_once() {
    let (test, database) = TestDatabase::migrated().await;
    let storage = testing::azurite();
    let queue = storage.queue(&testing::unique("usage"));
    let mut settings = settings(total(100_000));
    settings.spool_after = Duration::ZERO;
    let mut connection = test.settings();
    connection.url = test.direct.as_str().to_owned().into();
    let own = Database::new(connection, None).expect("settings");
    let spend = Spend::new(settings, Some(own), Some(queue.clone()), TestClock::at(MIDDAY).clock());
    let tasks = crate::tasks::Tasks::new();
    spend.start(&tasks);
    let caller = who("ada", "k");
    turn(&spend, &caller, 10, 10).await.expect("there is plenty");
    let session = test.session().await;
    let rows = "SELECT count(*) FROM usage";
    eventually("the first row is written", || async { value::<i64>(&session, rows).await == 1 }).await;
    drop(session);
    let admin = connect(&test_url("COLLOQUY_TEST_DATABASE_DIRECT_URL")).await;
    close(&admin, &test.name, true).await;
    for _ in 0..50 {
        turn(&spend, &caller, 10, 7).await.expect("in hand");
    }
    // Told twice: once when it failed and another was tried, once at the turn's end.
    let mut reservation = spend.reserve(&caller, 10).await.expect("in hand");
    let attempt = reservation.attempt(new_attempt());
    for _ in 0..2 {
        spend.settle(settled(attempt.clone(), 7));
    }
    reservation.charge(7);
    drop(reservation);
    eventually("they are on the queue", || async { spend.writer_status().spooled == 52 }).await;
    assert_eq!(spend.writer_status().lost, 0);
    close(&admin, &test.name, false).await;
    eventually("they come home", || async {
        // The pooler goes on refusing for a while after the database is back.
        bring_home(&queue, &database).await.is_ok_and(|taken| taken > 0)
    })
    .await;
    while bring_home(&queue, &database).await.expect("read") > 0 {}
    // What cannot be read does not stop the rest.
    queue.put("v9 ?", Duration::ZERO).await.expect("put");
    assert_eq!(bring_home(&queue, &database).await.expect("read"), 1);
    let session = test.session().await;
    let letters = "SELECT count(*) FROM dead_letters WHERE reason_code = 'message_malformed'";
    assert_eq!(value::<i64>(&session, letters).await, 1);
    assert_eq!(value::<i64>(&session, rows).await, 52);
    eventually("given back", || async { spend.finish().await.is_ok() }).await;
    tasks.stop(Duration::from_secs(5)).await.expect("stopped");
    assert_eq!(books(&test).await, (367, 0, 367));
}

#[tokio::test]
async fn without_tracking_nothing_is_asked() {
    let spend = Spend::new(settings(total(10)), None, None, system_clock());
    let mut reservation = spend.reserve(&who("ada", "k"), 1_000).await.expect("nothing is enforced");
    pay(&spend, &mut reservation, 1_000);
    assert_eq!(spend.writer_status(), Default::default());
    spend.finish().await.expect("nothing to do");
}

#[tokio::test]
async fn whoever_takes_a_turn_over_settles_what_was_left_open_and_who_wakes_may_say_better() {
    let (test, database) = TestDatabase::migrated().await;
    let clock = TestClock::at(MIDDAY);
    let sleeper = Process::start(&test, &clock, settings(total(100_000)));
    let caller = who("ada", "k");
    let mut under_way = sleeper.spend.reserve(&caller, 100).await.expect("there is plenty");
    let response = uuid::Uuid::now_v7();
    let attempt = under_way.attempt(NewAttempt { response: Some(response), ..new_attempt() });
    sleeper.spend.open(&attempt);
    let session = test.session().await;
    let rows = |state: &str| format!("SELECT count(*) FROM usage WHERE state = '{state}'");
    eventually("it is opened", || async { value::<i64>(&session, &rows("open")).await == 1 }).await;

    // Its own process lives, so its slices carry what it cost either way.
    let client = database.client().await.expect("a client");
    assert_eq!(sleeper.spend.settle_abandoned(&client, response).await.expect("settled"), 1);
    assert_eq!(sleeper.spend.settle_abandoned(&client, response).await.expect("nothing"), 0);
    assert_eq!(books(&test).await.2, 100, "as much as was set aside");
    sleeper.spend.settle(settled(attempt, 80));
    under_way.charge(80);
    drop(under_way);
    sleeper.end().await;
    assert_eq!(books(&test).await, (80, 0, 80));
}

#[tokio::test]
async fn a_process_that_ends_in_order_leaves_no_row_open() {
    let (test, _database) = TestDatabase::migrated().await;
    let process = Process::start(&test, &TestClock::at(MIDDAY), settings(total(100_000)));
    let under_way = process.spend.reserve(&who("ada", "k"), 100).await.expect("there is plenty");
    // Of a turn that could not be stored in time.
    process.spend.open(&under_way.attempt(new_attempt()));
    process.end().await;
    let session = test.session().await;
    let crashed = "SELECT count(*) FROM usage WHERE state = 'settled' AND reason = 'crashed' AND estimated";
    assert_eq!(value::<i64>(&session, crashed).await, 1);
    assert_eq!(books(&test).await, (100, 0, 100));
    drop(under_way);
}
