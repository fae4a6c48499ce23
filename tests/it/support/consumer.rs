//! A receiver of callbacks: a real HTTP server that checks signatures, remembers everything, and misbehaves when asked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::signing::verify_standard;

/// Its secret unless another is given; also what [`super::FunctionApp`] signs with.
pub const CONSUMER_SECRET: &str = "whsec_Y29uc3VtZXItc2VjcmV0LW9mLXRoZS10ZXN0cy0wMDE=";

/// How one request is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    Status(u16),
    /// A status with headers: `Retry-After`, `Location`.
    With(u16, Vec<(&'static str, String)>),
    /// A status with a body of this many bytes.
    Long(u16, usize),
    /// Another answer, later.
    After(Duration, Box<Answer>),
    /// None, with the connection left open.
    Never,
    /// None, with the connection closed in the middle.
    Cut,
}

/// One request, as it came.
#[derive(Clone, Debug)]
pub struct Callback {
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub at: Instant,
    /// `webhook-id`, empty without one.
    pub id: String,
    /// Whether the signature is that of the consumer's secret and the timestamp within 300 s.
    pub verified: Result<(), String>,
    /// The status it was answered with; 0 for none.
    pub answered: u16,
}

impl Callback {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a callback's body is JSON")
    }
}

struct State {
    secrets: Vec<String>,
    callbacks: Vec<Callback>,
    next: VecDeque<Answer>,
    always: Answer,
}

/// Answers 200 until told otherwise.
pub struct Consumer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Consumer {
    pub async fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a listener");
        let address = listener.local_addr().expect("its number");
        let state = Arc::new(Mutex::new(State {
            secrets: vec![CONSUMER_SECRET.to_owned()],
            callbacks: Vec::new(),
            next: VecDeque::new(),
            always: Answer::Status(200),
        }));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let shared = Arc::clone(&state);
        // A thread of its own: a test that blocks on a command must not keep the consumer from answering it.
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = accept(listener, shared) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, state, stop: Some(stop), thread: Some(thread) }
    }

    /// The address of the target: `http://127.0.0.1:…/callbacks`.
    pub fn url(&self) -> String {
        format!("http://{}/callbacks", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Accepts signatures of any of these instead (`whsec_…`).
    pub fn trust(&self, secrets: &[&str]) {
        self.state.lock().unwrap().secrets = secrets.iter().map(|&secret| secret.to_owned()).collect();
    }

    /// The next requests are answered so, one each; then comes what [`Self::always`] said.
    pub fn next(&self, answers: impl IntoIterator<Item = Answer>) {
        self.state.lock().unwrap().next.extend(answers);
    }

    /// Every request without an answer of its own is answered so.
    pub fn always(&self, answer: Answer) {
        self.state.lock().unwrap().always = answer;
    }

    /// All requests so far, in order of arrival, also those answered with an error.
    pub fn callbacks(&self) -> Vec<Callback> {
        self.state.lock().unwrap().callbacks.clone()
    }

    /// Those answered with 2xx.
    pub fn accepted(&self) -> Vec<Callback> {
        let mut callbacks = self.callbacks();
        callbacks.retain(|callback| (200..300).contains(&callback.answered));
        callbacks
    }

    /// How many those are, without a copy of them.
    pub fn accepted_count(&self) -> usize {
        let callbacks = self.state.lock().unwrap();
        callbacks.callbacks.iter().filter(|callback| (200..300).contains(&callback.answered)).count()
    }

    /// How often each id was accepted.
    pub fn accepted_by_id(&self) -> BTreeMap<String, usize> {
        self.accepted().into_iter().fold(BTreeMap::new(), |mut counts, callback| {
            *counts.entry(callback.id).or_default() += 1;
            counts
        })
    }

    pub fn ids(&self) -> BTreeSet<String> {
        self.callbacks().into_iter().map(|callback| callback.id).collect()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        let service = service_fn(move |request| answer(request, Arc::clone(&state)));
        tokio::spawn(async move {
            // A caller that hangs up, or an answer that cuts it off, is what some tests are about.
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        });
    }
}

/// The error that makes hyper drop the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("cut")]
struct CutOff;

impl From<Infallible> for CutOff {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, CutOff> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Err(CutOff) };
    let body = body.to_bytes();
    let (answer, delay) = {
        let mut state = state.lock().unwrap();
        let (answer, delay) = settle(state.next.pop_front().unwrap_or_else(|| state.always.clone()));
        let callback = Callback {
            method: parts.method.to_string(),
            path: parts.uri.to_string(),
            id: text(&parts.headers, "webhook-id").to_owned(),
            verified: verify(&parts.headers, &body, &state.secrets),
            headers: parts.headers,
            body,
            at: Instant::now(),
            answered: match &answer {
                Answer::Status(status) | Answer::With(status, _) | Answer::Long(status, _) => *status,
                Answer::After(..) | Answer::Never | Answer::Cut => 0,
            },
        };
        state.callbacks.push(callback);
        (answer, delay)
    };
    tokio::time::sleep(delay).await;
    let (status, headers, length) = match answer {
        Answer::Status(status) => (status, Vec::new(), 0),
        Answer::With(status, headers) => (status, headers, 0),
        Answer::Long(status, length) => (status, Vec::new(), length),
        Answer::Never => std::future::pending().await,
        Answer::After(..) | Answer::Cut => return Err(CutOff),
    };
    let mut response = Response::new(Full::new(Bytes::from(vec![b'x'; length])));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::try_from(value).expect("a header's value"));
    }
    Ok(response)
}

/// Takes delays off an answer.
fn settle(mut answer: Answer) -> (Answer, Duration) {
    let mut delay = Duration::ZERO;
    while let Answer::After(time, inner) = answer {
        delay += time;
        answer = *inner;
    }
    (answer, delay)
}

/// As a consumer that follows Standard Webhooks does it.
fn verify(headers: &HeaderMap, body: &[u8], secrets: &[String]) -> Result<(), String> {
    let (id, at, signature) =
        (text(headers, "webhook-id"), text(headers, "webhook-timestamp"), text(headers, "webhook-signature"));
    let at: i64 = at.parse().map_err(|_| format!("webhook-timestamp is `{at}`"))?;
    let age = jiff::Timestamp::now().as_second() - at;
    if age.abs() > 300 {
        return Err(format!("signed {age} s ago"));
    }
    if secrets.iter().any(|secret| verify_standard(secret, id, at, body, signature).is_ok()) {
        Ok(())
    } else {
        Err(format!("`{signature}` was made with none of the {} secrets", secrets.len()))
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
