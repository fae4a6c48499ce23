//! From a request to its function, and from what the function did to an answer.

mod envelopes;
mod requests;

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, Method};
use tokio::time::timeout_at;
use tracing::Span;
use warp::Filter;
use warp::path::FullPath;
use warp::reply::Response;

use super::app::{App, Function, Trigger};
use super::deadline::budget;
use super::http::{BodyStream, HttpResponse};
use super::invocation::{INVOCATION_ID, Invocation, is_host_envelope};
use super::outcome::Settlement;
use super::panics::{self, Panicked};
use super::problem;
use super::reply;
use super::route::{Template, segments_of};
use super::serve::ServeOptions;

/// The app, ready to be called.
pub(super) struct Dispatch {
    functions: HashMap<Arc<str>, Function>,
    /// Most exact template first.
    routes: Vec<(Template, Arc<str>)>,
    bindings: BTreeMap<String, String>,
    settlement: Option<Arc<dyn Settlement>>,
    settlement_limit: Duration,
    function_timeout: Option<Duration>,
    initialization_timeout: Duration,
    started: Instant,
    request_body_limit: u64,
    discard_limit: Duration,
    calls: Arc<AtomicU64>,
}

/// A request without its body.
struct Head {
    method: Method,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    received: Instant,
}

/// Why a future was not run to its end.
enum Cut {
    Panicked(Panicked),
    Overran,
}

/// The whole app as a filter.
pub(super) fn filter(
    dispatch: Arc<Dispatch>,
) -> impl Filter<Extract = (Response,), Error = warp::Rejection> + Clone + Send + Sync + 'static {
    // The host's ping, every 25 ms until one is answered: nothing is looked up for it. A user's request to
    // the root differs only in carrying an invocation id.
    let ping = warp::get()
        .and(warp::path::end())
        .and(warp::header::optional::<String>(INVOCATION_ID))
        .and_then(async |id: Option<String>| match id {
            None => Ok(Response::new(Bytes::new().into())),
            Some(_) => Err(warp::reject::not_found()),
        });
    let query = warp::query::raw().map(Some).or_else(async |_| Ok::<_, Infallible>((None,)));
    let call = warp::any()
        .map(move || Arc::clone(&dispatch))
        .and(warp::method())
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .then(async |dispatch: Arc<Dispatch>, method, path: FullPath, query, headers, body| {
            let path = path.as_str().to_owned();
            let head = Head { method, path, query, headers, received: Instant::now() };
            dispatch.call(head, whole_chunks(body)).await
        });
    ping.or(call).unify()
}

fn whole_chunks(
    body: impl Stream<Item = Result<impl Buf, warp::Error>> + Send + Sync + 'static,
) -> BodyStream {
    Box::pin(body.map(|chunk| chunk.map(|mut chunk| chunk.copy_to_bytes(chunk.remaining()))))
}

impl Dispatch {
    pub(super) fn new(app: App, options: &ServeOptions) -> Self {
        let mut routes: Vec<(Template, Arc<str>)> = app
            .functions
            .iter()
            .filter_map(|function| match &function.trigger {
                Trigger::Http(http) => {
                    let template =
                        Template::parse(&format!("{}/{}", options.route_prefix, http.route)).ok()?;
                    Some((template, Arc::clone(&function.name)))
                }
                Trigger::Queue(_) | Trigger::Timer(_) => None,
            })
            .collect();
        routes.sort_by(|(a, _), (b, _)| a.precedence(b));
        Self {
            functions: app.functions.into_iter().map(|f| (Arc::clone(&f.name), f)).collect(),
            routes,
            bindings: options.bindings.clone(),
            settlement: app.settlement,
            settlement_limit: options
                .function_timeout
                .map_or(options.settlement_limit, |timeout| options.settlement_limit.min(timeout / 4)),
            function_timeout: options.function_timeout,
            initialization_timeout: options.initialization_timeout,
            started: options.started,
            request_body_limit: options.request_body_limit,
            discard_limit: options.discard_limit,
            calls: Arc::clone(&options.calls),
        }
    }

    /// Envelope or request? The host posts envelopes to `/<function>`, without prefix; a caller's request can
    /// have that path too, and then the headers tell them apart.
    async fn call(&self, head: Head, body: BodyStream) -> Response {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let named = head.path.strip_prefix('/').and_then(|name| self.functions.get(name));
        let posted = head.method == Method::POST && head.query.is_none();
        match named.map(|function| (function, &function.trigger)) {
            Some((function, Trigger::Queue(_) | Trigger::Timer(_)))
                if posted && is_host_envelope(&head.headers) =>
            {
                self.envelope(function, head, body).await
            }
            Some((function, Trigger::Http(_)))
                if posted && is_host_envelope(&head.headers) && !self.is_route(&head.path) =>
            {
                let invocation = self.invocation(&function.name, &head);
                tracing::error!(
                    code = "envelope.http-function",
                    request_id = invocation.id,
                    function = &*function.name,
                    "an HTTP function was invoked by envelope, so the host found a binding besides httpTrigger and http \
                     in its function.json, or proxying and forwarding are off in host.json; remove it, or turn them on",
                );
                let title = "An HTTP function was invoked by envelope";
                reply::failed("envelope.http-function", title, &invocation.id)
            }
            named => {
                let queue_or_timer = named.is_some_and(|(_, trigger)| !matches!(trigger, Trigger::Http(_)));
                self.request(head, body, queue_or_timer).await
            }
        }
    }

    fn is_route(&self, path: &str) -> bool {
        segments_of(path)
            .is_ok_and(|path| self.routes.iter().any(|(template, _)| template.matches(&path).is_some()))
    }

    fn invocation(&self, function: &Arc<str>, head: &Head) -> Invocation {
        let age = head.received.saturating_duration_since(self.started);
        let budget = budget(self.function_timeout, self.initialization_timeout, age);
        Invocation::new(Arc::clone(function), &head.headers, head.received, budget)
    }
}

/// Runs a handler, or anything else that is not ours, to its end, its panic or the deadline.
async fn guarded<F: Future>(deadline: Instant, future: F) -> Result<F::Output, Cut> {
    match timeout_at(deadline.into(), panics::catch(future)).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(panicked)) => Err(Cut::Panicked(panicked)),
        Err(_) => Err(Cut::Overran),
    }
}

fn span(invocation: &Invocation, trigger: &'static str) -> Span {
    tracing::info_span!(
        "invocation",
        invocation_id = invocation.id,
        // Until a handler knows a better one: that of the delivery it works on.
        request_id = invocation.request_id,
        function = &*invocation.function,
        trigger,
        trace_parent = invocation.trace_parent.as_deref(),
    )
}

fn log_panic(place: &str) {
    tracing::error!(
        code = "handler.panicked",
        place,
        "a handler panicked; this is a defect at the place named"
    );
}

fn elapsed_ms(invocation: &Invocation) -> u64 {
    u64::try_from(invocation.received.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn internal_error() -> HttpResponse {
    HttpResponse::refusal(&problem::INTERNAL, None)
}
