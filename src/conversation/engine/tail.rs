//! Turns that run in another process, followed from their log. One reader per process asks for all of them at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, broadcast};

use super::ends::Told;
use super::leases::ended_elsewhere;
use super::turn::Turn;
use crate::conversation::assembler::End;
use crate::conversation::live::Cut;
use crate::conversation::log;
use crate::coordination::{Coordination, Wake};
use crate::database::responses;
use crate::database::turn_log::{self, LogCursor, LogSlice};
use crate::database::{Database, DatabaseError};
use crate::ids::ResponseId;
use crate::tasks::Tasks;
use crate::telemetry::metrics;

/// How often logs are read while somebody follows one that still grows.
const PERIOD: Duration = Duration::from_millis(100);
/// The same while other processes tell of what they log: for what was told and not heard.
const TOLD_PERIOD: Duration = Duration::from_secs(1);
/// While the database is away.
const PAUSE: Duration = Duration::from_secs(1);

/// Everything that is followed.
#[derive(Clone)]
pub struct Tailer(Arc<Shared>);

#[derive(Default)]
struct Shared {
    followed: Mutex<HashMap<ResponseId, Vec<Followed>>>,
    begun: Notify,
}

struct Followed {
    turn: Arc<Turn>,
    from_part: i32,
    restarts: Option<i16>,
    /// When its holder was last told that it is being watched.
    told: Option<Instant>,
}

impl Tailer {
    /// `lease`: how long turns are held. Their holders are told six times as often that somebody watches.
    pub fn start(
        database: &Database,
        coordination: &Arc<dyn Coordination>,
        lease: Duration,
        tasks: &Tasks,
    ) -> Self {
        let tailer = Self(Arc::default());
        tasks.spawn_until_stopped(
            "log tailer",
            tailer.clone().read(database.clone(), Arc::clone(coordination), lease / 6),
        );
        tailer
    }

    /// Fills the turn's `live` from the log until its end, or until nobody watches any more.
    pub fn follow(&self, turn: Arc<Turn>) {
        self.followed().entry(turn.id).or_default().push(Followed {
            turn,
            from_part: 0,
            restarts: None,
            told: None,
        });
        self.0.begun.notify_one();
    }

