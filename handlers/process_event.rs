//! Queue `events`: a delivery becomes events, keys, jobs and callbacks, once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use colloquy::config::app::Stop;
use colloquy::database::events::{self as inbox, NewDelivery, NewEvent, Stored};
use colloquy::database::{Client, DatabaseError, maintenance};
use colloquy::events::message::{Body, EventMessage};
use colloquy::events::routes::Plan;
use colloquy::events::state::EventState;
use colloquy::functions::{Invocation, Outcome, QueueMessage};
use colloquy::ids::EventId;
use colloquy::telemetry::metrics;
use colloquy::telemetry::trace;
use colloquy::webhooks::{IncomingEvent, Source, Stored as StoredDelivery};
use jiff::{SignedDuration, Timestamp};
use tracing::Instrument;

use crate::hints;
use crate::services::Services;

/// Why a delivery could not be processed now, or ever.
enum Trouble {
    /// Something we depend on is away. Never counts.
    Outage(String),
    /// Failed; counts.
    Failed(String),
    /// Trying again cannot help.
    Hopeless(String),
}

/// Processes one message.
pub async fn process_event(
    services: Arc<Services>,
    message: QueueMessage<EventMessage>,
    _invocation: Invocation,
) -> Outcome {
    let message = message.payload;
    let queue = &services.config.queues.events;
    let span = tracing::info_span!(
        "event.process",
        otel.name = format!("process {queue}"),
        otel.kind = "consumer",
        messaging.system = "azure_storage_queue",
        messaging.operation.name = "process",
        messaging.destination.name = queue,
        delivery = %message.delivery,
        source = message.source,
        request_id = message.request_id
    );
    trace::carry_on(&span, message.trace_parent.as_deref());
    async {
        match process(&services, &message).await {
            Ok(()) => Outcome::Done,
            Err(trouble) => put_off(&services, message, trouble).await,
        }
    }
    .instrument(span)
    .await
}

/// Puts the message back with a growing delay; gives it up when it failed too often.
async fn put_off(services: &Services, mut message: EventMessage, trouble: Trouble) -> Outcome {
    let work = &services.config.work;
    message.deferrals = message.deferrals.saturating_add(1);
    let (reason, delay) = match trouble {
        Trouble::Hopeless(reason) => return Outcome::dead_letter(reason),
        Trouble::Outage(reason) => (reason, services.backoff.delay(message.deferrals).min(work.outage_retry)),
        Trouble::Failed(reason) => {
            message.failures += 1;
            if message.failures >= work.event_max_attempts {
                return Outcome::dead_letter(format!("after {} attempts: {reason}", message.failures));
            }
            (reason, services.backoff.delay(message.failures))
        }
    };
    tracing::warn!(
        code = "event_put_off",
        reason,
        delay_ms = delay.as_millis(),
        deferrals = message.deferrals,
        failures = message.failures,
        "delivery is processed later"
    );
    match hints::put_event(&services.events_queue(), &message, delay).await {
        Ok(()) => Outcome::Done,
        // The host keeps the message and shows it again.
        Err(error) => Outcome::retry(error.to_string()),
    }
}

async fn process(services: &Services, message: &EventMessage) -> Result<(), Trouble> {
    let service = services.sources.get(&message.source).ok_or_else(|| {
        Trouble::Hopeless(format!(
            "source `{}` is no longer in colloquy.toml; add it and replay",
            message.source
        ))
    })?;
    let source = &service.source;
    let body = body(services, message).await?;
    let events = source
        .split(StoredDelivery {
            headers: &message.headers,
            body: &body,
            event_path: message.event_path.as_deref(),
        })
        .map_err(|malformed| Trouble::Hopeless(malformed.to_string()))?;
    // A source may be stopped, and its events must not have effects then: wait until that is known.
    let unknown = || Trouble::Outage("the switches could not be read since this process started".to_owned());
    let switches = services.switches.current().await.ok_or_else(unknown)?;
    let stopped = switches.source(source.name(), source.stopped(), Timestamp::now());
    let state = if stopped == Some(Stop::Hold) { EventState::Held } else { EventState::Processed };
    let mut client = services.database.client().await.map_err(trouble)?;
    let stored =
        store(services, &mut client, source, message, &body, &events, state).await.map_err(trouble)?;
    drop(client);
    services.hint_at(&stored).await;
    Ok(())
}

