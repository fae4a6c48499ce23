//! Queue and timer functions: an envelope in, an outcome carried out, a result or a failure back.

use std::time::Instant;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use tracing::Instrument;
use warp::reply::Response;

use super::{Cut, Dispatch, Head, elapsed_ms, guarded, log_panic, span};
use crate::functions::app::{Function, QueueTrigger, TimerTrigger, Trigger};
use crate::functions::envelope::{Envelope, EnvelopeError};
use crate::functions::http::{BodyError, BodyStream, collect};
use crate::functions::invocation::Invocation;
use crate::functions::outcome::Outcome;
use crate::functions::panics::Panicked;
use crate::functions::payload::QueueMessage;
use crate::functions::reply;

/// A failure with a stable code, logged where it arose.
struct Failure {
    code: &'static str,
    title: &'static str,
}

impl Dispatch {
    pub(super) async fn envelope(&self, function: &Function, head: Head, body: BodyStream) -> Response {
        let mut invocation = self.invocation(&function.name, &head);
        let trigger = if matches!(function.trigger, Trigger::Queue(_)) { "queue" } else { "timer" };
        let span = span(&invocation, trigger);
        async {
            let binding = self.bindings.get(&*function.name).map_or("", String::as_str);
            let result = async {
                let body = self.read(&head, body, invocation.deadline).await?;
                let envelope = Envelope::parse(&body).map_err(malformed)?;
                invocation.retry = envelope.retry();
                match &function.trigger {
                    Trigger::Queue(queue) => {
                        let message = envelope.queue_message(binding).map_err(malformed)?;
                        self.run_queue(queue, message, &invocation).await
                    }
                    Trigger::Timer(timer) => {
                        let tick = envelope.timer(binding).map_err(malformed)?;
                        run_timer(timer, tick, &invocation).await
                    }
                    Trigger::Http(_) => Err(Failure {
                        code: "envelope.http-function",
                        title: "An HTTP function was invoked by envelope",
                    }),
                }
            }
            .await;
            let elapsed_ms = elapsed_ms(&invocation);
            match result {
                Ok(line) => {
                    tracing::debug!(code = "invocation.settled", elapsed_ms, "settled");
                    reply::done(&format!("{}: {line} ({elapsed_ms} ms)", function.name), &invocation.id)
                }
                Err(failure) => reply::failed(failure.code, failure.title, &invocation.id),
            }
        }
        .instrument(span)
        .await
    }

    /// Base64 makes the largest body a third longer; the rest is for what surrounds it.
    fn envelope_limit(&self) -> u64 {
        const SURROUNDINGS: u64 = 4 * 1024 * 1024;
        (self.request_body_limit / 3).saturating_mul(4).saturating_add(SURROUNDINGS)
    }

