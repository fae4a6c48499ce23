//! Panics: caught at the invocation, reported by place and never by message.

use std::cell::Cell;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;

use futures_util::FutureExt;

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    static PLACE: Cell<Option<String>> = const { Cell::new(None) };
}

/// A panic's place, `src/jobs.rs:12`, or `unknown place` without [`install_panic_hook`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Panicked(pub(super) String);

/// Replaces the process's panic hook. The default one writes the panic's message, which may quote a payload,
/// to stderr, where the host takes it for an error of its own. This one keeps the place, for the invocation's
/// log line; a panic outside any invocation is logged here, code `process.panicked`. Call it once, first
/// thing in `main`.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(|at| format!("{}:{}", at.file(), at.line()));
        if CATCHING.get() {
            PLACE.set(place);
        } else {
            let place = place.as_deref().unwrap_or("unknown place");
            tracing::error!(
                code = "process.panicked",
                place,
                "panic outside an invocation; this is a defect"
            );
        }
    }));
}

/// Runs a future, turning a panic while it is polled into an error. To cover its making as well, make it
/// inside.
pub(super) async fn catch<F: Future>(future: F) -> Result<F::Output, Panicked> {
    // Unwind safety: nothing is used after a panic but what outlives every invocation anyway, and that is
    // reached by shared reference.
    let mut future = pin!(AssertUnwindSafe(future).catch_unwind());
    let ended = poll_fn(|cx| {
        CATCHING.set(true);
        let polled = future.as_mut().poll(cx);
        CATCHING.set(false);
        polled
    })
    .await;
    ended.map_err(|_| Panicked(PLACE.take().unwrap_or_else(|| "unknown place".to_owned())))
}
