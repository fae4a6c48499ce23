//! One call to a deployment, and what is told of it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use tokio::time::{Instant, timeout_at};
use tracing::Span;
use uuid::Uuid;

use super::super::client::limited;
use super::super::demo::DemoStream;
use super::super::deployment::Deployment;
use super::super::error::{ErrorClass, LlmError};
use super::super::providers::Parser;
use super::super::quota::Grant;
use super::super::stream::{OpenStream, Patience, Source};
use super::attempts::{Done, Journey, Work};
use crate::config::app::ProviderKind;
use crate::telemetry::metrics::{Metric, System, count, external, time};
use crate::telemetry::trace;

/// The usage row's id, so that a call can be found in the provider's logs. OpenAI's name for it; others ignore it.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-client-request-id");

/// An id of this call for the provider's own traces; it says nothing of who asks for what.
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// One call.
pub(super) struct Attempt<'a> {
    pub journey: &'a Journey<'a>,
    pub deployment: &'a Arc<Deployment>,
    pub body: Bytes,
    pub id: Uuid,
    pub started: Instant,
    pub due: Instant,
    pub span: Span,
}

impl Attempt<'_> {
    /// Until the answer begins, or for embeddings is whole. What was sent and failed says whether it may be charged.
    pub async fn run(self, mut grant: Grant) -> Result<Done, LlmError> {
        let Self { journey, deployment, due, .. } = self;
        let router = journey.router;
        let late = |_| LlmError::new(ErrorClass::FirstEvent).charged(true);
        if let Some(before) = &journey.limits.before_sending {
            timeout_at(due, before.done()).await.map_err(|_| LlmError::new(ErrorClass::FirstEvent))?;
        }
        let source = match (journey.work, deployment.config.provider) {
            (Work::Answer(request), ProviderKind::Demo) => {
                grant.sent();
                Source::Demo(Box::new(DemoStream::begin(
                    request,
                    self.id,
                    router.config.demo_tokens_per_second,
                )?))
            }
            (Work::Embeddings(embeddings), ProviderKind::Demo) => {
                grant.sent();
                return embeddings.demo().map(Done::Embedded);
            }
            (work, provider) => {
                let url = match work {
                    Work::Answer(_) => deployment.url.as_ref(),
                    Work::Embeddings(_) => deployment.embeddings_url.as_ref(),
                };
                let url = url.ok_or_else(|| LlmError::new(ErrorClass::NotFound))?;
                let headers = timeout_at(due, deployment.headers(router.tokens.as_ref()));
                let mut headers = headers.await.map_err(|_| LlmError::new(ErrorClass::Auth))??;
                headers.insert(REQUEST_ID, request_id(self.id));
                if let Ok(parent) = HeaderValue::from_str(&trace::of(&self.span)) {
                    headers.insert(TRACE_PARENT, parent);
                }
                grant.sent();
                let post = router.client.post(url, headers, self.body);
                let response = timeout_at(due, post).await.map_err(late)??;
                if let Work::Embeddings(_) = work {
                    let most = router.config.embeddings_max_bytes;
                    let body = limited(response, most);
                    return timeout_at(due, body).await.map_err(late)?.map(Done::Embedded);
                }
                let most = router.config.event_max_bytes;
                let parser = Parser::new(provider, &deployment.name, self.id, most);
                Source::Http { response, parser: Box::new(parser) }
            }
        };
        let patience = Patience {
            first_event: journey.alias.config.first_event(),
            silence: journey.alias.config.silence(),
        };
        let deployment = Arc::clone(deployment);
        let mut stream =
            OpenStream::new(deployment, self.id, source, patience, self.started, grant, self.span);
        match stream.begin(due).await {
            Ok(()) => Ok(Done::Begun(Box::new(stream))),
            Err(error) => {
                stream.hush();
                Err(error)
            }
        }
    }
}

fn request_id(attempt: Uuid) -> HeaderValue {
    let mut text = Uuid::encode_buffer();
    HeaderValue::from_str(attempt.hyphenated().encode_lower(&mut text))
        .unwrap_or(HeaderValue::from_static("unknown"))
}

impl Journey<'_> {
    pub(super) fn tell(&self, deployment: &Deployment, error: &LlmError, started: Instant, span: &Span) {
        tell_error(span, error.code);
        count(Metric::LlmAttempts, 1, &[&deployment.name, error.code]);
        if error.class.trips_breaker() {
            external(System::Model, &deployment.name, Some(error.code));
        }
        let attributes = [self.operation(), deployment.provider, &*deployment.model, error.code];
        time(Metric::GenAiDuration, started.elapsed(), &attributes);
        if error.class != ErrorClass::Cancelled {
            tracing::info!(
                code = "llm.attempt_failed",
                error.code = error.code,
                provider.status = error.status,
                deployment = &*deployment.name,
                alias = self.alias.name,
                elapsed_ms = started.elapsed().as_millis(),
                "a call to a model failed"
            );
        }
    }

    pub(super) fn operation(&self) -> &'static str {
        match self.work {
            Work::Answer(_) => "chat",
            Work::Embeddings(_) => "embeddings",
        }
    }

    pub(super) fn span(&self, deployment: &Deployment) -> Span {
        tracing::info_span!(
            "model call",
            otel.name = format!("{} {}", self.operation(), deployment.model),
            otel.kind = "client",
            otel.status_code = tracing::field::Empty,
            server.address = deployment.url.as_ref().and_then(|url| url.host_str()),
            server.port = deployment.url.as_ref().and_then(|url| url.port_or_known_default()),
            gen_ai.operation.name = self.operation(),
            gen_ai.provider.name = deployment.provider,
            gen_ai.request.model = &*deployment.model,
            gen_ai.request.stream = matches!(self.work, Work::Answer(_)),
            colloquy.deployment = &*deployment.name,
            gen_ai.usage.input_tokens = tracing::field::Empty,
            gen_ai.usage.output_tokens = tracing::field::Empty,
            gen_ai.usage.cache_read.input_tokens = tracing::field::Empty,
            gen_ai.usage.cache_creation.input_tokens = tracing::field::Empty,
            gen_ai.usage.reasoning.output_tokens = tracing::field::Empty,
            gen_ai.response.time_to_first_chunk = tracing::field::Empty,
            gen_ai.response.finish_reasons = tracing::field::Empty,
            error.type = tracing::field::Empty,
        )
    }
}

/// Notes in a call's span what it failed of. A caller that left is no failure of the call.
pub(in crate::llm) fn tell_error(span: &Span, code: &str) {
    span.record("error.type", code);
    if code != ErrorClass::Cancelled.code() {
        span.record("otel.status_code", "ERROR");
    }
}
