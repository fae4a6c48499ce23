//! `owners show|export|delete`: what is somebody's, for when they ask.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use colloquy::access::owners::{Erasure, data_of, pseudonym};
use colloquy::azure::Container;
use colloquy::commands::output::{self, Output};
use colloquy::commands::{Consent, actor};
use colloquy::database::audit::{self, Entry};
use colloquy::database::owners::{self, EXPORTS, Held, OwnerData};
use serde_json::json;

use super::Operator;

/// Lines read at once.
const PAGE: i64 = 500;

#[derive(Subcommand)]
pub enum Owners {
    /// How many rows there are of an owner, by table, and what runs now.
    Show(Show),
    /// Write everything of an owner into files: JSON lines, and bodies that lie in blobs.
    Export(Export),
    /// Delete everything of an owner: rows, blobs, logs of turns, work that waits.
    Delete(Delete),
}

#[derive(Args)]
pub struct Show {
    owner: String,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub struct Export {
    owner: String,
    /// An empty directory, or one that is not there yet.
    #[arg(long)]
    to: PathBuf,
    /// Why; kept in the audit trail.
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub struct Delete {
    owner: String,
    /// Say what would be deleted and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Stop turns that are in progress, and wait for their end. Without it they are a reason to refuse.
    #[arg(long)]
    cancel: bool,
    /// Why; kept in the audit trail.
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
}

pub async fn run(operator: &Operator, command: Owners) -> anyhow::Result<ExitCode> {
    match command {
        Owners::Show(show) => self::show(operator, &show.owner, show.output).await,
        Owners::Export(export) => self::export(operator, export).await,
        Owners::Delete(delete) => self::delete(operator, delete).await,
    }
}

async fn show(operator: &Operator, owner: &str, output: Output) -> anyhow::Result<ExitCode> {
    let client = operator.client().await?;
    let data = data_of(owner, &operator.config.app);
    let (held, live) = (owners::counts(&client, &data).await?, owners::live(&client, &data).await?);
    if output.json {
        output::json(&json!({ "owner": owner, "held": held, "live": live }))?;
    } else {
        print(&held, None);
        say!("\nNow: {} turns in progress, {} jobs and callbacks worked on.", live.turns, live.work);
    }
    Ok(ExitCode::SUCCESS)
}

/// The rows before, and those after, if there is an after.
fn print(before: &[Held], after: Option<&[Held]>) {
    let rows = before.iter().map(|held| {
        let left = after.and_then(|after| after.iter().find(|left| left.what == held.what));
        [held.what.clone(), held.rows.to_string(), left.map(|left| left.rows.to_string()).unwrap_or_default()]
    });
    let heading = if after.is_some() { "LEFT" } else { "" };
    output::table(["WHAT", "ROWS", heading], rows, "Nothing.");
}

async fn export(operator: &Operator, export: Export) -> anyhow::Result<ExitCode> {
    let data = data_of(&export.owner, &operator.config.app);
    std::fs::create_dir_all(&export.to).with_context(|| format!("{} cannot be made", export.to.display()))?;
    let empty = std::fs::read_dir(&export.to)?.next().is_none();
    ensure!(empty, "{} is not empty; name another directory", export.to.display());
    let mut written = Vec::new();
    for file in EXPORTS {
        let lines = write(operator, &data, file, &export.to).await?;
        written.push(Held { what: file.name.to_owned(), rows: lines });
    }
    let detail = json!({ "reason": export.reason, "lines": written });
    let entry = Entry {
        actor: actor(),
        action: "owner.export",
        subject: pseudonym(&data.owner),
        detail: Some(detail),
    };
    audit::write(&operator.client().await?, &[entry]).await?;
    if export.output.json {
        output::json(&json!({ "owner": data.owner, "to": export.to, "lines": written }))?;
    } else {
        print(&written, None);
        say!("\nWritten to {}.", export.to.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// One file, a page at a time, with the bodies that its lines name. Gives how many lines.
async fn write(
    operator: &Operator,
    data: &OwnerData,
    file: &owners::Export,
    to: &Path,
) -> anyhow::Result<i64> {
    let path = to.join(format!("{}.jsonl", file.name));
    let mut out = std::io::BufWriter::new(
        std::fs::File::create(&path).with_context(|| format!("{} cannot be written", path.display()))?,
    );
    let (mut after, mut lines) = (file.first.to_owned(), 0);
    loop {
        let page = owners::page(&operator.client().await?, data, file, &after, PAGE).await?;
        for line in &page.lines {
            writeln!(out, "{line}")?;
            lines += 1;
            if let Some(blob) = blob_of(line) {
                body(operator, &blob, to).await?;
            }
        }
        match page.last {
            Some(last) => after = last,
            None => break,
        }
    }
    out.flush()?;
    Ok(lines)
}

/// The blob that holds the payload of an event.
fn blob_of(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    line["payload_blob"].as_str().map(str::to_owned)
}

async fn body(operator: &Operator, blob: &str, to: &Path) -> anyhow::Result<()> {
    let container =
        container(operator)?.context("bodies lie in blobs, and AzureWebJobsStorage is not set")?;
    let Some(bytes) = container.get(blob).await? else { return Ok(()) };
    let directory = to.join("blobs");
    std::fs::create_dir_all(&directory)?;
    let path = directory.join(blob.replace('/', "_"));
    std::fs::write(&path, bytes).with_context(|| format!("{} cannot be written", path.display()))
}

fn container(operator: &Operator) -> anyhow::Result<Option<Container>> {
    let storage = operator.storage()?;
    Ok(storage.map(|storage| storage.container(&operator.config.storage.container)))
}

async fn delete(operator: &Operator, delete: Delete) -> anyhow::Result<ExitCode> {
    if delete.dry_run {
        return show(operator, &delete.owner, delete.output).await;
    }
    let data = data_of(&delete.owner, &operator.config.app);
    let held = owners::counts(&operator.client().await?, &data).await?;
    let rows: i64 = held.iter().map(|held| held.rows).sum();
    let plan = format!(
        "Deletes {rows} rows of `{}`, for good; `owners delete --dry-run` lists them. What was spent stays, without a name.",
        data.owner
    );
    if !delete.consent.to(&plan)? {
        return Ok(ExitCode::FAILURE);
    }
    let container = container(operator)?;
    let erasure = Erasure {
        database: operator.database(),
        container: container.as_ref(),
        batch: operator.config.work.maintain_batch.into(),
    };
    let erased = erasure.run(&data, delete.cancel, &actor(), delete.reason.as_deref()).await?;
    if delete.output.json {
        output::json(&erased)?;
    } else {
        print(&erased.before, Some(&erased.after));
    }
    if erased.is_complete() {
        return Ok(ExitCode::SUCCESS);
    }
    colloquy::note!("Some is left: it came meanwhile, or a process still holds it. Run it again later.");
    Ok(ExitCode::FAILURE)
}
