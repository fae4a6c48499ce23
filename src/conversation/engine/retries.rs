//! Requests that an SDK sends again because it never saw the answer: they find the turn they began.
//!
//! A stored turn keeps the `Idempotency-Key` it came with and the digest of its request in its row, for every process.
//! The key counts always, the digest only for requests that say that they are sent again: the same words may be meant
//! twice. Turns that are not stored are remembered by the process that began them.

use std::collections::HashMap;
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
type Known = (String, String);

/// Requests of the last minutes.
#[derive(Debug, Default)]
pub struct Recent(Mutex<HashMap<Known, (ResponseId, Instant)>>);

fn known(owner: &str, call: &Call) -> Known {
    use std::fmt::Write;
    let name = call.idempotency_key.clone().unwrap_or_else(|| {
        let mut hex = String::with_capacity(64);
        for byte in call.digest {
            // Writing to a String cannot fail.
            write!(hex, "{byte:02x}").unwrap_or_default();
        }
        hex
    });
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
        if let Some(first) = self.0.recent.find(&who.owner, call)
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
    /// The turn that an earlier try of this request began.
    pub fn find(&self, owner: &str, call: &Call) -> Option<ResponseId> {
        if !call.is_retry && call.idempotency_key.is_none() {
            return None;
        }
        let recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.get(&known(owner, call)).filter(|(_, at)| at.elapsed() < KEPT).map(|(id, _)| *id)
    }

    /// Remembers which turn a request began.
    pub fn remember(&self, owner: &str, call: &Call, id: ResponseId) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= MOST {
            recent.retain(|_, (_, at)| at.elapsed() < KEPT);
            if recent.len() >= MOST
                && let Some(oldest) =
                    recent.iter().min_by_key(|(_, (_, at))| *at).map(|(known, _)| known.clone())
            {
                recent.remove(&oldest);
            }
        }
        recent.insert(known(owner, call), (id, Instant::now()));
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

    #[test]
    fn only_what_says_it_is_a_retry_finds_the_first_try() {
        let recent = Recent::default();
        let id = ResponseId::new();
        recent.remember("ann", &call(1, None, false), id);
        assert_eq!(recent.find("ann", &call(1, None, true)), Some(id));
        assert_eq!(recent.find("ann", &call(1, None, false)), None, "the same words again are another turn");
        assert_eq!(recent.find("ann", &call(2, None, true)), None);
        assert_eq!(recent.find("bob", &call(1, None, true)), None, "another's request");
        recent.remember("ann", &call(3, Some("key"), false), id);
        assert_eq!(recent.find("ann", &call(3, Some("key"), false)), Some(id));
    }
}
