//! Everything that goes wrong, round after round, for as long as one likes: `scripts/soak`.
//!
//! A round is one of the campaigns beside this file, or the network's: both programs behind proxies that cut, silence and
//! delay, on a disk that fills, under floods and slow clients, with clocks that disagree, while somebody asks all the time
//! whether they are well. `COLLOQUY_FAULT_SEED` draws all of it again; each round has a seed of its own, which is printed.

mod network;
mod round;
mod strangers;
mod truth;

use std::time::{Duration, Instant};

use super::conversations::plan::Plan;
use super::{combined, conversations, joined};
use crate::support::report;
pub use round::Round;
use round::Sum;

/// Events and turns of a round of the campaigns. Each takes some minutes.
const EVENTS: usize = 1_500;
const TURNS: usize = 150;
const JOINED: usize = 400;

/// `COLLOQUY_SOAK_SECONDS`: no round begins after so long. The first is the network's, so that a short run has most of
/// what no other test has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "scripts/soak runs it"]
async fn for_as_long_as_wanted_nothing_accepted_is_lost_or_doubled_and_health_tells_the_truth() {
    let seconds = std::env::var("COLLOQUY_SOAK_SECONDS").map_or(60, |text| text.parse().expect("a number"));
    let (plan, length, start) = (Plan::read(), Duration::from_secs(seconds), Instant::now());
    let mut sum = Sum::default();
    for number in 0.. {
        if number > 0 && start.elapsed() >= length {
            break;
        }
        let plan = plan.round(number);
        let round = match number % 4 {
            // As long as all others of four together.
            0 => Box::pin(network::round(plan, length / 2)).await,
            1 => Box::pin(combined::round(plan, EVENTS)).await,
            2 => Box::pin(conversations::round(Plan { turns: TURNS, ..plan })).await,
            _ => Box::pin(joined::round(plan, JOINED)).await,
        };
        println!("round {number}, {}, seed {}:\n{}", round.name, plan.seed, round.text);
        sum.add(number, plan.seed, round);
    }
    let text = format!("seed {}, {:.0?}\n{}", plan.seed, start.elapsed(), sum.table());
    report("soak", &text);
    assert!(sum.balances(), "{text}\n{}", sum.faults());
}
