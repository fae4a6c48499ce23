//! `events list|show|tail|replay`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use colloquy::database::dead_letters::{self, Actor};
use colloquy::database::inspect::{self, EventDetail, EventFilter, EventLine};
use colloquy::database::{Client, events as inbox};
use colloquy::events::routes::Plan;
use colloquy::events::state::EventState;
use colloquy::ids::EventId;
use jiff::{SignedDuration, Timestamp};

use super::output::{self, Output, ago, or_empty};
use crate::services::Services;

#[derive(Subcommand)]
pub enum Events {
    /// The latest events.
    List(List),
    /// One event: where it came from, how it was verified, what became of it.
    Show(Show),
    /// Events as they are processed, until interrupted.
    Tail(Tail),
    /// Run an event again: its work anew, under the routes of now.
    Replay(Replay),
}

#[derive(Args)]
struct Filter {
    /// Only this source.
    #[arg(long)]
    source: Option<String>,
    /// Only types that match, `*` for any run of characters.
    #[arg(long = "type")]
    event_type: Option<String>,
    /// Only this state: held, processed or conflict.
    #[arg(long)]
    state: Option<EventState>,
    /// Only this key.
    #[arg(long)]
    key: Option<String>,
}

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    filter: Filter,
    /// Only events received within this time, such as 90m or 2d.
    #[arg(long, value_parser = super::duration)]
    since: Option<Duration>,
    /// At most so many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub struct Show {
    id: EventId,
    /// Also print the payload, as it came. It may hold personal data.
    #[arg(long)]
    payload: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub struct Tail {
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub struct Replay {
    id: EventId,
    /// Give its callbacks new ids, so that consumers take them for new ones.
    #[arg(long)]
    new_ids: bool,
    /// Why; kept in the audit trail.
    #[arg(long)]
    reason: Option<String>,
    /// Say what would happen and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

pub async fn run(services: &Services, command: Events) -> anyhow::Result<ExitCode> {
    match command {
        Events::List(list) => self::list(services, list).await,
        Events::Show(show) => self::show(services, show).await,
        Events::Tail(tail) => self::tail(services, tail).await,
        Events::Replay(replay) => self::replay(services, replay).await,
    }
}

impl Filter {
    fn query(&self, limit: i64) -> EventFilter {
        EventFilter {
            source: self.source.clone(),
            event_type: self.event_type.clone(),
            state: self.state.map(|state| state.to_string()),
            key: self.key.clone(),
            limit,
            ..EventFilter::default()
        }
    }
}

async fn list(services: &Services, list: List) -> anyhow::Result<ExitCode> {
    let mut filter = list.filter.query(list.limit);
    filter.since = match list.since {
        Some(since) => Some(Timestamp::now() - SignedDuration::try_from(since)?),
        None => None,
    };
    let events = inspect::events(&services.database.client().await?, &filter).await?;
    if list.output.json {
        output::json(&events)?;
    } else {
        output::table(
            ["EVENT", "RECEIVED", "SOURCE", "TYPE", "KEY", "STATE", "WORK"],
            events.iter().map(row),
            "No events. `function-handlers webhooks send <source>` sends one.",
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn row(event: &EventLine) -> [String; 7] {
    [
        event.id.to_string(),
        ago(event.received_at),
        event.source.clone(),
        event.event_type.clone(),
        shortened(&event.key),
        event.state.clone(),
        match (event.work, event.dead) {
            (0, _) => "-".to_owned(),
            (work, 0) => format!("{}/{work} done", event.work_done),
            (work, dead) => format!("{}/{work} done, {dead} dead", event.work_done),
        },
    ]
}

fn shortened(text: &str) -> String {
    const LONGEST: usize = 40;
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

async fn show(services: &Services, show: Show) -> anyhow::Result<ExitCode> {
    let client = services.database.client().await?;
    let event = find(&client, show.id).await?;
    if show.output.json {
        let mut value = serde_json::to_value(&event)?;
        if show.payload {
            let payload = payload(services, &event).await?;
            value["payload"] = serde_json::from_slice(&payload)
                .unwrap_or_else(|_| String::from_utf8_lossy(&payload).into_owned().into());
        }
        output::json(&value)?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&event);
    if show.payload {
        println!("\n{}", String::from_utf8_lossy(&payload(services, &event).await?));
    }
    Ok(ExitCode::SUCCESS)
}

async fn find(client: &Client, id: EventId) -> anyhow::Result<EventDetail> {
    inspect::event(client, id).await?.with_context(|| format!("there is no event {id}"))
}

async fn payload(services: &Services, event: &EventDetail) -> anyhow::Result<Vec<u8>> {
    if let Some(payload) = &event.payload {
        return Ok(payload.clone());
    }
    let name = event.body_blob.as_deref().context("its payload is gone")?;
    let body = services.container().get(name).await?;
    Ok(body.with_context(|| format!("the blob {name} that held its payload is gone"))?.to_vec())
}

fn print(event: &EventDetail) {
    let source = match &event.event_path {
        Some(path) => format!("{}/{path}", event.source),
        None => event.source.clone(),
    };
    let verdict = match (&event.verdict, &event.secret_label) {
        (Some(verdict), Some(label)) => format!("{verdict}, secret `{label}`"),
        (verdict, _) => or_empty(verdict.as_ref()),
    };
    output::fields([
        ("event", event.id.to_string()),
        ("type", event.event_type.clone()),
        ("source", source),
        ("subject", or_empty(event.subject.as_ref())),
        ("key", event.key.clone()),
        ("fingerprint", event.fingerprint.clone()),
        ("state", event.state.clone()),
        ("conflicts with", or_empty(event.conflicts_with.as_ref())),
        ("run", event.run.to_string()),
        (
            "delivery",
            format!("{} ({} of {})", event.delivery, event.position + 1, event.event_count.unwrap_or(0)),
        ),
        ("verified", verdict),
        ("signed", or_empty(event.signed_at.as_ref())),
        ("received", event.received_at.to_string()),
        ("stored", or_empty(event.stored_at.as_ref())),
        ("processed", or_empty(event.processed_at.as_ref())),
        ("request id", or_empty(event.request_id.as_ref())),
        ("trace", or_empty(event.trace_parent.as_ref())),
        ("content type", or_empty(event.content_type.as_ref())),
        ("body", event.body_bytes.map(|bytes| format!("{bytes} bytes")).unwrap_or_default()),
        ("blob", or_empty(event.body_blob.as_ref())),
    ]);
    if let Some(headers) = event.headers.as_ref().and_then(|headers| headers.as_array()) {
        println!("\nheaders");
        for pair in headers {
            println!("  {}: {}", pair[0].as_str().unwrap_or_default(), pair[1].as_str().unwrap_or_default());
        }
    }
    println!();
    output::table(
        ["WORK", "ID", "ROUTE", "RUN", "STATE", "TRIES", "DUE", "LAST ERROR"],
        event.work.iter().map(|work| {
            [
                format!("{} {}", work.kind, work.object),
                work.public_id(),
                work.route.clone(),
                work.run.to_string(),
                work.state.clone(),
                work.attempts.to_string(),
                if work.state == "pending" { ago(work.due_at) } else { String::new() },
                or_empty(work.error.as_ref()),
            ]
        }),
        "No work: no route matches, so it is recorded.",
    );
}

async fn tail(services: &Services, tail: Tail) -> anyhow::Result<ExitCode> {
    const PAUSE: Duration = Duration::from_millis(500);
    let mut filter = tail.filter.query(500);
    filter.after = Some(EventId::new());
    // Ids are made on arrival and rows appear later, in any order: look back a little, and remember what was shown.
    let mut shown = std::collections::VecDeque::new();
    loop {
        let events = match services.database.client().await {
            Ok(client) => inspect::events(&client, &filter).await,
            Err(error) => Err(error),
        };
        match events {
            Ok(events) => {
                for event in events.iter().filter(|event| !shown.contains(&event.id)) {
                    if tail.output.json {
                        output::json_line(event)?;
                    } else {
                        println!("{}", row(event).join("  "));
                    }
                }
                shown.extend(events.iter().map(|event| event.id));
                while shown.len() > 5_000 {
                    filter.after = shown.pop_front();
                }
            }
            Err(error) => eprintln!("{error}; trying again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn replay(services: &Services, replay: Replay) -> anyhow::Result<ExitCode> {
    let client = services.database.client().await?;
    let event = find(&client, replay.id).await?;
    match event.state.parse() {
        Ok(EventState::Processed) => {}
        Ok(EventState::Held) => {
            bail!(
                "{} is held: start its source with `function-handlers sources start {}`",
                event.id,
                event.source
            )
        }
        _ => bail!("{} has the key of another event, with other content; there is nothing to run", event.id),
    }
    let mut plan = Plan::default();
    services.routes.plan(&event.source, &event.event_type, event.id, &mut plan);
    let planned = format!("{} jobs and {} callbacks", plan.jobs.len(), plan.callbacks.len());
    if replay.dry_run {
        println!("Would run {} again, as run {}: {planned}.", event.id, event.run + 1);
        return Ok(ExitCode::SUCCESS);
    }
    let stored = inbox::replay(&client, event.id, event.run, &plan, replay.new_ids)
        .await?
        .context("somebody else replayed it at the same time; look at it again")?;
    let actor = super::actor();
    let actor = Actor { name: &actor, reason: replay.reason.as_deref() };
    dead_letters::audit(&client, actor, "event.replay", &event.id.to_string()).await?;
    drop(client);
    services.hint_at(&stored).await;
    if replay.output.json {
        output::json(&serde_json::json!({
            "event": event.id, "run": event.run + 1, "jobs": stored.jobs, "callbacks": stored.callbacks,
        }))?;
    } else {
        println!("{} runs again, as run {}: {planned}.", event.id, event.run + 1);
    }
    Ok(ExitCode::SUCCESS)
}
