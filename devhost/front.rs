//! The HTTP front: routes to functions, the host's own endpoints.

pub mod admin;
mod body;
mod enveloped;
mod exchange;
mod forward;
mod pool;
mod proxy;
mod routes;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::functions::{Function, HttpMode, Trigger};
use crate::host_json::HostConfig;
use crate::invoker::{HOST_VERSION, Invoker, invocation_id};
use crate::log;
use crate::runner::Runner;
use body::Body;
use exchange::{Exchange, Failure, answer, content_length};
use pool::Pool;
use routes::Routes;

/// How long a client may take to send its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Everything requests are answered from.
pub struct Front {
    pub functions: Vec<Arc<Function>>,
    pub errors: Vec<(String, String)>,
    pub config: HostConfig,
    pub host_id: String,
    pub base: String,
    pub body_limit: u64,
    pub invoker: Invoker,
    pub runner: Arc<Runner>,
    pub tasks: TaskTracker,
    pool: Pool,
    pool_host: String,
    routes: Routes,
    started: Instant,
}

/// What a front is made of.
pub struct Parts {
    pub functions: Vec<Arc<Function>>,
    pub errors: Vec<(String, String)>,
    pub config: HostConfig,
    pub host_id: String,
    pub base: String,
    pub body_limit: u64,
    pub invoker: Invoker,
    pub runner: Arc<Runner>,
    pub tasks: TaskTracker,
}

impl Front {
    pub fn new(parts: Parts) -> Self {
        let Parts { functions, mut errors, config, host_id, base, body_limit, invoker, runner, tasks } =
            parts;
        let (routes, route_errors) = Routes::new(&functions, &config.route_prefix);
        for (function, reason) in &route_errors {
            log::error(format!("The '{function}' function is in error: {reason}"));
        }
        errors.extend(route_errors);
        let address = invoker.handler().address();
        let pool = Pool::new(address, tasks.clone());
        Front {
            functions,
            errors,
            config,
            host_id,
            base,
            body_limit,
            invoker,
            runner,
            tasks,
            pool,
            pool_host: address.to_string(),
            routes,
            started: Instant::now(),
        }
    }

    /// Accepts connections until `stop`; connections are then dropped, as the host drops them.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    // Only a matter of delay.
                    stream.set_nodelay(true).ok();
                    let front = Arc::clone(&self);
                    let stop = stop.clone();
                    self.tasks.spawn(async move {
                        let service = service_fn(|request| {
                            let front = Arc::clone(&front);
                            async move { Ok::<_, std::convert::Infallible>(front.answer(request, peer).await) }
                        });
                        let mut server = http1::Builder::new();
                        server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
                        tokio::select! {
                            // What breaks a client's connection is the client's affair.
                            result = server.serve_connection(TokioIo::new(stream), service) => drop(result),
                            () = stop.cancelled() => {}
                        }
                    });
                }
                Err(cause) => {
                    log::error(format!("cannot accept a connection: {cause}"));
                    // Out of file descriptors, most likely: some must be closed first.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        let exchange = Exchange { id: invocation_id(), peer };
        let line = format!("{} {}", request.method(), request.uri().path());
        match self.dispatch(request, &exchange).await {
            Ok(response) => response,
            Err(failure) => {
                let level = if failure.status.is_server_error() {
                    log::Level::Error
                } else {
                    log::Level::Information
                };
                log::stamped(
                    level,
                    &format!("{line} answered {}: {}", failure.status.as_u16(), failure.reason),
                );
                failure.response()
            }
        }
    }

    async fn dispatch(
        self: Arc<Self>,
        request: Request<Incoming>,
        exchange: &Exchange,
    ) -> Result<Response<Body>, Failure> {
        if content_length(request.headers()).is_some_and(|length| length > self.body_limit) {
            return Err(Failure::too_large(self.body_limit));
        }
        let path = request.uri().path();
        if path.split('/').nth(1).is_some_and(|first| first.eq_ignore_ascii_case("admin")) {
            return admin::admin(&self, request, exchange).await;
        }
        let Some((function, params)) = self.routes.find(request.method(), path) else {
            return match path {
                "/" => Ok(answer(
                    StatusCode::OK,
                    body::full("Your Functions 4.0 app is up and running (devhost)\n"),
                )),
                _ => Ok(answer(StatusCode::NOT_FOUND, body::empty())),
            };
        };
        let function = Arc::clone(function);
        match function.http_mode(&self.config.handler) {
            HttpMode::Proxy => {
                self.logged(&function, exchange, proxy::proxy(&self, &function, request, exchange)).await
            }
            HttpMode::Forward => {
                self.logged(&function, exchange, forward::forward(&self, &function, request, exchange)).await
            }
            HttpMode::Envelope => enveloped::enveloped(&self, &function, &params, request).await,
        }
    }

    /// The lines the host writes about an HTTP invocation; any answer of the handler is success.
    async fn logged(
        &self,
        function: &Function,
        exchange: &Exchange,
        run: impl Future<Output = Result<Response<Body>, Failure>>,
    ) -> Result<Response<Body>, Failure> {
        let (name, id) = (&function.name, &exchange.id);
        log::information(format!(
            "Executing 'Functions.{name}' (Reason='This function was programmatically called via the host APIs.', Id={id})"
        ));
        let started = Instant::now();
        let result = run.await;
        let took = started.elapsed().as_millis();
        match &result {
            Ok(response) => log::information(format!(
                "Executed 'Functions.{name}' (Succeeded, Id={id}, Duration={took}ms, Status={})",
                response.status().as_u16()
            )),
            Err(failure) => log::error(format!(
                "Executed 'Functions.{name}' (Failed, Id={id}, Duration={took}ms): {}",
                failure.reason
            )),
        }
        result
    }

    /// Which start of the handler is ready, once one is.
    async fn generation(&self) -> Result<u64, Failure> {
        self.invoker.handler().ready().await.map_err(|cause| Failure::internal(cause.to_string()))
    }

    fn pool_host(&self) -> &str {
        &self.pool_host
    }

    /// A loaded function by name, in any case.
    fn function(&self, name: &str) -> Result<Arc<Function>, Failure> {
        let found = self.functions.iter().find(|function| function.name.eq_ignore_ascii_case(name));
        found
            .cloned()
            .ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, format!("there is no function {name}")))
    }

    fn describe(&self, function: &Function) -> Value {
        let route = match &function.trigger {
            Trigger::Http { route, .. } => {
                let parts = [self.base.as_str(), &self.config.route_prefix, route.trim_matches('/')];
                Value::from(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/"))
            }
            _ => Value::Null,
        };
        json!({"name": function.name, "config": function.config, "invoke_url_template": route, "language": "Custom", "isDisabled": function.disabled})
    }

    fn load_errors(&self, name: &str) -> Result<Value, Failure> {
        let errors: Vec<&str> = self
            .errors
            .iter()
            .filter(|(function, _)| function.eq_ignore_ascii_case(name))
            .map(|(_, reason)| reason.as_str())
            .collect();
        if errors.is_empty() {
            self.function(name)?;
            return Ok(json!({}));
        }
        Ok(json!({"errors": errors}))
    }

    fn status(&self) -> Value {
        let uptime = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        json!({"id": self.host_id, "state": "Running", "version": HOST_VERSION, "versionDetails": "devhost", "processUptime": uptime})
    }
}
