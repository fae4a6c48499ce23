//! How many messages a second the ingress can put: 32 tasks, 1 KiB each, one queue.
//!
//! Needs an Azurite: `COLLOQUY_TEST_AZURITE=<connection string> cargo bench --bench queue_put`.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark is told where to run, and prints"
)]

use std::time::{Duration, Instant};

use anyhow::Context as _;
use colloquy::azure::{Storage, StorageSettings};
use tokio::task::JoinSet;

const TASKS: usize = 32;
const PUTS_PER_TASK: usize = 250;

fn main() -> anyhow::Result<()> {
    let text = std::env::var("COLLOQUY_TEST_AZURITE")
        .context("set COLLOQUY_TEST_AZURITE to the connection string of an Azurite")?;
    let started = Instant::now();
    let storage = Storage::new(StorageSettings::from_connection_string(&text)?)?;
    let queue = storage.queue(&format!("bench-{}", uuid::Uuid::now_v7()));
    println!("construction         {:>10.1?}", started.elapsed());
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let started = Instant::now();
        queue.create_if_missing().await?;
        println!("first call           {:>10.1?}", started.elapsed());

        let text = "x".repeat(1024);
        let busy_before = busy()?;
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..TASKS {
            let (queue, text) = (queue.clone(), text.clone());
            tasks.spawn(async move {
                let mut took = Vec::with_capacity(PUTS_PER_TASK);
                for _ in 0..PUTS_PER_TASK {
                    let started = Instant::now();
                    queue.put(&text, Duration::ZERO).await?;
                    took.push(started.elapsed());
                }
                anyhow::Ok(took)
            });
        }
        let mut took = Vec::new();
        while let Some(task) = tasks.join_next().await {
            took.extend(task??);
        }
        let elapsed = started.elapsed();
        took.sort_unstable();
        let puts = took.len();
        println!("puts/s               {:>10.0}", puts as f64 / elapsed.as_secs_f64());
        println!("median, 99th         {:>10.1?} {:>10.1?}", took[puts / 2], took[puts * 99 / 100]);
        println!("our processor time   {:>10.1?} a put", (busy()? - busy_before) / u32::try_from(puts)?);
        println!("messages in queue    {:>10}", queue.properties().await?.approximate_count);
        anyhow::Ok(())
    })
}

/// Processor time of this process so far: user and system, in ticks of 10 ms.
fn busy() -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat")?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next().context("/proc/self/stat")?.parse::<u64>().context("/proc/self/stat");
    Ok(Duration::from_millis(10 * (ticks()? + ticks()?)))
}
