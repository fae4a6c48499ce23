//! Jobs `respond`: a model answers an event. Each attempt does one step: ask, wait, judge, tell.

use std::time::{Duration, Instant};

use colloquy::access::Principal;
use colloquy::config::app::RunsOn;
use colloquy::conversation::engine::{self, ForJob};
use colloquy::conversation::queued;
use colloquy::database::respond::{self as stored, JobHistory};
use colloquy::database::turns::OfJob;
use colloquy::database::work::{ClaimedEvent, ClaimedWork};
use colloquy::database::DatabaseError;
use colloquy::ids::{EventId, JobId, ResponseId};
use colloquy::jobs::state::Failure;
use colloquy::openresponses::{ApiError, ConversationRef, Response, ResponseStatus};
use colloquy::respond::template::Limits;
use colloquy::respond::{self, Answer, EventData, Follows, Rejected, Repair, Route, Step, Told};

use crate::payload::{self, PayloadTrouble};
use crate::run_job::again;
use crate::services::Services;
use crate::work::{End, outage};

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
        let message =
            format!("route `{}` with action = \"respond\" is not in colloquy.toml; add it and replay", claimed.route);
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
        if let Step::Judge(id) = step {
            match self.stored(id).await {
                Ok(response) => match self.judge(&response) {
                    Ok(end) => return end,
                    // An answer of before a replay is worth another.
                    Err(rejected) if self.asks_again(&rejected) => {
                        step = respond::next(&self.history.turns, true, last_heard, most);
                    }
                    Err(rejected) => return End::GiveUp(given_up(&rejected)),
                },
                Err(end) => return end,
            }
        }
        match step {
            Step::Ask { number, repair } => self.ask(number, repair).await,
            Step::TakeOver(id) => self.take_over(id).await,
            Step::Wait if self.route.runs_on == RunsOn::Server => self.wait_for_server(),
            Step::Wait => self.wait("turn_running", "a turn of it runs", self.services.config.server.lease / 2),
            Step::Failed { code } => self.failed(&code, None),
            Step::Misfit => End::GiveUp(Failure::new(
                "answer_invalid",
                "asked twice, the model gave no answer that fits the route's schema",
            )),
            Step::Spent => End::GiveUp(Failure::new(
                "answers_exhausted",
                format!("{most} answers were paid for (RESPOND_ANSWERS_MAX), and none came to its end"),
            )),
            Step::Cancelled => End::GiveUp(Failure::new("turn_cancelled", "somebody cancelled its turn")),
            Step::Judge(_) => End::GiveUp(Failure::new("answer_invalid", "its answer cannot be judged")),
        }
    }

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
                Ok(response) => Some(response),
                Err(end) => return end,
            },
        };
        let misfit = before.as_ref().and_then(|response| match Answer::of(self.route, response) {
            Err(Rejected::Misshapen { answer, problems }) => Some((answer, problems)),
            _ => None,
        });
        let repair = misfit.as_ref().map(|(answer, problems)| Repair { answer, problems });
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
                    Err(problem) => return self.wait("models_unusable", &problem, Duration::ZERO),
                };
                let answered = engine.answer(&self.principal(), request, ForJob { of, until: self.time() }).await;
                self.came_to(answered)
            }
            RunsOn::Server => {
                match queued::queue(&self.services.database, &self.principal(), request, of).await {
                    Ok(_) => self.wait_for_server(),
                    Err(error) => self.failed(error.code, error.retry_after),
                }
            }
        }
    }

    /// Runs a turn again whose process is gone. The first who sees that waits: a process that only could not reach the
    /// database has its turn's end ready and stores it within a moment.
    async fn take_over(self, id: ResponseId) -> End {
        const UNSETTLED: &str = "turn_unsettled";
        let lease = self.services.config.server.lease;
        if self.claimed.last_error.as_deref() != Some(UNSETTLED) {
            return self.wait(UNSETTLED, "the process of its turn fell silent", lease / 3);
        }
        let engine = match self.services.engine() {
            Ok(engine) => engine,
            Err(problem) => return self.wait("models_unusable", &problem, Duration::ZERO),
        };
        let answered = engine.answer_again(JobId(self.claimed.id), id, self.time()).await;
        self.came_to(answered)
    }

    /// When a turn is stopped at the latest.
    fn time(&self) -> Instant {
        /// For its last commit.
        const COMMIT: Duration = Duration::from_secs(2);
        let route = self.route.time_limit_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        let limit = route.unwrap_or(self.services.config.respond.time_limit);
        (Instant::now() + limit).min(self.until - COMMIT.min(self.until.saturating_duration_since(Instant::now()) / 4))
    }

    fn came_to(&self, answered: Result<Response, ApiError>) -> End {
        let response = match answered {
            Ok(response) => response,
            Err(error) => return self.failed(error.code, error.retry_after),
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
            (ResponseStatus::Failed, Some(error)) => self.failed(&error.code, None),
            (ResponseStatus::Cancelled, _) => {
                End::GiveUp(Failure::new("turn_cancelled", "somebody cancelled its turn"))
            }
            _ => self.failed("interrupted", None),
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

    fn failed(&self, code: &str, asked: Option<Duration>) -> End {
        let (code, follows, words) = respond::follows(code);
        let failure = Failure::new(code, words);
        match follows {
            Follows::Wait => {
                let backoff = self.services.backoff.delay(self.claimed.outages.unsigned_abs() + 1);
                // A provider's wish lengthens the wait, within what we ourselves would wait.
                let asked = asked.unwrap_or_default().min(self.services.config.work.retry_cap);
                End::Again { delay: backoff.max(asked), outage: true, failure }
            }
            Follows::Queue => {
                let longest = self.services.config.server.lease / 2;
                let delay = self.services.backoff.delay(self.claimed.outages.unsigned_abs() + 1).min(longest);
                End::Again { delay, outage: true, failure }
            }
            Follows::NextDay => {
                let limits = &self.services.config.respond;
                let backoff = self.services.backoff.delay(1);
                let delay = asked.unwrap_or(limits.budget_retry).min(limits.budget_retry) + backoff;
                End::Again { delay, outage: true, failure }
            }
            Follows::Again => again(self.services, self.claimed, failure),
            Follows::GiveUp => End::GiveUp(failure),
        }
    }

    /// Waits without holding a function. The server wakes the job; this is for when that was lost.
    fn wait_for_server(&self) -> End {
        let work = &self.services.config.work;
        let delay = self.services.backoff.delay(self.claimed.outages.unsigned_abs() + 1).max(work.hint_after);
        let failure = Failure::new("turn_running", "a server runs its turn, or will");
        End::Again { delay, outage: true, failure }
    }

    fn wait(&self, code: &'static str, why: &str, least: Duration) -> End {
        let backoff = self.services.backoff.delay(self.claimed.outages.unsigned_abs() + 1);
        End::Again { delay: backoff.min(least.max(Duration::from_millis(100))), outage: true, failure: Failure::new(code, why) }
    }

    /// On whose account a turn is.
    fn principal(&self) -> Principal {
        Principal { owner: self.route.owner.clone(), key: self.route.account(), ..Principal::default() }
    }

    async fn stored(&self, id: ResponseId) -> Result<Response, End> {
        match engine::stored(&self.services.database, &self.route.owner, id).await {
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err(End::GiveUp(Failure::new("turn_deleted", "its owner deleted its turn"))),
            Err(error) => Err(self.failed(error.code, None)),
        }
    }

    async fn conversation(&self, key: &str) -> Result<String, DatabaseError> {
        let client = self.services.database.client().await?;
        let id = stored::conversation(&client, &self.route.owner, &self.route.name, key).await?;
        Ok(id.to_string())
    }
}

/// Limits of templates.
pub fn template_limits(services: &Services) -> Limits {
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
    }
}
