//! Every function, under the name of its folder and of its file here.
//!
//! Handlers reach the services through a weak reference: `check` registers everything and has no services to give.

use std::sync::{Arc, Weak};
use std::time::Instant;

use colloquy::events::message::{CallbackHint, EventMessage, JobHint};
use colloquy::functions::{App, HttpRequest, HttpResponse, Invocation, Outcome, QueueMessage, Timer};
use colloquy::telemetry::metrics;
use futures_util::future::{BoxFuture, FutureExt, ready};
use http::header::RETRY_AFTER;
use http::{HeaderValue, Method};

use crate::health::health;
use crate::maintain::{Memory, maintain};
use crate::migrate::migrate;
use crate::problems;
use crate::process_event::process_event;
use crate::receive_webhook::receive_webhook;
use crate::run_job::run_job;
use crate::send_callback::send_callback;
use crate::services::Services;

/// Queues as `function.json` names them; the settings of these names say what they are called in storage.
pub const EVENTS: &str = "%QUEUE_EVENTS%";
pub const JOBS: &str = "%QUEUE_JOBS%";
pub const CALLBACKS: &str = "%QUEUE_CALLBACKS%";

/// The app.
pub fn app(services: &Weak<Services>) -> App {
    let memory = Arc::new(Memory::default());
    let maintain = move |services, timer, invocation| maintain(services, memory.clone(), timer, invocation);
    App::new()
        .http(
            "receive-webhook",
            "webhooks/{source}/{event?}",
            // Any method, so that the refusal of a wrong one is ours: the host's would be a bare 404.
            &[],
            http(services, receive_webhook),
        )
        .http("health", "health/{check?}", &[Method::GET], http(services, health))
        .queue::<EventMessage, _, _>("process-event", EVENTS, queue(services, process_event))
        .queue::<JobHint, _, _>("run-job", JOBS, queue(services, run_job))
        .queue::<CallbackHint, _, _>("send-callback", CALLBACKS, queue(services, send_callback))
        .timer("migrate", "0 */5 * * * *", timer(services, migrate))
        .timer("maintain", "*/15 * * * * *", timer(services, maintain))
}

fn http<F, Fut>(
    services: &Weak<Services>,
    handler: F,
) -> impl Fn(HttpRequest, Invocation) -> BoxFuture<'static, HttpResponse> + Send + Sync + 'static
where
    F: Fn(Arc<Services>, HttpRequest, Invocation) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = HttpResponse> + Send + 'static,
{
    let services = services.clone();
    move |request, invocation| match services.upgrade() {
        Some(services) => {
            let measure = Measure::start(&invocation);
            handler(services, request, invocation).map(|end| measure.end(end)).boxed()
        }
        None => {
            let refusal = HttpResponse::refusal(&problems::STOPPING, None);
            ready(refusal.header(RETRY_AFTER, HeaderValue::from_static("5"))).boxed()
        }
    }
}

fn queue<T, F, Fut>(
    services: &Weak<Services>,
    handler: F,
) -> impl Fn(QueueMessage<T>, Invocation) -> BoxFuture<'static, Outcome> + Send + Sync + 'static
where
    F: Fn(Arc<Services>, QueueMessage<T>, Invocation) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Outcome> + Send + 'static,
{
    let services = services.clone();
    move |message, invocation| match services.upgrade() {
        Some(services) => {
            let measure = Measure::start(&invocation);
            handler(services, message, invocation).map(|end| measure.end(end)).boxed()
        }
        None => ready(Outcome::retry("the process is ending")).boxed(),
    }
}

fn timer<F, Fut>(
    services: &Weak<Services>,
    handler: F,
) -> impl Fn(Timer, Invocation) -> BoxFuture<'static, Outcome> + Send + Sync + 'static
where
    F: Fn(Arc<Services>, Timer, Invocation) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Outcome> + Send + 'static,
{
    let services = services.clone();
    move |timer, invocation| match services.upgrade() {
        Some(services) => {
            let measure = Measure::start(&invocation);
            handler(services, timer, invocation).map(|end| measure.end(end)).boxed()
        }
        None => ready(Outcome::retry("the process is ending")).boxed(),
    }
}

/// Counts an invocation when it ends; one that panics or is cut at its deadline too.
struct Measure {
    function: Arc<str>,
    started: Instant,
    outcome: &'static str,
}

impl Measure {
    fn start(invocation: &Invocation) -> Self {
        Self { function: invocation.function.clone(), started: Instant::now(), outcome: "cut" }
    }

    fn end<T: End>(mut self, end: T) -> T {
        self.outcome = end.outcome();
        end
    }
}

impl Drop for Measure {
    fn drop(&mut self) {
        metrics::invocation(&self.function, self.outcome, self.started.elapsed());
    }
}

/// What an invocation came to, as one word.
trait End {
    fn outcome(&self) -> &'static str;
}

impl End for HttpResponse {
    fn outcome(&self) -> &'static str {
        if self.status.is_server_error() { "failed" } else { "done" }
    }
}

impl End for Outcome {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Retry { .. } => "retry",
            Self::DeadLetter { .. } => "dead_letter",
        }
    }
}
