//! The host's poison queues: messages that killed the process, or that no version here can read.

use std::time::Duration;

use colloquy::azure::Received;
use colloquy::database::maintenance::{self, DeadMessage};
use colloquy::events::message::{self, CallbackHint, EventMessage, JobHint};
use colloquy::functions::Payload;
use colloquy::telemetry::metrics;
use sha2::{Digest, Sha256};
use uuid::Uuid;

pub use colloquy::operations::poison_name;

use crate::services::Services;

/// How long a message stays invisible to other sweeps; an interrupted one shows again.
const INVISIBLE: Duration = Duration::from_secs(60);
const BATCH: u8 = 32;

/// What to do with a message found on a poison queue.
enum Fate {
    /// The row it points at is the truth and has its own end.
    Drop,
    Bury {
        source: Option<String>,
        code: &'static str,
        reason: String,
    },
}

/// Empties the poison queues into dead letters.
pub async fn sweep(services: &Services) -> anyhow::Result<usize> {
    let queues = &services.config.queues;
    let mut taken = 0;
    for (name, judge) in [
        (&queues.events, judge_event as fn(&str) -> Fate),
        (&queues.jobs, judge_hint::<JobHint>),
        (&queues.callbacks, judge_hint::<CallbackHint>),
    ] {
        let queue = services.storage.queue(&poison_name(name));
        if queue.properties().await?.approximate_count == 0 {
            continue;
        }
        let received = queue.receive(BATCH, INVISIBLE).await?;
        let client = services.database.client().await?;
        for message in received {
            let (text, fate) = match &message.text {
                Ok(text) => (message::plain(text), judge(text)),
                Err(_) => {
                    (message.raw.as_str().into(), unreadable("message_not_base64", "is not base64 of text"))
                }
            };
            if let Fate::Bury { source, code, reason } = fate {
                let dead = DeadMessage {
                    subject: subject(name, &message),
                    queue: name,
                    source: source.as_deref(),
                    reason_code: code,
                    reason: &reason,
                    text: &text,
                    attempts: i32::try_from(message.dequeue_count).unwrap_or(i32::MAX),
                };
                if maintenance::bury_message(&client, &dead).await? {
                    metrics::dead_letter("message", code);
                    tracing::error!(
                        code,
                        queue = name,
                        reason,
                        "a message was given up; see `function-handlers dead-letters list`"
                    );
                }
            }
            queue.delete(&message.receipt).await?;
            taken += 1;
        }
    }
    Ok(taken)
}

fn judge_event(text: &str) -> Fate {
    match EventMessage::decode(text) {
        Ok(message) => match message.given_up {
            Some(reason) => Fate::Bury { source: Some(message.source), code: "delivery_given_up", reason },
            None => Fate::Bury {
                reason: format!("delivery {} ended its process, or its host, in every try", message.delivery),
                source: Some(message.source),
                code: "message_poisoned",
            },
        },
        Err(error) => unreadable(error.code, &error.detail),
    }
}

fn judge_hint<T: Payload>(text: &str) -> Fate {
    match T::decode(text) {
        Ok(_) => Fate::Drop,
        Err(error) => unreadable(error.code, &error.detail),
    }
}

fn unreadable(code: &'static str, detail: &str) -> Fate {
    Fate::Bury { source: None, code, reason: format!("the message cannot be read: {detail}") }
}

/// The same for the same message, so that a sweep that was cut before deleting it buries it once.
fn subject(queue: &str, message: &Received) -> Uuid {
    let digest = Sha256::new().chain_update(queue).chain_update(&message.receipt.id).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
