//! Depth and age of queues, and the backlog of work: what alerts and scale rules read.

use std::time::Duration;

use colloquy::database::maintenance;
use colloquy::database::spending::{self, BudgetFilter};
use colloquy::jobs::state::WorkKind;
use colloquy::llm::spend::{Scope, today};
use colloquy::operations::{self, QueueMeasure};
use colloquy::telemetry::metrics;

use crate::services::Services;

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
    if let Err(error) = budget(services).await {
        tracing::warn!(
            code = "budget_not_measured",
            error = format!("{error:#}"),
            "how much of the budget is spent could not be measured"
        );
    }
}

/// How much of the day's total budget is spent, by whichever process. Also sets the gauge.
async fn budget(services: &Services) -> anyhow::Result<()> {
    if services.config.app.budgets.total.is_none() || !services.config.database.track_usage {
        return Ok(());
    }
    let client = services.database.client().await?;
    let total = BudgetFilter { scope: Some(Scope::Total), subject: None };
    for status in spending::standing(&client, today(), total, None, 1).await?.entries {
        metrics::budget_used(status.budget.day, status.spent, status.limit);
    }
    Ok(())
}

/// Every queue's depth and age. Also sets the gauges.
pub async fn queues(services: &Services) -> Vec<QueueMeasure> {
    let measured = operations::measured(&services.storage, &services.config.queues).await;
    for QueueMeasure { known, messages, oldest_seconds, .. } in &measured {
        if let Some(depth) = messages {
            metrics::queue(known, *depth, Duration::from_secs_f64(oldest_seconds.unwrap_or(0.0)));
        }
    }
    measured
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
