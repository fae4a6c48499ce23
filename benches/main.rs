//! What `scripts/bench` measures with: load, stand-ins and limits as processes of their own, so that each can have its
//! core. The script says where things are and on which cores they run, and turns what is printed here into tables.
//!
//! What counts is the processor time of what is measured: it depends less on what else the machine does than times on the
//! clock do, which need a quiet one.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark is told where to run, prints, and ends at the first thing that goes wrong"
)]

mod limit;
mod load;
mod queue;
mod stand_in;
mod turns;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Load, stand-ins and limits for scripts/bench, which starts them")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Asks one or several addresses over and over; prints what came of it as JSON
    Load(load::Load),
    /// The least a webhook can cost: a warp route that checks the signature, and nothing else
    Limit(limit::Limit),
    /// A storage account that takes every message and has no blobs; prints its address, ends with its input
    Queue,
    /// A model's provider; prints its address, ends with its input
    Provider,
    /// What a turn costs, rung by rung, and how many connections one process holds
    Turns(turns::Turns),
}

fn main() -> anyhow::Result<()> {
    let what = Cli::parse().what;
    match what {
        What::Queue => return stand_in::serve(queue::answer),
        What::Provider => return stand_in::serve(turns::provider),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match what {
        What::Load(load) => runtime.block_on(load.run()),
        What::Limit(limit) => runtime.block_on(limit.run()),
        What::Turns(turns) => runtime.block_on(turns.run()),
        What::Queue | What::Provider => Ok(()),
    }
}
