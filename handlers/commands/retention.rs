//! `retention [--dry-run]`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use colloquy::commands::{Consent, words};
use colloquy::database::audit::{self, Entry};
use colloquy::database::expiring::Expiring;

use super::output::{self, Output};
use crate::maintain;
use crate::services::Services;

/// What `maintain` does every hour, now.
#[derive(Args)]
pub struct Retention {
    /// Say what would be deleted and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Why; kept in the audit trail.
    #[arg(long, value_parser = words)]
    reason: Option<String>,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
}

pub async fn run(services: &Services, command: Retention) -> anyhow::Result<ExitCode> {
    let expiring = maintain::expiring(services).await?;
    if command.dry_run {
        show(&expiring, command.output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: i64 = expiring.iter().map(|expiring| expiring.rows).sum();
    let plan =
        format!("Deletes {rows} rows whose time is over, and what hangs on them; --dry-run lists them.");
    if !command.consent.to(&plan)? {
        return Ok(ExitCode::FAILURE);
    }
    // Before anything is gone: a run that is cut has its row, too.
    let detail = serde_json::json!({ "reason": command.reason, "expected": by_table(&expiring) });
    written(services, "retention.begin", detail).await?;
    let taken = maintain::retention_now(services).await?;
    let taken: serde_json::Map<String, serde_json::Value> =
        taken.into_iter().map(|(sweep, taken)| (sweep.to_owned(), taken.into())).collect();
    let detail = serde_json::json!({ "reason": command.reason, "taken": taken });
    written(services, "retention.run", detail).await?;
    let left = maintain::expiring(services).await?;
    if command.output.json {
        output::json(&serde_json::json!({ "taken": taken, "left": left }))?;
        return Ok(ExitCode::SUCCESS);
    }
    output::table(
        ["SWEEP", "TAKEN"],
        taken.iter().map(|(sweep, taken)| [sweep.clone(), taken.to_string()]),
        "Nothing was taken.",
    );
    if !left.is_empty() {
        say!("\nWhat is left goes with the next run, or with `maintain`:");
        show(&left, command.output)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Rows by table. Whose they are is nothing for the audit trail, which is kept for good.
fn by_table(expiring: &[Expiring]) -> serde_json::Map<String, serde_json::Value> {
    let mut tables: BTreeMap<&str, i64> = BTreeMap::new();
    for expiring in expiring {
        *tables.entry(expiring.what).or_default() += expiring.rows;
    }
    tables.into_iter().map(|(table, rows)| (table.to_owned(), rows.into())).collect()
}

async fn written(services: &Services, action: &'static str, detail: serde_json::Value) -> anyhow::Result<()> {
    let subject = "retention".to_owned();
    let entry = Entry { actor: super::actor(), action, subject, detail: Some(detail) };
    Ok(audit::write(&services.database.client().await?, &[entry]).await?)
}

fn show(expiring: &[Expiring], output: Output) -> anyhow::Result<()> {
    if output.json {
        return output::json(&expiring);
    }
    output::table(
        ["TABLE", "SOURCE OR OWNER", "ROWS", "OLDEST"],
        expiring.iter().map(|expiring| {
            [
                expiring.what.to_owned(),
                expiring.of.clone(),
                expiring.rows.to_string(),
                output::or_empty(expiring.oldest.as_ref()),
            ]
        }),
        "Nothing is past its time.",
    );
    Ok(())
}
