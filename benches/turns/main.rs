//! What a turn costs: three rungs beside the bare provider, then many connections at once. Run it with
//! `scripts/bench-turns`, which says where things are and on which cores they run; docs/performance.md has the figures.
//!
//! The server is the release build, on a core of its own; the provider, this load generator, PostgreSQL and PgBouncer
//! share the other ones. What counts is the server's processor time: it depends less on what else the machine does than
//! times on the clock do, which need a quiet one.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark is told where to run, prints, and ends at the first thing that goes wrong"
)]

mod held;
mod load;
mod parts;
mod provider;
#[allow(dead_code, unreachable_pub, unused_imports, reason = "the tests use the rest")]
#[path = "../../tests/it/support/proxy.rs"]
mod proxy;
mod rungs;

use parts::{Database, number, text};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments == ["provider"] {
        return provider::provide();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let database = Database::create(
            &text("COLLOQUY_BENCH_DATABASE_URL")?,
            &text("COLLOQUY_BENCH_DATABASE_DIRECT_URL")?,
        )
        .await?;
        let named = |what: &str| arguments.iter().any(|argument| argument == what);
        let (all, rungs) = (arguments.is_empty(), named("rungs"));
        if all || rungs || ["a", "b", "c", "far"].iter().any(|rung| named(rung)) {
            let turns = number("COLLOQUY_BENCH_TURNS", 2_000)?;
            rungs::run(&database, turns, &|rung| all || rungs || named(rung)).await?;
        }
        if all || named("held") {
            let (sockets, streams) =
                (number("COLLOQUY_BENCH_SOCKETS", 10_000)?, number("COLLOQUY_BENCH_STREAMS", 1_000)?);
            held::run(&database, sockets, streams).await?;
        }
        database.remove().await
    })
}
