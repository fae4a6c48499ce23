//! For one instance.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use tokio::sync::broadcast;
use tokio::time::Instant;

use super::{Add, Coordination, CoordinationError, LAG, Wake};

/// Beyond so many counters those that have ended are swept out.
const SWEEP_AT: usize = 10_000;

/// What instances share when there is one.
pub struct Memory {
    wakes: broadcast::Sender<Wake>,
    counters: Mutex<HashMap<String, (i64, Instant)>>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { wakes: broadcast::channel(LAG).0, counters: Mutex::default() }
    }
}

impl Coordination for Memory {
    fn wake(&self, wake: Wake) {
        // Nobody listening is no failure.
        drop(self.wakes.send(wake));
    }

    fn subscribe(&self) -> broadcast::Receiver<Wake> {
        self.wakes.subscribe()
    }

    fn add<'a>(&'a self, adds: &'a [Add]) -> BoxFuture<'a, Result<Vec<i64>, CoordinationError>> {
        let now = Instant::now();
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if counters.len() > SWEEP_AT {
            counters.retain(|_, (_, end)| *end > now);
        }
        let totals = adds.iter().map(|add| {
            let counter = counters.entry(add.key.clone()).or_insert((0, now));
            if counter.1 <= now {
                counter.0 = 0;
            }
            *counter = (counter.0.saturating_add(add.by), now + add.lives);
            counter.0
        });
        ready(Ok(totals.collect())).boxed()
    }

    /// There are no other instances.
    fn is_shared(&self) -> bool {
        true
    }

    fn reaches_others(&self) -> bool {
        false
    }
}
