//! `dead-letters list|show|replay|discard`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};
use colloquy::commands::{Consent, instant_before, words};
use colloquy::database::dead_letters::Actor;
use colloquy::database::inspect::{self, DeadLetter, DeadLetterFilter};
use colloquy::database::responses::{Order, PageOf};
use colloquy::ids::DeadLetterId;
use colloquy::jobs::state::{DeadLetterState, WorkKind};
use colloquy::operations::{Batch, Found, LETTER_KINDS, MOST_AT_ONCE, OperationError, Operations, Replay};

use super::output::{self, Listing, Output, ago, or_empty};
use crate::services::Services;

#[derive(Subcommand)]
pub enum DeadLetters {
    /// Work that was given up, newest first.
    List(List),
    /// One dead letter, with every try that is known.
    Show(Show),
    /// Put work back, with all its attempts.
    Replay(Settle),
    /// Say that nothing is to be done about it.
    Discard(Settle),
}

#[derive(Args)]
struct Filter {
    /// Only this kind: job, callback or message.
    #[arg(long, value_parser = LETTER_KINDS)]
    kind: Option<String>,
    /// Only messages of this queue.
    #[arg(long)]
    queue: Option<String>,
    /// Only this source.
    #[arg(long)]
    source: Option<String>,
    /// Only jobs and callbacks of this route.
    #[arg(long)]
    route: Option<String>,
    /// Only this reason, by its code.
    #[arg(long)]
    code: Option<String>,
    /// Only what was given up within this time, such as 90m or 2d.
    #[arg(long, value_parser = super::duration)]
    since: Option<Duration>,
    /// Only what was given up longer ago than this time.
    #[arg(long, value_parser = super::duration)]
    before: Option<Duration>,
}

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    filter: Filter,
    /// Settled ones too.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    listing: Listing,
}

