//! queueTrigger: polling, leases, retries and poison, functions-host.md §6.

mod backoff;
mod decision;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::envelope::{self, QueueEnvelope, Sys};
use crate::functions::Function;
use crate::host_json::{MessageEncoding, QueueConfig};
use crate::log;
use crate::storage::{Message, Messages, StorageFailure, Task};
use backoff::Backoff;
use decision::{After, Pickup};

/// Attempts at telling the queue what became of a message, before its lease decides.
const SETTLE_ATTEMPTS: u32 = 3;
const SETTLE_PAUSE: Duration = Duration::from_millis(500);

/// Runs one message; `Ok` is success. A trait so that the listener can be tested without a process.
pub trait RunMessage: Send + Sync + 'static {
    fn run<'a>(&'a self, function: &'a Function, envelope: Vec<u8>, reason: &'a str) -> Task<'a, ()>;
}

/// One function's listener.
pub struct Listener {
    pub function: Arc<Function>,
    pub config: QueueConfig,
    /// How long a received message stays invisible; renewed at half of it.
    pub lease: Duration,
    pub speed: f64,
    pub queue: Arc<dyn Messages>,
    /// `None` when the queue is a poison queue itself.
    pub poison: Option<Arc<dyn Messages>>,
    pub runner: Arc<dyn RunMessage>,
    pub tasks: TaskTracker,
}

/// The queue that takes what failed too often; poison queues have none.
pub fn poison_queue(queue: &str) -> Option<String> {
    (!queue.ends_with("-poison")).then(|| format!("{queue}-poison"))
}

