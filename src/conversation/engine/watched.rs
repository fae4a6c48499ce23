//! Who watches a turn, and what becomes of one that nobody watches.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::create::Start;
use super::turn::{OnDisconnect, StopReason, Turn};
use super::{Engine, away};
use crate::access::Principal;
use crate::conversation::live::Live;
use crate::database::turns;
use crate::openresponses::{ApiError, CreateResponse, ErrorType};

impl Engine {
    /// A place among the turns that go on with nobody watching. A background turn takes one from its start: it was
    /// promised to go on.
    ///
    /// Errors: 429 if there is none.
    pub(super) fn unwatched(
        &self,
        who: &Principal,
        request: &CreateResponse,
    ) -> Result<Option<Place>, ApiError> {
        let in_background = request.background.unwrap_or(false);
        Ok(in_background.then(|| self.0.unwatched.take(&who.owner)).transpose()?)
    }

    /// Most background turns that whoever asks for this one may have open, wherever they run or wait.
    pub(super) fn background_max(&self, start: &Start<'_>) -> Option<u32> {
        let counts = start.request.background.unwrap_or(false) && start.call.job.is_none();
        counts.then(|| u32::try_from(self.0.limits.unwatched_of_owner_max).unwrap_or(u32::MAX))
    }

    /// Completes when the turn is to stop: because it was told to, because its time is over, or because nobody has
    /// watched it for the grace.
    pub(super) async fn stop(&self, turn: &Turn) -> StopReason {
        let overdue = async {
            match turn.until {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            reason = turn.stopped() => reason,
            () = overdue => StopReason::Overdue,
            () = self.left_alone(turn) => StopReason::Disconnected,
        }
    }

    /// Completes when nobody watches the turn any more, here or elsewhere, and it may not go on without.
    async fn left_alone(&self, turn: &Turn) {
        /// Whoever asked for the turn has a little longer to begin.
        const FIRST: Duration = Duration::from_secs(5);
        if turn.background && turn.on_disconnect == OnDisconnect::Continue {
            return std::future::pending().await;
        }
        let grace = self.0.limits.disconnect_grace;
        let mut patience = grace.max(FIRST);
        loop {
            deserted(&turn.live, patience, grace).await;
            if self.was_watched_elsewhere(turn).await {
                patience = grace;
                continue;
            }
            if turn.on_disconnect == OnDisconnect::Cancel {
                return;
            }
            let _place = match self.0.unwatched.take(turn.payer()) {
                Ok(place) => place,
                Err(full) => {
                    tracing::warn!(
                        code = "turn.no_place_unwatched",
                        response_id = %turn.id,
                        limit = full.setting(),
                        "a turn that nobody watches was cancelled: there are as many of them as there may be"
                    );
                    return;
                }
            };
            watched(&turn.live).await;
            patience = grace;
        }
    }

    /// Whether a viewer in another process said within the grace that it is watching.
    async fn was_watched_elsewhere(&self, turn: &Turn) -> bool {
        let Some(held) = turn.held else { return false };
        let limits = &self.0.limits;
        // It says so six times in a lease.
        let within = limits.disconnect_grace.max(limits.lease / 2);
        let asked = async {
            let client = self.0.database.client().await?;
            turns::watched_elsewhere(&client, held, within).await
        };
        // While the database is away nobody can watch from another process.
        asked.await.map_err(away).unwrap_or(false)
    }
}

/// Completes once nobody has watched here for a while: at first for `patience`, after a viewer was there for `grace`.
async fn deserted(live: &Live, mut patience: Duration, grace: Duration) {
    let mut changes = live.changes();
    loop {
        changes.borrow_and_update();
        if live.viewers() > 0 {
            patience = grace;
            if changes.changed().await.is_err() {
                return;
            }
            continue;
        }
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            match tokio::time::timeout_at(deadline, changes.changed()).await {
                Err(_) => return,
                Ok(_) if live.viewers() > 0 => break,
                Ok(_) => {}
            }
        }
    }
}

/// Completes once somebody watches here.
async fn watched(live: &Live) {
    let mut changes = live.changes();
    while live.viewers() == 0 && changes.changed().await.is_ok() {
        changes.borrow_and_update();
    }
}

/// Places for turns that go on with nobody watching: so many in this process, and so many of each owner's.
#[derive(Debug)]
pub(super) struct Unwatched {
    most: usize,
    most_of_owner: usize,
    taken: Mutex<HashMap<Arc<str>, usize>>,
}

/// One of them, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    among: Arc<Unwatched>,
    owner: Arc<str>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    OfProcess,
    OfOwner,
}

impl Unwatched {
    /// All of them free.
    pub fn new(most: usize, most_of_owner: usize) -> Self {
        Self { most, most_of_owner, taken: Mutex::default() }
    }

    fn take(self: &Arc<Self>, owner: &str) -> Result<Place, Full> {
        let mut taken = self.taken();
        if taken.get(owner).copied().unwrap_or_default() >= self.most_of_owner {
            return Err(Full::OfOwner);
        }
        if taken.values().sum::<usize>() >= self.most {
            return Err(Full::OfProcess);
        }
        Ok(self.give(&mut taken, owner))
    }

    /// Beyond the limits if need be: for what was let in once.
    pub fn take_anyway(self: &Arc<Self>, owner: &str) -> Place {
        self.give(&mut self.taken(), owner)
    }

    fn give(self: &Arc<Self>, taken: &mut HashMap<Arc<str>, usize>, owner: &str) -> Place {
        let owner = taken.get_key_value(owner).map_or_else(|| owner.into(), |(known, _)| Arc::clone(known));
        *taken.entry(Arc::clone(&owner)).or_default() += 1;
        Place { among: Arc::clone(self), owner }
    }

    /// How many of whose are taken; owners with none are left out.
    fn taken(&self) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        // Every change is one step.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.among.taken();
        if let Entry::Occupied(mut count) = taken.entry(Arc::clone(&self.owner)) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Full {
    /// The setting that says how many there may be.
    fn setting(self) -> &'static str {
        match self {
            Self::OfProcess => "UNWATCHED_TURNS_MAX",
            Self::OfOwner => "UNWATCHED_TURNS_PER_OWNER_MAX",
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::OfProcess => "unwatched_turns_limit",
            Self::OfOwner => "owner_unwatched_turns_limit",
        }
    }
}

impl From<Full> for ApiError {
    fn from(full: Full) -> Self {
        let whose = match full {
            Full::OfProcess => "The server has",
            Full::OfOwner => "You have",
        };
        let message = format!(
            "{whose} as many turns that nobody needs to watch as there may be ({}). Wait until some have ended, or ask \
             without 'background'.",
            full.setting()
        );
        Self::new(http::StatusCode::TOO_MANY_REQUESTS, ErrorType::RateLimitError, full.code(), message)
            .on("background")
            .retry_after(Duration::from_secs(5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_in_all_and_for_each_owner_and_come_back() {
        let places = Arc::new(Unwatched::new(3, 2));
        let take = |owner| places.take(owner);
        let (first, second) = (take("ann").unwrap(), take("ann").unwrap());
        assert_eq!(take("ann").unwrap_err(), Full::OfOwner);
        let third = take("ben").unwrap();
        assert_eq!(take("ben").unwrap_err(), Full::OfProcess);
        drop(first);
        let again = take("ann").unwrap();
        // What was let in once goes on, and counts.
        let beyond = places.take_anyway("ann");
        drop(second);
        assert_eq!(take("ann").unwrap_err(), Full::OfOwner);
        drop((third, again, beyond));
        assert!(places.taken().is_empty(), "owners without a turn are forgotten");
    }
}
