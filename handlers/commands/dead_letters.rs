//! `dead-letters list|show|replay|discard`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use colloquy::database::dead_letters::{self, Actor};
use colloquy::database::inspect::{self, DeadLetter, DeadLetterFilter};
use colloquy::events::message::{self, CallbackHint, EventMessage, JobHint};
use colloquy::functions::{Payload, PayloadError};
use colloquy::ids::DeadLetterId;
use colloquy::jobs::state::{DeadLetterState, WorkKind};
use serde::Serialize;

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
    #[arg(long)]
    kind: Option<String>,
    /// Only this source.
    #[arg(long)]
    source: Option<String>,
    /// Only this reason, by its code.
    #[arg(long)]
    code: Option<String>,
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
    /// Why; kept with the letter and in the audit trail. Needed to discard.
    #[arg(long)]
    reason: Option<String>,
    /// At most so many a second, so that replayed work does not crowd out live work.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rate: u32,
    /// Say what would happen and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

pub async fn run(services: &Services, command: DeadLetters) -> anyhow::Result<ExitCode> {
    match command {
        DeadLetters::List(list) => self::list(services, list).await,
        DeadLetters::Show(show) => self::show(services, show).await,
        DeadLetters::Replay(settle) => self::settle(services, settle, DeadLetterState::Replayed).await,
        DeadLetters::Discard(settle) => self::settle(services, settle, DeadLetterState::Discarded).await,
    }
}

impl Filter {
    fn query(&self, state: Option<DeadLetterState>, limit: i64) -> DeadLetterFilter {
        DeadLetterFilter {
            id: None,
            kind: self.kind.clone(),
            source: self.source.clone(),
            reason_code: self.code.clone(),
            state: state.map(|state| state.as_str().to_owned()),
            newest_first: false,
            limit,
        }
    }

    fn is_empty(&self) -> bool {
        self.kind.is_none() && self.source.is_none() && self.code.is_none()
    }
}

async fn list(services: &Services, list: List) -> anyhow::Result<ExitCode> {
    let state = (!list.all).then_some(DeadLetterState::Open);
    let filter = DeadLetterFilter { newest_first: true, ..list.filter.query(state, list.listing.limit) };
    let letters = inspect::dead_letters(&services.database.client().await?, &filter).await?;
    let headings = ["DEAD LETTER", "WHEN", "KIND", "SOURCE", "CODE", "STATE", "REASON"];
    list.listing.print(&letters, headings, row, "No dead letters.")?;
    Ok(ExitCode::SUCCESS)
}

fn row(letter: &DeadLetter) -> [String; 7] {
    [
        letter.id.to_string(),
        ago(letter.created_at),
        letter.kind.clone(),
        or_empty(letter.source.as_ref()),
        letter.reason_code.clone(),
        letter.state.clone(),
        letter.reason.clone(),
    ]
}

async fn find(services: &Services, id: DeadLetterId) -> anyhow::Result<DeadLetter> {
    let filter = DeadLetterFilter { id: Some(id), limit: 1, ..DeadLetterFilter::default() };
    let letters = inspect::dead_letters(&services.database.client().await?, &filter).await?;
    letters.into_iter().next().with_context(|| format!("there is no dead letter {id}"))
}