impl Listener {
    /// Polls until `stop`. Messages in hand are settled by tasks of their own.
    pub async fn run(self, stop: CancellationToken) {
        let running = Arc::new(Running::default());
        let mut backoff = Backoff::new(self.config.max_polling_interval);
        let mut complaint = None;
        let listener = Arc::new(self);
        loop {
            let threshold = usize::try_from(listener.config.new_batch_threshold).unwrap_or(usize::MAX);
            tokio::select! {
                () = running.at_most(threshold) => {}
                () = stop.cancelled() => return,
            }
            let received = tokio::select! {
                received = listener.queue.receive(listener.config.batch_size, listener.lease) => received,
                () = stop.cancelled() => return,
            };
            let found = match received {
                Ok(messages) => {
                    if complaint.take().is_some() {
                        log::information(format!("Queue '{}' answers again", listener.queue.name()));
                    }
                    let found = !messages.is_empty();
                    for message in messages {
                        let place = running.enter();
                        let listener = Arc::clone(&listener);
                        listener.tasks.clone().spawn(async move {
                            listener.process(message).await;
                            drop(place);
                        });
                    }
                    found
                }
                // Not created by the host: polled until somebody does.
                Err(StorageFailure::Missing) => false,
                Err(cause) => {
                    if complaint.as_ref() != Some(&cause) {
                        log::error(format!(
                            "An error occurred while listening to queue '{}'; polling goes on: {cause}",
                            listener.queue.name()
                        ));
                        complaint = Some(cause);
                    }
                    false
                }
            };
            let pause = backoff.after(found).div_f64(listener.speed);
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn process(&self, mut message: Message) {
        let text = self.decode(&message.raw);
        let name = self.queue.name();
        let after =
            match decision::at_pickup(message.dequeue_count, self.config.max_dequeue_count, text.is_some()) {
                Pickup::Poison(why) => {
                    log::warning(format!(
                        "Message {} of queue '{name}' goes to poison without being run: {why}",
                        message.id
                    ));
                    After::Poison
                }
                Pickup::Invoke => {
                    let success = self.invoke(&mut message, text.as_deref().unwrap_or_default()).await;
                    decision::after_run(success, message.dequeue_count, self.config.max_dequeue_count)
                }
            };
        self.settle(&message, after).await;
    }

    fn decode(&self, raw: &str) -> Option<String> {
        match self.config.encoding {
            MessageEncoding::None => Some(raw.to_owned()),
            MessageEncoding::Base64 => String::from_utf8(STANDARD.decode(raw.trim()).ok()?).ok(),
        }
    }

    /// Runs the message while renewing its lease.
    async fn invoke(&self, message: &mut Message, text: &str) -> bool {
        let binding = self.function.trigger_binding();
        let envelope = QueueEnvelope {
            binding: &binding.name,
            binary: binding.binary,
            text,
            id: &message.id,
            pop_receipt: &message.pop_receipt,
            dequeue_count: message.dequeue_count,
            inserted_at: message.inserted_at,
            expires_at: message.expires_at,
            next_visible_at: message.next_visible_at,
        };
        let envelope = match envelope::queue_message(&envelope, &Sys::new(&self.function.name)) {
            Ok(envelope) => envelope,
            Err(cause) => {
                log::error(format!("cannot encode message {}: {cause}", message.id));
                return false;
            }
        };
        let reason = format!("New queue message detected on '{}'.", self.queue.name());
        let run = self.runner.run(&self.function, envelope, &reason);
        tokio::pin!(run);
        let mut renewal = Instant::now() + self.lease / 2;
        loop {
            tokio::select! {
                result = &mut run => return result.is_ok(),
                () = sleep_until(renewal) => {}
            }
            renewal = Instant::now() + self.lease / 2;
            // Never dropped half done, even if the invocation ends meanwhile: a renewal whose answer was not read
            // leaves a pop receipt that no longer deletes.
            match self.queue.set_visibility(message, self.lease).await {
                Ok(pop_receipt) => message.pop_receipt = pop_receipt,
                Err(cause) => log::warning(format!(
                    "cannot renew message {} of queue '{}': {cause}",
                    message.id,
                    self.queue.name()
                )),
            }
        }
    }

    async fn settle(&self, message: &Message, after: After) {
        let mut last = None;
        for _ in 0..SETTLE_ATTEMPTS {
            match self.try_settle(message, after).await {
                Ok(()) => return,
                Err(StorageFailure::Missing) => {
                    log::warning(format!(
                        "Message {} of queue '{}' is gone or was taken by another host",
                        message.id,
                        self.queue.name()
                    ));
                    return;
                }
                Err(cause) => last = Some(cause),
            }
            sleep(SETTLE_PAUSE).await;
        }
        if let Some(cause) = last {
            log::error(format!(
                "cannot settle message {} of queue '{}'; it will be run again once its lease lapses: {cause}",
                message.id,
                self.queue.name()
            ));
        }
    }

    async fn try_settle(&self, message: &Message, after: After) -> Result<(), StorageFailure> {
        match (after, &self.poison) {
            (After::Delete, _) => self.queue.delete(message).await,
            (After::Poison, Some(poison)) => {
                log::warning(format!(
                    "Message has reached MaxDequeueCount of {}. Moving message to queue '{}'.",
                    self.config.max_dequeue_count,
                    poison.name()
                ));
                poison.put(&message.raw).await?;
                self.queue.delete(message).await
            }
            (After::Release | After::Poison, _) => {
                self.queue.set_visibility(message, self.config.visibility_timeout).await.map(drop)
            }
        }
    }
}

/// How many messages are in hand.
#[derive(Default)]
struct Running {
    count: AtomicUsize,
    left: Notify,
}

struct Place(Arc<Running>);

impl Running {
    fn enter(self: &Arc<Self>) -> Place {
        self.count.fetch_add(1, Ordering::SeqCst);
        Place(Arc::clone(self))
    }

    /// Waits until no more than `limit` messages are in hand: then the next batch is fetched.
    async fn at_most(&self, limit: usize) {
        loop {
            let left = self.left.notified();
            if self.count.load(Ordering::SeqCst) <= limit {
                return;
            }
            left.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::SeqCst);
        self.0.left.notify_one();
    }
}
