//! The Azure Functions custom-handler SDK: plain async functions in, the host's protocols out.
//!
//! A function app is a list of registrations, one per function folder:
//!
//! ```no_run
//! use colloquy::functions::{App, HostSettings, HttpRequest, HttpResponse, Invocation};
//! use colloquy::functions::{Outcome, QueueMessage, ServeOptions, Timer, bind};
//! use http::{Method, StatusCode};
//!
//! async fn hello(request: HttpRequest, _: Invocation) -> HttpResponse {
//!     let name = request.params.get("name").map_or("world", String::as_str);
//!     HttpResponse::text(StatusCode::OK, format!("Hello, {name}"))
//! }
//! async fn resize(image: QueueMessage<String>, _: Invocation) -> Outcome {
//!     if image.payload.is_empty() { Outcome::dead_letter("no image named") } else { Outcome::Done }
//! }
//! async fn sweep(_: Timer, _: Invocation) -> Outcome {
//!     Outcome::Done
//! }
//!
//! # async fn run(environment: std::collections::HashMap<String, String>) -> Result<(), Box<dyn std::error::Error>> {
//! let settings = HostSettings::from_lookup(|name| environment.get(name).cloned())?;
//! let listener = bind(settings.port()?)?;
//! let app = App::new()
//!     .http("hello", "hello/{name?}", &[Method::GET], hello)
//!     .queue("resize", "%QUEUE_IMAGES%", resize)
//!     .timer("sweep", "0 */5 * * * *", sweep);
//! let manifest = app.check(&settings.app_root)?;
//! app.serve(listener, ServeOptions::new(&manifest, &settings)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What the host does, and what this module makes of it
//!
//! The host starts the process, polls `GET /` until something answers, then sends invocations over
//! loopback HTTP/1.1 in one of two ways, both on the same port:
//!
//! | function | request | answer |
//! |---|---|---|
//! | queue, timer | `POST /<function>`, an *envelope* `{"Data":…,"Metadata":…}` | 200 and `{"Outputs":{},"Logs":[…],"ReturnValue":null}`, or 500 |
//! | HTTP | the caller's own request, proxied or forwarded, under `/<routePrefix>/<route>` | whatever the handler says |
//!
//! * **Never an empty 2xx to an envelope.** The host would wait for its timeout and then kill the process.
//! * **Outcomes, not status codes.** A queue handler returns [`Outcome`]; `Retry` and `DeadLetter` are
//!   carried out by the application's [`Settlement`]. Only when that fails does the host get a 500 and retry
//!   itself.
//! * **What would silently not work is refused.** [`App::check`] compares the registrations with the folders, and refuses
//!   what the host takes and no app lives with: a disabled function, a retry of the host's beside ours, a message given
//!   up after a few tries, bytes where text is expected.
//! * **A panic fails its own invocation.** Call [`install_panic_hook`] so that the panic's message, which may
//!   quote a payload, is never written; its place in the source is.
//! * **Deadlines are ours.** The host ends an invocation that outlives `functionTimeout` by killing the
//!   process and everything in it, so a handler is cut before; see [`Invocation::deadline`].
//! * **Leaving is cutting.** A handler whose caller closes the connection is dropped where it awaits.
//!   So is one at its deadline: every step of a handler must bear being cut and being run again.
//! * **Nothing runs beside the invocations.** The only tasks spawned are the connections, all of them in one
//!   `TaskTracker` inside [`App::serve`], which does not return before they have ended.
//!
//! # Codes
//!
//! Every failure is logged once, with a stable `code`. Every answer has an `x-request-id`, which is the caller's own
//! where it gave one ([`request_id`]); that to a failed request is `application/problem+json` with a `request_id`, and its
//! `type` is [`PROBLEM_TYPE`] followed by the slug of one of [`PROBLEM_TYPES`]. For the host, whose envelope failed, that is
//! `invocation-failed`, and the code stands in its detail.
//!
//! `docs/errors.md` has every code, with what to do.
//!
//! Sources: the host's own code as restated in the functions-host contract; every payload shape named there
//! is a file in `tests/fixtures/functions`.

mod accept;
mod app;
mod deadline;
mod dispatch;
pub(crate) mod envelope;
mod http;
mod invocation;
mod manifest;
mod outcome;
mod panics;
mod parent;
mod payload;
pub mod problem;
mod reply;
mod route;
mod serve;
mod settings;
mod timer;
mod timespan;

#[cfg(test)]
mod tests;

pub use self::http::{BodyError, HttpRequest, HttpResponse, PROBLEM_TYPE};
pub use accept::survive;
pub use app::{App, AuthLevel};
pub use deadline::budget;
pub use invocation::{Invocation, RetryContext, request_id};
pub use manifest::{Difference, HostFile, Manifest, ManifestError};
pub use outcome::{Outcome, Settlement};
pub use panics::install_panic_hook;
pub use parent::die_with_parent;
pub use payload::{Binary, Json, Payload, PayloadError, QueueMessage};
pub use problem::{PROBLEM_TYPES, ProblemType};
pub use serve::{ServeError, ServeOptions, bind};
pub use settings::{HostSettings, SettingsError};
pub use timer::Timer;
