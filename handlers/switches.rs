//! The switches as this process knows them, and how they are changed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use colloquy::azure::{BlobVersion, Creation};
use colloquy::events::switches::{self, Switches};
use colloquy::jobs::retry::Backoff;

use crate::services::Services;

/// Reading switches must not hold up a delivery for as long as a sender waits.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a change is tried while others change something: more than there are operators at once.
const TRIES: u32 = 50;
const PAUSE: Backoff = Backoff { base: Duration::from_millis(20), cap: Duration::from_millis(200) };

impl Services {
    /// The switches in force, at most `SWITCH_CACHE` old. `None`: this process could not read them yet.
    pub async fn switches(&self) -> Option<Arc<Switches>> {
        self.switches.get(async { self.read_switches().await.map_err(|error| format!("{error:#}")) }).await
    }

    /// The switches as they are written now.
    pub async fn read_switches(&self) -> anyhow::Result<Switches> {
        let container = self.storage.with_timeout(PATIENCE).container(&self.config.storage.container);
        match container.get(switches::BLOB).await? {
            Some(text) => parsed(&text),
            None => Ok(Switches::default()),
        }
    }

    /// Applies a change to the switches, whoever else changes them at the same time: it is applied again to what the
    /// others wrote, until it is written over what it was applied to. Gives what `change` gave that time.
    pub async fn change_switches<T>(&self, mut change: impl FnMut(&mut Switches) -> T) -> anyhow::Result<T> {
        let container = self.container();
        let mut sent: Option<(Bytes, T)> = None;
        for tries in 1..=TRIES {
            let (text, version) = container.get_versioned(switches::BLOB).await?.unzip();
            match sent.take() {
                // It was written, and only the answer to that was lost.
                Some((written, came_of_it)) if text.as_ref() == Some(&written) => return Ok(came_of_it),
                _ => {}
            }
            let before = text.as_deref().map(parsed).transpose()?.unwrap_or_default();
            let mut after = before.clone();
            let came_of_it = change(&mut after);
            if after == before {
                return Ok(came_of_it);
            }
            let written = Bytes::from(serde_json::to_vec_pretty(&after)?);
            if self.write_over(version.as_ref(), written.clone()).await? {
                return Ok(came_of_it);
            }
            sent = Some((written, came_of_it));
            tokio::time::sleep(PAUSE.delay(tries)).await;
        }
        bail!("others changed the switches in each of {TRIES} tries; nothing was changed here, try again")
    }

    async fn write_over(&self, version: Option<&BlobVersion>, text: Bytes) -> anyhow::Result<bool> {
        const JSON: &str = "application/json";
        let container = self.container();
        Ok(match version {
            Some(version) => container.put_over(switches::BLOB, version, text, JSON).await?,
            None => container.put_new(switches::BLOB, text, JSON).await? == Creation::Created,
        })
    }
}

fn parsed(text: &[u8]) -> anyhow::Result<Switches> {
    serde_json::from_slice(text).with_context(|| {
        format!("the blob {} is not what `function-handlers sources` writes", switches::BLOB)
    })
}
