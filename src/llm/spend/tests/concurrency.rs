use std::time::Duration;

use futures_util::future::join_all;

use super::support::*;
use crate::database::responses::{Order, PageOf};
use crate::database::spending::{self, MOST_DAYS, UsageFilter};
use crate::database::tests::support::{TestDatabase, eventually, value};
use crate::llm::spend::{Budgets, Scope, SpendError};

const PROCESSES: usize = 4;
const TURNS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_processes_spend_one_budget_to_the_last_turn_and_never_more() {
    const LIMIT: i64 = 20_000;
    const ESTIMATE: i64 = 40;
    let (test, _database) = TestDatabase::migrated().await;
    let clock = TestClock::at(MIDDAY);
    let processes: Vec<Process> =
        (0..PROCESSES).map(|_| Process::start(&test, &clock, settings(total(LIMIT)))).collect();
    let watcher = async {
        let session = test.session().await;
        let sql = "SELECT coalesce(max(spent_micros + held_micros - limit_micros), -1)::bigint FROM budgets";
        loop {
            assert!(value::<i64>(&session, sql).await <= 0, "more is out than the budget has");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let turns = join_all(processes.iter().flat_map(|process| {
        (0..TURNS).map(move |at| async move {
            let caller = who("ada", "k");
            let mut n = at as i64;
            loop {
                n += 1;
                // Estimates are high, as they are.
                match turn(&process.spend, &caller, ESTIMATE, 10 + n % 30).await {
                    Ok(()) => tokio::task::yield_now().await,
                    Err(SpendError::Spent { scope, .. }) => return assert_eq!(scope, Scope::Total),
                    Err(error) => panic!("{error}"),
                }
            }
        })
    }));
    tokio::select! {
        () = watcher => {}
        _ = tokio::time::timeout(Duration::from_secs(120), turns) => {}
    }
    // Whoever is refused while others have turns under way may come again when these are over.
    eventually("no turn fits any more", || async {
        for process in &processes {
            while turn(&process.spend, &who("ada", "k"), ESTIMATE, ESTIMATE).await.is_ok() {}
        }
        LIMIT - charged(&processes) < ESTIMATE
    })
    .await;
    for process in processes {
        process.end().await;
    }
    let (spent, held, cost) = books(&test).await;
    assert_eq!((spent, held), (cost, 0));
    assert!(spent <= LIMIT, "{spent}");
    assert!(LIMIT - spent < ESTIMATE, "stopped with {} left, a turn is {ESTIMATE}", LIMIT - spent);
    let session = test.session().await;
    assert_eq!(value::<i64>(&session, "SELECT count(*) FROM budget_slices").await, 0);
    assert_eq!(value::<i64>(&session, "SELECT count(*) FROM instances").await, 0);
    assert_eq!(value::<i64>(&session, "SELECT count(*) FROM usage WHERE state = 'open'").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_that_spend_all_that_was_set_aside_never_pass_a_budget() {
    const LIMIT: i64 = 20_000;
    const LEAST: i64 = 40;
    let (test, _database) = TestDatabase::migrated().await;
    let clock = TestClock::at(MIDDAY);
    let processes: Vec<Process> =
        (0..2).map(|_| Process::start(&test, &clock, settings(total(LIMIT)))).collect();
    let longest = join_all(processes.iter().flat_map(|process| {
        (0..TURNS).map(move |_| async move {
            let (caller, mut longest) = (who("ada", "k"), 0);
            while let Ok(mut reservation) = process.spend.reserve_between(&caller, LEAST, 5_000).await {
                let set_aside = reservation.left();
                assert!((LEAST..=LIMIT / 20).contains(&set_aside), "{set_aside}");
                longest = longest.max(set_aside);
                tokio::task::yield_now().await;
                pay(&process.spend, &mut reservation, set_aside);
            }
            longest
        })
    }))
    .await;
    assert!(longest.contains(&(LIMIT / 20)), "while there was plenty: {longest:?}");
    eventually("no turn fits any more", || async {
        for process in &processes {
            while turn(&process.spend, &who("ada", "k"), LEAST, LEAST).await.is_ok() {}
        }
        LIMIT - charged(&processes) < LEAST
    })
    .await;
    for process in processes {
        process.end().await;
    }
    let (spent, held, cost) = books(&test).await;
    assert_eq!((spent, held), (cost, 0));
    assert!((LIMIT - LEAST + 1..=LIMIT).contains(&spent), "{spent}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_scopes_are_each_kept() {
    let (test, _database) = TestDatabase::migrated().await;
    let clock = TestClock::at(MIDDAY);
    let budgets = Budgets {
        total: Some(2_500),
        each_owner: Some(1_000),
        keys: [("small".to_owned(), 200)].into(),
        ..Budgets::default()
    };
    let processes: Vec<Process> =
        (0..2).map(|_| Process::start(&test, &clock, settings(budgets.clone()))).collect();
    join_all(processes.iter().flat_map(|process| {
        ["ada", "bob", "eve", "joe"].into_iter().map(move |owner| async move {
            let caller = who(owner, if owner == "ada" { "small" } else { "k" });
            while turn(&process.spend, &caller, 20, 20).await.is_ok() {}
        })
    }))
    .await;
    eventually("no turn fits any more", || async {
        for process in &processes {
            while turn(&process.spend, &who("joe", "k"), 20, 20).await.is_ok() {}
            while turn(&process.spend, &who("eve", "k"), 20, 20).await.is_ok() {}
            while turn(&process.spend, &who("bob", "k"), 20, 20).await.is_ok() {}
        }
        charged(&processes) == 2_500
    })
    .await;
    for process in processes {
        process.end().await;
    }
    let session = test.session().await;
    let most =
        "SELECT max(cost)::bigint FROM (SELECT sum(cost_micros) AS cost FROM usage GROUP BY owner) owners";
    assert!(value::<i64>(&session, most).await <= 1_000);
    let small = "SELECT sum(cost_micros)::bigint FROM usage WHERE api_key = 'small'";
    assert!(value::<i64>(&session, small).await <= 200);
    let total = "SELECT sum(cost_micros)::bigint FROM usage";
    assert_eq!(value::<i64>(&session, total).await, 2_500);
    let wrong = "SELECT count(*) FROM budgets WHERE held_micros <> 0 OR spent_micros <> (
        SELECT coalesce(sum(cost_micros), 0) FROM usage
        WHERE CASE scope WHEN 'owner' THEN owner = subject WHEN 'key' THEN api_key = subject ELSE true END)";
    assert_eq!(value::<i64>(&session, wrong).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_process_does_not_need_another_gets() {
    let (test, database) = TestDatabase::migrated().await;
    let clock = TestClock::at(MIDDAY);
    let mut hoarding = settings(total(1_000));
    hoarding.slice_percent = 100;
    let idle = Process::start(&test, &clock, hoarding.clone());
    let busy = Process::start(&test, &clock, hoarding);
    turn(&idle.spend, &who("ada", "k"), 100, 1).await.expect("there is plenty");
    // One turn too large for what is free as long as the other holds its slice.
    turn(&busy.spend, &who("bob", "k"), 950, 950).await.expect("the other gives back");
    assert_held_is_sliced(&test).await;
    eventually("the view knows what is spent", || async {
        let status = status(&database, "2026-11-21").await;
        status.first().is_some_and(|total| total.spent == 951 && total.limit == 1_000)
    })
    .await;
    idle.end().await;
    busy.end().await;
    assert_eq!(books(&test).await, (951, 0, 951));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn most_turns_ask_nobody() {
    let (test, _database) = TestDatabase::migrated().await;
    let clock = TestClock::at(MIDDAY);
    let process = Process::start(&test, &clock, settings(total(100_000_000)));
    turn(&process.spend, &who("ada", "k"), 10, 10).await.expect("the first draws");
    // With the keeper gone only memory can answer.
    process.tasks.stop(Duration::from_secs(5)).await.expect("stopped");
    for _ in 0..1_000 {
        turn(&process.spend, &who("ada", "k"), 10, 10).await.expect("in memory");
    }
    process.spend.finish().await.expect("given back");
    assert_eq!(books(&test).await, (10_010, 0, 10_010));
}

#[tokio::test]
async fn without_budgets_rows_are_written_and_nothing_is_drawn() {
    let (test, database) = TestDatabase::migrated().await;
    let process = Process::start(&test, &TestClock::at(MIDDAY), settings(Budgets::default()));
    turn(&process.spend, &who("ada", "k"), 10, 7).await.expect("no budget");
    process.end().await;
    assert_eq!(books(&test).await, (0, 0, 7));
    let session = test.session().await;
    assert_eq!(value::<i64>(&session, "SELECT count(*) FROM budgets").await, 0);
    let client = database.client().await.expect("a client");
    let day = "2026-11-21".parse().expect("a date");
    for (owner, rows) in [(Some("ada"), 1), (None, 1), (Some("eve"), 0)] {
        let of = UsageFilter { owner, api_key: None, model: None, from: day, to: day };
        let page = PageOf { after: None, limit: MOST_DAYS, order: Order::Descending };
        let found = spending::by_day(&client, &of, page).await.expect("an answer").entries;
        assert_eq!(found.len(), rows, "{owner:?}");
        if let Some(row) = found.first() {
            assert_eq!((row.turns, row.input_tokens, row.output_tokens), (1, 3, 5));
            assert_eq!((row.cost_micros, row.estimated_cost_micros), (7, 0));
        }
    }
}
