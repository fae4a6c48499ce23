//! Load over HTTP/1.1 that costs as little as it can: requests are written as prepared bytes with a number put in, answers
//! are read to their end and their status is counted. One thread.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use url::Url;

/// Digits that stand for [`MARK`] in a body, so that every body has the same length.
const DIGITS: usize = 16;
const MARK: &[u8] = b"{n}";

/// So many requests, or as many as can be within the time.
#[derive(clap::Args)]
pub struct Load {
    /// An address to ask; several take turns, connection by connection
    #[arg(long, required = true)]
    url: Vec<Url>,
    #[arg(long, default_value = "POST")]
    method: String,
    /// Requests under way at once
    #[arg(long, default_value_t = 1)]
    connections: usize,
    #[arg(long, conflicts_with = "seconds", required_unless_present = "seconds")]
    requests: Option<u64>,
    #[arg(long)]
    seconds: Option<f64>,
    /// A file with the body; each `{n}` in it becomes the request's number, as 16 digits
    #[arg(long)]
    body: Option<PathBuf>,
    /// The first request's number
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// `name: value`
    #[arg(long = "header")]
    headers: Vec<String>,
    /// Signs as Stripe does, with this secret
    #[arg(long)]
    stripe: Option<String>,
    /// Ends at the first answer that has no status 2xx
    #[arg(long)]
    strict: bool,
}

impl Load {
    pub async fn run(self) -> anyhow::Result<()> {
        let body = self.body.as_ref().map(std::fs::read).transpose()?.unwrap_or_default();
        let (load, body, next) = (Rc::new(self), Rc::new(body), Rc::new(AtomicU64::new(0)));
        let (tasks, started) = (LocalSet::new(), Instant::now());
        let connections: Vec<_> = (0..load.connections)
            .map(|nth| {
                let (load, body, next) = (Rc::clone(&load), Rc::clone(&body), Rc::clone(&next));
                tasks.spawn_local(async move {
                    let url = &load.url[nth % load.url.len()];
                    Connection::open(&load, url, &body).await?.ask(&load, &next, started).await
                })
            })
            .collect();
        let (mut took, mut statuses) = (Vec::new(), BTreeMap::<u16, u64>::new());
        tasks
            .run_until(async {
                for connection in connections {
                    for (status, time) in connection.await?? {
                        *statuses.entry(status).or_default() += 1;
                        took.push(time);
                    }
                }
                anyhow::Ok(())
            })
            .await?;
        let seconds = started.elapsed().as_secs_f64();
        took.sort_unstable();
        let at = |thousandths: usize| {
            let time = took.get(took.len() * thousandths / 1_000).copied().unwrap_or_default();
            time.as_secs_f64() * 1e6
        };
        println!(
            "{}",
            json!({ "requests": took.len(), "seconds": seconds, "statuses": statuses,
                    "p50_us": at(500), "p99_us": at(990), "p999_us": at(999) })
        );
        Ok(())
    }

    /// Whether one more request is wanted, and its number.
    fn another(&self, next: &AtomicU64, started: Instant) -> Option<u64> {
        let nth = next.fetch_add(1, Ordering::Relaxed);
        let wanted = match (self.requests, self.seconds) {
            (Some(requests), _) => nth < requests,
            (None, Some(seconds)) => started.elapsed().as_secs_f64() < seconds,
            (None, None) => false,
        };
        wanted.then_some(self.from + nth)
    }
}

/// A connection with its request, ready to be written.
struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    /// Where the body begins, where in the request numbers stand, and where the signature does.
    body: usize,
    numbers: Vec<usize>,
    signature: usize,
    /// Keyed, and given the time it signs.
    mac: Option<Hmac<Sha256>>,
    answer: Vec<u8>,
}

