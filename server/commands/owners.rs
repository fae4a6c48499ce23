//! `owners show|export|delete`: what is somebody's, for when they ask.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use colloquy::commands::output::{self, Output};
use colloquy::commands::{Consent, actor, words};
use colloquy::database::audit::Actor;
use colloquy::database::owners::{self, EXPORTS, Held};
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
    #[arg(long, value_parser = words)]
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
    #[arg(long, value_parser = words)]
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
    let shown = operator.operations.owner(owner).await?;
    if output.json {
        output::json(&shown)?;
    } else {
        print(&shown.held, None);
        let live = shown.live;
        say!("\nNow: {} turns in progress, {} jobs and callbacks worked on.", live.turns, live.work);
        if shown.switched.is_some() {
            say!(
                "A switch is set over this owner; `owners delete` leaves it: `switches clear owner {owner}`."
            );
        }
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
    std::fs::create_dir_all(&export.to).with_context(|| format!("{} cannot be made", export.to.display()))?;
    let empty = std::fs::read_dir(&export.to)?.next().is_none();
    ensure!(empty, "{} is not empty; name another directory", export.to.display());
    let mut written = Vec::new();
    for file in EXPORTS {
        let lines = write(operator, &export.owner, file, &export.to).await?;
        written.push(Held { what: file.name.to_owned(), rows: lines });
    }
    let name = actor();
    let actor = Actor { name: &name, reason: export.reason.as_deref() };
    operator.operations.audit_export(&export.owner, &written, actor).await?;
    if export.output.json {
        output::json(&json!({ "owner": export.owner, "to": export.to, "lines": written }))?;
    } else {
        print(&written, None);
        say!("\nWritten to {}.", export.to.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// One file, a page at a time, with the bodies that its lines name. Gives how many lines.
async fn write(operator: &Operator, owner: &str, file: &owners::Export, to: &Path) -> anyhow::Result<i64> {
    let path = to.join(format!("{}.jsonl", file.name));
    let mut out = std::io::BufWriter::new(
        std::fs::File::create(&path).with_context(|| format!("{} cannot be written", path.display()))?,
    );
    let (mut after, mut lines): (Option<String>, _) = (None, 0);
    loop {
        let page = operator.operations.export_page(owner, file, after.as_deref(), PAGE).await?;
        for line in &page.lines {
            writeln!(out, "{line}")?;
            lines += 1;
            if let Some(blob) = blob_of(line) {
                body(operator, &blob, to).await?;
            }
        }
        match page.last {
            Some(last) => after = Some(last),
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
    let Some(bytes) = operator.operations.exported_body(blob).await? else { return Ok(()) };
    let directory = to.join("blobs");
    std::fs::create_dir_all(&directory)?;
    let path = directory.join(blob.replace('/', "_"));
    std::fs::write(&path, bytes).with_context(|| format!("{} cannot be written", path.display()))
}

async fn delete(operator: &Operator, delete: Delete) -> anyhow::Result<ExitCode> {
    if delete.dry_run {
        return show(operator, &delete.owner, delete.output).await;
    }
    let rows = operator.operations.owner(&delete.owner).await?.rows();
    let plan = format!(
        "Deletes {rows} rows of `{}`, for good; `owners delete --dry-run` lists them. What was spent stays, without a name.",
        delete.owner
    );
    if !delete.consent.to(&plan)? {
        return Ok(ExitCode::FAILURE);
    }
    let name = actor();
    let actor = Actor { name: &name, reason: delete.reason.as_deref() };
    let erased = operator.operations.erase_owner(&delete.owner, delete.cancel, actor).await?;
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
