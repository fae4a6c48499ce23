//! Jobs `respond`: a model answers an event. Each attempt does one step: ask, wait, judge, tell.

use std::time::{Duration, Instant};

use colloquy::access::Principal;
use colloquy::config::app::RunsOn;
use colloquy::conversation::engine::{self, ForJob};
use colloquy::conversation::queued;
use colloquy::database::DatabaseError;
use colloquy::database::respond::{self as stored, JobHistory};
use colloquy::database::turns::OfJob;
use colloquy::database::work::{ClaimedEvent, ClaimedWork};
use colloquy::ids::{EventId, JobId, ResponseId};
use colloquy::jobs::state::Failure;
use colloquy::openresponses::{ApiError, ConversationRef, Response, ResponseStatus};
use colloquy::respond::template::Limits;
use colloquy::respond::{self, Answer, EventData, Follows, Rejected, Repair, Route, Step, Told};

use crate::payload::{self, PayloadTrouble};
use crate::run_job::again;
use crate::services::Services;
use crate::work::{End, outage};

/// The code of a job whose turn lost its process a moment ago.
const UNSETTLED: &str = "turn_unsettled";
/// The code of a job that waits for a turn of its own.
const RUNNING: &str = "turn_running";

/// One attempt's place: everything that its steps need.
struct Attempt<'a> {
    services: &'a Services,
    claimed: &'a ClaimedWork,
    route: &'a Route,
    event: EventData,
    history: JobHistory,
    until: Instant,
}

/// Does the next step of a job.
pub async fn attempt(
    services: &Services,
    claimed: &ClaimedWork,
    event: &ClaimedEvent,
    until: Instant,
) -> End {
    let Some(route) = services.responding.get(&claimed.route) else {
        let message = format!(
            "route `{}` with action = \"respond\" is not in colloquy.toml; add it and replay",
            claimed.route
        );
        return End::GiveUp(Failure::new("route_unknown", message));
    };
    let payload = match payload::of(services, event).await {
        Ok(payload) => EventData::payload_of(&payload),
        Err(PayloadTrouble::Gone(failure)) => return End::GiveUp(failure),
        Err(PayloadTrouble::Outage(failure)) => return outage(services, claimed, failure),
    };
    let id = EventId(claimed.event_id.unwrap_or_default());
    let history = async {
        let client = services.database.client().await?;
        stored::history(&client, JobId(claimed.id), id).await
    };
    let history = match history.await {
        Ok(Some(history)) => history,
        Ok(None) => return End::GiveUp(Failure::new("event_gone", "its event is past its retention")),
        Err(error) => return database_failed(services, claimed, &error),
    };
    let event = EventData {
        id,
        source: event.source.clone(),
        event_type: event.event_type.clone(),
        key: history.key.clone(),
        subject: history.subject.clone(),
        received_at: event.received_at,
        run: claimed.run,
        payload,
        headers: EventData::headers_of(&history.headers),
    };
    Attempt { services, claimed, route, event, history, until }.step().await
}

fn database_failed(services: &Services, claimed: &ClaimedWork, error: &DatabaseError) -> End {
    let failure = Failure::new(error.code(), error.to_string());
    if error.is_outage() { outage(services, claimed, failure) } else { again(services, claimed, failure) }
}

