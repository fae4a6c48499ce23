//! The rungs: each does more than the one before.

use std::time::{Duration, Instant};

use crate::load::{Ask, Took, quantiles};
use crate::parts::{self, Database, Part};
use crate::proxy::Proxy;

/// Pieces of an answer.
const WORDS: usize = 50;
/// Each way to a database that is not on this machine; timers make three of two.
const DELAY: Duration = Duration::from_millis(1);

pub async fn run(database: &Database, turns: usize) -> anyhow::Result<()> {
    let (provider, url) = parts::provider(WORDS, 0)?;
    println!("{turns} turns each, {WORDS} pieces a turn, sent at once\n");
    println!(
        "{:<44} {:>3} {:>12} {:>8} {:>19} {:>19}",
        "rung", "at", "CPU µs/turn", "turns/s", "first p50, p99 ms", "whole p50, p99 ms"
    );
    let bare = Ask::provider(&url, WORDS);
    for at_once in [1, 32] {
        rung("bare provider (its own CPU)", &provider, &bare, turns, at_once, None).await?;
    }
    for (name, store, metering) in [
        ("(a) store: false, with a key", false, false),
        ("(b) the same with metering", false, true),
        ("(c) store: true", true, true),
    ] {
        let settings = [("DB_TRACK_USAGE", if metering { "true" } else { "false" })];
        let (server, address) = parts::server(&url, &database.pooled, &database.direct, &settings).await?;
        let ask = Ask::server(&address, store, WORDS);
        for at_once in [1, 32] {
            rung(name, &server, &ask, turns, at_once, metering.then_some(database)).await?;
        }
    }

    let port = port_of(&database.pooled)?;
    let proxy = Proxy::to(port, DELAY).await;
    let far = database.pooled.replacen(&format!(":{port}/"), &format!(":{}/", proxy.port()), 1);
    println!("database by proxy: {:.1?} a round trip", Database::round_trip(&far).await?);
    let (server, address) = parts::server(&url, &far, &database.direct, &[]).await?;
    let ask = Ask::server(&address, true, WORDS);
    for at_once in [1, 32] {
        rung("(c) store: true, database by proxy", &server, &ask, turns / 4, at_once, Some(database)).await?;
    }
    Ok(())
}

async fn rung(
    name: &str,
    part: &Part,
    ask: &Ask,
    turns: usize,
    at_once: usize,
    counted: Option<&Database>,
) -> anyhow::Result<()> {
    // Connections, caches, the allocator.
    ask.many(turns / 10 + at_once, at_once).await?;
    let database_before = transactions(counted).await?;
    let (before, started) = (part.busy()?, Instant::now());
    let took = ask.many(turns, at_once).await?;
    let (busy, elapsed) = (part.busy()? - before, started.elapsed());
    let of = |which: fn(&Took) -> Duration| {
        let (median, most) = quantiles(took.iter().map(which).collect());
        format!("{:>9.2} {:>9.2}", median.as_secs_f64() * 1e3, most.as_secs_f64() * 1e3)
    };
    println!(
        "{name:<44} {at_once:>3} {:>12.0} {:>8.0} {} {}",
        busy as f64 / turns as f64,
        turns as f64 / elapsed.as_secs_f64(),
        of(|took| took.first),
        of(|took| took.whole)
    );
    let database_after = transactions(counted).await?;
    if let (Some((commits, syncs)), Some((commits_after, syncs_after))) = (database_before, database_after) {
        let each = |before: i64, after: i64| (after - before) as f64 / turns as f64;
        println!(
            "{:>48} {:>12.1} transactions a turn, appends among them; {:.1} syncs of the log",
            "",
            each(commits, commits_after),
            each(syncs, syncs_after)
        );
    }
    Ok(())
}

/// Transactions of the database and syncs of its cluster's log so far.
async fn transactions(database: Option<&Database>) -> anyhow::Result<Option<(i64, i64)>> {
    let Some(database) = database else { return Ok(None) };
    // What backends counted arrives within a second.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let commits = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    let syncs = "SELECT wal_sync FROM pg_stat_wal";
    Ok(Some((database.count(commits).await?, database.count(syncs).await?)))
}

fn port_of(url: &str) -> anyhow::Result<u16> {
    Ok(url::Url::parse(url)?.port().unwrap_or(5432))
}
