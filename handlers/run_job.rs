//! Queue `jobs`: runs one job under its lease.

use std::sync::Arc;
use std::time::{Duration, Instant};

use colloquy::database::DatabaseError;
use colloquy::database::backfills::{self, SealedDelivery};
use colloquy::database::work::{self as work_rows, ClaimLimits, ClaimedEvent, ClaimedWork};
use colloquy::events::message::JobHint;
use colloquy::functions::{Invocation, Outcome, QueueMessage};
use colloquy::ids::DeliveryId;
use colloquy::jobs::address::AddressRule;
use colloquy::jobs::kinds::JobKind;
use colloquy::jobs::sender::{self, Destination, SendError};
use colloquy::jobs::state::{Failure, WorkKind};
use colloquy::telemetry::metrics::{self, System};
use colloquy::webhooks::sealing::Sealer;
use http::{HeaderMap, StatusCode};
use secrecy::ExposeSecret;
use serde_json::json;

use crate::payload::{self, PayloadTrouble};
use crate::respond;
use crate::rotations;
use crate::services::Services;
use crate::work::{self, End, Hinted, Worker, outage};

/// Takes a hint at a job.
pub async fn run_job(
    services: Arc<Services>,
    message: QueueMessage<JobHint>,
    invocation: Invocation,
) -> Outcome {
    let hint = message.payload;
    let hinted = Hinted { id: hint.id.0, abandoned: hint.abandoned, outages: hint.outages };
    work::take(&Jobs, &services, hinted, &invocation).await
}

struct Jobs;

impl Worker for Jobs {
    const KIND: WorkKind = WorkKind::Job;

    fn limits(&self, services: &Services) -> ClaimLimits {
        let work = &services.config.work;
        ClaimLimits {
            lease: work.lease,
            max_attempts: work.job_max_attempts,
            max_age: Some(work.job_max_age),
        }
    }

    async fn attempt(&self, services: &Services, claimed: &ClaimedWork, until: Instant) -> End {
        let gone = || End::GiveUp(Failure::new("event_gone", "its event is past its retention"));
        match (JobKind::of(&claimed.object), &claimed.event) {
            (Some(JobKind::ResealSecrets), _) => reseal_secrets(services, claimed).await,
            (Some(JobKind::CountEvent), Some(_)) => End::DoneCounting,
            (Some(JobKind::CompleteInvocation), Some(event)) => {
                complete_invocation(services, claimed, event).await
            }
            (Some(JobKind::NoteRotation), Some(event)) => {
                Box::pin(rotations::note(services, claimed, event)).await
            }
            (Some(JobKind::Respond), Some(event)) => {
                Box::pin(respond::attempt(services, claimed, event, until)).await
            }
            (
                Some(
                    JobKind::CountEvent
                    | JobKind::CompleteInvocation
                    | JobKind::NoteRotation
                    | JobKind::Respond,
                ),
                None,
            ) => gone(),
            (None, _) => again(
                services,
                claimed,
                Failure::new(
                    "job_kind_unknown",
                    "this version knows no such kind of job; deploy the version that does",
                ),
            ),
        }
    }

    fn measure(&self, object: &str, outcome: &'static str, elapsed: Duration) {
        metrics::job_attempt(object, outcome, elapsed);
    }
}

pub fn again(services: &Services, claimed: &ClaimedWork, failure: Failure) -> End {
    let attempts = claimed.attempts.unsigned_abs();
    if attempts >= services.config.work.job_max_attempts {
        return End::GiveUp(failure);
    }
    End::Again { delay: services.backoff.delay(attempts), outage: false, failure }
}

/// The code of an attempt after which nobody knows whether SailPoint has the outcome. It stays with the row until an
/// answer settles it.
const UNCONFIRMED: &str = "invocation_unconfirmed";

