//! Depth and age of queues, and the backlog of work: what alerts and scale rules read.

use std::time::Duration;

use colloquy::database::maintenance;
use colloquy::jobs::state::WorkKind;
use colloquy::telemetry::metrics;
use jiff::Timestamp;
use serde::Serialize;

use super::poison::poison_name;
use crate::services::Services;

/// One queue, for `/status`.
#[derive(Debug, Serialize)]
pub struct QueueMeasure {
    pub queue: String,
    /// As the service estimates it.
    pub messages: Option<u64>,
    /// Age of the oldest visible message.
    pub oldest_seconds: Option<f64>,
    /// Why there are no figures.
    pub error: Option<String>,
}

/// Measures everything and sets the gauges.
pub async fn measure(services: &Services) {
    for queue in queues(services).await {
        if let Some(error) = queue.error {
            tracing::warn!(
                code = "queue_not_measured",
                queue = queue.queue,
                error,
                "a queue could not be measured"
            );
        }
    }
    if let Err(error) = backlogs(services).await {
        tracing::warn!(
            code = "backlog_not_measured",
            error = format!("{error:#}"),
            "the backlog could not be measured"
        );
    }
}

/// Every queue's depth and age. Also sets the gauges.
pub async fn queues(services: &Services) -> Vec<QueueMeasure> {
    let names = &services.config.queues;
    let names = [("events", &names.events), ("jobs", &names.jobs), ("callbacks", &names.callbacks)];
    let all = names.into_iter().flat_map(|(known, name)| {
        [(known.to_owned(), name.clone()), (poison_name(known), poison_name(name))]
    });
    futures_util::future::join_all(all.map(|(known, name)| queue(services, known, name))).await
}

/// `known`: what alerts call it, whatever it is called in storage.
async fn queue(services: &Services, known: String, name: String) -> QueueMeasure {
    let queue = services.storage.queue(&name);
    let figures = async {
        let depth = queue.properties().await?.approximate_count;
        let oldest = match depth {
            0 => None,
            _ => queue.peek(1).await?.first().map(|message| message.inserted_at),
        };
        Ok::<_, colloquy::azure::StorageError>((depth, oldest))
    };
    match figures.await {
        Ok((depth, oldest)) => {
            let age = oldest.map_or(Duration::ZERO, |at| {
                Timestamp::now().duration_since(at).try_into().unwrap_or_default()
            });
            metrics::queue(&known, depth, age);
            QueueMeasure {
                queue: name,
                messages: Some(depth),
                oldest_seconds: oldest.map(|_| age.as_secs_f64()),
                error: None,
            }
        }
        Err(error) => {
            QueueMeasure { queue: name, messages: None, oldest_seconds: None, error: Some(error.to_string()) }
        }
    }
}

/// The backlog of jobs and callbacks. Also sets the gauges.
pub async fn backlogs(services: &Services) -> anyhow::Result<Vec<maintenance::Backlog>> {
    let client = services.database.client().await?;
    let mut backlogs = Vec::new();
    for kind in [WorkKind::Job, WorkKind::Callback] {
        let backlog = maintenance::backlog(&client, kind).await?;
        let due = u64::try_from(backlog.due).unwrap_or_default();
        metrics::lag(backlog.kind, due, Duration::from_secs_f64(backlog.oldest_due_seconds.max(0.0)));
        metrics::open_dead_letters(
            backlog.kind,
            u64::try_from(backlog.open_dead_letters).unwrap_or_default(),
        );
        backlogs.push(backlog);
    }
    let messages = maintenance::open_message_letters(&client).await?;
    metrics::open_dead_letters("message", u64::try_from(messages).unwrap_or_default());
    crate::rotations::measure(&client).await?;
    services.measure();
    Ok(backlogs)
}
