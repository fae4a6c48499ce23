//! The HTTP side of a fake provider.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame as BodyFrame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::connection::Socket;
use super::play::play;
use super::refusal;
use super::{Script, Wire};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Value,
}

/// What would stand on the bill: every request that was answered with 200 or refused by the content filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charged {
    pub requests: u64,
    pub input: u64,
    /// The usage's number where the answer went out whole, else the pieces that did.
    pub output: u64,
}

/// A request, and what became of it.
#[derive(Clone, Debug)]
pub struct Answered {
    /// What the caller calls it: `x-client-request-id`.
    pub attempt: Option<String>,
    /// The name of the script that it was answered by.
    pub script: &'static str,
    pub at: Instant,
    /// Whether it would stand on the bill.
    pub charged: bool,
    /// Input and output, if the answer told its usage at its end.
    pub told: Option<(u64, u64)>,
}

#[derive(Default)]
pub struct State {
    next: VecDeque<Script>,
    always: Script,
    seen: Vec<Seen>,
    pub charged: Charged,
    /// Beside `seen`.
    pub answered: Vec<Answered>,
    connections: u64,
    pub abandoned: u64,
    /// The only token that is taken, if not all are.
    token: Option<String>,
    /// What was refused, in the vendor's words.
    refused: Vec<String>,
}

/// Says hello until told otherwise.
pub struct FakeProvider {
    wire: Wire,
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl FakeProvider {
    pub fn start(wire: Wire) -> Self {
        Self::start_at(wire, "127.0.0.1:0")
    }

    /// On a thread and runtime of its own, so that it serves other processes and blocked tests too.
    pub fn start_at(wire: Wire, address: &str) -> Self {
        let listener = std::net::TcpListener::bind(address).expect("a port");
        listener.set_nonblocking(true).expect("a listener");
        let address = listener.local_addr().expect("its number");
        let state = Arc::new(Mutex::new(State { always: Script::says("Hello there"), ..State::default() }));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = accept(listener, wire, shared) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { wire, address, state, stop: Some(stop), thread: Some(thread) }
    }

    /// What `url` is in `colloquy.toml`.
    pub fn url(&self) -> String {
        match self.wire {
            Wire::Chat | Wire::Responses => format!("http://{}/v1", self.address),
            Wire::Azure | Wire::Anthropic => format!("http://{}", self.address),
        }
    }

    /// A table `[deployments.{name}]`, with `auth = "none"`.
    pub fn deployment(&self, name: &str, more: &str) -> String {
        format!(
            "[deployments.{name}]\nprovider = \"{}\"\nurl = \"{}\"\nmodel = \"m-{name}\"\nauth = \"none\"\n{more}\n",
            self.wire.provider(),
            self.url()
        )
    }

    /// The next requests are answered so, one each; then comes what [`Self::always`] said.
    pub fn next(&self, scripts: impl IntoIterator<Item = Script>) {
        self.state.lock().unwrap().next.extend(scripts);
    }

    pub fn always(&self, script: Script) {
        self.state.lock().unwrap().always = script;
    }

    /// All requests so far, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    pub fn charged(&self) -> Charged {
        self.state.lock().unwrap().charged
    }

    /// What became of all requests so far, in their order.
    pub fn answered(&self) -> Vec<Answered> {
        self.state.lock().unwrap().answered.clone()
    }

    /// From now on only this token is taken, as by a resource that wants one audience.
    pub fn accept_token(&self, token: &str) {
        self.state.lock().unwrap().token = Some(token.to_owned());
    }

    /// What was refused so far because the vendor would refuse it, in its words.
    pub fn refused(&self) -> Vec<String> {
        self.state.lock().unwrap().refused.clone()
    }

    /// Connections taken so far.
    pub fn connections(&self) -> u64 {
        self.state.lock().unwrap().connections
    }

    /// Answers whose reader went away before their end.
    pub fn abandoned(&self) -> u64 {
        self.state.lock().unwrap().abandoned
    }
}

impl Drop for FakeProvider {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the provider's thread");
        }
    }
}