impl Attempt<'_> {
    async fn step(self) -> End {
        let heard = |code: &str| self.claimed.last_error.as_deref() == Some(respond::follows(code).0);
        let last_heard = self.history.turns.last().is_some_and(|last| match &last.state {
            respond::TurnState::Failed { code } => heard(code),
            _ => false,
        });
        let most = self.services.config.respond.answers_max;
        let mut step = respond::next(&self.history.turns, false, last_heard, most);
        let mut misfit = Failure::new("answer_invalid", "its answer cannot be judged");
        if let Step::Judge(id) = step {
            let judged = match self.stored(id).await {
                Ok(Some(response)) => self.judge(&response),
                Ok(None) => Err(Rejected::Deleted),
                Err(end) => return end,
            };
            match judged {
                Ok(end) => return self.accept(id, end).await,
                Err(rejected) => {
                    misfit = given_up(&rejected);
                    if !self.asks_again(&rejected) {
                        return End::GiveUp(misfit);
                    }
                    step = respond::next(&self.history.turns, true, last_heard, most);
                }
            }
        }
        match step {
            Step::Ask { number, repair } => self.ask(number, repair).await,
            Step::TakeOver(id) => self.take_over(id).await,
            Step::Wait if self.route.runs_on == RunsOn::Server => self.wait_for_server(),
            Step::Wait => self.wait(RUNNING, "a turn of it runs", self.services.config.server.lease / 2),
            Step::Failed { code } => self.follow(&code, None),
            Step::Misfit | Step::Judge(_) => End::GiveUp(misfit),
            Step::Spent => End::GiveUp(Failure::new(
                "answers_exhausted",
                format!("{most} answers were paid for (RESPOND_ANSWERS_MAX), and none came to its end"),
            )),
            Step::Cancelled => End::GiveUp(Failure::new("turn_cancelled", "somebody cancelled its turn")),
        }
    }

    /// What did not fit before a replay and fits now was put aside in its conversation: it counts again.
    async fn accept(&self, id: ResponseId, end: End) -> End {
        if self.history.turns.iter().any(|turn| turn.id == id && turn.this_round) {
            return end;
        }
        let counts = async { stored::let_count(&self.services.database.client().await?, id).await };
        match counts.await {
            Ok(()) => end,
            Err(error) => database_failed(self.services, self.claimed, &error),
        }
    }

    /// Whether an answer that was rejected is worth another: once within a round, and always one of before a replay.
    fn asks_again(&self, rejected: &Rejected) -> bool {
        let this_round = self.history.turns.last().is_some_and(|last| last.this_round);
        !this_round || matches!(rejected, Rejected::Misshapen { .. })
    }

    /// Asks the model, in this process or on a server.
    async fn ask(self, number: i32, repair: Option<ResponseId>) -> End {
        let job = JobId(self.claimed.id);
        let before = match repair {
            None => None,
            Some(id) => match self.stored(id).await {
                Ok(response) => response,
                Err(end) => return end,
            },
        };
        let misfit = before.as_ref().and_then(|response| match Answer::of(self.route, response) {
            Err(Rejected::Misshapen { answer, problems, calls }) => Some((answer, problems, calls)),
            _ => None,
        });
        let repair = misfit.as_ref().map(|(answer, problems, calls)| Repair { answer, problems, calls });
        let limits = template_limits(self.services);
        let asking = match self.route.ask(&self.event, job.0, limits, repair.as_ref()) {
            Ok(asking) => asking,
            Err(failure) => return End::GiveUp(failure),
        };
        let mut request = asking.request;
        match &asking.conversation {
            Some(key) => match self.conversation(key).await {
                Ok(id) => request.conversation = Some(ConversationRef::Id(id)),
                Err(error) => return database_failed(self.services, self.claimed, &error),
            },
            None => request.previous_response_id = before.map(|response| response.id),
        }
        let of = OfJob { job, number };
        match self.route.runs_on {
            RunsOn::Job => {
                let engine = match self.services.engine() {
                    Ok(engine) => engine,
                    Err(problem) => return self.unusable(problem),
                };
                let job = ForJob { of, until: self.time() };
                self.came_to(engine.answer(&self.principal(), request, job).await)
            }
            RunsOn::Server => {
                match queued::queue(&self.services.database, &self.principal(), request, of).await {
                    Ok(_) => self.wait_for_server(),
                    Err(error) => self.refused(&error),
                }
            }
        }
    }

    /// Runs a turn again whose process is gone. The first who sees that waits: a process that only could not reach the
    /// database has its turn's end ready and stores it within a moment.
    async fn take_over(self, id: ResponseId) -> End {
        let lease = self.services.config.server.lease;
        if self.claimed.last_error.as_deref() != Some(UNSETTLED) {
            return self.wait(UNSETTLED, "the process of its turn fell silent", lease / 3);
        }
        match self.services.engine() {
            Ok(engine) => self.came_to(engine.answer_again(JobId(self.claimed.id), id, self.time()).await),
            Err(problem) => self.unusable(problem),
        }
    }

    /// When a turn is stopped at the latest.
    fn time(&self) -> Instant {
        /// For its last commit.
        const COMMIT: Duration = Duration::from_secs(2);
        let route = self.route.time_limit_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        let limit = route.unwrap_or(self.services.config.respond.time_limit);
        let left = self.until.saturating_duration_since(Instant::now());
        Instant::now() + limit.min(left.saturating_sub(COMMIT))
    }

    fn came_to(&self, answered: Result<Response, ApiError>) -> End {
        let response = match answered {
            Ok(response) => response,
            Err(error) => return self.refused(&error),
        };
        match (response.status, &response.error) {
            (ResponseStatus::Completed, _) => match self.judge(&response) {
                Ok(end) => end,
                // Asked again at once, by an attempt of its own with a time of its own.
                Err(rejected @ Rejected::Misshapen { .. }) => {
                    End::Again { delay: Duration::ZERO, outage: true, failure: given_up(&rejected) }
                }
                Err(rejected) => End::GiveUp(given_up(&rejected)),
            },
            (ResponseStatus::Failed, Some(error)) => self.follow(&error.code, None),
            (ResponseStatus::Cancelled, _) => {
                End::GiveUp(Failure::new("turn_cancelled", "somebody cancelled its turn"))
            }
            _ => self.follow(respond::INTERRUPTED, None),
        }
    }

    /// The end of a job whose answer is right.
    fn judge(&self, response: &Response) -> Result<End, Rejected> {
        let answer = Answer::of(self.route, response)?;
        let Some(target) = &self.route.callback else { return Ok(End::Done) };
        let told = Told { route: self.route, event: &self.event, response, answer: &answer };
        Ok(match respond::render(&told) {
            Ok(body) => End::DoneTelling { target: target.clone(), body },
            Err(error) => End::GiveUp(Failure::new("callback_unrenderable", error.to_string())),
        })
    }

    /// What follows from a turn that did not begin.
    fn refused(&self, error: &ApiError) -> End {
        let unknown = respond::follows(error.code).0 != error.code;
        if unknown && error.status.is_client_error() {
            return End::GiveUp(Failure::new(error.code, "the request is refused before a model is asked"));
        }
        self.follow(error.code, error.retry_after)
    }

    /// What follows from a failure.
    fn follow(&self, code: &str, asked: Option<Duration>) -> End {
        let (code, follows, words) = respond::follows(code);
        let failure = Failure::new(code, words);
        match follows {
            Follows::Wait => {
                // A provider's wish lengthens the wait, within what we ourselves would wait.
                let asked = asked.unwrap_or_default().min(self.services.config.work.retry_cap);
                End::Again { delay: self.backoff().max(asked), outage: true, failure }
            }
            Follows::Queue => {
                let delay = self.backoff().min(self.services.config.server.lease / 2);
                End::Again { delay, outage: true, failure }
            }
            Follows::NextDay => {
                let longest = self.services.config.respond.budget_retry;
                // All that wait for midnight do not come at once.
                let delay = asked.unwrap_or(longest).min(longest) + self.services.backoff.delay(1);
                End::Again { delay, outage: true, failure }
            }
            Follows::Again => again(self.services, self.claimed, failure),
            Follows::GiveUp => End::GiveUp(failure),
        }
    }

    /// Waits without holding a function. The server wakes the job; this is for when that was lost.
    fn wait_for_server(&self) -> End {
        const LONGEST: Duration = Duration::from_secs(120);
        let delay = self.backoff().max(self.services.config.work.hint_after).min(LONGEST);
        let failure = Failure::new(RUNNING, "a server runs its turn, or will");
        End::Again { delay, outage: true, failure }
    }

    fn wait(&self, code: &'static str, why: &str, longest: Duration) -> End {
        End::Again { delay: self.backoff().min(longest), outage: true, failure: Failure::new(code, why) }
    }

    /// Longer each time that it waits for something.
    fn backoff(&self) -> Duration {
        self.services.backoff.delay(self.claimed.outages.unsigned_abs().saturating_add(1))
    }

    /// The models of `colloquy.toml` cannot be asked by this process.
    fn unusable(&self, problem: String) -> End {
        again(self.services, self.claimed, Failure::new("models_unusable", problem))
    }

    /// On whose account a turn is.
    fn principal(&self) -> Principal {
        Principal { owner: self.route.owner.clone(), key: self.route.account(), ..Principal::default() }
    }

    /// A turn's response. `None`: its owner deleted it.
    async fn stored(&self, id: ResponseId) -> Result<Option<Response>, End> {
        let stored = engine::stored(&self.services.database, &self.route.owner, id).await;
        stored.map_err(|error| self.refused(&error))
    }

    async fn conversation(&self, key: &str) -> Result<String, DatabaseError> {
        let client = self.services.database.client().await?;
        let id = stored::conversation(&client, &self.route.owner, &self.route.name, key).await?;
        Ok(id.to_string())
    }
}

fn template_limits(services: &Services) -> Limits {
    let respond = &services.config.respond;
    Limits { fuel: respond.template_fuel, max_bytes: respond.text_max_bytes }
}

fn given_up(rejected: &Rejected) -> Failure {
    match rejected {
        Rejected::Misshapen { problems, .. } => {
            Failure::new("answer_invalid", format!("the answer does not fit: {}", problems.join("; ")))
        }
        Rejected::Refused => Failure::new("answer_refused", "the model refuses to answer"),
        Rejected::Empty => Failure::new("answer_empty", "the model's answer is empty"),
        Rejected::Deleted => Failure::new("turn_deleted", "its owner deleted its turn"),
    }
}
