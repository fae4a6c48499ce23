//! HTTP functions: the caller's request, proxied or forwarded by the host, which look alike here.

use http::header::ALLOW;
use http::{HeaderValue, Method};
use tokio::time::timeout;
use tracing::Instrument;
use warp::reply::Response;

use super::{Cut, Dispatch, Head, elapsed_ms, guarded, internal_error, log_panic, span};
use crate::functions::app::{Function, HttpTrigger, Trigger};
use crate::functions::http::{BodyStream, HttpRequest, HttpResponse, Unread};
use crate::functions::invocation::Invocation;
use crate::functions::problem;
use crate::functions::reply;
use crate::functions::route::segments_of;

type Params = std::collections::BTreeMap<String, String>;

/// Where a path leads.
enum Found<'a> {
    Function(&'a Function, &'a HttpTrigger, Params),
    /// Routes match, but none takes the method; these they take.
    OtherMethods(Vec<&'a Method>),
    Nothing,
    Malformed,
}

impl Dispatch {
    /// `queue_or_timer`: the path is that of a function only the host may call.
    pub(super) async fn request(&self, head: Head, body: BodyStream, queue_or_timer: bool) -> Response {
        let body = Unread::new(body);
        let invocation = self.invocation(&"".into(), &head);
        let refused = match self.find(&head) {
            Found::Function(function, http, params) => {
                return self.run_http(function, http, params, head, body).await;
            }
            Found::OtherMethods(methods) => {
                let allow = methods.iter().map(|m| m.as_str()).collect::<Vec<_>>().join(", ");
                let problem = HttpResponse::refusal(&problem::METHOD_NOT_ALLOWED, None);
                match HeaderValue::from_str(&allow) {
                    Ok(allow) => problem.header(ALLOW, allow),
                    Err(_) => problem,
                }
            }
            Found::Nothing if queue_or_timer => {
                tracing::warn!(
                    code = "envelope.not-from-host",
                    request_id = invocation.request_id,
                    "a request to a queue or timer function without the headers of the Functions host was refused; \
                     nobody else may call it",
                );
                HttpResponse::refusal(&problem::HOST_ONLY, None)
            }
            Found::Nothing => HttpResponse::refusal(&problem::NOT_FOUND, None),
            Found::Malformed => HttpResponse::refusal(&problem::MALFORMED_PATH, None),
        };
        self.discard(&body).await;
        reply::identified(refused, &invocation.request_id)
    }

    fn find(&self, head: &Head) -> Found<'_> {
        let Ok(path) = segments_of(&head.path) else { return Found::Malformed };
        let mut allowed: Vec<&Method> = Vec::new();
        for (template, name) in &self.routes {
            let Some(params) = template.matches(&path) else { continue };
            let Some(function) = self.functions.get(name) else { continue };
            let Trigger::Http(http) = &function.trigger else { continue };
            if http.methods.is_empty() || http.methods.contains(&head.method) {
                return Found::Function(function, http, params);
            }
            allowed.extend(http.methods.iter().filter(|m| !allowed.contains(m)).collect::<Vec<_>>());
        }
        if allowed.is_empty() { Found::Nothing } else { Found::OtherMethods(allowed) }
    }

    async fn run_http(
        &self,
        function: &Function,
        http: &HttpTrigger,
        params: Params,
        head: Head,
        body: Unread,
    ) -> Response {
        let invocation = self.invocation(&function.name, &head);
        let span = span(&invocation, "http");
        let Head { method, path, query, headers, .. } = head;
        let request =
            HttpRequest::new(method, path, query, headers, params, body.clone(), self.request_body_limit);
        async {
            let answer = answer(http, request, invocation.clone()).await;
            if let Some(id) = answer.headers.get(reply::REQUEST_ID).and_then(|id| id.to_str().ok()) {
                tracing::Span::current().record("request_id", id);
            }
            tracing::debug!(
                code = "invocation.answered",
                status = answer.status.as_u16(),
                elapsed_ms = elapsed_ms(&invocation),
                "answered",
            );
            self.discard(&body).await;
            reply::identified(answer, &invocation.request_id)
        }
        .instrument(span)
        .await
    }

    async fn discard(&self, body: &Unread) {
        if timeout(self.discard_limit, body.discard(self.request_body_limit)).await.is_err() {
            tracing::debug!(
                code = "body.abandoned",
                "a refused body was still coming; its connection is closed"
            );
        }
    }
}

async fn answer(http: &HttpTrigger, request: HttpRequest, invocation: Invocation) -> HttpResponse {
    let deadline = invocation.deadline;
    match guarded(deadline, async { (http.handler)(request, invocation).await }).await {
        Ok(answer) => answer,
        Err(Cut::Panicked(panicked)) => {
            log_panic(&panicked.0);
            internal_error()
        }
        Err(Cut::Overran) => {
            tracing::error!(
                code = "handler.overran",
                "a handler was cut at its deadline and its caller got 503; make it shorter or raise functionTimeout",
            );
            reply::overran()
        }
    }
}