async fn show(services: &Services, show: Show) -> anyhow::Result<ExitCode> {
    let letter = find(services, show.id).await?;
    let work = match WorkKind::of(&letter.kind) {
        Some(_) => inspect::work_of(&services.database.client().await?, letter.subject_id).await?,
        None => None,
    };
    let message = letter.message.as_deref().map(Look::at);
    if show.output.json {
        let mut value = serde_json::to_value(&letter)?;
        value["work"] = serde_json::to_value(&work)?;
        value["message"] = serde_json::to_value(&message)?;
        output::json(&value)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::fields([
        ("dead letter", letter.id.to_string()),
        ("what", subject(&letter)),
        ("source", or_empty(letter.source.as_ref())),
        ("event", or_empty(letter.event.as_ref())),
        ("queue", or_empty(letter.queue.as_ref())),
        ("code", letter.reason_code.clone()),
        ("reason", letter.reason.clone()),
        ("attempts", letter.attempts.to_string()),
        ("state", letter.state.clone()),
        ("created", letter.created_at.to_string()),
        ("settled", or_empty(letter.resolved_at.as_ref())),
        ("why settled", or_empty(letter.resolution.as_ref())),
    ]);
    if let Some(message) = &message {
        output::fields([
            ("bytes", message.bytes.to_string()),
            ("request id", or_empty(message.request_id.as_ref())),
            ("delivery", or_empty(message.delivery.as_ref())),
            ("begins", message.begins.clone()),
        ]);
    }
    if let Some(work) = &work {
        output::tries(work);
    }
    Ok(ExitCode::SUCCESS)
}

/// What may be shown of a message: enough to find its request, and to tell whose it is. It may hold anything a sender sent.
#[derive(Serialize)]
struct Look {
    bytes: usize,
    request_id: Option<String>,
    delivery: Option<String>,
    /// The version, and of an object the names of its members; of anything else the first few characters.
    begins: String,
}

impl Look {
    fn at(text: &str) -> Self {
        let plain = message::plain(text);
        let (version, json) = plain.split_at(plain.find('{').unwrap_or(0));
        let members: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(json).unwrap_or_default();
        let text_of = |name: &str| members.get(name).and_then(|value| value.as_str()).map(str::to_owned);
        let names: Vec<&str> = members.keys().map(String::as_str).collect();
        let begins = match names[..] {
            [] => output::shortened_to(&plain, 8),
            _ => output::shortened_to(&format!("{version}{{{}}}", names.join(", ")), 200),
        };
        Self { bytes: text.len(), request_id: text_of("request_id"), delivery: text_of("delivery"), begins }
    }
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
    let letters = match settle.id {
        Some(id) => {
            let letter = find(services, id).await?;
            if letter.state != DeadLetterState::Open.as_str() {
                bail!("{id} is {} already", letter.state);
            }
            vec![letter]
        }
        None if settle.filter.is_empty() && !settle.all => {
            bail!("name a dead letter, filter with --kind, --source or --code, or say --all")
        }
        None => {
            let filter = settle.filter.query(Some(DeadLetterState::Open), i64::MAX);
            inspect::dead_letters(&services.database.client().await?, &filter).await?
        }
    };
    let verb = if discarding { "discarded" } else { "replayed" };
    if settle.dry_run {
        say!("{} dead letters would be {verb}.", letters.len());
        return Ok(ExitCode::SUCCESS);
    }
    let name = super::actor();
    let actor = Actor { name: &name, reason: settle.reason.as_deref() };
    let mut pace = tokio::time::interval(Duration::from_secs(1) / settle.rate);
    let (mut settled, mut unreadable) = (0, 0);
    for letter in &letters {
        pace.tick().await;
        if discarding {
            let client = services.database.client().await?;
            settled += usize::from(dead_letters::settle(&client, letter.id, to, actor).await?);
            continue;
        }
        match replay(services, letter, actor).await.with_context(|| letter.id.to_string())? {
            Replayed::Back => settled += 1,
            Replayed::SettledBefore => {}
            Replayed::Unreadable(error) => {
                unreadable += 1;
                let remedy = if error.may_mend { "replay it with a version that can" } else { "discard it" };
                note!("{}: the message cannot be read: {error}; {remedy}", letter.id);
            }
        }
    }
    if settle.output.json {
        let counts = serde_json::json!({ verb: settled, "found": letters.len(), "unreadable": unreadable });
        output::json(&counts)?;
    } else {
        say!("{settled} of {} dead letters {verb}.", letters.len());
    }
    Ok(if unreadable == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What came of replaying one dead letter.
enum Replayed {
    Back,
    /// By somebody else, in between.
    SettledBefore,
    /// A message that this version cannot read; it stays open.
    Unreadable(PayloadError),
}

async fn replay(services: &Services, letter: &DeadLetter, actor: Actor<'_>) -> anyhow::Result<Replayed> {
    let Some(kind) = WorkKind::of(&letter.kind) else {
        return replay_message(services, letter, actor).await;
    };
    let client = services.database.client().await?;
    let Some(id) = dead_letters::replay(&client, kind, letter.id, actor).await? else {
        return Ok(Replayed::SettledBefore);
    };
    drop(client);
    services.hint_all(kind, vec![id]).await;
    Ok(Replayed::Back)
}

/// Puts the message back first and settles the letter after: cut in between, the message is there twice and has its
/// effect once.
async fn replay_message(
    services: &Services,
    letter: &DeadLetter,
    actor: Actor<'_>,
) -> anyhow::Result<Replayed> {
    let text = message::plain(letter.message.as_deref().context("its message was not kept")?);
    let queue = letter.queue.as_deref().context("its queue was not kept")?;
    let text = match fresh(services, queue, &text) {
        Ok(text) => text,
        Err(error) => return Ok(Replayed::Unreadable(error)),
    };
    services.storage.queue(queue).put(&text, Duration::ZERO).await?;
    let client = services.database.client().await?;
    let settled = dead_letters::settle(&client, letter.id, DeadLetterState::Replayed, actor).await?;
    Ok(if settled { Replayed::Back } else { Replayed::SettledBefore })
}

/// The text as it goes back to its queue, its failures forgotten. What cannot be read here would only come back as
/// another dead letter.
fn fresh(services: &Services, queue: &str, text: &str) -> Result<String, PayloadError> {
    let queues = &services.config.queues;
    if queue == queues.jobs {
        JobHint::decode(text).map(|_| text.to_owned())
    } else if queue == queues.callbacks {
        CallbackHint::decode(text).map(|_| text.to_owned())
    } else {
        let mut message = EventMessage::decode(text)?;
        message.deferrals = 0;
        message.failures = 0;
        message.given_up = None;
        // Our own type, of strings and numbers: it serialises.
        Ok(message::encode(&message).unwrap_or_else(|_| text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_message_only_what_names_it_is_shown() {
        let text = r#"v9 {"request_id":"req-12345678","delivery":"dlv_1","body":{"text":"hunter2"},"token":"s3cr3t"}"#;
        let look = Look::at(text);
        assert_eq!(look.bytes, text.len());
        assert_eq!(look.request_id.as_deref(), Some("req-12345678"));
        assert_eq!(look.delivery.as_deref(), Some("dlv_1"));
        for name in ["v9 ", "body", "token"] {
            assert!(look.begins.contains(name), "{}", look.begins);
        }
        assert!(!look.begins.contains("hunter2") && !look.begins.contains("s3cr3t"), "{}", look.begins);
        assert_eq!(Look::at("a letter to somebody").begins, "a letter…");
        assert_eq!(Look::at("").begins, "");
    }
}
