//! Dead letters: one with every try, and settling one or many.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::{OperationError, Operations};
use crate::database::dead_letters::{self, Actor};
use crate::database::inspect::{self, DeadLetter, DeadLetterFilter, WorkLine};
use crate::database::responses::{Order, PageOf};
use crate::events::message::{self, CallbackHint, EventMessage, JobHint};
use crate::functions::{Payload, PayloadError};
use crate::ids::DeadLetterId;
use crate::jobs::state::{DeadLetterState, WorkKind};

/// What dead letters are of.
pub const LETTER_KINDS: [&str; 3] = [WorkKind::Job.as_str(), WorkKind::Callback.as_str(), MESSAGE];

/// Most that are settled at once.
pub const MOST_AT_ONCE: u32 = 10_000;
/// Most that go back in a second.
pub const MOST_PER_SECOND: u32 = 1_000;

/// Which dead letters are settled, and how fast.
#[derive(Clone, Debug)]
pub struct Batch {
    pub filter: DeadLetterFilter,
    /// The oldest so many; at most [`MOST_AT_ONCE`].
    pub limit: u32,
    /// How many go back in a second.
    pub rate: u32,
}

/// What a filter finds.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// Open dead letters that match.
    pub found: i64,
    /// How many of them would be settled at once.
    pub settled: i64,
    pub by: Vec<FoundBy>,
    /// How long it takes until the last is due.
    pub seconds: i64,
}

/// A part of what a filter finds.
#[derive(Clone, Debug, Serialize)]
pub struct FoundBy {
    pub kind: String,
    pub code: String,
    pub count: i64,
}

/// What came of replaying.
#[derive(Debug, Default, Serialize)]
pub struct Replay {
    pub replayed: Vec<DeadLetterId>,
    /// Messages that this version cannot read; they stay open.
    pub unreadable: Vec<Unreadable>,
    /// When the last of them is due.
    pub last_due_at: Option<Timestamp>,
}

/// A message that would only come back as another dead letter.
#[derive(Debug, Serialize)]
pub struct Unreadable {
    pub id: DeadLetterId,
    pub problem: String,
    pub remedy: &'static str,
}

/// One dead letter, with every try that is known.
#[derive(Debug, Serialize)]
pub struct LetterDetail {
    #[serde(flatten)]
    pub letter: DeadLetter,
    pub work: Option<WorkLine>,
    pub message: Option<Look>,
}

/// What may be shown of a message: enough to find its request, and to tell whose it is. It may hold anything a sender sent.
#[derive(Debug, Serialize)]
pub struct Look {
    pub bytes: usize,
    pub request_id: Option<String>,
    pub delivery: Option<String>,
    /// The version, and of an object the names of its members; of anything else the first few characters.
    pub begins: String,
}

impl Look {
    pub fn at(text: &str) -> Self {
        let plain = message::plain(text);
        let (version, json) = plain.split_at(plain.find('{').unwrap_or(0));
        let members: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(json).unwrap_or_default();
        let text_of = |name: &str| members.get(name).and_then(|value| value.as_str()).map(str::to_owned);
        let names: Vec<&str> = members.keys().map(String::as_str).collect();
        let begins = match names[..] {
            [] => beginning(&plain, 8),
            _ => beginning(&format!("{version}{{{}}}", names.join(", ")), 200),
        };
        Self { bytes: text.len(), request_id: text_of("request_id"), delivery: text_of("delivery"), begins }
    }
}

