//! Timer `migrate`: brings the schema up to date from inside the network. One SELECT when nothing is due.

use std::sync::Arc;

use colloquy::database::migrations::{self, Migrations, Progress};
use colloquy::functions::{Invocation, Outcome, Timer};
use colloquy::wiring;

use crate::services::Services;

/// One tick, or one invocation by the pipeline.
pub async fn migrate(services: Arc<Services>, _: Timer, _: Invocation) -> Outcome {
    let migrations = match Migrations::embedded() {
        Ok(migrations) => migrations,
        Err(error) => return failed(error.code(), &error.to_string()),
    };
    match migrations::is_due(&services.database, &migrations).await {
        Ok(false) => return Outcome::Done,
        Ok(true) => {}
        Err(error) => return failed(error.code(), &error.to_string()),
    }
    match migrations::run(&services.database, &migrations, &wiring::migration_options(&services.config), &log)
        .await
    {
        Ok(report) => {
            tracing::info!(
                code = "migrated",
                applied = report.applied.len(),
                current = report.current,
                latest = report.latest,
                waited_ms = report.waited_ms,
                "migrations are applied"
            );
            Outcome::Done
        }
        Err(error) => failed(error.code(), &error.to_string()),
    }
}

fn failed(code: &'static str, error: &str) -> Outcome {
    tracing::error!(code, error, "migrations were not applied");
    Outcome::retry(format!("{code}: {error}"))
}

fn log(progress: &Progress) {
    tracing::info!(code = "migrating", "{progress}");
}
