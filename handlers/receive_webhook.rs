//! `POST /api/webhooks/{source}[/{event}]`: verify, make durable, answer. Needs the queue and nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use colloquy::azure::{MAX_ENCODED_BYTES, StorageError};
use colloquy::config::app::Stop;
use colloquy::events::message::{self, Body, EventMessage, Verdict};
use colloquy::functions::{BodyError, HttpRequest, HttpResponse, Invocation};
use colloquy::ids::DeliveryId;
use colloquy::telemetry::metrics;
use colloquy::telemetry::trace;
use colloquy::webhooks::{
    Delivery, Kept, Outcome, Problem, ProblemKind, Refused, Reply, Source, VerifiedDelivery, VerifyError,
};
use http::{HeaderName, HeaderValue, header};
use jiff::Timestamp;
use tokio::time::timeout_at;
use tracing::Instrument;

use crate::admission::Held;
use crate::services::{Services, SourceService};

/// What storage gets at least, where a sender took long to send its body.
const LEAST_PATIENCE: Duration = Duration::from_secs(2);

/// Answers one request of a sender.
pub async fn receive_webhook(
    services: Arc<Services>,
    mut request: HttpRequest,
    invocation: Invocation,
) -> HttpResponse {
    let request_id = invocation.request_id.as_str();
    let named = request.params.get("source").map(String::as_str).unwrap_or_default().to_owned();
    let service = services.sources.get(&named);
    let source = service.map_or(metrics::UNKNOWN, |service| service.source.name());
    let mut measure = Measure { source, outcome: "cut", started: Instant::now() };
    let span = tracing::info_span!(
        "webhook.receive",
        otel.name = "POST /api/webhooks/{source}",
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        http.request.method = %request.method,
        http.route = "/api/webhooks/{source}",
        http.response.status_code = tracing::field::Empty,
        request_id,
        source,
        delivery = tracing::field::Empty
    );
    trace::adopt(&span, invocation.trace_parent.as_deref());
    let response = async {
        match receive(&services, service, &mut request, request_id).await {
            Ok((outcome, reply)) => {
                measure.outcome = outcome;
                reply_response(reply)
            }
            Err(problem) => {
                measure.outcome = problem.kind.code();
                log_refusal(&problem);
                problem_response(&problem, request_id)
            }
        }
    }
    .instrument(span.clone())
    .await;
    span.record("http.response.status_code", response.status.as_u16());
    if response.status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    response
}

/// Counts a request when it ends; one that panics or is cut at its deadline too.
struct Measure<'a> {
    source: &'a str,
    outcome: &'static str,
    started: Instant,
}

impl Drop for Measure<'_> {
    fn drop(&mut self) {
        metrics::webhook_request(self.source, self.outcome, self.started.elapsed());
    }
}

async fn receive(
    services: &Services,
    service: Option<&SourceService>,
    request: &mut HttpRequest,
    request_id: &str,
) -> Result<(&'static str, Reply), Problem> {
    let (received_at, arrived) = (Timestamp::now(), Instant::now());
    let service = service.ok_or_else(Problem::unknown_source)?;
    let source = &service.source;
    if let Some(handshake) = source.open(&request.method, &request.headers, request.content_length())? {
        return Ok(("handshake", handshake));
    }
    // Unknown switches stop nobody here: what is accepted is only processed once they are known.
    let switches = services.switches.current().await.unwrap_or_default();
    let stopped = switches.source(source.name(), source.stopped(), received_at);
    if stopped == Some(Stop::Refuse) {
        return Err(Problem::source_stopped(services.config.work.retry_after));
    }
    if request.content_length().is_none() && !request.is_chunked() {
        return Err(Problem::length_required());
    }
    // Whatever the body is, this request cannot be believed: nothing is read for it.
    source
        .presented(&request.headers, request.query.as_deref())
        .map_err(|reason| refused(service, &reason))?;
    let patience = arrived + services.config.work.ingress_timeout;
    let mut held = services.room.holder();
    let body = read_body(services, source, request, patience, &mut held).await?;
    let deadline = patience.max(Instant::now() + LEAST_PATIENCE);
    let delivery = Delivery {
        headers: std::mem::take(&mut request.headers),
        query: request.query.take(),
        event_path: request.params.get("event").filter(|event| !event.is_empty()).cloned(),
        body,
        received_at,
    };
    let verified = match timeout_at(deadline.into(), verify(services, service, delivery)).await {
        Ok(verified) => verified?,
        Err(_) => return Err(Problem::keys_unavailable(services.config.work.retry_after)),
    };
    // Counted now and not before: who cannot sign must not use up what the sender is allowed.
    if !service.admission.admits() {
        return Err(Problem::rate_limited(source, services.config.work.retry_after));
    }
    match source.receive(&verified).map_err(|malformed| Problem::from(&malformed))? {
        Outcome::Answer(reply) => Ok(("handshake", reply)),
        Outcome::Keep(kept) => {
            let id = DeliveryId::new();
            tracing::Span::current().record("delivery", tracing::field::display(id));
            let reply = kept.reply.clone();
            let message = message(services, source, id, request_id, &verified, kept)?;
            match timeout_at(deadline.into(), enqueue(services, message)).await {
                Ok(queued) => queued.map_err(|error| not_queued(services, id, &error))?,
                Err(_) => return Err(not_queued_in_time(services, id)),
            }
            tracing::info!(
                code = "webhook_accepted", delivery = %id, secret_label = verified.secret_label(),
                "delivery accepted"
            );
            Ok(("accepted", reply))
        }
    }
}

