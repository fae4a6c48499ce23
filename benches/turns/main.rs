//! What a turn costs: three rungs beside the bare provider, then many connections at once. Run it with
//! `scripts/bench-turns`, which says where things are and on which cores they run; docs/performance.md has the figures.
//!
//! The server is the release build, on a core of its own; the fake provider, this load generator, PostgreSQL and
//! PgBouncer share the other ones. What counts is the server's processor time (`/proc/<pid>/stat`): it hardly depends on
//! what else the machine does, as times on the clock do.

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
#[allow(dead_code, unreachable_pub, unused_imports, reason = "the tests use the rest")]
#[path = "../../tests/it/support/providers/mod.rs"]
mod providers;
#[allow(dead_code, unreachable_pub, unused_imports, reason = "the tests use the rest")]
#[path = "../../tests/it/support/proxy.rs"]
mod proxy;
mod rungs;

use parts::{Database, number, text};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, words, pace] = &arguments[..]
        && role == "provider"
    {
        return parts::provide(words.parse()?, pace.parse()?);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let database = Database::create(
            &text("COLLOQUY_BENCH_DATABASE_URL")?,
            &text("COLLOQUY_BENCH_DATABASE_DIRECT_URL")?,
        )
        .await?;
        let wanted = |what: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == what);
        if wanted("rungs") {
            rungs::run(&database, number("COLLOQUY_BENCH_TURNS", 2_000)?).await?;
        }
        if wanted("held") {
            let (sockets, streams) =
                (number("COLLOQUY_BENCH_SOCKETS", 10_000)?, number("COLLOQUY_BENCH_STREAMS", 1_000)?);
            held::run(&database, sockets, streams).await?;
        }
        database.remove().await
    })
}
