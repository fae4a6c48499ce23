//! Requests that an SDK sends again because it never saw the answer: they find the turn they began.
//!
//! A stored turn keeps the `Idempotency-Key` it came with and the digest of its request in its row, for every process.
//! The key counts always, the digest only for requests that say that they are sent again: the same words may be meant
//! twice. Turns that are not stored are remembered by the process that began them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::create::Call;
use super::turn::Turn;
use super::{Engine, away};
use crate::access::Principal;
use crate::database::turns::{self, FirstTry, Idempotency};
use crate::ids::ResponseId;
use crate::openresponses::{ApiError, CreateResponse, ErrorType};

/// How long a request without a key is remembered: longer than OpenAI's SDKs wait before they send it again.
const KEPT: Duration = Duration::from_secs(15 * 60);
/// Requests remembered at most; the oldest go first.
const MOST: usize = 20_000;

/// What a request is known by: its owner, and its key or the digest of its body.
type Known = (String, Name);

#[derive(Debug, PartialEq, Eq, Hash)]
enum Name {
    Key(String),
    Digest([u8; 32]),
}

/// Requests of the last minutes.
#[derive(Debug, Default)]
pub struct Recent(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    turns: HashMap<Arc<Known>, First>,
    /// In the order they came. One that came again stands here twice; its first time then says nothing.
    order: VecDeque<(Arc<Known>, Instant)>,
}

/// The first try of a request.
#[derive(Debug)]
struct First {
    turn: ResponseId,
    digest: [u8; 32],
    at: Instant,
}

fn known(owner: &str, call: &Call) -> Known {
    let name = call.idempotency_key.clone().map_or(Name::Digest(call.digest), Name::Key);
    (owner.to_owned(), name)
}

impl Call {
    /// What a stored turn's first try is found by.
    pub(super) fn idempotency(&self) -> Idempotency<'_> {
        Idempotency { key: self.idempotency_key.as_deref(), request_hash: &self.digest }
    }
}

impl Engine {
    /// The turn that an earlier try of this request began, on any instance.
    pub(super) async fn first_try(
        &self,
        who: &Principal,
        request: &CreateResponse,
        call: &Call,
    ) -> Result<Option<Arc<Turn>>, ApiError> {
        if let Some(first) = self.0.recent.find(&who.owner, call)?
            && let Some(turn) = self.again(who, first).await?
        {
            return Ok(Some(turn));
        }
        // Others cost no round trip: beginning a turn looks for the key too.
        if call.is_retry && request.stores() {
            return self.stored_first_try(who, call).await;
        }
        Ok(None)
    }

    /// The same from the database.
    pub(super) async fn stored_first_try(
        &self,
        who: &Principal,
        call: &Call,
    ) -> Result<Option<Arc<Turn>>, ApiError> {
        let client = self.client().await?;
        let first = turns::first_try(&client, &who.owner, call.idempotency(), KEPT).await.map_err(away)?;
        drop(client);
        let Some(FirstTry { response, same_request }) = first else { return Ok(None) };
        if !same_request {
            return Err(key_reused());
        }
        // Its end is on its way into the database.
        let spoilt = self.local(&who.owner, response).is_some_and(|turn| turn.is_spoilt());
        if spoilt && call.idempotency_key.is_none() {
            return Ok(None);
        }
        self.attach(who, response).await.map(Some)
    }
}

pub(super) fn key_reused() -> ApiError {
    ApiError::new(
        http::StatusCode::CONFLICT,
        ErrorType::ConflictError,
        "idempotency_key_reused",
        "The Idempotency-Key was used before with another request. Use a new key.",
    )
    .should_retry(false)
}

impl Recent {
    /// The turn that an earlier try of this request began. `Err` if its key came with another request.
    pub fn find(&self, owner: &str, call: &Call) -> Result<Option<ResponseId>, ApiError> {
        if !call.is_retry && call.idempotency_key.is_none() {
            return Ok(None);
        }
        let recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match recent.turns.get(&known(owner, call)).filter(|first| first.at.elapsed() < KEPT) {
            Some(first) if first.digest != call.digest => Err(key_reused()),
            first => Ok(first.map(|first| first.turn)),
        }
    }

    /// Remembers which turn a request began.
    pub fn remember(&self, owner: &str, call: &Call, id: ResponseId) {
        let (known, now) = (Arc::new(known(owner, call)), Instant::now());
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.turns.insert(Arc::clone(&known), First { turn: id, digest: call.digest, at: now });
        recent.order.push_back((known, now));
        while recent.order.len() > MOST
            || recent.order.front().is_some_and(|(_, at)| now.saturating_duration_since(*at) >= KEPT)
        {
            let Some((oldest, then)) = recent.order.pop_front() else { break };
            if recent.turns.get(&oldest).is_some_and(|first| first.at == then) {
                recent.turns.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::combinations::Transport;

    fn call(body: u8, key: Option<&str>, is_retry: bool) -> Call {
        Call {
            transport: Transport::Http,
            idempotency_key: key.map(str::to_owned),
            is_retry,
            digest: [body; 32],
            local: None,
            job: None,
        }
    }

    fn found(found: Result<Option<ResponseId>, ApiError>) -> Option<ResponseId> {
        found.expect("no other request had the key")
    }

    #[test]
    fn only_what_says_it_is_a_retry_finds_the_first_try() {
        let recent = Recent::default();
        let id = ResponseId::new();
        recent.remember("ann", &call(1, None, false), id);
        assert_eq!(found(recent.find("ann", &call(1, None, true))), Some(id));
        assert_eq!(
            found(recent.find("ann", &call(1, None, false))),
            None,
            "the same words again are another turn"
        );
        assert_eq!(found(recent.find("ann", &call(2, None, true))), None);
        assert_eq!(found(recent.find("bob", &call(1, None, true))), None, "another's request");
        recent.remember("ann", &call(3, Some("key"), false), id);
        assert_eq!(found(recent.find("ann", &call(3, Some("key"), false))), Some(id));
        let reused = recent.find("ann", &call(4, Some("key"), true)).unwrap_err();
        assert_eq!((reused.status.as_u16(), reused.code), (409, "idempotency_key_reused"));
    }

    #[test]
    fn the_oldest_are_forgotten_and_what_came_again_is_not_old() {
        let recent = Recent::default();
        let (id, again) = (ResponseId::new(), ResponseId::new());
        recent.remember("ann", &call(0, Some("first"), false), id);
        recent.remember("ann", &call(0, Some("second"), false), id);
        recent.remember("ann", &call(0, Some("first"), false), again);
        for nth in 0..MOST - 2 {
            recent.remember("ann", &call(0, Some(&nth.to_string()), false), id);
        }
        let find = |key| found(recent.find("ann", &call(0, Some(key), false)));
        assert_eq!((find("first"), find("second")), (Some(again), Some(id)));
        recent.remember("ann", &call(0, Some("one more"), false), id);
        assert_eq!((find("first"), find("second"), find("one more")), (Some(again), None, Some(id)));
        assert!(recent.0.lock().unwrap().turns.len() <= MOST);
    }
}
