//! Queues and containers of one test's own, in the shared Azurite or in a private one.

use std::time::Duration;

use colloquy::azure::{Queue, Storage, StorageSettings};

use super::{Surroundings, unique};

/// Names nobody else uses. The store itself is thrown away with `.local/test`.
pub struct TestStorage {
    pub connection_string: String,
    /// Values of `QUEUE_EVENTS`, `QUEUE_JOBS`, `QUEUE_CALLBACKS`.
    pub events: String,
    pub jobs: String,
    pub callbacks: String,
    /// Value of `QUEUE_USAGE`.
    pub usage: String,
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
            usage: format!("{name}-usage"),
            container: name,
        }
    }

    /// The account, as the application reaches it.
    pub fn account(&self) -> Storage {
        let settings = StorageSettings::from_connection_string(&self.connection_string);
        Storage::new(settings.expect("a connection string")).expect("an account")
    }

    pub fn queue(&self, name: &str) -> Queue {
        self.account().queue(name)
    }

    /// Puts a message, as text, for anybody to take now.
    pub async fn put(&self, queue: &str, text: &str) {
        self.queue(queue).put(text, Duration::ZERO).await.expect("a put");
    }

    /// Every queue and how many messages it has, hidden ones included; queues that nobody made have none.
    pub async fn depths(&self) -> Vec<(String, u64)> {
        let mut depths = Vec::new();
        for queue in [&self.events, &self.jobs, &self.callbacks] {
            for name in [queue.clone(), format!("{queue}-poison")] {
                let depth = self.depth(&name).await;
                depths.push((name, depth));
            }
        }
        depths
    }

    /// How many messages of usage wait to be brought home.
    pub async fn usage_depth(&self) -> u64 {
        self.depth(&self.usage).await
    }

    async fn depth(&self, name: &str) -> u64 {
        match self.queue(name).properties().await {
            Ok(properties) => properties.approximate_count,
            Err(colloquy::azure::StorageError::NotFound { .. }) => 0,
            Err(error) => panic!("{name}: {error}"),
        }
    }

    /// Whether no queue holds a message.
    pub async fn is_empty(&self) -> bool {
        self.depths().await.iter().all(|(_, depth)| *depth == 0)
    }
}
