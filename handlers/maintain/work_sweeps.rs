//! Sweeps over rows of work and held events.

use std::time::Duration;

use anyhow::Context;
use colloquy::config::app::Stop;
use colloquy::database::events as inbox;
use colloquy::database::work::{self, Held};
use colloquy::events::routes::Plan;
use colloquy::jobs::state::WorkKind;
use jiff::Timestamp;

use crate::services::Services;

/// Frees lapsed leases and hints at their rows.
pub async fn free_lapsed(services: &Services, kind: WorkKind) -> anyhow::Result<usize> {
    let freed = {
        let client = services.database.client().await?;
        work::free_lapsed(&client, kind, i64::from(services.config.work.maintain_batch)).await?
    };
    let count = freed.len();
    services.hint_all(kind, freed).await;
    Ok(count)
}

/// Hints again at due rows nobody took. In a queue that is behind their hints are most likely still there, so what it is
/// behind by counts as time in which nobody could have heard of them: a backlog does not make more of itself.
pub async fn hint_again(services: &Services, kind: WorkKind) -> anyhow::Result<usize> {
    /// The most that a storage queue shows at once.
    const FRONT: u8 = 32;
    let limits = &services.config.work;
    let front = services.work_queue(kind).peek(FRONT).await?;
    // The youngest: one that was to wait was put long before its turn came.
    let put = front.iter().map(|message| message.inserted_at).max();
    let behind = put.map_or(Duration::ZERO, |put| Timestamp::now().duration_since(put).unsigned_abs());
    let unheard_for = limits.hint_after + behind;
    let held = services.held_work().await.context("the switches are not known")?;
    let due = {
        let client = services.database.client().await?;
        if kind == WorkKind::Job {
            // Long before they would be too old.
            let age = limits.job_max_age / 4;
            work::keep_young(&client, &held.job_routes, age, limits.maintain_batch.into()).await?;
        }
        let held = Held::of(kind, &held);
        work::due_without_hint(&client, kind, unheard_for, held, limits.maintain_batch.into()).await?
    };
    Ok(services.hint_all(kind, due).await)
}

/// Processes held events whose source is no longer stopped.
pub async fn release_held(services: &Services) -> anyhow::Result<usize> {
    let mut client = services.database.client().await?;
    let switches = services.switches.current().await.context("the switches are not known")?;
    let mut released = 0;
    for source in inbox::sources_with_held(&client).await? {
        // Its routes are gone with it: released now, its events would count as processed without any effect.
        let Some(service) = services.sources.get(&source) else { continue };
        let configured = service.source.stopped();
        if switches.source(&source, configured, Timestamp::now()) == Some(Stop::Hold) {
            continue;
        }
        let held = inbox::held(&client, &source, i64::from(services.config.work.maintain_batch)).await?;
        for chunk in held.chunks(services.config.work.event_batch as usize) {
            let mut plan = Plan::default();
            for event in chunk {
                services.routes.plan(&source, &event.event_type, event.id, &mut plan);
            }
            let ids: Vec<_> = chunk.iter().map(|event| event.id).collect();
            let stored = inbox::release(&client, &ids, &plan).await?;
            released += stored.events.len();
            drop(client);
            services.hint_at(&stored).await;
            client = services.database.client().await?;
        }
    }
    Ok(released)
}

/// Says which sources are gone from `colloquy.toml` with events of theirs still held.
pub async fn warn_of_orphans(services: &Services) -> anyhow::Result<usize> {
    let client = services.database.client().await?;
    for source in inbox::sources_with_held(&client).await? {
        if !services.sources.contains_key(&source) {
            tracing::warn!(
                code = "held_source_unknown",
                source,
                "events of a source that is no longer in colloquy.toml stay held; add it to have them processed"
            );
        }
    }
    Ok(0)
}