async fn body(services: &Services, message: &EventMessage) -> Result<Bytes, Trouble> {
    match &message.body {
        Body::Text(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        Body::Base64(text) => BASE64_STANDARD
            .decode(text)
            .map(Bytes::from)
            .map_err(|_| Trouble::Hopeless("the message's body is not base64".to_owned())),
        Body::Blob(name) => match services.container().get(name).await {
            Ok(Some(body)) => Ok(body),
            Ok(None) => Err(Trouble::Hopeless(format!("the body's blob {name} is gone"))),
            Err(error) if error.is_outage() => Err(Trouble::Outage(error.to_string())),
            Err(error) => Err(Trouble::Failed(error.to_string())),
        },
    }
}

fn trouble(error: DatabaseError) -> Trouble {
    if error.is_outage() { Trouble::Outage(error.to_string()) } else { Trouble::Failed(error.to_string()) }
}

/// Stores every event of a delivery, a chunk at a time.
async fn store(
    services: &Services,
    client: &mut Client,
    source: &Source,
    message: &EventMessage,
    body: &Bytes,
    events: &[IncomingEvent],
    state: EventState,
) -> Result<Stored, DatabaseError> {
    // The parent of the work that follows: this step, which carries on the delivery's trace.
    let trace_parent = trace::current();
    let delivery = new_delivery(message, &trace_parent, body, events);
    let in_blob = matches!(message.body, Body::Blob(_));
    let events: Vec<NewEvent<'_>> =
        events.iter().map(|event| new_event(message, event, body, in_blob)).collect();
    let mut all = Stored::default();
    let mut first_of_key: HashMap<&str, &NewEvent<'_>> = HashMap::new();
    for chunk in events.chunks(services.config.work.event_batch as usize) {
        let (fresh, repeated): (Vec<_>, Vec<_>) = chunk.iter().partition(|event| {
            let first = *first_of_key.entry(event.key).or_insert(event);
            std::ptr::eq(first, *event)
        });
        let fresh: Vec<NewEvent<'_>> = fresh.into_iter().cloned().collect();
        let plan = plan(services, source, &fresh, state);
        let stored = store_chunk(client, &delivery, &fresh, state, &plan).await?;
        let mut fates = Fates { stored: stored.events.len(), ..Fates::default() };
        judge_unclaimed(client, &delivery, &fresh, &stored, &mut fates).await?;
        for event in repeated {
            let holder = first_of_key.get(event.key).copied().unwrap_or(event);
            judge(client, &delivery, event, holder.id, holder.fingerprint, &mut fates).await?;
        }
        fates.report(source.name(), state);
        all.events.extend(stored.events);
        all.jobs.extend(stored.jobs);
        all.callbacks.extend(stored.callbacks);
    }
    Ok(all)
}

/// Stores a chunk; makes the month's partition first if there is none, as for a delivery that waited over New Year.
async fn store_chunk(
    client: &mut Client,
    delivery: &NewDelivery<'_>,
    events: &[NewEvent<'_>],
    state: EventState,
    plan: &Plan,
) -> Result<Stored, DatabaseError> {
    match inbox::store(&*client, delivery, events, state, plan).await {
        Err(error) if inbox::is_missing_partition(&error) => {
            maintenance::ensure_partitions(client, delivery.received_at).await?;
            inbox::store(&*client, delivery, events, state, plan).await
        }
        stored => stored,
    }
}

#[derive(Default)]
struct Fates {
    stored: usize,
    duplicates: usize,
    conflicts: usize,
}

impl Fates {
    fn report(&self, source: &str, state: EventState) {
        let kept = if state == EventState::Held { "held" } else { "processed" };
        for (fate, count) in
            [(kept, self.stored), ("duplicate", self.duplicates), ("conflict", self.conflicts)]
        {
            if count > 0 {
                metrics::events_processed(source, fate, count as u64);
            }
        }
        tracing::info!(
            code = "events_stored",
            stored = self.stored,
            duplicates = self.duplicates,
            conflicts = self.conflicts,
            "events stored"
        );
    }
}

/// Says of every event whose key was not claimed whether it is a duplicate or a conflict.
async fn judge_unclaimed(
    client: &Client,
    delivery: &NewDelivery<'_>,
    events: &[NewEvent<'_>],
    stored: &Stored,
    fates: &mut Fates,
) -> Result<(), DatabaseError> {
    let unclaimed: Vec<&NewEvent<'_>> =
        events.iter().filter(|event| !stored.events.contains(&event.id)).collect();
    if unclaimed.is_empty() {
        return Ok(());
    }
    let keys: Vec<&str> = unclaimed.iter().map(|event| event.key).collect();
    let holders = inbox::holders(client, delivery.source, &keys).await?;
    let holders: HashMap<&str, _> = holders.iter().map(|holder| (holder.key.as_str(), holder)).collect();
    for event in unclaimed {
        // No holder any more: its time ran out in between. This message was processed before, or its key would
        // have been free.
        if let Some(holder) = holders.get(event.key)
            && holder.event != event.id
        {
            judge(client, delivery, event, holder.event, &holder.fingerprint, fates).await?;
        }
    }
    Ok(())
}

async fn judge(
    client: &Client,
    delivery: &NewDelivery<'_>,
    event: &NewEvent<'_>,
    holder: EventId,
    fingerprint: &[u8],
    fates: &mut Fates,
) -> Result<(), DatabaseError> {
    if fingerprint == event.fingerprint {
        fates.duplicates += 1;
        return Ok(());
    }
    if inbox::store_conflict(client, delivery, event, holder).await? {
        fates.conflicts += 1;
        tracing::warn!(
            code = "event_conflict", event = %event.id, holder = %holder,
            "an event came with the key of another and different content; it is kept without effect"
        );
    }
    Ok(())
}

fn plan(services: &Services, source: &Source, events: &[NewEvent<'_>], state: EventState) -> Plan {
    let mut plan = Plan::default();
    if state == EventState::Processed {
        for event in events {
            services.routes.plan(source.name(), event.event_type, event.id, &mut plan);
        }
    }
    plan
}

fn new_delivery<'a>(
    message: &'a EventMessage,
    trace_parent: &'a str,
    body: &'a Bytes,
    events: &[IncomingEvent],
) -> NewDelivery<'a> {
    let body_blob = match &message.body {
        Body::Blob(name) => Some(name.as_str()),
        Body::Text(_) | Body::Base64(_) => None,
    };
    let stands_in_event = events.len() == 1 && events[0].payload == *body;
    NewDelivery {
        id: message.delivery,
        source: &message.source,
        event_path: message.event_path.as_deref(),
        request_id: &message.request_id,
        trace_parent: Some(trace_parent),
        received_at: message.received_at,
        verdict: &message.verdict.scheme,
        secret_label: message.verdict.secret_label.as_deref(),
        signed_at: message.verdict.signed_at,
        headers: serde_json::to_value(&message.headers).unwrap_or_default(),
        content_type: message.content_type.as_deref(),
        body_bytes: i64::try_from(message.body_bytes).unwrap_or(i64::MAX),
        body: (body_blob.is_none() && !stands_in_event).then_some(body.as_ref()),
        body_blob,
        event_count: i32::try_from(events.len()).unwrap_or(i32::MAX),
        sealed: (!message.sealed.is_empty())
            .then(|| serde_json::to_value(&message.sealed).unwrap_or_default()),
    }
}

fn new_event<'a>(
    message: &EventMessage,
    event: &'a IncomingEvent,
    body: &Bytes,
    in_blob: bool,
) -> NewEvent<'a> {
    NewEvent {
        id: EventId::of(message.delivery, event.position),
        position: i32::try_from(event.position).unwrap_or(i32::MAX),
        event_type: &event.event_type,
        key: &event.key,
        fingerprint: &event.fingerprint,
        subject: event.subject.as_deref(),
        // A payload that is the whole body stays in the blob the body is in.
        payload: (!(in_blob && event.payload == *body)).then_some(&event.payload),
        key_lifetime: signed(event.key_lifetime),
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
