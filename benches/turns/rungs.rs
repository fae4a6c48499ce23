//! The rungs: each does more than the one before.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::json;

use super::load::{self, Ask, Shape, Spread, Took};
use super::parts::{self, Database, Part, record};
use super::proxy::Proxy;

/// What each rung is asked for. The provider sends all pieces at once but in the last, where each comes by itself.
const SHAPES: [Shape; 5] =
    [Shape::json(1), Shape::stream(1, 0), Shape::stream(8, 0), Shape::stream(50, 0), Shape::stream(50, 2)];
const AT_ONCE: [usize; 2] = [1, 64];
/// Each way to a database that is not on this machine; timers make three of two.
const DELAY: Duration = Duration::from_millis(1);

/// What is measured, and what a rung is compared with.
struct Rungs<'d> {
    database: &'d Database,
    turns: usize,
    bare: HashMap<(Shape, usize), [Spread; 2]>,
}

/// `wanted` says by name which rungs: `a`, `b`, `c`, `far`, `peer`.
pub async fn run(database: &Database, turns: usize, wanted: &dyn Fn(&str) -> bool) -> anyhow::Result<()> {
    let (provider, url) = parts::provider()?;
    let (commit, trip) = (database.commit_latency().await?, Database::round_trip(&database.pooled).await?);
    println!("commit latency of this machine: {}", times(commit));
    println!("round trip to the database: {trip:.2?}");
    record(&json!({ "what": "machine", "turns": turns, "commit_ms": milliseconds(commit),
                    "round_trip_ms": trip.as_secs_f64() * 1e3 }))?;
    println!("{turns} turns each. added: to the bare provider's, on the clock; ms\n");
    let mut rungs = Rungs { database, turns, bare: HashMap::new() };
    rungs.rung("bare provider (CPU its own)", &provider, &|shape| Ask::provider(&url, shape), false).await?;
    for (word, name, store, metering) in [
        ("a", "(a) store: false, key, limits", false, false),
        ("b", "(b) and metering", false, true),
        ("c", "(c) store: true", true, true),
    ] {
        if wanted(word) {
            let settings = [("DB_TRACK_USAGE", if metering { "true" } else { "false" })];
            let (server, address) =
                parts::server(&url, &SHAPES, &database.pooled, &database.direct, &settings).await?;
            let ask = |shape| Ask::server(&address, store, shape);
            let taken = connections(&url).await?;
            rungs.rung(name, &server, &ask, metering).await?;
            println!("{:>4} connections to the provider in all", connections(&url).await? - taken);
        }
    }
    if wanted("far") {
        let port = url::Url::parse(&database.pooled)?.port().unwrap_or(5432);
        let proxy = Proxy::to(port, DELAY).await;
        let far = database.pooled.replacen(&format!(":{port}/"), &format!(":{}/", proxy.port()), 1);
        let trip = Database::round_trip(&far).await?;
        println!("\ndatabase by proxy: {trip:.2?} a round trip");
        record(&json!({ "what": "far", "round_trip_ms": trip.as_secs_f64() * 1e3 }))?;
        let (server, address) = parts::server(&url, &SHAPES, &far, &database.direct, &[]).await?;
        rungs.turns = (turns / 8).max(1);
        let ask = |shape| Ask::server(&address, true, shape);
        rungs.rung("(c) store: true, by proxy", &server, &ask, true).await?;
    }
    if wanted("peer") && std::env::var_os("COLLOQUY_BENCH_PEER").is_some() {
        let (peer, address) = parts::peer(&url, &SHAPES).await?;
        // It takes many times as long.
        rungs.turns = (turns / 8).max(1);
        rungs.rung("LiteLLM proxy", &peer, &|shape| Ask::peer(&address, shape), false).await?;
    }
    Ok(())
}

