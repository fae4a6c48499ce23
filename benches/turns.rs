//! What a turn costs: three rungs beside the bare provider and a peer, then many connections at once.
//!
//! The server is on a core of its own; the provider, this load generator, PostgreSQL and PgBouncer share the other ones.

mod held;
mod load;
mod parts;
mod provider;
#[allow(dead_code, unreachable_pub, unused_imports, reason = "the tests use the rest")]
#[path = "../tests/it/support/proxy.rs"]
mod proxy;
mod rungs;

use parts::{Database, number, text};
pub use provider::answer as provider;

/// Where things are, and how much is asked, stand in `COLLOQUY_BENCH_*`; `scripts/bench` sets them.
#[derive(clap::Args)]
pub struct Turns {
    /// Rungs by name (a, b, c, far, peer), held for the connections, rungs for all rungs; nothing is everything
    what: Vec<String>,
}

impl Turns {
    pub async fn run(self) -> anyhow::Result<()> {
        let database = Database::create(
            &text("COLLOQUY_BENCH_DATABASE_URL")?,
            &text("COLLOQUY_BENCH_DATABASE_DIRECT_URL")?,
        )
        .await?;
        let named = |what: &str| self.what.iter().any(|word| word == what);
        let (all, rungs) = (self.what.is_empty(), named("rungs"));
        if all || rungs || ["a", "b", "c", "far", "peer"].iter().any(|rung| named(rung)) {
            let turns = number("COLLOQUY_BENCH_TURNS", 2_000)?;
            rungs::run(&database, turns, &|rung| all || rungs || named(rung)).await?;
        }
        if all || named("held") {
            held::run(&database).await?;
        }
        database.remove().await
    }
}
