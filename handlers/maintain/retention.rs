//! What time makes superfluous, and the room for what is to come.

use std::time::Duration;

use anyhow::Context;
use colloquy::azure::StorageError;
use colloquy::database::maintenance;
use colloquy::ids::DeliveryId;
use jiff::{SignedDuration, Timestamp};

use super::poison::poison_name;
use super::{Memory, ago};
use crate::services::Services;

/// Late messages are judged by their arrival, so an ended key stays for as long as a message may be late.
pub(super) const KEY_GRACE: Duration = Duration::from_secs(7 * 24 * 3600);
/// A body without a delivery may belong to a message that waits out an outage.
const ORPHAN_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// How many days beyond that are looked at: enough for upkeep to have been away, or the queue never to have been empty.
const ORPHAN_DAYS: u32 = 30;
/// Days looked through at a time, and bodies compared at a time.
const MOST_DAYS: usize = 3;
const MOST_IDS: usize = 1_000;
/// One tick catches up, and none runs for ever.
pub(super) const MOST_BATCHES: u32 = 20;
const DAY: Duration = Duration::from_secs(24 * 3600);
const MONTH: Duration = Duration::from_secs(32 * 24 * 3600);

/// Makes the partitions of the coming months, and drops those that retention has emptied.
pub async fn ensure_partitions(services: &Services) -> anyhow::Result<usize> {
    let mut client = services.database.client().await?;
    let mut made = 0;
    for ahead in 0..services.config.work.partitions_ahead {
        let at = Timestamp::now().checked_add(SignedDuration::try_from(MONTH * ahead)?)?;
        made += maintenance::ensure_partitions(&mut client, at).await?;
    }
    let dropped = maintenance::drop_empty_partitions(&mut client, ago(MONTH)).await?;
    Ok(made + usize::try_from(dropped).unwrap_or_default())
}

/// Deletes keys whose time is over.
pub async fn delete_expired_keys(services: &Services) -> anyhow::Result<usize> {
    let client = services.database.client().await?;
    let batch = services.config.work.maintain_batch;
    let mut total = 0;
    for _ in 0..MOST_BATCHES {
        let deleted = maintenance::delete_expired_keys(&client, ago(KEY_GRACE), batch.into()).await?;
        total += usize::try_from(deleted).unwrap_or(usize::MAX);
        if deleted < batch.into() {
            break;
        }
    }
    Ok(total)
}

/// How long a source's deliveries are kept.
pub(super) fn kept(services: &Services, source: &str) -> Duration {
    let configured = services.sources.get(source).and_then(|service| service.source.retention());
    configured.unwrap_or(services.config.work.event_retention)
}

/// Deletes deliveries past their source's retention: blobs first, then rows, so that no blob is left that no row names.
/// Those of a source that is no longer configured are kept for `EVENT_RETENTION`.
pub async fn delete_expired_deliveries(services: &Services) -> anyhow::Result<usize> {
    let client = services.database.client().await?;
    let batch = services.config.work.maintain_batch;
    let mut total = 0;
    for name in maintenance::sources_with_deliveries(&client).await? {
        let before = ago(kept(services, &name));
        for _ in 0..MOST_BATCHES {
            let expired = maintenance::expired_deliveries(&client, &name, before, batch.into()).await?;
            for blob in expired.iter().filter_map(|delivery| delivery.body_blob.as_deref()) {
                services.container().delete(blob).await?;
            }
            let ids: Vec<DeliveryId> = expired.iter().map(|delivery| delivery.id).collect();
            maintenance::delete_deliveries(&client, &ids).await?;
            total += ids.len();
            if ids.len() < batch as usize {
                break;
            }
        }
    }
    Ok(total)
}

/// Deletes settled dead letters of messages.
pub async fn delete_settled_messages(services: &Services) -> anyhow::Result<usize> {
    let client = services.database.client().await?;
    let work = &services.config.work;
    let before = ago(work.dead_letter_retention);
    let deleted = maintenance::delete_settled_messages(&client, before, work.maintain_batch.into()).await?;
    Ok(usize::try_from(deleted).unwrap_or(usize::MAX))
}

/// Deletes bodies whose message was never put: the sender got 503 and sent again under another id.
///
/// A body belongs to no message for sure once the queue of deliveries, and its poison queue, were seen empty after it
/// came: whatever was put before that moment has been processed, or is a dead letter. Any tick of this process may
/// have seen that (`empty_at`), since a busy queue is empty only for moments. A day is looked through once.
pub async fn delete_orphaned_blobs(services: &Services, memory: &Memory) -> anyhow::Result<usize> {
    let Some(empty_at) = memory.empty_at() else { return Ok(0) };
    let container = services.container();
    let client = services.database.client().await?;
    let mut deleted = 0;
    let days = (0..ORPHAN_DAYS).rev().map(|day| ago(ORPHAN_AGE + DAY * day));
    let unseen: Vec<(Timestamp, String)> = days
        .map(|day| (day, day.strftime("deliveries/%Y/%m/%d/").to_string()))
        .filter(|(day, prefix)| *day + DAY <= empty_at && !memory.has_looked_through(prefix))
        .take(MOST_DAYS)
        .collect();
    for (_, prefix) in unseen {
        let bodies: Vec<(String, DeliveryId)> = container
            .list(&prefix)
            .await?
            .into_iter()
            .filter_map(|blob| {
                let id = blob.name.rsplit('/').next()?.parse().ok()?;
                Some((blob.name, id))
            })
            .collect();
        for some in bodies.chunks(MOST_IDS) {
            let ids: Vec<DeliveryId> = some.iter().map(|(_, id)| *id).collect();
            let known = maintenance::known_deliveries(&client, &ids)
                .await
                .context("comparing blobs with deliveries")?;
            for (name, _) in some.iter().filter(|(_, id)| !known.contains(id)) {
                container.delete(name).await?;
                deleted += 1;
            }
        }
        memory.looked_through(prefix);
    }
    Ok(deleted)
}

/// Remembers this moment if no delivery waits anywhere: neither queued nor given up.
pub async fn look_for_emptiness(services: &Services, memory: &Memory) -> anyhow::Result<usize> {
    // What is asked first is asked at this moment or later.
    let now = Timestamp::now();
    let events = &services.config.queues.events;
    for queue in [events.clone(), poison_name(events)] {
        match services.storage.queue(&queue).properties().await {
            Ok(properties) if properties.approximate_count > 0 => return Ok(0),
            Ok(_) | Err(StorageError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    memory.saw_empty(now);
    Ok(0)
}
