//! An app on a port of its own, and a client that writes bytes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::functions::{App, HostFile, HostSettings, Manifest, ServeError, ServeOptions, Settlement, bind};

pub(super) const HOST_HEADERS: &str = "User-Agent: Azure-Functions-Host/4.1052.200\r\n\
     X-Azure-Functions-InvocationId: 8d1f\r\n\
     X-Azure-Functions-HostVersion: 4.1052.200\r\n\
     Content-Type: application/json; charset=utf-8\r\n";

/// Options as an old process has them, with `api` as prefix.
pub(super) fn options() -> ServeOptions {
    let settings = HostSettings::from_lookup(|_| None).expect("defaults");
    let manifest = Manifest { host: HostFile::default(), bindings: BTreeMap::new() };
    let mut options = ServeOptions::new(&manifest, &settings);
    options.started = Instant::now().checked_sub(Duration::from_secs(3600)).unwrap_or_else(Instant::now);
    options
}

pub(super) struct Running {
    pub(super) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinSet<Result<(), ServeError>>,
}

pub(super) fn serve(app: App) -> Running {
    serve_with(app, options())
}

pub(super) fn serve_with(app: App, options: ServeOptions) -> Running {
    let listener = bind(0).expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (stop, stopped) = oneshot::channel::<()>();
    let mut serving = JoinSet::new();
    serving.spawn(app.serve(listener, options.stop_when(stopped.map(|_| ()))));
    Running { address, stop: Some(stop), serving }
}

impl Running {
    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the app listens")
    }

    /// One request on a connection of its own. `head` is the request line and headers without the final empty
    /// line.
    pub(super) async fn send(&self, head: &str, body: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let head = format!("{head}Host: 127.0.0.1\r\nConnection: close\r\n{length}\r\n");
        stream.write_all(head.as_bytes()).await.expect("head sent");
        // A refusal may come, and the connection go, before the body is taken.
        stream.write_all(body).await.ok();
        read_answer(&mut stream).await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\n"), b"").await
    }

    /// An envelope as the host posts it.
    pub(super) async fn envelope(&self, function: &str, body: &[u8]) -> Answer {
        self.send(&format!("POST /{function} HTTP/1.1\r\n{HOST_HEADERS}"), body).await
    }

    pub(super) fn stop(&mut self) {
        self.stop.take().expect("stopped once").send(()).expect("still serving");
    }

    pub(super) async fn ended(mut self) -> Result<(), ServeError> {
        self.serving.join_next().await.expect("one task").expect("no panic")
    }
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Of a problem: its type.
    pub(super) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"), "{self:?}");
        assert!(problem["request_id"].is_string(), "{problem}");
        let code = problem["type"].as_str().and_then(|t| t.strip_prefix("/problems/"));
        code.unwrap_or_else(|| panic!("no type in {problem}")).to_owned()
    }

    /// Of a failed invocation: its code.
    pub(super) fn failure(&self) -> String {
        assert_eq!((self.status, self.problem().as_str()), (500, "invocation-failed"), "{self:?}");
        let detail = self.json()["detail"].as_str().expect("a detail").to_owned();
        detail.split_once(": ").expect("a code").0.to_owned()
    }

    /// Of a successful invocation: the one line of its log. Checks all that the host needs.
    pub(super) fn done(&self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert!(self.header("x-request-id").is_some(), "{self:?}");
        let result = self.json();
        assert_eq!(result["Outputs"], serde_json::json!({}));
        assert_eq!(result["ReturnValue"], serde_json::Value::Null);
        assert!(result.as_object().is_some_and(|members| members.contains_key("ReturnValue")));
        result["Logs"][0].as_str().expect("a line").to_owned()
    }
}

pub(super) async fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A peer that closes with our body unread resets; what it answered before that counts.
    stream.read_to_end(&mut bytes).await.ok();
    let end =
        bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or_else(|| panic!("no answer: {bytes:?}"));
    let head = String::from_utf8(bytes[..end].to_vec()).expect("an ASCII head");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    Answer { status, head, body: bytes[end + 4..].to_vec() }
}

/// Remembers what it was asked, and answers as told.
#[derive(Clone, Default)]
pub(super) struct Ledger {
    pub(super) entries: Arc<Mutex<Vec<String>>>,
    pub(super) failing: bool,
    pub(super) panicking: bool,
    pub(super) stuck: bool,
}

impl Ledger {
    pub(super) fn read(&self) -> Vec<String> {
        self.entries.lock().expect("not poisoned").clone()
    }

    fn enter(&self, entry: String) -> BoxFuture<'_, Result<(), String>> {
        async move {
            assert!(!self.panicking, "told to panic");
            self.entries.lock().expect("not poisoned").push(entry);
            if self.stuck {
                std::future::pending::<()>().await;
            }
            if self.failing { Err("the queue is away".to_owned()) } else { Ok(()) }
        }
        .boxed()
    }
}

impl Settlement for Ledger {
    fn retry<'a>(
        &'a self,
        function: &'a str,
        queue: &'a str,
        text: &'a str,
        after: Option<Duration>,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<(), String>> {
        self.enter(format!("retry {function} {queue} {text} {after:?} {reason}"))
    }

    fn dead_letter<'a>(
        &'a self,
        function: &'a str,
        queue: &'a str,
        text: &'a str,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<(), String>> {
        self.enter(format!("dead-letter {function} {queue} {text} {reason}"))
    }
}