    async fn read(&self, head: &Head, mut body: BodyStream, deadline: Instant) -> Result<Bytes, Failure> {
        let declared = head.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        match guarded(deadline, collect(&mut body, declared, self.envelope_limit(), |_| true)).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(BodyError::TooLarge { limit })) => {
                tracing::error!(
                    code = "envelope.too-large",
                    limit,
                    "an envelope is too large; raise FUNCTIONS_REQUEST_BODY_SIZE_LIMIT",
                );
                Err(Failure { code: "envelope.too-large", title: "The envelope is too large" })
            }
            Ok(Err(_)) | Err(_) => {
                tracing::warn!(
                    code = "envelope.interrupted",
                    "the host went away while sending an envelope; it retries"
                );
                Err(Failure { code: "envelope.interrupted", title: "The envelope was interrupted" })
            }
        }
    }

    async fn run_queue(
        &self,
        queue: &QueueTrigger,
        message: QueueMessage<()>,
        invocation: &Invocation,
    ) -> Result<String, Failure> {
        let text = message.text.clone();
        let run = async { (queue.handler)(message, invocation.clone()).await };
        let outcome = match guarded(invocation.deadline, run).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => {
                tracing::error!(
                    code = error.code,
                    %error,
                    "a message does not decode; look at who put it, and at versions",
                );
                // Whatever cannot mend is not worth a hundred tries of the host's.
                if error.may_mend || self.settlement.is_none() {
                    return Err(Failure { code: error.code, title: "The message does not decode" });
                }
                Outcome::dead_letter(format!("{}: {error}", error.code))
            }
            Err(Cut::Panicked(panicked)) => return Err(panicked_at(&panicked)),
            Err(Cut::Overran) => {
                log_overrun();
                Outcome::retry("cut at its deadline")
            }
        };
        self.settle(queue, &text, outcome, &invocation.function).await
    }

    /// Carries an outcome out; gives the line for the host's log.
    async fn settle(
        &self,
        queue: &QueueTrigger,
        text: &str,
        outcome: Outcome,
        function: &str,
    ) -> Result<String, Failure> {
        if outcome == Outcome::Done {
            return Ok("done".to_owned());
        }
        let Some(settlement) = &self.settlement else {
            let code = "settlement.absent";
            tracing::error!(
                code,
                "the app has no settlement, so the host retries this message itself; add App::settlement"
            );
            return Err(Failure { code, title: "No settlement" });
        };
        let (queue, limit) = (&queue.queue, Instant::now() + self.settlement_limit);
        let (line, settled) = match outcome {
            Outcome::Done => return Ok("done".to_owned()),
            Outcome::Retry { after, reason } => {
                tracing::warn!(
                    code = "message.retried",
                    after_ms = after.map(|a| a.as_millis()),
                    reason,
                    "to be retried"
                );
                let settled =
                    guarded(limit, async { settlement.retry(function, queue, text, after, &reason).await });
                (format!("retry {}: {reason}", reply::in_words(after)), settled.await)
            }
            Outcome::DeadLetter { reason } => {
                tracing::error!(code = "message.dead-lettered", reason, "given up; see the dead letters");
                let settled =
                    guarded(limit, async { settlement.dead_letter(function, queue, text, &reason).await });
                (format!("dead-lettered: {reason}"), settled.await)
            }
        };
        let (code, error) = match settled {
            Ok(Ok(())) => return Ok(line),
            Ok(Err(error)) => ("settlement.failed", error),
            Err(Cut::Overran) => {
                ("settlement.overran", format!("took longer than {:?}", self.settlement_limit))
            }
            Err(Cut::Panicked(panicked)) => ("settlement.panicked", format!("panicked at {}", panicked.0)),
        };
        tracing::error!(
            code,
            error,
            "the outcome could not be carried out, so the host retries the message itself"
        );
        Err(Failure { code, title: "The outcome could not be carried out" })
    }
}

/// A timer has nothing to put back: what is not done is shown as failed, and the next tick comes.
async fn run_timer(
    timer: &TimerTrigger,
    tick: crate::functions::timer::Timer,
    invocation: &Invocation,
) -> Result<String, Failure> {
    let run = async { (timer.handler)(tick, invocation.clone()).await };
    match guarded(invocation.deadline, run).await {
        Ok(Outcome::Done) => Ok("done".to_owned()),
        Ok(Outcome::Retry { reason, .. } | Outcome::DeadLetter { reason }) => {
            let code = "handler.failed";
            tracing::error!(code, reason, "a timer failed; it runs again at its next tick");
            Err(Failure { code, title: "The timer failed" })
        }
        Err(Cut::Panicked(panicked)) => Err(panicked_at(&panicked)),
        Err(Cut::Overran) => {
            log_overrun();
            Err(Failure { code: "handler.overran", title: "The timer was cut at its deadline" })
        }
    }
}

fn log_overrun() {
    tracing::error!(
        code = "handler.overran",
        "a handler was cut at its deadline; make it shorter or raise functionTimeout",
    );
}

fn panicked_at(panicked: &Panicked) -> Failure {
    log_panic(&panicked.0);
    Failure { code: "handler.panicked", title: "The handler panicked" }
}

fn malformed(error: EnvelopeError) -> Failure {
    let code = "envelope.malformed";
    tracing::error!(code, %error, "the host sent what the contract does not know; compare the host's version");
    Failure { code, title: "Not an envelope" }
}
