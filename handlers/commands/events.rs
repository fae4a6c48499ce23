//! `events list|show|tail|replay`.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use colloquy::commands::{Consent, instant_before, words};
use colloquy::database::dead_letters::Actor;
use colloquy::database::inspect::{self, EventDetail, EventFilter, EventLine};
use colloquy::database::responses::{Order, PageOf};
use colloquy::events::state::EventState;
use colloquy::ids::EventId;
use colloquy::telemetry::trace;
use jiff::SignedDuration;

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
    #[arg(long, value_parser = words)]
    reason: Option<String>,
    /// Say what would happen and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    consent: Consent,
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
    fn query(&self) -> EventFilter {
        EventFilter {
            source: self.source.clone(),
            event_type: self.event_type.clone(),
            state: self.state.map(|state| state.to_string()),
            key: self.key.clone(),
            ..EventFilter::default()
        }
    }
}

async fn list(services: &Services, list: List) -> anyhow::Result<ExitCode> {
    let filter = EventFilter { since: list.since.map(instant_before).transpose()?, ..list.filter.query() };
    let page = PageOf { after: None, limit: list.listing.limit, order: Order::Descending };
    let events = inspect::events(&services.database.client().await?, &filter, page).await?.entries;
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
    let event = services.operations.event(show.id).await?;
    if show.output.json {
        let mut value = serde_json::to_value(&event)?;
        value["trace_id"] = event.trace_parent.as_deref().and_then(trace::trace_id).into();
        if show.payload {
            let payload = services.operations.payload(&event).await?;
            value["payload"] = serde_json::from_slice(&payload)
                .unwrap_or_else(|_| String::from_utf8_lossy(&payload).into_owned().into());
        }
        output::json(&value)?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&event);
    if show.payload {
        say!("\n{}", String::from_utf8_lossy(&services.operations.payload(&event).await?));
    }
    Ok(ExitCode::SUCCESS)
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
    if event.turns.is_empty() {
        return;
    }
    say!("");
    output::table(
        ["TURN", "JOB", "NUMBER", "WHERE", "STATE", "MODEL", "BEGAN", "RESTARTS", "TRACE"],
        event.turns.iter().map(|turn| {
            let state = match (&turn.error_code, turn.aside) {
                (Some(code), _) => format!("{} ({code})", turn.state),
                (None, true) => format!("{} (put aside)", turn.state),
                (None, false) => turn.state.clone(),
            };
            [
                turn.id.to_string(),
                turn.job.to_string(),
                turn.number.to_string(),
                if turn.background { "server" } else { "job" }.to_owned(),
                state,
                turn.model.clone(),
                ago(turn.created_at),
                turn.restarts.to_string(),
                or_empty(turn.trace_id.as_ref()),
            ]
        }),
        "",
    );
}

async fn tail(services: &Services, tail: Tail) -> anyhow::Result<ExitCode> {
    const PAUSE: Duration = Duration::from_millis(500);
    let mut window = Window::new(EventId::new());
    let filter = tail.filter.query();
    while !output::is_closed() {
        let page = PageOf { after: Some(window.after()), limit: PAGE, order: Order::Ascending };
        let events = match services.database.client().await {
            Ok(client) => inspect::events(&client, &filter, page).await,
            Err(error) => Err(error),
        };
        match events {
            Ok(events) => {
                let (events, full) = (events.entries, events.has_more);
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
const PAGE: u32 = 500;

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
    let wanted = services.operations.plan_replay(replay.id).await?;
    let planned = format!("{} jobs and {} callbacks", wanted.jobs(), wanted.callbacks());
    let plan = format!("{} runs again, as run {}: {planned}.", wanted.event, wanted.run);
    if replay.dry_run {
        say!("{plan}");
        return Ok(ExitCode::SUCCESS);
    }
    if !replay.consent.to(&plan)? {
        return Ok(ExitCode::FAILURE);
    }
    let actor = super::actor();
    let actor = Actor { name: &actor, reason: replay.reason.as_deref() };
    let replayed = services.operations.replay_event(&wanted, replay.new_ids, actor).await?;
    if replay.output.json {
        output::json(&replayed)?;
    } else {
        say!("{} runs again, as run {}: {planned}.", replayed.event, replayed.run);
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
        let full = page.len() as u32 == PAGE;
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
