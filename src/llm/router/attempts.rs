//! The rounds of attempts behind one request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::super::breaker::Pass;
use super::super::deployment::Deployment;
use super::super::error::{ErrorClass, LlmError};
use super::super::estimate::estimate_tokens;
use super::super::quota::Grant;
use super::super::stream::OpenStream;
use super::super::{ModelRequest, retry};
use super::call::Attempt;
use super::candidates::Candidate;
use super::{Alias, AttemptReport, Embeddings, OpenLimits, Router};
use crate::telemetry::metrics::{Metric, System, count, external, time};

/// What an answer of unknown length is taken to be at admission; the estimate is put right at the end.
const USUAL_OUTPUT: u64 = 1_000;

/// What is asked of a deployment.
#[derive(Clone, Copy)]
pub(super) enum Work<'w> {
    Answer(&'w ModelRequest),
    Embeddings(&'w Embeddings),
}

/// What came of it.
pub(super) enum Done {
    Begun(Box<OpenStream>),
    Embedded(Vec<u8>),
}

/// Why nothing was sent to a deployment in this round.
enum Held {
    Breaker(Duration),
    Away(Duration),
    Quota(Duration),
}

/// One request on its way.
pub(super) struct Journey<'j> {
    pub(super) router: &'j Router,
    pub(super) alias: &'j Alias,
    pub(super) work: Work<'j>,
    pub(super) limits: &'j OpenLimits,
    deadline: Instant,
    /// Tokens for the quotas.
    estimate: u64,
    estimated_input: u64,
    attempts: &'j mut Vec<AttemptReport>,
    /// The process has no more retries to spend, or the budget no money for one.
    exhausted: bool,
}

impl Router {
    pub(super) async fn begin(
        &self,
        alias: &Alias,
        request: &ModelRequest,
        limits: &OpenLimits,
        attempts: &mut Vec<AttemptReport>,
    ) -> Result<OpenStream, LlmError> {
        match self.travel(alias, Work::Answer(request), limits, attempts).await? {
            Done::Begun(stream) => Ok(*stream),
            Done::Embedded(_) => Err(LlmError::new(ErrorClass::Protocol)),
        }
    }

    pub(super) async fn travel(
        &self,
        alias: &Alias,
        work: Work<'_>,
        limits: &OpenLimits,
        attempts: &mut Vec<AttemptReport>,
    ) -> Result<Done, LlmError> {
        let latest = Instant::now() + self.config.open_deadline.max(alias.config.first_event());
        let (estimated_input, output) = match work {
            Work::Answer(request) => {
                let asked = request.params.max_output_tokens.map_or(USUAL_OUTPUT, u64::from);
                (estimate_tokens(request), asked.min(u64::from(alias.max_output_tokens())))
            }
            Work::Embeddings(embeddings) => (embeddings.estimated_input(), 0),
        };
        self.budget.request();
        let journey = Journey {
            router: self,
            alias,
            work,
            limits,
            deadline: limits.deadline.map_or(latest, |deadline| deadline.min(latest)),
            estimate: estimated_input.saturating_add(output),
            estimated_input,
            attempts,
            exhausted: false,
        };
        journey.run().await
    }
}