    fn followed(&self) -> MutexGuard<'_, HashMap<ResponseId, Vec<Followed>>> {
        self.0.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(self, database: Database, coordination: Arc<dyn Coordination>, telling: Duration) {
        let mut wakes = coordination.subscribe();
        loop {
            let wanted = self.wanted();
            if wanted.is_empty() {
                self.0.begun.notified().await;
                continue;
            }
            let asked = async {
                self.tell_holders(&database, telling).await?;
                ask(&database, &wanted).await
            };
            match asked.await {
                Ok(slices) => {
                    if self.pass_on(&wanted, slices) {
                        // There was more than one read gives.
                        continue;
                    }
                    let period = if coordination.is_shared() { TOLD_PERIOD } else { PERIOD };
                    tokio::select! {
                        // A new follower does not wait for the others' period.
                        () = self.0.begun.notified() => {}
                        () = told_of(&mut wakes, &wanted) => {}
                        () = tokio::time::sleep(period) => {}
                    }
                }
                Err(error) => {
                    metrics::database_error(error.code());
                    tracing::warn!(code = error.code(), %error, "logs of turns could not be read; viewers wait");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Tells the holders of turns that are watched here so, each once in a while: nobody else knows.
    async fn tell_holders(&self, database: &Database, every: Duration) -> Result<(), DatabaseError> {
        let mut watched: Vec<(String, ResponseId)> = Vec::new();
        for (id, list) in &mut *self.followed() {
            let viewers = list.iter().filter(|one| one.turn.live.viewers() > 0).count();
            let due = |one: &Followed| one.told.is_none_or(|told| told.elapsed() >= every);
            if let Some(one) = list.first_mut().filter(|one| viewers > 0 && due(one)) {
                one.told = Some(Instant::now());
                watched.push((one.turn.owner.clone(), *id));
            }
        }
        if watched.is_empty() {
            return Ok(());
        }
        let watched: Vec<_> = watched.iter().map(|(owner, id)| (owner.as_str(), *id)).collect();
        responses::mark_watched(&database.client().await?, &watched).await
    }

    /// From which part on each is wanted: of those who follow one turn, the one furthest behind decides.
    fn wanted(&self) -> Vec<(ResponseId, String, i32)> {
        let mut followed = self.followed();
        followed.retain(|_, list| {
            // Only the map and the viewers hold a turn; one that ended or that nobody follows is done with.
            list.retain(|one| {
                one.turn.live.ended().is_none()
                    && one.turn.live.was_cut().is_none()
                    && (one.from_part == 0 || one.turn.live.viewers() > 0 || Arc::strong_count(&one.turn) > 1)
            });
            !list.is_empty()
        });
        followed
            .iter()
            .filter_map(|(id, list)| {
                let from = list.iter().map(|one| one.from_part).min()?;
                Some((*id, list.first()?.turn.owner.clone(), from))
            })
            .collect()
    }

    /// Gives what was read to those who follow. `true` if there is more to read at once.
    fn pass_on(&self, wanted: &[(ResponseId, String, i32)], slices: Vec<LogSlice>) -> bool {
        let mut followed = self.followed();
        let mut more = false;
        let mut gone: Vec<ResponseId> = wanted.iter().map(|(id, ..)| *id).collect();
        for slice in slices {
            gone.retain(|id| *id != slice.response);
            more |= slice.has_more;
            let asked = wanted.iter().find(|(id, ..)| *id == slice.response).map_or(0, |(.., from)| *from);
            for one in followed.get_mut(&slice.response).into_iter().flatten() {
                // Who came while the log was being read may need parts that were not asked for.
                if one.from_part >= asked {
                    one.take(&slice);
                }
            }
        }
        for id in gone {
            // Deleted while it was followed.
            for one in followed.remove(&id).into_iter().flatten() {
                one.turn.live.cut(Cut::Deleted);
            }
        }
        more
    }
}

/// Completes when one of these turns has advanced, or when that may have been missed.
async fn told_of(wakes: &mut broadcast::Receiver<Wake>, wanted: &[(ResponseId, String, i32)]) {
    loop {
        match wakes.recv().await {
            Ok(Wake::Advanced(id) | Wake::Cancelled(id))
                if wanted.iter().any(|(wanted, ..)| wanted.0 == id) =>
            {
                return;
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => return,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

async fn ask(
    database: &Database,
    wanted: &[(ResponseId, String, i32)],
) -> Result<Vec<LogSlice>, DatabaseError> {
    let cursors: Vec<LogCursor<'_>> = wanted
        .iter()
        .map(|(response, owner, from_part)| LogCursor { owner, response: *response, from_part: *from_part })
        .collect();
    let client = database.client().await?;
    turn_log::read_logs(&client, &cursors).await
}

impl Followed {
    fn take(&mut self, slice: &LogSlice) {
        if self.restarts.is_some_and(|restarts| restarts != slice.restarts) {
            // Run again from its start: what was shown is no longer part of it.
            self.turn.live.cut(Cut::LostLease);
            return;
        }
        self.restarts = Some(slice.restarts);
        let from = self.from_part;
        for (part, data) in slice.parts.iter().filter(|(part, _)| *part >= from) {
            match log::unpack(data) {
                Ok(chunks) => drop(self.turn.live.keep(chunks)),
                Err(error) => {
                    tracing::error!(code = "log.unreadable", %error, response_id = %self.turn.id, "a part of a turn's log cannot be read");
                    self.turn.live.cut(Cut::LostLease);
                    return;
                }
            }
            self.from_part = part + 1;
        }
        // All at once: what a later part takes back is not shown first.
        self.turn.live.show(usize::MAX);
        if slice.state.is_final() && !slice.has_more {
            let Told { usage, service_tier } = Told::read(slice.usage.as_deref());
            let end = End {
                status: slice.state,
                incomplete_reason: slice.incomplete_reason.clone(),
                error: slice.error.as_deref().and_then(|json| serde_json::from_str(json).ok()),
                usage,
                service_tier,
                completed_at: None,
            };
            let at = slice.completed_at.unwrap_or_default();
            let (end, response) = ended_elsewhere(&self.turn, end, slice.state, at);
            self.turn.live.end(end, response);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::turn::{NewTurn, OnDisconnect};
    use super::*;
    use crate::llm::Chunk;
    use crate::openresponses::{CreateResponse, Response, ResponseStatus};

    fn turn(id: ResponseId) -> Arc<Turn> {
        let request = CreateResponse::parse(br#"{"model":"demo","input":"x"}"#).unwrap();
        Arc::new(Turn::new(NewTurn {
            id,
            owner: "ann".to_owned(),
            caller: None,
            key: "key".to_owned(),
            held: None,
            conversation: None,
            begun: Response::begun(&request, id.to_string(), "demo".to_owned(), 1),
            show_encrypted: false,
            on_disconnect: OnDisconnect::Continue,
            title: None,
            context: Vec::new(),
            job: None,
            until: None,
            waits: None,
            trace_parent: None,
        }))
    }

    /// The whole log from a part on, of a turn that has ended.
    fn slice(response: ResponseId, parts: std::ops::Range<i32>) -> LogSlice {
        let data = |part: i32| log::pack(&[Chunk::Text(format!("{part} ").into())]);
        LogSlice {
            response,
            state: ResponseStatus::Completed,
            epoch: 1,
            restarts: 0,
            parts: parts.map(|part| (part, data(part))).collect(),
            has_more: false,
            log_kept: true,
            cancel_requested: false,
            incomplete_reason: None,
            error: None,
            usage: None,
            completed_at: None,
        }
    }

    #[test]
    fn whoever_comes_while_the_log_is_read_gets_it_from_its_beginning() {
        let tailer = Tailer(Arc::default());
        let id = ResponseId::new();
        let (first, second) = (turn(id), turn(id));
        tailer.follow(Arc::clone(&first));
        let wanted = tailer.wanted();
        let begun = LogSlice { state: ResponseStatus::InProgress, ..slice(id, 0..3) };
        assert!(!tailer.pass_on(&wanted, vec![begun]));
        assert_eq!(first.live.len(), 3);

        let wanted = tailer.wanted();
        assert_eq!(wanted[0].2, 3);
        tailer.follow(Arc::clone(&second));
        tailer.pass_on(&wanted, vec![slice(id, 3..5)]);
        assert_eq!((first.live.len(), first.live.ended().is_some()), (5, true));
        assert_eq!((second.live.len(), second.live.ended().is_some()), (0, false), "it is not at its end");

        let wanted = tailer.wanted();
        assert_eq!(wanted[0].2, 0);
        tailer.pass_on(&wanted, vec![slice(id, 0..5)]);
        assert_eq!((second.live.len(), second.live.ended().is_some()), (5, true));
        assert_eq!(first.live.len(), 5, "nothing comes twice");
    }
}
