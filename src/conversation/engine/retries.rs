//! Requests that an SDK sends again because it never saw the answer: they find the turn they began.
//!
//! An `Idempotency-Key` of a stored turn is kept with its row, for every process. This is for the rest: SDKs that send no
//! key but say that they try again, and turns that are not stored.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::create::Call;
use crate::ids::ResponseId;

/// How long a request is remembered. SDKs give up far earlier.
const KEPT: Duration = Duration::from_secs(600);
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