async fn accept(listener: TcpListener, wire: Wire, state: Arc<Mutex<State>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        stream.set_nodelay(true).expect("TCP_NODELAY");
        state.lock().unwrap().connections += 1;
        let reset = Arc::new(AtomicBool::new(false));
        let io = TokioIo::new(Socket { stream, reset: Arc::clone(&reset) });
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, wire, Arc::clone(&state), Arc::clone(&reset)));
            // A connection that ends in an error is often what was asked for.
            drop(hyper::server::conn::http1::Builder::new().serve_connection(io, service).await);
        });
    }
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, io::Error>;

fn whole(wire: Wire, status: u16, headers: &[(&'static str, String)], body: &Value) -> Response<Body> {
    let mut headers = headers.to_vec();
    let mut envelope = body.clone();
    if wire == Wire::Anthropic && status >= 400 {
        // What a script says only in general.
        if body["error"]["type"] == "error" {
            envelope = refusal::error(wire, status, body["error"]["message"].as_str().unwrap_or_default());
        }
        envelope["request_id"] = json!("req_up");
        headers.push(("request-id", "req_up".to_owned()));
    }
    let body = envelope;
    let mut response = Response::builder().status(status).header("content-type", "application/json");
    for (name, value) in headers {
        response = response.header(name, value);
    }
    let body = http_body_util::Full::new(Bytes::from(body.to_string())).map_err(|never| match never {});
    response.body(body.boxed_unsync()).expect("a response")
}

async fn answer(
    request: Request<Incoming>,
    wire: Wire,
    state: Arc<Mutex<State>>,
    reset: Arc<AtomicBool>,
) -> io::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let path = parts.uri.to_string();
    let embeds = path.contains("/embeddings");
    let (script, number, refused) = {
        let mut state = state.lock().unwrap();
        let refused = refusal::of_token(&parts.headers, state.token.as_deref());
        let refused = refused.or_else(|| refusal::of(wire, &path, &body).filter(|_| !embeds));
        let script = state.next.pop_front().unwrap_or_else(|| state.always.clone());
        let attempt = parts.headers.get("x-client-request-id").and_then(|id| id.to_str().ok());
        let attempt = attempt.map(str::to_owned);
        let answered =
            Answered { attempt, script: script.name, at: Instant::now(), charged: false, told: None };
        state.answered.push(answered);
        state.seen.push(Seen { path, headers: parts.headers, body });
        if let Some((_, body)) = &refused {
            state.refused.push(body["error"]["message"].as_str().unwrap_or_default().to_owned());
        }
        (script, state.seen.len() - 1, refused)
    };
    tokio::time::sleep(script.delay).await;
    if script.hangs_up {
        reset.store(true, Ordering::Release);
        return Err(io::Error::other("hung up on purpose"));
    }
    let limits = script.limits.as_ref().map(|limits| limits.headers(wire)).unwrap_or_default();
    if let Some((status, headers, body)) = &script.failure {
        if body["error"]["code"] == "content_filter" {
            charge(&state, &script, number);
        }
        return Ok(whole(wire, *status, &[&headers[..], &limits].concat(), body));
    }
    // A failure that was asked for needs no reason.
    if let Some((status, body)) = &refused {
        return Ok(whole(wire, *status, &limits, body));
    }
    charge(&state, &script, number);
    if embeds {
        let body = json!({"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.5]}],
            "model": "m", "usage": {"prompt_tokens": script.usage.0, "total_tokens": script.usage.0}});
        return Ok(whole(wire, 200, &limits, &body));
    }
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(play(script, wire, state, number, sender, reset));
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|frame: io::Result<Bytes>| (frame.map(BodyFrame::data), receiver))
    });
    let mut response = Response::builder().header("content-type", "text/event-stream");
    for (name, value) in limits {
        response = response.header(name, value);
    }
    Ok(response.body(StreamBody::new(frames).boxed_unsync()).expect("a response"))
}

fn charge(state: &Mutex<State>, script: &Script, number: usize) {
    let mut state = state.lock().unwrap();
    state.answered[number].charged = true;
    state.charged.requests += 1;
    state.charged.input += script.usage.0;
}
