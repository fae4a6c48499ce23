//! Waiting for a condition instead of for time.

use std::time::{Duration, Instant};

/// Long enough for anything that should happen soon, on a machine that is busy with other tests.
pub const SOON: Duration = Duration::from_secs(20);

/// Returns when `condition` holds; panics, naming `what`, when it did not within `limit`.
#[track_caller]
pub fn eventually<F>(what: &str, limit: Duration, mut condition: F) -> impl Future<Output = ()>
where
    F: AsyncFnMut() -> bool,
{
    let caller = std::panic::Location::caller();
    async move {
        let start = Instant::now();
        let mut pause = Duration::from_millis(5);
        while !condition().await {
            assert!(start.elapsed() < limit, "{caller}: not within {limit:?}: {what}");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }
}
