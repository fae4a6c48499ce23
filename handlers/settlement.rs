//! Carries out what a queue handler decided about its message.

use std::sync::Arc;
use std::time::Duration;

use colloquy::events::message::{self, CallbackHint, EventMessage, JobHint};
use colloquy::functions::{Payload, Settlement};
use futures_util::future::BoxFuture;

use crate::maintain::poison_name;
use crate::registrations::{CALLBACKS, EVENTS, JOBS};
use crate::services::Services;

/// Puts messages back, or where `maintain` makes dead letters of them.
pub struct QueueSettlement {
    pub services: Arc<Services>,
}

impl QueueSettlement {
    /// The queue's name in storage, from what stands in `function.json`.
    fn queue(&self, registered: &str) -> String {
        let queues = &self.services.config.queues;
        match registered {
            EVENTS => queues.events.clone(),
            JOBS => queues.jobs.clone(),
            CALLBACKS => queues.callbacks.clone(),
            other => other.to_owned(),
        }
    }

    /// The message with one more deferral, and how long it waits. One this version cannot read goes back as it is.
    fn deferred(&self, registered: &str, text: &str) -> (String, Duration) {
        let (deferrals, deferred) = match registered {
            EVENTS => EventMessage::decode(text).map_or((1, None), |mut message| {
                message.deferrals = message.deferrals.saturating_add(1);
                (message.deferrals, message::encode(&message).ok())
            }),
            JOBS => JobHint::decode(text).map_or((1, None), |mut hint| {
                hint.outages = hint.outages.saturating_add(1);
                (hint.outages, message::encode(&hint).ok())
            }),
            _ => CallbackHint::decode(text).map_or((1, None), |mut hint| {
                hint.outages = hint.outages.saturating_add(1);
                (hint.outages, message::encode(&hint).ok())
            }),
        };
        (deferred.unwrap_or_else(|| text.to_owned()), self.services.backoff.delay(deferrals))
    }
}

impl Settlement for QueueSettlement {
    fn retry<'a>(
        &'a self,
        _function: &'a str,
        queue: &'a str,
        text: &'a str,
        after: Option<Duration>,
        _reason: &'a str,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let (text, delay) = self.deferred(queue, text);
            let queue = self.services.storage.queue(&self.queue(queue));
            queue.put(&text, after.unwrap_or(delay)).await.map_err(|error| error.to_string())
        })
    }

    /// Onto the poison queue, whence `maintain` makes a dead letter of it: that also works with the database away.
    fn dead_letter<'a>(
        &'a self,
        _function: &'a str,
        queue: &'a str,
        text: &'a str,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let text = given_up(text, reason);
            let poison = self.services.storage.queue(&poison_name(&self.queue(queue)));
            poison.put(&text, Duration::ZERO).await.map_err(|error| error.to_string())
        })
    }
}

/// The message with the reason it was given up for, where there is room for one.
fn given_up(text: &str, reason: &str) -> String {
    let with_reason = EventMessage::decode(text).ok().and_then(|mut message| {
        message.given_up = Some(reason.to_owned());
        message::encode(&message).ok()
    });
    with_reason.filter(|text| message::fits(text)).unwrap_or_else(|| text.to_owned())
}
