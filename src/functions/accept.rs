//! What a failed accept means for the listener.

use std::io;
use std::time::Duration;

use tokio::time::sleep;

/// Errors of one connection, or of a moment, do not end serving; an error that comes back does.
pub async fn survive(error: io::Error) -> io::Result<()> {
    /// File descriptors come back when connections end, which nothing tells.
    const PAUSE: Duration = Duration::from_millis(50);
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
        return Ok(());
    }
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
            tracing::warn!(code = "accept.starved", %error, "no connection can be accepted; raise the limit of open files");
            sleep(PAUSE).await;
            Ok(())
        }
        _ => Err(error),
    }
}
