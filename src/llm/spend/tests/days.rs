use futures_util::future::join_all;
use jiff::SignedDuration;

use super::support::*;
use crate::database::tests::support::{TestDatabase, eventually, value};
use crate::llm::spend::SpendError;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn midnight_begins_a_new_budget_and_closes_the_old_one() {
    let (test, _database) = TestDatabase::migrated().await;
    let clock = TestClock::at("2026-11-21T23:59:58Z");
    let processes: Vec<Process> =
        (0..2).map(|_| Process::start(&test, &clock, settings(total(1_000)))).collect();
    let caller = who("ada", "k");
    join_all(
        processes
            .iter()
            .map(|process| async { while turn(&process.spend, &caller, 10, 10).await.is_ok() {} }),
    )
    .await;
    let refused = processes[0].spend.reserve(&caller, 10).await.expect_err("spent");
    let SpendError::Spent { until, wait, .. } = refused else { panic!("{refused}") };
    assert_eq!((until.to_string(), wait.as_secs()), ("2026-11-22T00:00:00Z".to_owned(), 2));

    clock.advance(SignedDuration::from_secs(3));
    let mut over_midnight = processes[0].spend.reserve(&caller, 10).await.expect("a new day");
    pay(&processes[0].spend, &mut over_midnight, 10);
    drop(over_midnight);
    turn(&processes[1].spend, &caller, 10, 10).await.expect("a new day");
    let session = test.session().await;
    eventually("yesterday is closed", || async {
        let open = "SELECT count(*) FROM budget_slices WHERE day = '2026-11-21'";
        let row = "SELECT spent_micros = 1000 AND held_micros = 0 FROM budgets WHERE day = '2026-11-21'";
        value::<i64>(&session, open).await == 0 && value::<bool>(&session, row).await
    })
    .await;
    for process in processes {
        process.end().await;
    }
    let days =
        "SELECT string_agg(day || ' ' || spent_micros || ' ' || held_micros, ', ' ORDER BY day) FROM budgets";
    assert_eq!(value::<String>(&session, days).await, "2026-11-21 1000 0, 2026-11-22 20 0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_is_paid_on_the_day_it_began() {
    let (test, _database) = TestDatabase::migrated().await;
    let clock = TestClock::at("2026-11-21T23:59:58Z");
    let process = Process::start(&test, &clock, settings(total(1_000)));
    let caller = who("ada", "k");
    let mut long = process.spend.reserve(&caller, 100).await.expect("there is plenty");
    let attempt = long.attempt(new_attempt());
    process.spend.open(&attempt);
    clock.advance(SignedDuration::from_secs(3));
    turn(&process.spend, &caller, 10, 10).await.expect("a new day");
    process.spend.settle(settled(attempt, 60));
    long.charge(60);
    drop(long);
    process.end().await;
    let session = test.session().await;
    let days =
        "SELECT string_agg(day || ' ' || spent_micros || ' ' || held_micros, ', ' ORDER BY day) FROM budgets";
    assert_eq!(value::<String>(&session, days).await, "2026-11-21 60 0, 2026-11-22 10 0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_begun_in_the_middle_of_a_day_counts_what_was_spent_before() {
    let (test, _database) = TestDatabase::migrated().await;
    let clock = TestClock::at(MIDDAY);
    let free = Process::start(&test, &clock, settings(Default::default()));
    turn(&free.spend, &who("ada", "k"), 400, 400).await.expect("no budget");
    free.end().await;
    let limited = Process::start(&test, &clock, settings(total(1_000)));
    let mut turns = 0;
    while turn(&limited.spend, &who("ada", "k"), 100, 100).await.is_ok() {
        turns += 1;
    }
    assert_eq!(turns, 6);
    limited.end().await;
    assert_eq!(books(&test).await, (1_000, 0, 1_000));
}