fn not_queued(services: &Services, id: DeliveryId, error: &StorageError) -> Problem {
    if matches!(error, StorageError::TooLarge { .. }) {
        let detail = "The headers are larger than a queue message (64 KiB) holds.";
        return Problem::new(ProblemKind::TooLarge, detail);
    }
    tracing::error!(code = error.code(), %error, delivery = %id, "a delivery could not be queued");
    Problem::queue_unavailable(services.config.work.retry_after)
}

/// It may be queued all the same; the sender's next one is then a duplicate.
fn not_queued_in_time(services: &Services, id: DeliveryId) -> Problem {
    tracing::error!(
        code = "ingress_timeout", delivery = %id,
        "storage took longer to keep a delivery than INGRESS_TIMEOUT; its sender is told to come back"
    );
    Problem::queue_unavailable(services.config.work.retry_after)
}

/// The body, as `held` has room for it and as it comes before `deadline`. Nobody has proven anything yet.
async fn read_body(
    services: &Services,
    source: &Source,
    request: &mut HttpRequest,
    deadline: Instant,
    held: &mut Held<'_>,
) -> Result<Bytes, Problem> {
    let limit = source.limits().max_body_bytes;
    let retry_after = services.config.work.retry_after;
    let body = request.bytes_within(limit, deadline, |more| held.take(more)).await;
    body.map_err(|error| match error {
        BodyError::TooLarge { .. } => Problem::too_large(limit, &source.body_limit_setting()),
        BodyError::TooSlow => {
            tracing::warn!(code = "body_too_slow", "a body did not arrive within INGRESS_TIMEOUT");
            Problem::took_too_long(retry_after)
        }
        BodyError::NoRoom => {
            tracing::warn!(
                code = "overloaded",
                "a delivery was refused: others that are being received use up INGRESS_MAX_BYTES"
            );
            Problem::overloaded(retry_after)
        }
        BodyError::Interrupted | BodyError::AlreadyRead => {
            Problem::new(ProblemKind::Malformed, "The body did not arrive in full.")
        }
    })
}

/// A request that nobody's secret made.
fn refused(service: &SourceService, reason: &VerifyError) -> Problem {
    service.admission.forged(service.source.name());
    Problem::from(reason)
}

/// Verifies, fetching signing keys when the source's tokens need them.
async fn verify(
    services: &Services,
    service: &SourceService,
    delivery: Delivery,
) -> Result<VerifiedDelivery, Problem> {
    let source = &service.source;
    let _turn = service.admission.turn().await;
    let refuse = |refusal: Refused| refused(service, &refusal.reason);
    let Some(url) = source.jwks_url() else {
        return source.verify(delivery, None).map_err(refuse);
    };
    let unavailable = |_| Problem::keys_unavailable(services.config.work.retry_after);
    let keys = services.entra_keys.get(url).await.map_err(unavailable)?;
    match source.verify(delivery, Some(&keys)) {
        Ok(verified) => Ok(verified),
        Err(refusal) if refusal.reason == VerifyError::NeedKeys => {
            let keys = services.entra_keys.refetch(url).await.map_err(unavailable)?;
            source.verify(*refusal.delivery, Some(&keys)).map_err(refuse)
        }
        Err(refusal) => Err(refuse(refusal)),
    }
}

