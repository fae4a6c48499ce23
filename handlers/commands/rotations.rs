//! `rotations list|show|labels|close`: secrets that have to be replaced, and who still uses the old ones.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use colloquy::commands::{Consent, words};
use colloquy::database::audit::Actor;
use colloquy::database::rotations::{self, LabelUse, Rotation};
use colloquy::ids::RotationId;
use jiff::{SignedDuration, Timestamp};

use super::output::{self, Listing, Output, ago, or_empty};
use crate::services::Services;

#[derive(Subcommand)]
pub enum Rotations {
    /// Secrets that have to be replaced.
    List(List),
    /// One rotation, and by which secrets its source's deliveries prove themselves since it was opened.
    Show(Show),
    /// By which secrets deliveries prove themselves: source, label, how many, when last.
    Labels(Labels),
    /// Close a rotation by hand: of a secret that no delivery shows, or whose sender sends nothing.
    Close(Close),
}

#[derive(Args)]
pub struct List {
    /// Closed ones, too.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    listing: Listing,
}

#[derive(Args)]
pub struct Show {
    id: RotationId,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub struct Labels {
    /// Only this source.
    #[arg(long)]
    source: Option<String>,
    /// Only deliveries received within this time.
    #[arg(long, value_parser = super::duration, default_value = "7d")]
    since: Duration,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub struct Close {
    id: RotationId,
    /// Why; kept in the audit trail.
    #[arg(long, value_parser = words)]
    reason: Option<String>,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
}

pub async fn run(services: &Services, command: Rotations) -> anyhow::Result<ExitCode> {
    match command {
        Rotations::List(list) => self::list(services, list).await,
        Rotations::Show(show) => self::show(services, show).await,
        Rotations::Labels(labels) => self::labels(services, labels).await,
        Rotations::Close(close) => self::close(services, close).await,
    }
}

async fn list(services: &Services, list: List) -> anyhow::Result<ExitCode> {
    let rows =
        rotations::list(&services.database.client().await?, list.all, list.listing.limit.into()).await?;
    list.listing.print(
        &rows,
        ["ROTATION", "SECRET", "SOURCE", "LABEL", "EXPIRES", "STATE", "OPENED"],
        |row| {
            [
                row.id.to_string(),
                row.secret.clone(),
                or_empty(row.source.as_ref()),
                or_empty(row.label.as_ref()),
                row.expires_at.map(ago).unwrap_or_default(),
                state(row),
                ago(row.opened_at),
            ]
        },
        "No secret has to be replaced.",
    )?;
    Ok(ExitCode::SUCCESS)
}

fn state(row: &Rotation) -> String {
    match (&row.outcome, row.expired_at, row.renewed_at) {
        (Some(outcome), _, _) => format!("{}: {outcome}", row.state),
        (None, Some(_), _) => "expired".to_owned(),
        (None, None, Some(_)) => "has a new version".to_owned(),
        (None, None, None) => row.state.clone(),
    }
}

async fn show(services: &Services, show: Show) -> anyhow::Result<ExitCode> {
    let client = services.database.client().await?;
    let row = rotations::get(&client, show.id).await?;
    let row = row.with_context(|| format!("there is no rotation {}", show.id))?;
    let uses = match &row.source {
        Some(source) => rotations::labels(&client, Some(source), row.opened_at).await?,
        None => Vec::new(),
    };
    if show.output.json {
        let mut value = serde_json::to_value(&row)?;
        value["labels"] = serde_json::to_value(&uses)?;
        output::json(&value)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::fields([
        ("rotation", row.id.to_string()),
        ("secret", row.secret.clone()),
        ("vault", row.vault.clone()),
        ("version", row.secret_version.clone()),
        ("expires", or_empty(row.expires_at.as_ref())),
        ("source", or_empty(row.source.as_ref())),
        ("old label", or_empty(row.label.as_ref())),
        ("state", state(&row)),
        ("opened", row.opened_at.to_string()),
        ("new version", or_empty(row.renewed_at.as_ref())),
        ("closed", or_empty(row.closed_at.as_ref())),
    ]);
    if row.source.is_some() {
        say!("");
        table(&uses, "No delivery since it was opened.");
    }
    Ok(ExitCode::SUCCESS)
}

async fn labels(services: &Services, labels: Labels) -> anyhow::Result<ExitCode> {
    let since = Timestamp::now().checked_sub(SignedDuration::try_from(labels.since)?)?;
    let client = services.database.client().await?;
    let uses = rotations::labels(&client, labels.source.as_deref(), since).await?;
    if labels.output.json {
        output::json(&uses)?;
    } else {
        table(&uses, "No delivery within this time proved itself by a labelled secret.");
    }
    Ok(ExitCode::SUCCESS)
}

fn table(uses: &[LabelUse], empty: &str) {
    output::table(
        ["SOURCE", "LABEL", "DELIVERIES", "FIRST", "LAST"],
        uses.iter().map(|used| {
            let (first, last) = (ago(used.first_at), ago(used.last_at));
            [used.source.clone(), used.label.clone(), used.deliveries.to_string(), first, last]
        }),
        empty,
    );
}

async fn close(services: &Services, close: Close) -> anyhow::Result<ExitCode> {
    let client = services.database.client().await?;
    let row = rotations::get(&client, close.id).await?;
    let row = row.with_context(|| format!("there is no rotation {}", close.id))?;
    if !close
        .consent
        .to(&format!("Closes the rotation of `{}`; nobody looks after it any more.", row.secret))?
    {
        return Ok(ExitCode::FAILURE);
    }
    let name = super::actor();
    let actor = Actor { name: &name, reason: close.reason.as_deref() };
    let closed = rotations::close(&client, close.id, actor).await?;
    ensure!(closed, "{} is closed already", close.id);
    if close.output.json {
        output::json(&serde_json::json!({ "rotation": close.id, "state": "closed" }))?;
    } else {
        say!("{} is closed.", close.id);
    }
    Ok(ExitCode::SUCCESS)
}