/// The first `most` characters.
fn beginning(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

impl Operations {
    /// One dead letter with its work, or with what may be shown of its message.
    pub async fn dead_letter(&self, id: DeadLetterId) -> Result<LetterDetail, OperationError> {
        let client = self.client().await?;
        let letter = inspect::dead_letter(&client, id).await?.ok_or_else(|| not_found(id))?;
        let work = match WorkKind::of(&letter.kind) {
            Some(kind) => inspect::work_of(&client, kind, letter.subject_id).await?,
            None => None,
        };
        let message = letter.message.as_deref().map(Look::at);
        Ok(LetterDetail { letter, work, message })
    }

    /// What a batch would find. Changes nothing.
    pub async fn found(&self, batch: &Batch) -> Result<Found, OperationError> {
        let counts = dead_letters::count(&self.client().await?, &batch.filter).await?;
        let by: Vec<FoundBy> =
            counts.into_iter().map(|(kind, code, count)| FoundBy { kind, code, count }).collect();
        let found = by.iter().map(|part| part.count).sum::<i64>();
        let settled = found.min(batch.limit.into());
        Ok(Found { found, settled, by, seconds: (settled - 1).max(0) / i64::from(batch.rate.max(1)) })
    }

    /// Puts one back, at once.
    pub async fn replay(&self, id: DeadLetterId, actor: Actor<'_>) -> Result<(), OperationError> {
        let client = self.client().await?;
        let letter = inspect::dead_letter(&client, id).await?.ok_or_else(|| not_found(id))?;
        drop(client);
        if letter.state != DeadLetterState::Open.as_str() {
            return Err(OperationError::Settled { id, state: letter.state });
        }
        let filter = DeadLetterFilter { id: Some(id), ..DeadLetterFilter::default() };
        let mut replay = self.replay_all(&Batch { filter, limit: 1, rate: 1 }, actor).await?;
        if let Some(Unreadable { id, problem, remedy }) = replay.unreadable.pop() {
            return Err(OperationError::Unreadable { id, problem, remedy });
        }
        if replay.replayed.is_empty() { Err(OperationError::NotDead(id)) } else { Ok(()) }
    }

    /// Puts what matches back, the oldest first, so many a second. Nobody has to stay to keep that pace: it stands in rows
    /// and in the delay of messages. Cut anywhere, what is not back yet is still open.
    pub async fn replay_all(&self, batch: &Batch, actor: Actor<'_>) -> Result<Replay, OperationError> {
        let limit = batch.limit.min(MOST_AT_ONCE);
        let client = self.client().await?;
        let back = dead_letters::replay(&client, &batch.filter, limit, batch.rate, actor).await?;
        drop(client);
        self.hint_back(&back).await;
        let mut replay = Replay {
            replayed: back.iter().map(|row| row.letter).collect(),
            last_due_at: back.last().map(|row| row.due_at),
            ..Replay::default()
        };
        if batch.filter.kind.as_deref().is_none_or(|kind| kind == MESSAGE) {
            self.replay_messages(batch, limit, actor, &mut replay).await?;
        }
        Ok(replay)
    }

    /// Puts messages back on their queues. Each is counted, put, and its letter settled: cut in between, the letter is open
    /// still, the message may be there twice and has its effect once, and the letter says how often it was put.
    async fn replay_messages(
        &self,
        batch: &Batch,
        limit: u32,
        actor: Actor<'_>,
        replay: &mut Replay,
    ) -> Result<(), OperationError> {
        const PAGE: u32 = 50;
        let filter = DeadLetterFilter {
            kind: Some(MESSAGE.to_owned()),
            state: Some(DeadLetterState::Open.as_str().to_owned()),
            ..batch.filter.clone()
        };
        let mut after = None;
        loop {
            let done = u32::try_from(replay.replayed.len()).unwrap_or(u32::MAX);
            let page = PageOf { after, limit: PAGE.min(limit.saturating_sub(done)), order: Order::Ascending };
            if page.limit == 0 {
                return Ok(());
            }
            let client = self.client().await?;
            let letters = inspect::dead_letters(&client, &filter, page).await?;
            for letter in &letters.entries {
                let text = match self.fresh(letter) {
                    Ok(text) => text,
                    Err(problem) => {
                        let remedy =
                            if problem.may_mend { "replay it with a version that can" } else { "discard it" };
                        let problem = problem.to_string();
                        replay.unreadable.push(Unreadable { id: letter.id, problem, remedy });
                        continue;
                    }
                };
                let number = u32::try_from(replay.replayed.len()).unwrap_or(u32::MAX);
                let delay = Duration::from_secs(1) / batch.rate.max(1) * number;
                let queue = letter.queue.as_deref().unwrap_or(&self.queues.events);
                if !dead_letters::count_put(&client, letter.id).await? {
                    continue;
                }
                self.storage()?.queue(queue).put(&text, delay).await?;
                if dead_letters::settle(&client, letter.id, DeadLetterState::Replayed, actor).await? {
                    replay.replayed.push(letter.id);
                    replay.last_due_at = Timestamp::now().checked_add(delay).ok();
                }
            }
            if !letters.has_more {
                return Ok(());
            }
            after = letters.entries.last().map(|letter| letter.id);
        }
    }

    /// The text of a message as it goes back to its queue, its failures forgotten. What cannot be read here would only
    /// come back as another dead letter.
    fn fresh(&self, letter: &DeadLetter) -> Result<String, PayloadError> {
        let text = message::plain(letter.message.as_deref().unwrap_or_default());
        let queue = letter.queue.as_deref().unwrap_or(&self.queues.events);
        if queue == self.queues.jobs {
            JobHint::decode(&text).map(|_| text.into_owned())
        } else if queue == self.queues.callbacks {
            CallbackHint::decode(&text).map(|_| text.into_owned())
        } else {
            let mut message = EventMessage::decode(&text)?;
            message.deferrals = 0;
            message.failures = 0;
            message.given_up = None;
            // Our own type, of strings and numbers: it serialises.
            Ok(message::encode(&message).unwrap_or_else(|_| text.into_owned()))
        }
    }

    /// Says of one that nothing is to be done about it.
    pub async fn discard(&self, id: DeadLetterId, actor: Actor<'_>) -> Result<(), OperationError> {
        let client = self.client().await?;
        if dead_letters::settle(&client, id, DeadLetterState::Discarded, actor).await? {
            return Ok(());
        }
        let letter = inspect::dead_letter(&client, id).await?.ok_or_else(|| not_found(id))?;
        Err(OperationError::Settled { id, state: letter.state })
    }

    /// Says it of all that match, the oldest first. Gives which.
    pub async fn discard_all(
        &self,
        batch: &Batch,
        actor: Actor<'_>,
    ) -> Result<Vec<DeadLetterId>, OperationError> {
        let client = self.client().await?;
        Ok(dead_letters::discard(&client, &batch.filter, batch.limit.min(MOST_AT_ONCE), actor).await?)
    }
}

/// The kind of a dead letter that is a queue's message.
const MESSAGE: &str = "message";

fn not_found(id: DeadLetterId) -> OperationError {
    OperationError::NotFound { what: "dead letter", id: id.to_string() }
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
