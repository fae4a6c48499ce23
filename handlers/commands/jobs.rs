//! `jobs list|show`.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use colloquy::database::inspect::{self, WorkFilter};
use colloquy::database::responses::{Order, PageOf};
use colloquy::ids::{EventId, JobId};
use colloquy::jobs::state::{WorkKind, WorkState};

use super::output::{self, Listing, Output, or_empty};
use crate::services::Services;

#[derive(Subcommand)]
pub enum Jobs {
    /// The latest jobs, newest first; `--state leased` are those that some process works on now.
    List(List),
    /// One job: what it comes of, and why it is not done yet.
    Show(Show),
}

#[derive(Args)]
pub struct List {
    /// Only this kind: what `job` in colloquy.toml names.
    #[arg(long)]
    kind: Option<String>,
    /// Only this route.
    #[arg(long)]
    route: Option<String>,
    /// Only of this event.
    #[arg(long)]
    event: Option<EventId>,
    /// Only this state: pending, leased, succeeded or dead.
    #[arg(long)]
    state: Option<WorkState>,
    #[command(flatten)]
    listing: Listing,
}

#[derive(Args)]
pub struct Show {
    id: JobId,
    #[command(flatten)]
    output: Output,
}

pub async fn run(services: &Services, command: Jobs) -> anyhow::Result<ExitCode> {
    match command {
        Jobs::List(list) => self::list(services, list).await,
        Jobs::Show(show) => self::show(services, show).await,
    }
}

async fn list(services: &Services, list: List) -> anyhow::Result<ExitCode> {
    let filter = WorkFilter {
        object: list.kind,
        route: list.route,
        state: list.state.map(|state| state.to_string()),
        event: list.event,
    };
    let page = PageOf { after: None, limit: list.listing.limit, order: Order::Descending };
    let client = services.database.client().await?;
    let jobs = inspect::work(&client, WorkKind::Job, &filter, page).await?.entries;
    let headings =
        ["JOB", "KIND", "ROUTE", "STATE", "MADE", "AWAITS", "TRIES", "OUTAGES", "DUE", "LAST ERROR"];
    list.listing.print(
        &jobs,
        headings,
        |job| {
            [
                job.id.clone(),
                job.object.clone(),
                job.route.clone(),
                job.state.clone(),
                output::ago(job.created_at),
                job.awaits.to_owned(),
                job.attempts.to_string(),
                job.outages.to_string(),
                output::due(job),
                or_empty(job.error.as_ref()),
            ]
        },
        "No jobs.",
    )?;
    Ok(ExitCode::SUCCESS)
}

async fn show(services: &Services, show: Show) -> anyhow::Result<ExitCode> {
    let work = inspect::work_of(&services.database.client().await?, WorkKind::Job, show.id.0).await?;
    let work = work.with_context(|| format!("there is no job {}", show.id))?;
    if show.output.json {
        output::json(&work)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::work("job", "kind", &work);
    Ok(ExitCode::SUCCESS)
}
