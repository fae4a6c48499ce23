//! What the tests of this module share: a real Azurite, and a stand-in server that misbehaves on demand.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use url::Url;

use super::{Storage, StorageAuth, StorageSettings};

/// The Azurite that scripts/test started.
pub fn settings() -> StorageSettings {
    let text = std::env::var("COLLOQUY_TEST_AZURITE")
        .expect("COLLOQUY_TEST_AZURITE is not set: run scripts/test, which starts Azurite and sets it");
    StorageSettings::from_connection_string(&text).expect("COLLOQUY_TEST_AZURITE")
}

/// A connection to the test Azurite, with patience: a busy machine is not what these tests are about.
pub fn azurite() -> Storage {
    Storage::new(settings()).expect("storage").with_timeout(Duration::from_mins(1))
}

/// A queue or container name no other test uses.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{}", uuid::Uuid::now_v7())
}

/// An account whose two services are at `endpoint`, entered with a signature that `SECRET_PART` begins.
pub fn account_at(endpoint: &Url, call_timeout: Duration) -> Storage {
    let settings = StorageSettings {
        queue_endpoint: endpoint.clone(),
        blob_endpoint: endpoint.clone(),
        auth: StorageAuth::Sas { account: "standin".to_owned(), key: SecretString::from("c2VjcmV0") },
        call_timeout,
    };
    Storage::new(settings).expect("storage")
}

/// An address where nothing listens.
pub async fn nowhere() -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    drop(listener);
    format!("http://{address}").parse().expect("url")
}

/// A request that a [`StandIn`] got.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub uri: String,
    pub headers: HeaderMap,
    pub connection: usize,
}

/// What a [`StandIn`] answers.
pub enum Reply {
    Answer(Response<Full<Bytes>>),
    /// The answer, once a permit can be had.
    When(Arc<Semaphore>, Response<Full<Bytes>>),
    /// Never.
    Stall,
    /// Closes the connection instead.
    Cut,
}

impl Reply {
    pub fn status(status: u16, body: impl Into<Bytes>) -> Self {
        Self::Answer(answer(status, body))
    }

    /// As storage reports errors.
    pub fn storage_error(status: u16, code: &str) -> Self {
        let mut response = answer(status, "");
        response.headers_mut().insert("x-ms-error-code", code.parse().expect("code"));
        Self::Answer(response)
    }
}

pub fn answer(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(body.into())).expect("response")
}

/// A local HTTP server that answers as told and remembers what it was asked. Gone when dropped.
pub struct StandIn {
    pub url: Url,
    seen: Arc<Mutex<Vec<Seen>>>,
    _tasks: JoinSet<()>,
}

impl StandIn {
    /// `reply` gets the number of the request, from 0.
    pub async fn start(reply: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address: SocketAddr = listener.local_addr().expect("address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (record, reply) = (Arc::clone(&seen), Arc::new(reply));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            for connection in 0.. {
                let (stream, _) = listener.accept().await.expect("accept");
                let (record, reply) = (Arc::clone(&record), Arc::clone(&reply));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (record, reply) = (Arc::clone(&record), Arc::clone(&reply));
                    async move {
                        let (parts, body) = request.into_parts();
                        body.collect().await.map_err(io::Error::other)?;
                        let (method, headers) = (parts.method, parts.headers);
                        let seen = Seen { method, uri: parts.uri.to_string(), headers, connection };
                        let number = {
                            let mut record = record.lock().expect("record");
                            record.push(seen.clone());
                            record.len() - 1
                        };
                        respond(reply(number, &seen)).await
                    }
                });
                connections.spawn(async move {
                    // A cut connection is an error here and the purpose of the test elsewhere.
                    drop(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        let url = format!("http://{address}").parse().expect("url");
        Self { url, seen, _tasks: tasks }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("record").clone()
    }

    /// Waits until `count` requests have come.
    pub async fn reached(&self, count: usize) {
        eventually("requests at the stand-in", || self.seen().len() >= count).await;
    }
}

async fn respond(reply: Reply) -> io::Result<Response<Full<Bytes>>> {
    match reply {
        Reply::Answer(response) => Ok(response),
        Reply::When(permits, response) => {
            permits.acquire().await.expect("permits").forget();
            Ok(response)
        }
        Reply::Stall => std::future::pending().await,
        Reply::Cut => Err(io::Error::other("cut")),
    }
}

/// Waits until `condition` holds, for at most 10 s.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

/// Everything this thread logs, at every level, spans included, from [`Logged::start`] on.
pub struct Logged {
    text: Buffer,
    _second: tracing::Dispatch,
    _guard: tracing::subscriber::DefaultGuard,
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Logged {
    pub fn start() -> Self {
        let text = Buffer::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_span_events(FmtSpan::CLOSE)
            .with_ansi(false)
            .with_writer(text.clone())
            .finish();
        let dispatch = tracing::Dispatch::new(subscriber);
        // While a process has just one subscriber, tracing asks whichever thread comes first whether it wants
        // a span, for all threads and for good: another test's thread would say no. With two it asks both.
        let second = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(io::sink);
        let second = tracing::Dispatch::new(second.finish());
        Self { text, _second: second, _guard: tracing::dispatcher::set_default(&dispatch) }
    }

    pub fn finish(self) -> String {
        let text = self.text.0.lock().expect("text").clone();
        String::from_utf8(text).expect("UTF-8")
    }
}

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("text").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Buffer {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
