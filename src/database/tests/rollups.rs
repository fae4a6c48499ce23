use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use super::support::TestDatabase;
use crate::database::responses::{Order, PageOf};
use crate::database::rollups;
use crate::database::spending::{self, MOST_DAYS, UsageCursor, UsageFilter};

fn day(back: i32) -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date().saturating_sub(back.days())
}

/// Settled attempts of a day, at noon: so many, each of its own turn and one micro-unit.
async fn used(session: &tokio_postgres::Client, back: i32, owner: &str, attempts: i64) {
    const SQL: &str = "
        INSERT INTO usage (id, owner, api_key, model, deployment, provider, state, reason, day, created_at, settled_at,
                           input_tokens, output_tokens, cost_micros)
        SELECT (left(uuid_floor(at)::text, 24) || right(md5(random()::text), 12))::uuid, $2, NULL, 'm', 'd', 'demo',
               'settled', 'completed', at::date, at, at, 2, 1, 1
        FROM (SELECT (now() AT TIME ZONE 'UTC')::date - $1::integer + interval '12 hours' AS at) AS noon,
             generate_series(1, $3::bigint)";
    session.batch_execute("SET TIME ZONE 'UTC'").await.expect("a zone");
    let months = "SELECT ensure_month_partition('usage', now() - make_interval(days => $1))";
    session.query(months, &[&back]).await.expect("a partition");
    session.execute(SQL, &[&back, &owner, &attempts]).await.expect("usage");
}

/// Attempts and cost of all days.
async fn told(client: &crate::database::Client) -> (i64, i64) {
    let all = UsageFilter { owner: None, api_key: None, model: None, from: day(400), to: day(0) };
    let page = PageOf { after: None, limit: MOST_DAYS, order: Order::Descending };
    let days = spending::by_day(client, &all, page).await.expect("days").entries;
    (days.iter().map(|day| day.attempts).sum(), days.iter().map(|day| day.cost_micros).sum())
}

async fn rows(session: &tokio_postgres::Client, of: &str) -> i64 {
    session.query_one(&format!("SELECT count(*) FROM {of}"), &[]).await.expect("a count").get(0)
}

#[tokio::test]
async fn days_that_are_over_are_summed_once_whoever_does_it() {
    let (test, database) = TestDatabase::migrated().await;
    let session = test.session().await;
    for (back, owner, attempts) in [(3, "ada", 5), (3, "bob", 2), (1, "ada", 4), (0, "ada", 3)] {
        used(&session, back, owner, attempts).await;
    }
    let client = database.client().await.expect("a client");
    assert_eq!(told(&client).await, (14, 14));

    let rolling = (0..6).map(|_| {
        let database = database.clone();
        async move {
            let mut client = database.client().await.expect("a client");
            while rollups::roll_next(&mut client, day(0)).await.expect("rolled").is_some() {}
        }
    });
    futures_util::future::join_all(rolling).await;
    assert_eq!(rows(&session, "usage_rollups").await, 3, "without a gap, and not today");
    assert_eq!(rows(&session, "usage_days").await, 3);
    assert_eq!(told(&client).await, (14, 14), "the same, read from sums and from today's rows");

    // One of a day before all that were summed.
    used(&session, 5, "bob", 1).await;
    let mut client = database.client().await.expect("a client");
    while rollups::roll_next(&mut client, day(0)).await.expect("rolled").is_some() {}
    assert_eq!(rows(&session, "usage_rollups").await, 5);
    assert_eq!(told(&client).await, (15, 15));

    // What comes late is seen when its day is summed again.
    used(&session, 3, "ada", 1).await;
    let mut other = database.client().await.expect("a client");
    assert_eq!(rollups::roll_again(&mut other, day(0)).await.expect("looked"), None, "all are fresh");
    session
        .execute("UPDATE usage_rollups SET rolled_at = now() - interval '2 days'", &[])
        .await
        .expect("aged");
    while rollups::roll_again(&mut other, day(0)).await.expect("rolled").is_some() {}
    assert_eq!(told(&client).await, (16, 16));
}