impl Connection {
    async fn open(load: &Load, url: &Url, body: &[u8]) -> anyhow::Result<Self> {
        let (host, port) = (url.host_str().context("a host")?, url.port().context("a port")?);
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let mut head = format!("{} {path} HTTP/1.1\r\nhost: {host}:{port}\r\n", load.method);
        for header in &load.headers {
            head.push_str(&format!("{header}\r\n"));
        }
        let (mut signature, mut mac) = (0, None);
        if let Some(secret) = &load.stripe {
            let at = jiff::Timestamp::now().as_second();
            head.push_str(&format!("stripe-signature: t={at},v1="));
            signature = head.len();
            head.push_str(&format!("{}\r\n", "0".repeat(64)));
            let mut keyed = Hmac::<Sha256>::new_from_slice(secret.as_bytes())?;
            keyed.update(format!("{at}.").as_bytes());
            mac = Some(keyed);
        }
        let (mut filled, mut numbers, mut rest) = (Vec::with_capacity(body.len()), Vec::new(), body);
        while let Some(found) = memchr::memmem::find(rest, MARK) {
            filled.extend_from_slice(&rest[..found]);
            numbers.push(filled.len());
            filled.extend_from_slice(&[b'0'; DIGITS]);
            rest = &rest[found + MARK.len()..];
        }
        filled.extend_from_slice(rest);
        if !filled.is_empty() {
            head.push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n", filled.len()));
        }
        head.push_str("\r\n");
        let (mut request, body) = (Vec::from(head.as_bytes()), head.len());
        numbers.iter_mut().for_each(|at| *at += body);
        request.extend_from_slice(&filled);
        Ok(Self { stream, request, body, numbers, signature, mac, answer: Vec::with_capacity(64 * 1024) })
    }

    /// Asks while more is wanted. Gives each answer's status, and how long it took.
    async fn ask(
        mut self,
        load: &Load,
        next: &AtomicU64,
        started: Instant,
    ) -> anyhow::Result<Vec<(u16, Duration)>> {
        let mut answers = Vec::new();
        while let Some(number) = load.another(next, started) {
            self.prepare(number);
            let asked = Instant::now();
            self.stream.write_all(&self.request).await?;
            let status = self.read().await?;
            answers.push((status, asked.elapsed()));
            ensure!(
                !load.strict || (200..300).contains(&status),
                "{status}: {}",
                String::from_utf8_lossy(&self.answer)
            );
        }
        Ok(answers)
    }

    fn prepare(&mut self, number: u64) {
        let digits = format!("{number:0DIGITS$}");
        for at in &self.numbers {
            self.request[*at..at + DIGITS].copy_from_slice(digits.as_bytes());
        }
        if let Some(mac) = &self.mac {
            let mut mac = mac.clone();
            mac.update(&self.request[self.body..]);
            for (nth, byte) in mac.finalize().into_bytes().into_iter().enumerate() {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let at = self.signature + 2 * nth;
                self.request[at] = HEX[usize::from(byte >> 4)];
                self.request[at + 1] = HEX[usize::from(byte & 15)];
            }
        }
    }

    /// One answer to its end. Gives its status.
    async fn read(&mut self) -> anyhow::Result<u16> {
        self.answer.clear();
        let (status, head, length) = loop {
            if let Some(end) = memchr::memmem::find(&self.answer, b"\r\n\r\n") {
                let head = std::str::from_utf8(&self.answer[..end])?;
                let status = head.get(9..12).context("a status")?.parse()?;
                break (status, end + 4, length(head));
            }
            self.more().await?;
        };
        match length {
            Some(length) => {
                while self.answer.len() < head + length {
                    self.more().await?;
                }
            }
            // Chunked: what is asked for here never has this inside.
            None => {
                while !self.answer[head..].ends_with(b"0\r\n\r\n") {
                    self.more().await?;
                }
            }
        }
        Ok(status)
    }

    async fn more(&mut self) -> anyhow::Result<()> {
        ensure!(self.stream.read_buf(&mut self.answer).await? > 0, "the connection was closed");
        Ok(())
    }
}

/// How long the body is; none if it comes in chunks.
fn length(head: &str) -> Option<usize> {
    let mut length = Some(0);
    for line in head.lines().skip(1) {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok();
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return None;
        }
    }
    length
}
