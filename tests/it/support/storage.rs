//! Queues and containers of one test's own, in the shared Azurite or in a private one.

use super::{Surroundings, unique};

/// Names nobody else uses. The store itself is thrown away with `.local/test`.
pub struct TestStorage {
    pub connection_string: String,
    /// Values of `QUEUE_EVENTS`, `QUEUE_JOBS`, `QUEUE_CALLBACKS`.
    pub events: String,
    pub jobs: String,
    pub callbacks: String,
    /// Value of `BLOB_CONTAINER`.
    pub container: String,
}

impl TestStorage {
    /// In the shared Azurite.
    pub fn create() -> Self {
        Self::within(&Surroundings::read().azurite)
    }

    /// In any store.
    pub fn within(connection_string: &str) -> Self {
        let name = unique("t");
        Self {
            connection_string: connection_string.to_owned(),
            events: format!("{name}-events"),
            jobs: format!("{name}-jobs"),
            callbacks: format!("{name}-calls"),
            container: name,
        }
    }
}
