//! Switches: what an operator has stopped, without a deployment.
//!
//! They live in one small blob rather than in the database, because the receiving path must not need the database.
//! Every process reads it at most once in `SWITCH_CACHE`, and keeps the last known state when it cannot.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::config::app::Stop;

/// The blob's name, in the container of our own state.
pub const BLOB: &str = "switches.json";

/// Everything that is stopped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Switches {
    #[serde(default)]
    pub sources: BTreeMap<String, Switch>,
}

/// One thing that is stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Switch {
    pub stop: Stop,
    /// Who set it.
    pub by: String,
    pub at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Switches {
    /// How a source is stopped now, if it is: by a switch, else by its configuration.
    pub fn source(&self, name: &str, configured: Option<Stop>, now: Timestamp) -> Option<Stop> {
        self.sources
            .get(name)
            .filter(|switch| switch.until.is_none_or(|until| now < until))
            .map(|switch| switch.stop)
            .or(configured)
    }
}

/// The last known switches, read again when they are older than `max_age`.
#[derive(Debug)]
pub struct SwitchCache {
    max_age: Duration,
    /// What was read last, and when reading was last tried.
    known: RwLock<(Option<Arc<Switches>>, Option<Instant>)>,
    reading: Mutex<()>,
}

impl SwitchCache {
    pub fn new(max_age: Duration) -> Self {
        Self { max_age, known: RwLock::default(), reading: Mutex::default() }
    }

    /// The switches, at most `max_age` old unless they cannot be read. `read` is polled only when they are older.
    /// `None`: this process has never been able to read them, so anything may be stopped.
    ///
    /// One caller at a time reads; others go on with what is known, and wait only if nothing is known yet. A failed
    /// read is logged and not tried again for `max_age`, so that a dead storage account does not cost every request
    /// a timeout.
    pub async fn get<F>(&self, read: F) -> Option<Arc<Switches>>
    where
        F: Future<Output = Result<Switches, String>> + Send,
    {
        let (known, read_at) = self.known();
        if self.is_fresh(read_at) {
            return known;
        }
        let turn = match self.reading.try_lock() {
            Ok(turn) => turn,
            Err(_) if read_at.is_some() => return known,
            Err(_) => self.reading.lock().await,
        };
        let (mut switches, read_at) = self.known();
        if !self.is_fresh(read_at) {
            match read.await {
                Ok(read) => switches = Some(Arc::new(read)),
                Err(error) => tracing::warn!(
                    code = "switches_unreadable",
                    error,
                    known = switches.is_some(),
                    "switches could not be read; the last known state stays in force, and without one nothing is processed"
                ),
            }
            *self.known.write().unwrap_or_else(PoisonError::into_inner) =
                (switches.clone(), Some(Instant::now()));
        }
        drop(turn);
        switches
    }

    fn known(&self) -> (Option<Arc<Switches>>, Option<Instant>) {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_fresh(&self, read_at: Option<Instant>) -> bool {
        read_at.is_some_and(|at| at.elapsed() < self.max_age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn switch(stop: Stop, until: Option<&str>) -> Switches {
        let switch = Switch {
            stop,
            by: "test".into(),
            at: Timestamp::UNIX_EPOCH,
            reason: None,
            until: until.map(|text| text.parse().unwrap()),
        };
        Switches { sources: BTreeMap::from([("stripe".to_owned(), switch)]) }
    }

    #[test]
    fn a_switch_beats_configuration_until_it_expires() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let switches = switch(Stop::Refuse, Some("2026-11-21T12:00:01Z"));
        assert_eq!(switches.source("stripe", Some(Stop::Hold), now), Some(Stop::Refuse));
        let later = "2026-11-21T12:00:01Z".parse().unwrap();
        assert_eq!(switches.source("stripe", Some(Stop::Hold), later), Some(Stop::Hold));
        assert_eq!(switches.source("github", None, now), None);
    }

    #[tokio::test]
    async fn the_last_known_state_survives_a_failed_read() {
        let cache = SwitchCache::new(Duration::ZERO);
        let known = switch(Stop::Hold, None);
        let away = || async { Err("storage is away".into()) };
        assert_eq!(cache.get(away()).await, None, "nothing is known yet");
        assert_eq!(cache.get(async { Ok(known.clone()) }).await.as_deref(), Some(&known));
        assert_eq!(cache.get(away()).await.as_deref(), Some(&known));
    }

    #[tokio::test]
    async fn within_its_age_the_blob_is_not_read_again() {
        let cache = SwitchCache::new(Duration::from_secs(60));
        cache.get(async { Ok(Switches::default()) }).await;
        cache.get(async { panic!("read again") }).await;
    }
}
