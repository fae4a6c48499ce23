//! The time, which tests may move.

#[cfg(not(test))]
pub(crate) fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

#[cfg(test)]
pub(crate) use moved::{advance, now};

#[cfg(test)]
mod moved {
    use std::cell::Cell;
    use std::time::Duration;

    use tokio::time::Instant;

    thread_local! {
        static MOVED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
        static FROZEN: Cell<Option<Instant>> = const { Cell::new(None) };
    }

    pub(crate) fn now() -> Instant {
        FROZEN.get().unwrap_or_else(Instant::now) + MOVED.get()
    }

    /// Moves this thread's time, which stands still from now on.
    pub(crate) fn advance(time: Duration) {
        FROZEN.set(Some(FROZEN.get().unwrap_or_else(Instant::now)));
        MOVED.set(MOVED.get() + time);
    }
}