impl Journey<'_> {
    async fn run(mut self) -> Result<Done, LlmError> {
        let candidates = self.candidates()?;
        let mut round = 0;
        let mut before = None;
        loop {
            let (error, wait) = match self.round(&candidates, before.as_ref()).await {
                Ok(done) => return Ok(done),
                Err(Stop::Final(error)) => return Err(error),
                Err(Stop::Round(error, wait)) => (error, wait),
            };
            if round >= self.router.config.retries {
                return Err(error);
            }
            let delay = retry::delay(self.router.config.retry_base, round, wait);
            if Instant::now() + delay >= self.deadline {
                return Err(error);
            }
            self.pause(delay).await?;
            before = Some(error);
            round += 1;
        }
    }

    /// Tries every candidate that is free, in order.
    async fn round(&mut self, candidates: &[Candidate], before: Option<&LlmError>) -> Result<Done, Stop> {
        let mut last: Option<LlmError> = None;
        // The waits that those who may do better asked for; `None` once one of them asked for none.
        let mut waits = Some(Vec::new());
        let mut held = Vec::new();
        let mut refusal = None;
        for candidate in candidates {
            let body = match self.body(candidate) {
                Ok(body) => body,
                Err(error) => {
                    refusal = Some(error);
                    continue;
                }
            };
            let (pass, grant) = match self.admit(&candidate.deployment, Duration::ZERO) {
                Ok((pass, grant, _)) => (pass, grant),
                Err(why) => {
                    held.push((why, candidate));
                    continue;
                }
            };
            let error = match self.try_one(candidate, body, pass, grant, last.as_ref().or(before)).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if !error.class.may_fail_over() {
                return Err(Stop::Final(error));
            }
            if self.exhausted {
                return Err(Stop::Final(error));
            }
            if error.class.is_retryable() {
                waits = waits.zip(error.retry_after).map(|(mut waits, wait)| {
                    waits.push(wait);
                    waits
                });
            }
            // An error that may pass says more than one that will not.
            if error.class.is_retryable() || last.as_ref().is_none_or(|last| !last.class.is_retryable()) {
                last = Some(error);
            }
        }
        if let Some(error) = last {
            let goes_on = error.class.is_retryable();
            let wait = waits.unwrap_or_default().into_iter().min();
            return Err(if goes_on { Stop::Round(error, wait) } else { Stop::Final(error) });
        }
        match refusal {
            Some(refusal) if held.is_empty() => Err(Stop::Final(refusal)),
            _ => self.wait_for_quota(held).await,
        }
    }

    /// Nobody is free: waits for the quota that is free first, if that is what it takes.
    async fn wait_for_quota(&mut self, held: Vec<(Held, &Candidate)>) -> Result<Done, Stop> {
        let quota = held.iter().filter_map(|(why, candidate)| match why {
            Held::Quota(wait) => Some((*wait, *candidate)),
            _ => None,
        });
        if let Some((wait, candidate)) = quota.min_by_key(|(wait, _)| *wait) {
            let refused = |wait| Stop::Final(LlmError::new(ErrorClass::OwnQuota).after(Some(wait)));
            let left = self.deadline.saturating_duration_since(Instant::now());
            let mut patience = self.router.config.quota_wait.min(left);
            if wait > patience {
                return Err(refused(wait));
            }
            let (pass, grant, wait) = loop {
                match self.admit(&candidate.deployment, patience) {
                    Ok(admitted) => break admitted,
                    // Other processes have their part of what is left: it is parted anew in a moment.
                    Err(Held::Quota(wait)) if wait < patience => {
                        self.pause(wait).await.map_err(Stop::Final)?;
                        patience -= wait;
                    }
                    // Whoever came in between was before us; the wait is then a little longer.
                    Err(Held::Quota(wait) | Held::Away(wait) | Held::Breaker(wait)) => {
                        return Err(refused(wait));
                    }
                }
            };
            time(Metric::LlmQuotaWait, wait, &[&candidate.deployment.name]);
            self.pause(wait).await.map_err(Stop::Final)?;
            let body = self.body(candidate).map_err(Stop::Final)?;
            return match self.try_one(candidate, body, pass, grant, None).await {
                Ok(done) => Ok(done),
                Err(error) if error.class.is_retryable() && !self.exhausted => {
                    let wait = error.retry_after;
                    Err(Stop::Round(error, wait))
                }
                Err(error) => Err(Stop::Final(error)),
            };
        }
        let away = held.iter().filter_map(|(why, _)| match why {
            Held::Away(wait) => Some(*wait),
            _ => None,
        });
        if let Some(wait) = away.min() {
            return Err(Stop::Round(LlmError::new(ErrorClass::RateLimited).after(Some(wait)), Some(wait)));
        }
        let paused = held.iter().filter_map(|(why, _)| match why {
            Held::Breaker(wait) => Some(*wait),
            _ => None,
        });
        let wait = paused.min().map(|wait| wait.max(Duration::from_secs(1)));
        Err(Stop::Final(LlmError::new(ErrorClass::Unavailable).after(wait)))
    }

    fn admit(&self, deployment: &Deployment, patience: Duration) -> Result<(Pass, Grant, Duration), Held> {
        let away = deployment.away();
        if !away.is_zero() {
            return Err(Held::Away(away));
        }
        let (grant, wait) = deployment.quota.take(self.estimate, patience).map_err(Held::Quota)?;
        let pass = deployment.breaker.pass().map_err(Held::Breaker)?;
        Ok((pass, grant, wait))
    }

    async fn try_one(
        &mut self,
        candidate: &Candidate,
        body: Bytes,
        pass: Pass,
        grant: Grant,
        after: Option<&LlmError>,
    ) -> Result<Done, LlmError> {
        let deployment = &candidate.deployment;
        if let Some(before) = self.attempts.last() {
            if !self.router.budget.take() {
                tracing::warn!(
                    code = "llm.retry_budget_spent",
                    deployment = &*deployment.name,
                    "too many retries in this process; a request fails instead (LLM_RETRY_BUDGET)"
                );
                self.exhausted = true;
                return Err(after.cloned().unwrap_or_else(|| LlmError::new(ErrorClass::Unavailable)));
            }
            count(Metric::LlmRetries, 1, &[&deployment.name, before.outcome]);
        }
        let id = match self.limits.first_attempt.filter(|_| self.attempts.is_empty()) {
            Some(id) => id,
            None => Uuid::now_v7(),
        };
        let started = Instant::now();
        let mut report = AttemptReport {
            id,
            deployment: Arc::clone(&deployment.name),
            model: Arc::clone(&deployment.model),
            provider: deployment.provider,
            price: deployment.price,
            started: Timestamp::now(),
            outcome: "begun",
            charged: false,
            estimated_input: self.estimated_input,
        };
        if let (Some(next), Some(failed)) = (&self.limits.next_attempt, self.attempts.last()) {
            let paid = tokio::select! {
                () = self.limits.cancel.cancelled() => return Err(LlmError::new(ErrorClass::Cancelled)),
                paid = next.ask(failed, &report) => paid,
            };
            if !paid {
                self.exhausted = true;
                return Err(after.cloned().unwrap_or_else(|| LlmError::new(ErrorClass::Unavailable)));
            }
        }
        let due = self.deadline.min(started + self.alias.config.first_event());
        let span = self.span(deployment);
        let attempt = Attempt { journey: self, deployment, body, id, started, due, span: span.clone() };
        let outcome = tokio::select! {
            biased;
            () = self.limits.cancel.cancelled() => {
                // What was sent may be worked on until the provider notices.
                Err(LlmError::new(ErrorClass::Cancelled).charged(true))
            }
            outcome = Box::pin(attempt.run(grant)) => outcome,
        };
        match &outcome {
            Ok(done) => {
                pass.succeeded();
                if let Done::Embedded(_) = done {
                    deployment.breaker.success();
                    external(System::Model, &deployment.name, None);
                    count(Metric::LlmAttempts, 1, &[&deployment.name, "succeeded"]);
                    let attributes = [self.operation(), deployment.provider, &*deployment.model, ""];
                    time(Metric::GenAiDuration, started.elapsed(), &attributes);
                }
            }
            Err(error) => {
                report.outcome = error.code;
                report.charged = error.charged;
                if error.class.trips_breaker() {
                    pass.failed(&deployment.breaker);
                }
                if let (ErrorClass::RateLimited | ErrorClass::Capacity, Some(wait)) =
                    (error.class, error.retry_after)
                {
                    deployment.stay_away(wait);
                }
                self.tell(deployment, error, started, &span);
            }
        }
        self.attempts.push(report);
        outcome
    }

    async fn pause(&self, delay: Duration) -> Result<(), LlmError> {
        if delay.is_zero() {
            return Ok(());
        }
        tokio::select! {
            () = self.limits.cancel.cancelled() => Err(LlmError::new(ErrorClass::Cancelled)),
            () = sleep(delay) => Ok(()),
        }
    }
}

/// How a round ended without an answer.
enum Stop {
    /// No further round will help.
    Final(LlmError),
    /// The next may; not before so long.
    Round(LlmError, Option<Duration>),
}