#[derive(Args)]
pub struct Show {
    id: DeadLetterId,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub struct Settle {
    /// One dead letter; without it, all open ones that the filters match.
    id: Option<DeadLetterId>,
    #[command(flatten)]
    filter: Filter,
    /// Needed when neither an id nor a filter is given.
    #[arg(long)]
    all: bool,
    /// The oldest so many.
    #[arg(long, default_value_t = MOST_AT_ONCE, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_AT_ONCE)))]
    limit: u32,
    /// Why; kept with the letter and in the audit trail. Needed to discard.
    #[arg(long, value_parser = words)]
    reason: Option<String>,
    /// At most so many a second, so that replayed work does not crowd out live work. The pace is written down: the
    /// command does not stay to keep it.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rate: u32,
    /// Say what would happen and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
}

pub async fn run(services: &Services, command: DeadLetters) -> anyhow::Result<ExitCode> {
    match command {
        DeadLetters::List(list) => self::list(services, list).await,
        DeadLetters::Show(show) => self::show(&services.operations, show).await,
        DeadLetters::Replay(settle) => self::settle(services, settle, DeadLetterState::Replayed).await,
        DeadLetters::Discard(settle) => self::settle(services, settle, DeadLetterState::Discarded).await,
    }
}

impl Filter {
    fn query(&self) -> anyhow::Result<DeadLetterFilter> {
        Ok(DeadLetterFilter {
            id: None,
            kind: self.kind.clone(),
            queue: self.queue.clone(),
            source: self.source.clone(),
            route: self.route.clone(),
            reason_code: self.code.clone(),
            state: None,
            since: self.since.map(instant_before).transpose()?,
            before: self.before.map(instant_before).transpose()?,
        })
    }
}

async fn list(services: &Services, list: List) -> anyhow::Result<ExitCode> {
    let state = (!list.all).then(|| DeadLetterState::Open.as_str().to_owned());
    let filter = DeadLetterFilter { state, ..list.filter.query()? };
    let page = PageOf { after: None, limit: list.listing.limit, order: Order::Descending };
    let letters = inspect::dead_letters(&services.database.client().await?, &filter, page).await?.entries;
    let headings = ["DEAD LETTER", "WHEN", "KIND", "SOURCE", "ROUTE", "CODE", "STATE", "REASON"];
    list.listing.print(&letters, headings, row, "No dead letters.")?;
    Ok(ExitCode::SUCCESS)
}

fn row(letter: &DeadLetter) -> [String; 8] {
    [
        letter.id.to_string(),
        ago(letter.created_at),
        letter.kind.clone(),
        or_empty(letter.source.as_ref()),
        or_empty(letter.route.as_ref()),
        letter.reason_code.clone(),
        letter.state.clone(),
        letter.reason.clone(),
    ]
}

async fn show(operations: &Operations, show: Show) -> anyhow::Result<ExitCode> {
    let detail = operations.dead_letter(show.id).await?;
    if show.output.json {
        output::json(&detail)?;
        return Ok(ExitCode::SUCCESS);
    }
    let letter = &detail.letter;
    output::fields([
        ("dead letter", letter.id.to_string()),
        ("what", subject(letter)),
        ("source", or_empty(letter.source.as_ref())),
        ("event", or_empty(letter.event.as_ref())),
        ("route", or_empty(letter.route.as_ref())),
        ("queue", or_empty(letter.queue.as_ref())),
        ("code", letter.reason_code.clone()),
        ("reason", letter.reason.clone()),
        ("attempts", letter.attempts.to_string()),
        ("state", letter.state.clone()),
        ("created", letter.created_at.to_string()),
        ("settled", or_empty(letter.resolved_at.as_ref())),
        ("why settled", or_empty(letter.resolution.as_ref())),
    ]);
    if let Some(message) = &detail.message {
        output::fields([
            ("bytes", message.bytes.to_string()),
            ("request id", or_empty(message.request_id.as_ref())),
            ("delivery", or_empty(message.delivery.as_ref())),
            ("begins", message.begins.clone()),
        ]);
    }
    if let Some(work) = &detail.work {
        output::tries(work);
    }
    Ok(ExitCode::SUCCESS)
}

fn subject(letter: &DeadLetter) -> String {
    match WorkKind::of(&letter.kind) {
        Some(_) => letter.subject.clone(),
        None => "a queue message".to_owned(),
    }
}

async fn settle(services: &Services, settle: Settle, to: DeadLetterState) -> anyhow::Result<ExitCode> {
    let discarding = to == DeadLetterState::Discarded;
    if discarding && settle.reason.is_none() && !settle.dry_run {
        bail!("say why with --reason: it is all that will be left of this work");
    }
    let operations = &services.operations;
    let mut filter = settle.filter.query()?;
    match settle.id {
        Some(id) => {
            let letter = operations.dead_letter(id).await?.letter;
            if letter.state != DeadLetterState::Open.as_str() {
                return Err(OperationError::Settled { id, state: letter.state }.into());
            }
            filter.id = Some(id);
        }
        None if filter == DeadLetterFilter::default() && !settle.all => {
            bail!("name a dead letter, filter with --kind, --source, --route or --code, or say --all")
        }
        None => {}
    }
    let batch = Batch { filter, limit: settle.limit, rate: settle.rate };
    let found = operations.found(&batch).await?;
    let plan = plan(&found, discarding, settle.rate);
    if settle.dry_run {
        if settle.output.json {
            output::json(&found)?
        } else {
            say!("{plan}")
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !settle.consent.to(&plan)? {
        return Ok(ExitCode::FAILURE);
    }
    let name = super::actor();
    let actor = Actor { name: &name, reason: settle.reason.as_deref() };
    if discarding {
        let discarded = operations.discard_all(&batch, actor).await?.len();
        return told(settle.output, "discarded", discarded, &found, &Replay::default());
    }
    let replay = operations.replay_all(&batch, actor).await?;
    for message in &replay.unreadable {
        note!("{}: the message cannot be read: {}; {}", message.id, message.problem, message.remedy);
    }
    told(settle.output, "replayed", replay.replayed.len(), &found, &replay)
}

/// What is about to be done.
fn plan(found: &Found, discarding: bool, rate: u32) -> String {
    let mut lines: Vec<String> =
        found.by.iter().map(|part| format!("{:>8}  {} {}", part.count, part.kind, part.code)).collect();
    let what = match (discarding, found.settled) {
        (true, settled) => format!("{settled} of {} open dead letters are discarded.", found.found),
        (false, 0 | 1) => format!("{} of {} open dead letters go back at once.", found.settled, found.found),
        (false, settled) => {
            let time = Duration::from_secs(found.seconds.unsigned_abs());
            format!(
                "{settled} of {} open dead letters go back, {rate} a second: the last in {time:?}.",
                found.found
            )
        }
    };
    lines.push(what);
    lines.join("\n")
}

fn told(
    output: Output,
    verb: &str,
    settled: usize,
    found: &Found,
    replay: &Replay,
) -> anyhow::Result<ExitCode> {
    let unreadable = replay.unreadable.len();
    if output.json {
        output::json(&serde_json::json!({
            verb: settled, "found": found.found, "unreadable": unreadable, "last_due_at": replay.last_due_at,
        }))?;
    } else {
        say!("{settled} of {} dead letters {verb}.", found.found);
    }
    Ok(if unreadable == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
