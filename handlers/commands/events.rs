//! `events list|show|tail|replay`.

use std::collections::BTreeSet;
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
use colloquy::telemetry::trace;
use jiff::{SignedDuration, Timestamp};

use super::output::{self, Listing, Output, ago, or_empty, shortened};
use crate::services::Services;

#[derive(Subcommand)]
pub enum Events {
    /// The latest events, newest first.
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
    #[command(flatten)]
    listing: Listing,
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
    let mut filter = list.filter.query(list.listing.limit);
    filter.since = match list.since {
        Some(since) => Some(Timestamp::now().checked_sub(SignedDuration::try_from(since)?)?),
        None => None,
    };
    let events = inspect::events(&services.database.client().await?, &filter).await?;
    let headings = ["EVENT", "RECEIVED", "SOURCE", "TYPE", "KEY", "STATE", "WORK"];
    let empty = "No events. `function-handlers webhooks send <source>` sends one.";
    list.listing.print(&events, headings, row, empty)?;
    Ok(ExitCode::SUCCESS)
}

fn row(event: &EventLine) -> [String; 7] {
    [
        event.id.to_string(),
        ago(event.received_at),
        event.source.clone(),
        shortened(&event.event_type),
        shortened(&event.key),
        event.state.clone(),
        match (event.work, event.dead) {
            (0, _) => "-".to_owned(),
            (work, 0) => format!("{}/{work} done", event.work_done),
            (work, dead) => format!("{}/{work} done, {dead} dead", event.work_done),
        },
    ]
}

async fn show(services: &Services, show: Show) -> anyhow::Result<ExitCode> {
    let client = services.database.client().await?;
    let event = find(&client, show.id).await?;
    if show.output.json {
        let mut value = serde_json::to_value(&event)?;
        value["trace_id"] = event.trace_parent.as_deref().and_then(trace::trace_id).into();
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
        say!("\n{}", String::from_utf8_lossy(&payload(services, &event).await?));
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
        ("trace", or_empty(event.trace_parent.as_deref().and_then(trace::trace_id).as_ref())),
        ("content type", or_empty(event.content_type.as_ref())),
        ("body", event.body_bytes.map(|bytes| format!("{bytes} bytes")).unwrap_or_default()),
        ("blob", or_empty(event.body_blob.as_ref())),
    ]);
    if let Some(headers) = event.headers.as_ref().and_then(|headers| headers.as_array()) {
        say!("\nheaders");
        for pair in headers {
            say!("  {}: {}", pair[0].as_str().unwrap_or_default(), pair[1].as_str().unwrap_or_default());
        }
    }
    say!("");
    output::table(
        ["WORK", "ID", "ROUTE", "RUN", "STATE", "TRIES", "DUE", "LAST ERROR"],
        event.work.iter().map(|work| {
            [
                format!("{} {}", work.kind, work.object),
                work.id.clone(),
                work.route.clone(),
                work.run.to_string(),
                work.state.clone(),
                work.attempts.to_string(),
                output::due(work),
                or_empty(work.error.as_ref()),
            ]
        }),
        "No work: no route matches, so it is recorded.",
    );
}