/// Tells SailPoint the outcome of an ASYNC invocation, then forgets the secret that proved it.
///
/// SailPoint takes one completion. If an earlier one may have been taken (its answer was lost, or its process died
/// before it could write the end), a refusal now says that it was.
async fn complete_invocation(services: &Services, claimed: &ClaimedWork, event: &ClaimedEvent) -> End {
    let unconfirmed = claimed.cut_before
        || matches!(claimed.last_error.as_deref(), Some(UNCONFIRMED | "deadline" | "process_lost"));
    let body = match payload::of(services, event).await {
        Ok(body) => body,
        Err(PayloadTrouble::Gone(failure)) => return End::GiveUp(failure),
        Err(PayloadTrouble::Outage(failure)) => {
            return outage(services, claimed, still(unconfirmed, failure));
        }
    };
    let hopeless = |code, message: String| End::GiveUp(Failure::new(code, message));
    let Some(service) = services.sources.get(&event.source) else {
        return hopeless(
            "source_unknown",
            format!("source `{}` is no longer in colloquy.toml", event.source),
        );
    };
    let invocation = match service.source.invocation(&body) {
        Ok(Some(invocation)) => invocation,
        Ok(None) => return End::Done,
        Err(malformed) => return hopeless("invocation_malformed", malformed.to_string()),
    };
    let Some(output) = invocation.output else {
        return hopeless(
            "invocation_output_missing",
            format!("set `sources.{}.sailpoint.async_output` in colloquy.toml and replay", event.source),
        );
    };
    if event.sealed.is_none() {
        match completed_before(services, claimed).await {
            Ok(completed) if completed || unconfirmed => {
                tracing::warn!(
                    code = "invocation_completed_before",
                    "an earlier run completed it, or an attempt that was cut before it could say so; nothing is sent"
                );
                return End::Done;
            }
            Ok(_) => {}
            Err(error) if error.is_outage() => {
                return outage(services, claimed, Failure::new(error.code(), error.to_string()));
            }
            Err(error) => return again(services, claimed, Failure::new(error.code(), error.to_string())),
        }
    }
    let secret = match payload::unseal(services, event) {
        Ok(secret) => secret,
        Err(failure) => return End::GiveUp(failure),
    };
    let to = Destination {
        url: invocation.callback_url,
        rule: AddressRule::new(&invocation.allow_networks),
        allow_http: invocation.allow_http,
    };
    let answer = json!({ "secret": secret.expose_secret(), "output": output }).to_string();
    let result = services.sender().post(&to, HeaderMap::new(), answer.into()).await;
    metrics::external(System::Sailpoint, &event.source, sender::blame(&result));
    let failure = match result {
        Ok(answer) if answer.status.is_success() => return End::DoneForgetting,
        Ok(answer) if unconfirmed && refuses(answer.status) => {
            tracing::warn!(
                code = "invocation_completed_before",
                status = answer.status.as_u16(),
                "SailPoint refused a completion after one whose answer was lost; that one is taken as accepted"
            );
            return End::DoneForgetting;
        }
        Ok(answer) => still(
            unconfirmed,
            Failure::new("invocation_refused", format!("SailPoint answered {}", answer.status)),
        ),
        Err(error) => {
            let sent = matches!(error, SendError::Timeout(_) | SendError::Broken(_));
            still(unconfirmed || sent, Failure::new(error.code(), error.to_string()))
        }
    };
    again(services, claimed, failure)
}

/// Whether a job of another run of the event has completed the invocation: SailPoint takes one completion, and its secret
/// was forgotten with it.
async fn completed_before(services: &Services, claimed: &ClaimedWork) -> Result<bool, DatabaseError> {
    let Some(event) = claimed.event_id else { return Ok(false) };
    let client = services.database.client().await?;
    work_rows::has_succeeded(&client, event, JobKind::CompleteInvocation.as_str()).await
}

/// The failure, under the code that says to the next attempt that an earlier one may have been accepted.
fn still(unconfirmed: bool, failure: Failure) -> Failure {
    if unconfirmed { Failure::new(UNCONFIRMED, failure.message) } else { failure }
}

/// Whether a status says no for good, rather than not now.
fn refuses(status: StatusCode) -> bool {
    let not_now =
        [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS].contains(&status);
    status.is_client_error() && !not_now
}

/// One step of the backfill that follows a new `ENCRYPTION_KEY`: the next deliveries with secrets, each encrypted anew.
/// Cut anywhere and run again, it does the same; what no key opens is named and left as it is.
async fn reseal_secrets(services: &Services, claimed: &ClaimedWork) -> End {
    let Some(sealer) = &services.sealer else {
        return End::GiveUp(Failure::new("encryption_key_missing", "set ENCRYPTION_KEY and replay"));
    };
    match reseal_step(services, sealer, claimed).await {
        Ok(Some(last)) => End::Onward(json!({ "after": last })),
        Ok(None) => End::Done,
        Err(error) if error.is_outage() => {
            outage(services, claimed, Failure::new(error.code(), error.to_string()))
        }
        Err(error) => again(services, claimed, Failure::new(error.code(), error.to_string())),
    }
}

/// Gives the last delivery of the step; `None` when there are no more.
async fn reseal_step(
    services: &Services,
    sealer: &Sealer,
    claimed: &ClaimedWork,
) -> Result<Option<DeliveryId>, DatabaseError> {
    let client = services.database.client().await?;
    let checkpoint = backfills::checkpoint(&client, claimed.id).await?;
    let after = checkpoint.and_then(|checkpoint| checkpoint["after"].as_str()?.parse().ok());
    let batch = i64::from(services.config.work.maintain_batch);
    let deliveries = backfills::sealed_deliveries(&client, after, batch).await?;
    for delivery in &deliveries {
        if let Some(sealed) = resealed(sealer, delivery) {
            backfills::reseal(&client, delivery, &sealed).await?;
        }
    }
    Ok(deliveries.last().map(|delivery| delivery.id))
}

/// A delivery's secrets under the current key; `None` if they are already, or cannot be opened.
fn resealed(sealer: &Sealer, delivery: &SealedDelivery) -> Option<serde_json::Value> {
    let old: Vec<String> = serde_json::from_value(delivery.sealed.clone()).ok()?;
    let context = delivery.id.to_string();
    if old.iter().all(|sealed| sealer.is_current(&context, sealed)) {
        return None;
    }
    let new: Result<Vec<String>, _> = old
        .iter()
        .map(|sealed| sealer.open(&context, sealed).and_then(|secret| sealer.seal(&context, &secret)))
        .collect();
    match new {
        Ok(new) => Some(json!(new)),
        Err(error) => {
            tracing::error!(
                code = "secret_unreadable", %error, delivery = %delivery.id,
                "a secret cannot be encrypted anew; bring its key back as ENCRYPTION_KEY__<LABEL>"
            );
            None
        }
    }
}
