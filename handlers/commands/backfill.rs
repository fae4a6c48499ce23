//! `backfill reseal-secrets`.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use colloquy::commands::{Consent, words};
use colloquy::database::audit::Actor;
use colloquy::database::backfills;
use colloquy::ids::JobId;
use colloquy::jobs::kinds::JobKind;
use colloquy::jobs::state::WorkKind;

use super::output::{self, Output};
use crate::services::Services;

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// Encrypt kept secrets anew with the current ENCRYPTION_KEY, so that the old one can go.
    ResealSecrets,
}

#[derive(Args)]
pub struct Backfill {
    kind: Kind,
    /// Why; kept in the audit trail.
    #[arg(long, value_parser = words)]
    reason: Option<String>,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
}

pub async fn run(services: &Services, command: Backfill) -> anyhow::Result<ExitCode> {
    let (kind, plan) = match command.kind {
        Kind::ResealSecrets => (
            JobKind::ResealSecrets.as_str(),
            "Every secret that a delivery still keeps is encrypted anew with the current ENCRYPTION_KEY, in the background.",
        ),
    };
    if !command.consent.to(plan)? {
        return Ok(ExitCode::FAILURE);
    }
    let id = JobId::new();
    let name = super::actor();
    let actor = Actor { name: &name, reason: command.reason.as_deref() };
    let client = services.database.client().await?;
    if !backfills::begin(&client, id, kind, actor).await? {
        if command.output.json {
            output::json(&serde_json::json!({ "kind": kind, "begun": false }))?;
        } else {
            say!("A backfill `{kind}` is under way already.");
        }
        return Ok(ExitCode::FAILURE);
    }
    drop(client);
    services.hint_all(WorkKind::Job, vec![id.0]).await;
    if command.output.json {
        output::json(&serde_json::json!({ "kind": kind, "begun": true, "id": id }))?;
    } else {
        say!("{id} begins: `{kind}`, in the background.");
    }
    Ok(ExitCode::SUCCESS)
}
