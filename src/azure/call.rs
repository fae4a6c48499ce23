//! How one storage call is made: bounded, tried again where that helps, traced, its errors rebuilt.
//!
//! The SDK's own retries are off. Left on they would go on for a minute, during which a webhook sender has
//! long given up, and each wait would take a thread (the SDK sleeps on one without its `tokio` feature).

use std::future::Future;
use std::time::Duration;

use tracing::Instrument as _;

use super::error::{Call, StorageError};

/// Tries per call. A refused connection is reported after all of them, within about 150 ms.
const TRIES: u32 = 3;
/// Before the second try; doubled before the third.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Runs `attempt` until it succeeds, fails for good, or `limit` has passed.
///
/// A try whose answer was lost may have taken effect: a put may then happen twice (consumers tolerate
/// duplicates), a delete finds nothing, a conditional put finds its own blob.
pub(super) async fn bounded<T, Attempt, Tried>(
    operation: &'static str,
    resource: String,
    limit: Duration,
    attempt: Attempt,
) -> Result<T, StorageError>
where
    Attempt: Fn() -> Tried,
    Tried: Future<Output = azure_core::Result<T>>,
{
    let queue = operation.strip_prefix("queue.").map(|verb| (verb, resource.as_str()));
    let span = tracing::info_span!(
        "storage",
        otel.name = queue.map_or_else(|| operation.to_owned(), |(verb, queue)| format!("{verb} {queue}")),
        otel.kind = if operation == "queue.put" { "producer" } else { "client" },
        az.namespace = "Microsoft.Storage",
        messaging.system = queue.map(|_| "azure_storage_queue"),
        messaging.operation.name = queue.map(|(verb, _)| verb),
        messaging.destination.name = queue.map(|(_, queue)| queue),
        storage.resource = %resource,
        storage.tries = tracing::field::Empty,
        otel.status_code = tracing::field::Empty,
        error.type = tracing::field::Empty,
    );
    let call = Call { operation, resource };
    let recorded = span.clone();
    let work = async {
        let outcome = match tokio::time::timeout(limit, tries(&call, &recorded, attempt)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(StorageError::Timeout { call: call.clone(), after: limit }),
        };
        if let Err(error) = &outcome {
            recorded.record("otel.status_code", "ERROR");
            recorded.record("error.type", error.code());
        }
        outcome
    };
    work.instrument(span).await
}

async fn tries<T, Attempt, Tried>(
    call: &Call,
    span: &tracing::Span,
    attempt: Attempt,
) -> Result<T, StorageError>
where
    Attempt: Fn() -> Tried,
    Tried: Future<Output = azure_core::Result<T>>,
{
    let mut pause = FIRST_PAUSE;
    let mut tried = 1;
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => StorageError::from_sdk(call.clone(), error),
        };
        if tried == TRIES || !error.is_transient() {
            span.record("storage.tries", tried);
            return Err(error);
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
        tried += 1;
    }
}

#[cfg(test)]
mod tests;