#[tokio::test]
async fn rows_past_their_time_go_and_their_sums_stay() {
    let (test, database) = TestDatabase::migrated().await;
    let session = test.session().await;
    for (back, attempts) in [(100, 7), (99, 2), (1, 4)] {
        used(&session, back, "ada", attempts).await;
    }
    let mut client = database.client().await.expect("a client");
    assert_eq!(rollups::empty(&mut client, day(90), 5).await.expect("looked"), 0, "not before it is summed");
    while rollups::roll_next(&mut client, day(0)).await.expect("rolled").is_some() {}
    let mut gone = Vec::new();
    while let taken @ 1.. = rollups::empty(&mut client, day(90), 5).await.expect("emptied") {
        gone.push(taken);
    }
    assert_eq!(gone, [5, 2, 2], "in batches, a day at a time");
    assert_eq!(rows(&session, "usage").await, 4);
    assert_eq!(told(&client).await, (13, 13));

    // A row of such a day that comes even later is added, and goes.
    used(&session, 100, "ada", 1).await;
    session.execute("UPDATE usage SET settled_at = now() WHERE day < $1", &[&day(90)]).await.expect("late");
    assert_eq!(rollups::empty(&mut client, day(90), 5).await.expect("emptied"), 1);
    assert_eq!(told(&client).await, (14, 14));
    session
        .execute("UPDATE usage_rollups SET rolled_at = now() - interval '2 days'", &[])
        .await
        .expect("aged");
    while rollups::roll_again(&mut client, day(0)).await.expect("rolled").is_some() {}
    assert_eq!(told(&client).await, (14, 14), "sums without rows are not summed again");

    let budget = "INSERT INTO budgets (scope, subject, day, limit_micros, held_micros) VALUES ('total', '', $1, 9, $2)";
    session.execute(budget, &[&day(100), &0_i64]).await.expect("a budget");
    session.execute(budget, &[&day(99), &1_i64]).await.expect("a budget that is held");
    session.execute(budget, &[&day(1), &0_i64]).await.expect("a young budget");
    assert_eq!(rollups::delete_budgets(&client, day(90), 10).await.expect("deleted"), 1);
}

/// Rows of all days, page by page; `between` is done once each has been read.
async fn paged(
    client: &crate::database::Client,
    owner: Option<&str>,
    order: Order,
    between: impl AsyncFn(usize),
) -> Vec<String> {
    let filter = UsageFilter { owner, api_key: None, model: None, from: day(400), to: day(0) };
    let (mut rows, mut after) = (Vec::new(), None::<UsageCursor>);
    for number in 0.. {
        let page = PageOf { after: after.as_ref(), limit: 3, order };
        let page = spending::by_day(client, &filter, page).await.expect("a page");
        assert!(page.entries.len() == 3 || !page.has_more);
        rows.extend(
            page.entries.iter().map(|row| {
                format!("{} {} {} {:?}", row.day, row.owner, row.provider, row.api_key.as_deref())
            }),
        );
        let Some(last) = page.entries.last() else { break };
        // As a caller has it.
        after = Some(last.cursor().to_string().parse().expect("a cursor"));
        between(number).await;
        if !page.has_more {
            break;
        }
    }
    rows
}

#[tokio::test]
async fn pages_of_usage_have_each_row_once_while_others_come() {
    let (test, database) = TestDatabase::migrated().await;
    let session = test.session().await;
    const SQL: &str = "
        INSERT INTO usage_days (owner, day, model, deployment, provider, api_key, attempts, turns, input_tokens,
            cached_tokens, cache_written_tokens, output_tokens, reasoning_tokens, cost_micros, estimated_cost_micros,
            estimated_attempts)
        SELECT $1, (now() AT TIME ZONE 'UTC')::date - $2::integer, 'm', 'd', provider, key, 1, 1, 1, 0, 0, 1, 0, 1, 0, 0
        FROM unnest(ARRAY['p', 'q']) AS provider, unnest(ARRAY[NULL, '', 'k', 'Ä/|']) AS key";
    for (owner, back) in [("ada", 2), ("bob", 2), ("Bob", 1), ("ada", 1)] {
        session.execute(SQL, &[&owner, &back]).await.expect("rows");
    }
    let client = database.client().await.expect("a client");
    let nothing = async |_| {};
    let all = paged(&client, None, Order::Descending, nothing).await;
    assert_eq!(all.len(), 4 * 8);
    let unique: std::collections::BTreeSet<&String> = all.iter().collect();
    assert_eq!(unique.len(), all.len(), "{all:?}");
    let days = all.iter().map(|row| &row[..10]);
    assert!(days.is_sorted_by(|one, next| one >= next), "the newest day first: {all:?}");
    let ascending = paged(&client, None, Order::Ascending, nothing).await;
    assert!(ascending.iter().map(|row| &row[..10]).is_sorted());
    assert_eq!(ascending.iter().collect::<std::collections::BTreeSet<_>>(), unique);
    assert_eq!(paged(&client, Some("bob"), Order::Descending, nothing).await.len(), 8);

    // Before the place that the first page ends at, and behind it.
    let come = async |page| {
        if page == 0 {
            session.execute(SQL, &[&"aaa", &0]).await.expect("rows");
            session.execute(SQL, &[&"zoe", &2]).await.expect("rows");
        }
    };
    let while_others_come = paged(&client, None, Order::Descending, come).await;
    let known: Vec<&String> = while_others_come.iter().filter(|row| !row.contains(" zoe ")).collect();
    assert_eq!(known, all.iter().collect::<Vec<_>>());
    assert_eq!(while_others_come.len(), all.len() + 8);
}