impl Rungs<'_> {
    async fn rung(
        &mut self,
        name: &str,
        part: &Part,
        ask: &dyn Fn(Shape) -> Ask,
        counted: bool,
    ) -> anyhow::Result<()> {
        println!(
            "\n{name:<30}{:>24} {:>3} {:>9} {:>8} {:>21} {:>21} {:>21}",
            "turn", "at", "CPU µs", "turns/s", "whole p50/99/99.9", "added p50/99/99.9", "first added"
        );
        for at_once in AT_ONCE {
            let mut costs = Vec::new();
            for shape in SHAPES {
                if shape.pace > 0 && at_once == 1 {
                    continue;
                }
                let ask = ask(shape);
                // Connections, caches, the allocator.
                ask.many(self.turns / 10 + at_once, at_once).await?;
                let counted = counted && shape == SHAPES[2];
                let before = if counted { Some(self.database.counts().await?) } else { None };
                let (busy, started) = (part.busy()?, Instant::now());
                let took = ask.many(self.turns, at_once).await?;
                let cost = (part.busy()? - busy).as_secs_f64() * 1e6 / self.turns as f64;
                let per_second = self.turns as f64 / started.elapsed().as_secs_f64();
                let of = |which: fn(&Took) -> Duration| Spread::of(took.iter().map(which));
                let [first, whole] = [of(|took| took.first), of(|took| took.whole)];
                let [bare_first, bare_whole] = *self.bare.entry((shape, at_once)).or_insert([first, whole]);
                println!(
                    "{shape:>54} {at_once:>3} {cost:>9.1} {per_second:>8.0} {:>21} {:>21} {:>21}",
                    times(whole),
                    added(whole, bare_whole),
                    added(first, bare_first)
                );
                record(&json!({ "what": "rung", "rung": name, "turn": shape.to_string(),
                                "pieces": shape.pieces, "at_once": at_once, "cpu_us": cost,
                                "per_second": per_second, "whole_ms": milliseconds(whole),
                                "bare_ms": milliseconds(bare_whole), "first_ms": milliseconds(first),
                                "bare_first_ms": milliseconds(bare_first) }))?;
                if let Some(before) = before {
                    let after = self.database.counts().await?;
                    let each = |which: usize| (after[which] - before[which]) as f64 / self.turns as f64;
                    println!(
                        "{:>58} {:.2} transactions, {:.2} syncs of the log a turn",
                        "",
                        each(0),
                        each(1)
                    );
                }
                costs.push((shape, cost));
            }
            let cost = |wanted| costs.iter().find(|(shape, _)| *shape == wanted).map(|(_, cost)| *cost);
            if let (Some(one), Some(many)) = (cost(SHAPES[1]), cost(SHAPES[3])) {
                let (one_piece, many_pieces) = (SHAPES[1].pieces as f64, SHAPES[3].pieces as f64);
                let piece = (many - one) / (many_pieces - one_piece);
                let fixed = one - piece * one_piece;
                println!("{:>58} a stream: {fixed:.0} µs and {piece:.2} µs a piece", "");
            }
        }
        Ok(())
    }
}

/// p50, p99, p99.9.
fn milliseconds(spread: Spread) -> [f64; 3] {
    [spread.p50, spread.p99, spread.p999].map(|time| time.as_secs_f64() * 1e3)
}

fn times(spread: Spread) -> String {
    let [p50, p99, p999] = milliseconds(spread);
    format!("{p50:.2} {p99:.2} {p999:.2}")
}

fn added(spread: Spread, bare: Spread) -> String {
    let ms = |time: Duration, bare: Duration| (time.as_secs_f64() - bare.as_secs_f64()) * 1e3;
    let (p50, p99, p999) = (ms(spread.p50, bare.p50), ms(spread.p99, bare.p99), ms(spread.p999, bare.p999));
    format!("{p50:.2} {p99:.2} {p999:.2}")
}

/// Connections that the provider has taken so far.
async fn connections(url: &str) -> anyhow::Result<u64> {
    Ok(load::client()?.get(url).send().await?.text().await?.parse()?)
}