fn message(
    services: &Services,
    source: &Source,
    id: DeliveryId,
    request_id: &str,
    verified: &VerifiedDelivery,
    kept: Kept,
) -> Result<(EventMessage, Bytes), Problem> {
    let delivery = verified.delivery();
    let sealed = seal(services, id, &kept)?;
    let content_type =
        delivery.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let message = EventMessage {
        delivery: id,
        source: source.name().to_owned(),
        event_path: delivery.event_path.clone(),
        request_id: request_id.to_owned(),
        trace_parent: Some(trace::current()),
        received_at: delivery.received_at,
        verdict: Verdict {
            scheme: source.scheme_name().to_owned(),
            secret_label: verified.secret_label().map(str::to_owned),
            signed_at: verified.signed_at(),
        },
        headers: kept.headers,
        content_type,
        body_bytes: kept.body.len() as u64,
        body: Body::Text(String::new()),
        sealed,
        deferrals: 0,
        failures: 0,
        given_up: None,
    };
    Ok((message, kept.body))
}

/// Encrypts the secrets that stood in a body; the delivery's id is their context, so that none can be moved to another.
fn seal(services: &Services, id: DeliveryId, kept: &Kept) -> Result<Vec<String>, Problem> {
    if kept.secrets.is_empty() {
        return Ok(Vec::new());
    }
    let sealer = services.sealer.as_ref().ok_or_else(|| {
        tracing::error!(
            code = "encryption_key_missing",
            "a delivery holds a secret to keep and there is no ENCRYPTION_KEY; set one"
        );
        Problem::internal()
    })?;
    let context = id.to_string();
    let sealed =
        kept.secrets.iter().map(|secret| sealer.seal(&context, &secret.value)).collect::<Result<_, _>>();
    sealed.map_err(|error| {
        tracing::error!(code = "sealing_failed", %error, "a delivery's secret could not be encrypted");
        Problem::internal()
    })
}

/// Puts the message with its body; with the name of a blob that holds the body where both do not fit. Blob first:
/// a message never names what is not there.
async fn enqueue(
    services: &Services,
    (mut message, body): (EventMessage, Bytes),
) -> Result<(), StorageError> {
    if body.len() < MAX_ENCODED_BYTES {
        message.body = match std::str::from_utf8(&body) {
            Ok(text) => Body::Text(text.to_owned()),
            Err(_) => Body::Base64(BASE64_STANDARD.encode(&body)),
        };
        let text = encode(&message);
        if message::fits(&text) {
            return services.events_queue().put(&text, Duration::ZERO).await;
        }
    }
    let name = blob_name(message.delivery, message.received_at);
    message.body = Body::Blob(name.clone());
    let text = encode(&message);
    let queue = services.events_queue();
    if !message::fits(&text) {
        return Err(queue.too_large(&text));
    }
    services.container().put(&name, body, "application/octet-stream").await?;
    queue.put(&text, Duration::ZERO).await
}

fn encode(message: &EventMessage) -> String {
    // Our own type, of strings and numbers: it serialises.
    message::encode(message).unwrap_or_default()
}

/// By day, so that what was orphaned can be found without listing everything.
fn blob_name(id: DeliveryId, received_at: Timestamp) -> String {
    format!("deliveries/{}/{id}", received_at.strftime("%Y/%m/%d"))
}

fn log_refusal(problem: &Problem) {
    // What failed on our side was logged where it failed.
    if problem.status.is_client_error() {
        tracing::warn!(
            code = problem.kind.code(), status = problem.status.as_u16(), detail = %problem.detail,
            "delivery refused"
        );
    }
}

fn reply_response(reply: Reply) -> HttpResponse {
    let mut response = HttpResponse::new(reply.status);
    for (name, value) in reply.headers {
        insert(&mut response, HeaderName::from_static(name), &value);
    }
    insert(&mut response, header::CONTENT_TYPE, reply.content_type);
    response.body = reply.body;
    response
}

fn problem_response(problem: &Problem, request_id: &str) -> HttpResponse {
    let mut response = HttpResponse::new(problem.status);
    insert(&mut response, header::CONTENT_TYPE, "application/problem+json");
    if let Some(after) = problem.retry_after {
        insert(&mut response, header::RETRY_AFTER, &after.as_secs().max(1).to_string());
    }
    if let Some(allow) = problem.allow {
        insert(&mut response, header::ALLOW, allow);
    }
    response.body = problem.body(request_id);
    response
}

fn insert(response: &mut HttpResponse, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers.insert(name, value);
    }
}
