//! Queue `callbacks`: one attempt at one consumer, under the row's lease.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use colloquy::database::callbacks::{self, Attempt};
use colloquy::database::work::{ClaimLimits, ClaimedWork, Lease};
use colloquy::events::message::CallbackHint;
use colloquy::functions::{Invocation, Outcome, QueueMessage};
use colloquy::ids::{CallbackId, EventId};
use colloquy::jobs::callback::{self, CallbackEvent};
use colloquy::jobs::sender::{self, Answer, Destination, SendError};
use colloquy::jobs::state::{Failure, WorkKind};
use colloquy::telemetry::metrics::{self, System};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;
use url::Url;

use crate::payload::{self, PayloadTrouble};
use crate::services::{Services, Target};
use crate::work::{self, End, Hinted, Worker, outage};

/// Takes a hint at a callback.
pub async fn send_callback(
    services: Arc<Services>,
    message: QueueMessage<CallbackHint>,
    invocation: Invocation,
) -> Outcome {
    let hint = message.payload;
    let hinted = Hinted { id: hint.id.0, abandoned: hint.abandoned, outages: hint.outages };
    work::take(&Callbacks, &services, hinted, &invocation).await
}

struct Callbacks;

impl Worker for Callbacks {
    const KIND: WorkKind = WorkKind::Callback;

    fn limits(&self, services: &Services) -> ClaimLimits {
        let lease = services.config.work.lease;
        ClaimLimits { lease, max_attempts: services.schedule.attempts(), max_age: None }
    }

    async fn attempt(&self, services: &Services, claimed: &ClaimedWork, _until: Instant) -> End {
        let Some(target) = services.targets.get(&claimed.object) else {
            return End::GiveUp(Failure::new(
                "target_unknown",
                format!("target `{}` is not in colloquy.toml; add it and replay", claimed.object),
            ));
        };
        let destination = match destination(target, claimed) {
            Ok(destination) => destination,
            Err(failure) => return End::GiveUp(failure),
        };
        let body = match render(services, claimed).await {
            Ok(body) => body,
            Err(PayloadTrouble::Gone(failure)) => return End::GiveUp(failure),
            Err(PayloadTrouble::Outage(failure)) => return outage(services, claimed, failure),
        };
        let started = Instant::now();
        let headers = headers(target, CallbackId(claimed.webhook_id), &body);
        let result = services.sender().post(&destination, headers, body).await;
        metrics::external(System::Callback, &claimed.object, sender::blame(&result));
        log_attempt(services, claimed, &result, started.elapsed()).await;
        conclude(services, claimed, result).await
    }

    fn measure(&self, object: &str, outcome: &'static str, elapsed: Duration) {
        metrics::callback_attempt(object, outcome, elapsed);
    }
}

/// Where a callback goes: to its target, or where its turn's caller wanted it, if the target still covers that.
fn destination<'t>(target: &'t Target, claimed: &ClaimedWork) -> Result<Cow<'t, Destination>, Failure> {
    let Some(url) = claimed.turn.as_ref().and_then(|turn| turn.url.as_deref()) else {
        return Ok(Cow::Borrowed(&target.destination));
    };
    match Url::parse(url).ok().filter(|url| target.config.covers(url)) {
        Some(url) => Ok(Cow::Owned(Destination { url, ..target.destination.clone() })),
        None => Err(Failure::new(
            "url_not_allowed",
            format!(
                "target `{}` of colloquy.toml no longer covers its URL; change that and replay",
                claimed.object
            ),
        )),
    }
}

