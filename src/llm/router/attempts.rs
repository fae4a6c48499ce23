//! The rounds of attempts behind one request.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::Span;
use uuid::Uuid;

use super::super::breaker::Pass;
use super::super::demo::DemoStream;
use super::super::deployment::Deployment;
use super::super::error::{ErrorClass, LlmError};
use super::super::estimate::estimate_tokens;
use super::super::providers::{self, Call, Parser};
use super::super::quota::Grant;
use super::super::stream::{OpenStream, Patience, Source};
use super::super::{ModelRequest, fields, retry};
use super::{Alias, AttemptReport, Embeddings, OpenLimits, Router};
use crate::config::app::ProviderKind;
use crate::openresponses::{ContentPart, Item};
use crate::telemetry::metrics::{Metric, count, time};

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

/// One deployment that takes the request, with the body for it once it was needed.
struct Candidate {
    deployment: Arc<Deployment>,
    body: OnceLock<Bytes>,
}

/// Why nothing was sent to a deployment in this round.
enum Held {
    Breaker(Duration),
    Away(Duration),
    Quota(Duration),
}

/// One request on its way.
struct Journey<'j> {
    router: &'j Router,
    alias: &'j Alias,
    work: Work<'j>,
    limits: &'j OpenLimits,
    deadline: Instant,
    /// Tokens for the quotas.
    estimate: u64,
    estimated_input: u64,
    attempts: &'j mut Vec<AttemptReport>,
    /// The process has no more retries to spend.
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

    /// Deployments that take the request's fields; the refusal if none does.
    fn candidates(&self) -> Result<Vec<Candidate>, LlmError> {
        let mut refusal = None;
        let mut found = Vec::new();
        for deployment in &self.alias.deployments {
            match self.check(deployment) {
                Ok(()) => found.push(Candidate { deployment: Arc::clone(deployment), body: OnceLock::new() }),
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        match refusal {
            Some(refusal) if found.is_empty() => Err(refusal),
            None if found.is_empty() => Err(LlmError::new(ErrorClass::NotFound)),
            _ => Ok(found),
        }
    }

    fn check(&self, deployment: &Deployment) -> Result<(), LlmError> {
        let config = &deployment.config;
        let request = match self.work {
            Work::Embeddings(_) if deployment.embeds() => return Ok(()),
            Work::Embeddings(_) => {
                return Err(LlmError::refused("model", "This model gives no embeddings."));
            }
            Work::Answer(request) => request,
        };
        fields::check(&request.params, config.provider).map_err(|refused| {
            LlmError::refused(refused.param.as_deref().unwrap_or_default(), refused.message)
        })?;
        if !config.vision && has(request, |part| matches!(part, ContentPart::InputImage { .. })) {
            return Err(LlmError::refused("input", "This model takes no images."));
        }
        if !config.files && has(request, |part| matches!(part, ContentPart::InputFile { .. })) {
            return Err(LlmError::refused("input", "This model takes no files."));
        }
        Ok(())
    }

    /// The body in the deployment's format, made when it is first needed.
    fn body(&self, candidate: &Candidate) -> Result<Bytes, LlmError> {
        if let Some(body) = candidate.body.get() {
            return Ok(body.clone());
        }
        let deployment = &candidate.deployment;
        let config = &deployment.config;
        let body = match self.work {
            Work::Embeddings(embeddings) => embeddings.body(deployment),
            Work::Answer(_) if config.provider == ProviderKind::Demo => Vec::new(),
            Work::Answer(request) => {
                let reasoning = self.alias.config.reasoning;
                providers::body(&Call { deployment: &deployment.name, config, reasoning, request })?
            }
        };
        Ok(candidate.body.get_or_init(|| body.into()).clone())
    }

    /// Tries every candidate that is free, in order.
    async fn round(&mut self, candidates: &[Candidate], before: Option<&LlmError>) -> Result<Done, Stop> {
        let mut last: Option<LlmError> = None;
        // The soonest that a deployment which failed or asked to be left in peace may be tried again.
        let mut soonest: Option<Duration> = None;
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
            if let Some(wait) = error.retry_after {
                soonest = Some(soonest.map_or(wait, |before| before.min(wait)));
            }
            if self.exhausted {
                return Err(Stop::Final(error));
            }
            last = Some(error);
        }
        if let Some(error) = last {
            let goes_on = error.class.is_retryable();
            return Err(if goes_on { Stop::Round(error, soonest) } else { Stop::Final(error) });
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
            let patience = self.router.config.quota_wait.min(left);
            if wait > patience {
                return Err(refused(wait));
            }
            // Whoever came in between was before us; the wait is then a little longer.
            let (pass, grant, wait) = match self.admit(&candidate.deployment, patience) {
                Ok(admitted) => admitted,
                Err(Held::Quota(wait) | Held::Away(wait) | Held::Breaker(wait)) => return Err(refused(wait)),
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
            Ok(_) => pass.succeeded(),
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

    fn tell(&self, deployment: &Deployment, error: &LlmError, started: Instant, span: &Span) {
        span.record("error.type", error.code);
        count(Metric::LlmAttempts, 1, &[&deployment.name, error.code]);
        let attributes = [self.operation(), deployment.provider, &*deployment.model, error.code];
        time(Metric::GenAiDuration, started.elapsed(), &attributes);
        if error.class != ErrorClass::Cancelled {
            tracing::info!(
                code = "llm.attempt_failed",
                error.code = error.code,
                provider.status = error.status,
                deployment = &*deployment.name,
                alias = self.alias.name,
                elapsed_ms = started.elapsed().as_millis(),
                "a call to a model failed"
            );
        }
    }

    fn operation(&self) -> &'static str {
        match self.work {
            Work::Answer(_) => "chat",
            Work::Embeddings(_) => "embeddings",
        }
    }

    fn span(&self, deployment: &Deployment) -> Span {
        tracing::info_span!(
            "model call",
            otel.name = format!("{} {}", self.operation(), deployment.model),
            otel.kind = "client",
            gen_ai.operation.name = self.operation(),
            gen_ai.provider.name = deployment.provider,
            gen_ai.request.model = &*deployment.model,
            gen_ai.request.stream = matches!(self.work, Work::Answer(_)),
            colloquy.deployment = &*deployment.name,
            gen_ai.usage.input_tokens = tracing::field::Empty,
            gen_ai.usage.output_tokens = tracing::field::Empty,
            gen_ai.usage.cache_read.input_tokens = tracing::field::Empty,
            gen_ai.usage.cache_creation.input_tokens = tracing::field::Empty,
            gen_ai.usage.reasoning.output_tokens = tracing::field::Empty,
            gen_ai.response.time_to_first_chunk = tracing::field::Empty,
            error.type = tracing::field::Empty,
        )
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

/// One call.
struct Attempt<'a> {
    journey: &'a Journey<'a>,
    deployment: &'a Arc<Deployment>,
    body: Bytes,
    id: Uuid,
    started: Instant,
    due: Instant,
    span: Span,
}

impl Attempt<'_> {
    async fn run(self, mut grant: Grant) -> Result<Done, LlmError> {
        let Self { journey, deployment, due, .. } = self;
        let router = journey.router;
        let late = |_| LlmError::new(ErrorClass::FirstEvent).charged(true);
        let source = match (journey.work, deployment.config.provider) {
            (Work::Answer(request), ProviderKind::Demo) => {
                grant.sent();
                Source::Demo(Box::new(DemoStream::begin(
                    request,
                    self.id,
                    router.config.demo_tokens_per_second,
                )?))
            }
            (Work::Embeddings(embeddings), ProviderKind::Demo) => {
                grant.sent();
                return embeddings.demo().map(Done::Embedded);
            }
            (work, provider) => {
                let url = match work {
                    Work::Answer(_) => deployment.url.as_ref(),
                    Work::Embeddings(_) => deployment.embeddings_url.as_ref(),
                };
                let url = url.ok_or_else(|| LlmError::new(ErrorClass::NotFound))?;
                let headers = timeout_at(due, deployment.headers(router.tokens.as_ref()));
                let headers = headers.await.map_err(|_| LlmError::new(ErrorClass::Auth))??;
                grant.sent();
                let post = router.client.post(url, headers, self.body);
                let response = timeout_at(due, post).await.map_err(late)??;
                if let Work::Embeddings(_) = work {
                    let most = router.config.embeddings_max_bytes;
                    let body = super::super::client::limited(response, most);
                    return timeout_at(due, body).await.map_err(late)?.map(Done::Embedded);
                }
                let most = router.config.event_max_bytes;
                let parser = Parser::new(provider, &deployment.name, self.id, most);
                Source::Http { response, parser: Box::new(parser) }
            }
        };
        let patience = Patience {
            first_event: journey.alias.config.first_event(),
            silence: journey.alias.config.silence(),
        };
        let deployment = Arc::clone(deployment);
        let mut stream =
            OpenStream::new(deployment, self.id, source, patience, self.started, grant, self.span);
        match stream.begin(due).await {
            Ok(()) => Ok(Done::Begun(Box::new(stream))),
            Err(error) => {
                stream.hush();
                Err(error)
            }
        }
    }
}

fn has(request: &ModelRequest, wanted: impl Fn(&ContentPart) -> bool) -> bool {
    request.items.iter().any(|item| match &**item {
        Item::Message(message) => message.content.iter().any(&wanted),
        _ => false,
    })
}