async fn tail(services: &Services, tail: Tail) -> anyhow::Result<ExitCode> {
    const PAUSE: Duration = Duration::from_millis(500);
    let mut window = Window::new(EventId::new());
    let mut filter = tail.filter.query(PAGE);
    while !output::is_closed() {
        filter.after = Some(window.after());
        let events = match services.database.client().await {
            Ok(client) => inspect::events(&client, &filter).await,
            Err(error) => Err(error),
        };
        match events {
            Ok(events) => {
                let full = events.len() as i64 == PAGE;
                for event in events.iter().filter(|event| window.is_new(event.id)) {
                    if tail.output.json {
                        output::json_line(event)?;
                    } else {
                        say!("{}", row(event).join("  "));
                    }
                }
                if let Some(newest) = events.last() {
                    window.advance(newest.id, full);
                }
                if full {
                    continue;
                }
            }
            Err(error) => note!("{error}; trying again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(ExitCode::SUCCESS)
}

/// Most events of one look.
const PAGE: i64 = 500;

/// How far `tail` has come.
///
/// Ids are made on arrival and rows appear later, in any order. So each look begins a little before the newest event
/// shown, and what was shown there is remembered; a full page is left behind at its end, or it would come again.
struct Window {
    start: EventId,
    after: EventId,
    /// Shown, and younger than `after`.
    shown: BTreeSet<EventId>,
    newest: EventId,
    looks: u32,
}

impl Window {
    /// How much later than its neighbours an event usually appears.
    const NEAR: SignedDuration = SignedDuration::from_secs(10);
    /// How much later it may, when its message waited; looked for now and then.
    const FAR: SignedDuration = SignedDuration::from_mins(5);
    const FAR_EVERY: u32 = 20;

    fn new(start: EventId) -> Self {
        Self { start, after: start, shown: BTreeSet::new(), newest: start, looks: 0 }
    }

    fn after(&self) -> EventId {
        self.after
    }

    /// Notes that an event is shown, if it was not before.
    fn is_new(&mut self, id: EventId) -> bool {
        self.shown.insert(id)
    }

    /// After a page that ended with `last`. A full one is followed by the next; then the look back begins again.
    fn advance(&mut self, last: EventId, full: bool) {
        self.newest = self.newest.max(last);
        if full {
            self.after = last;
            return;
        }
        self.looks += 1;
        let back = if self.looks.is_multiple_of(Self::FAR_EVERY) { Self::FAR } else { Self::NEAR };
        self.after = self.start.max(self.newest.earlier(back));
        let forgotten = self.newest.earlier(Self::FAR);
        self.shown.retain(|id| *id > forgotten);
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
        say!("Would run {} again, as run {}: {planned}.", event.id, event.run + 1);
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
        say!("{} runs again, as run {}: {planned}.", event.id, event.run + 1);
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events one millisecond apart from a start.
    fn events(count: u64) -> Vec<EventId> {
        let start = 1_800_000_000_000_u64;
        (1..=count)
            .map(|n| {
                let time = (start + n).to_be_bytes();
                let mut bytes = [0; 16];
                bytes[..6].copy_from_slice(&time[2..]);
                EventId(uuid::Uuid::from_bytes(bytes))
            })
            .collect()
    }

    /// One look at what is stored: what it shows, and whether it was full.
    fn look(window: &mut Window, stored: &[EventId]) -> (Vec<EventId>, bool) {
        let after = window.after();
        let page: Vec<_> = stored.iter().copied().filter(|id| *id > after).take(PAGE as usize).collect();
        let shown = page.iter().copied().filter(|id| window.is_new(*id)).collect();
        let full = page.len() as i64 == PAGE;
        if let Some(last) = page.last() {
            window.advance(*last, full);
        }
        (shown, full)
    }

    #[test]
    fn a_burst_is_shown_whole_without_a_pause_and_each_event_once() {
        let all = events(20_000);
        let mut window = Window::new(events(1)[0].earlier(SignedDuration::from_secs(60)));
        let mut shown = Vec::new();
        let mut looks = 0;
        while {
            let (page, full) = look(&mut window, &all);
            shown.extend(page);
            looks += 1;
            full && looks < 100
        } {}
        assert_eq!(shown, all, "in {looks} looks");
        // The last ten seconds are looked at again, and nothing of them is shown twice.
        let mut again = 0;
        while {
            let (page, full) = look(&mut window, &all);
            assert_eq!(page, []);
            again += 1;
            full && again < 100
        } {}
        assert!(again < 100);
    }

    #[test]
    fn an_event_that_appears_late_is_shown() {
        let all = events(1_000);
        let mut window = Window::new(events(1)[0].earlier(SignedDuration::from_secs(60)));
        let without: Vec<_> = all.iter().copied().filter(|id| *id != all[700]).collect();
        while look(&mut window, &without).1 {}
        let mut late = Vec::new();
        loop {
            let (page, full) = look(&mut window, &all);
            late.extend(page);
            if !full {
                break;
            }
        }
        assert_eq!(late, [all[700]]);
    }
}