async fn render(services: &Services, claimed: &ClaimedWork) -> Result<Bytes, PayloadTrouble> {
    if let Some(body) = &claimed.body {
        return Ok(Bytes::copy_from_slice(body));
    }
    let body = if let Some(turn) = &claimed.turn {
        callback::render_turn(CallbackId(claimed.webhook_id), &turn.event_type, turn.ended_at, turn.response)
    } else if let (Some(event), Some(id)) = (&claimed.event, claimed.event_id) {
        callback::render(&CallbackEvent {
            id: EventId(id),
            source: event.source.clone(),
            event_type: event.event_type.clone(),
            received_at: event.received_at,
            payload: payload::of(services, event).await?,
        })
    } else {
        return Err(PayloadTrouble::Gone(Failure::new("event_gone", "its event is past its retention")));
    };
    body.map(Bytes::from)
        .map_err(|error| PayloadTrouble::Gone(Failure::new("callback_unrenderable", error.to_string())))
}

/// The three headers of Standard Webhooks.
pub fn headers(target: &Target, id: CallbackId, body: &[u8]) -> HeaderMap {
    let now = Timestamp::now();
    let fields = [
        ("webhook-id", id.to_string()),
        ("webhook-timestamp", now.as_second().to_string()),
        ("webhook-signature", target.signer.sign(id, now, body)),
    ];
    fields
        .into_iter()
        .filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::try_from(value).ok()?)))
        .collect()
}

/// Logs the attempt before its end is decided: should the process be cut in between, the log still says what the
/// consumer answered.
async fn log_attempt(
    services: &Services,
    claimed: &ClaimedWork,
    result: &Result<Answer, SendError>,
    elapsed: Duration,
) {
    let answer = result.as_ref().ok();
    let error_code = match result {
        Ok(answer) if answer.status.is_success() => None,
        Ok(_) => Some("refused"),
        Err(error) => Some(error.code()),
    };
    let attempt = Attempt {
        number: claimed.attempts,
        millis: i32::try_from(elapsed.as_millis()).unwrap_or(i32::MAX),
        status: answer.map(|answer| i32::from(answer.status.as_u16())),
        error_code,
        response: answer.map(|answer| answer.response.as_str()).filter(|text| !text.is_empty()),
    };
    let lease = Lease { kind: WorkKind::Callback, id: claimed.id, epoch: claimed.epoch };
    let logged = async { callbacks::log_attempt(&services.database.client().await?, lease, &attempt).await };
    if let Err(error) = logged.await {
        tracing::warn!(code = error.code(), %error, "an attempt at a callback is missing from its log");
    }
}

async fn conclude(services: &Services, claimed: &ClaimedWork, result: Result<Answer, SendError>) -> End {
    let (failure, retry_after) = match result {
        Ok(answer) if answer.status.is_success() => return End::Done,
        Ok(answer) if answer.status == StatusCode::GONE => return disable(services, claimed).await,
        Ok(answer) => {
            let message = format!("`{}` answered {}", claimed.object, answer.status.as_u16());
            (Failure::new("callback_refused", message), answer.retry_after)
        }
        Err(error) => (Failure::new(error.code(), format!("`{}`: {error}", claimed.object)), None),
    };
    let longest = services.config.work.callback_retry_after_max;
    match services.schedule.after(claimed.attempts.unsigned_abs(), retry_after, longest) {
        Some(delay) => End::Again { delay, outage: false, failure },
        None => End::GiveUp(failure),
    }
}

/// 410 Gone: the consumer wants no more. Its callbacks wait, with their attempts, until somebody enables it.
async fn disable(services: &Services, claimed: &ClaimedWork) -> End {
    let failure = Failure::new(
        "target_disabled",
        format!("`{0}` answered 410; `function-handlers callbacks enable {0}` resumes", claimed.object),
    );
    let disabled = async {
        let client = services.database.client().await?;
        callbacks::disable_target(&client, &claimed.object, "the consumer answered 410 Gone").await
    };
    match disabled.await {
        Ok(_) => {
            tracing::error!(code = failure.code, reason = failure.message, "a callback target is disabled")
        }
        Err(error) => tracing::warn!(code = error.code(), %error, "a callback target could not be disabled"),
    }
    End::Again { delay: Duration::ZERO, outage: true, failure }
}
