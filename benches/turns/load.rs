//! Clients.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::StreamExt;
use tokio::task::JoinSet;

use super::parts::KEY;

/// What is asked for: so many pieces, one every `pace` milliseconds or all at once, as a stream or as one JSON answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    pub pieces: usize,
    pub pace: u64,
    pub streamed: bool,
}

impl Shape {
    pub const fn json(pieces: usize) -> Self {
        Self { pieces, pace: 0, streamed: false }
    }

    pub const fn stream(pieces: usize, pace: u64) -> Self {
        Self { pieces, pace, streamed: true }
    }

    /// The model whose answers have this shape.
    pub fn model(self) -> String {
        format!("m-{}-{}", self.pieces, self.pace)
    }

    /// Where the provider gives such answers.
    pub fn path(self) -> String {
        format!("{}/{}", self.pieces, self.pace)
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match (self.streamed, self.pace) {
            (false, _) => format!("JSON, {} piece", self.pieces),
            (true, 0) => format!("stream, {} at once", self.pieces),
            (true, pace) => format!("stream, {}, {pace} ms apart", self.pieces),
        };
        f.pad(&text)
    }
}

/// What one turn took, on the clock.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    pub first: Duration,
    pub whole: Duration,
}

/// A request, and how its answer is known to be whole.
#[derive(Clone, Debug)]
pub struct Ask {
    pub url: String,
    pub body: String,
    /// The answer must have `pieces` of these.
    pub piece: &'static [u8],
    pub pieces: usize,
    /// What the answer ends with.
    end: &'static [u8],
}

/// A request of about 1 KB.
fn input() -> String {
    "Please tell me about the sea. ".repeat(30)
}

const DONE: &[u8] = b"data: [DONE]\n\n";

impl Ask {
    /// Of the bare provider, which streams in any case: what the server has to wait for.
    pub fn provider(url: &str, shape: Shape) -> Self {
        let body = serde_json::json!({ "model": "m", "stream": true, "stream_options": { "include_usage": true },
                                       "messages": [{ "role": "user", "content": input() }] });
        Self {
            url: format!("{url}/{}/chat/completions", shape.path()),
            body: body.to_string(),
            piece: br#"{"content":"w"#,
            pieces: shape.pieces,
            end: DONE,
        }
    }

    /// Of the server.
    pub fn server(address: &str, store: bool, shape: Shape) -> Self {
        let body = serde_json::json!({ "model": shape.model(), "stream": shape.streamed, "store": store,
                                       "input": input() });
        let (piece, end): (&[u8], &[u8]) =
            if shape.streamed { (b"event: response.output_text.delta", DONE) } else { (b"word ", b"}") };
        let url = format!("{address}/v1/responses");
        Self { url, body: body.to_string(), piece, pieces: shape.pieces, end }
    }

    /// Of a peer that speaks chat completions.
    pub fn peer(address: &str, shape: Shape) -> Self {
        let mut body = serde_json::json!({ "model": shape.model(), "stream": shape.streamed,
                                           "messages": [{ "role": "user", "content": input() }] });
        let (piece, end): (&[u8], &[u8]) = if shape.streamed {
            body["stream_options"] = serde_json::json!({ "include_usage": true });
            (br#""content":"w"#, DONE)
        } else {
            (b"word ", b"}")
        };
        let url = format!("{address}/chat/completions");
        Self { url, body: body.to_string(), piece, pieces: shape.pieces, end }
    }

    pub async fn once(&self, client: &reqwest::Client) -> anyhow::Result<Took> {
        let started = Instant::now();
        let request = client.post(&self.url).bearer_auth(KEY).header("content-type", "application/json");
        let answer = request.body(self.body.clone()).send().await?;
        ensure!(answer.status() == 200, "{}: {}", answer.status(), answer.text().await?);
        let mut stream = answer.bytes_stream();
        let (mut first, mut received) = (None, Vec::with_capacity(32 * 1024));
        while let Some(piece) = stream.next().await {
            received.extend_from_slice(&piece?);
            if first.is_none() && received.windows(self.piece.len()).any(|window| window == self.piece) {
                first = Some(started.elapsed());
            }
        }
        let whole = started.elapsed();
        let count = received.windows(self.piece.len()).filter(|window| *window == self.piece).count();
        ensure!(count == self.pieces, "{count} of {} pieces", self.pieces);
        ensure!(received.ends_with(self.end), "the answer has no end");
        Ok(Took { first: first.context("no piece")?, whole })
    }

    /// So many, so many at a time.
    pub async fn many(&self, turns: usize, at_once: usize) -> anyhow::Result<Vec<Took>> {
        let client = client()?;
        let mut tasks = JoinSet::new();
        for nth in 0..at_once {
            let (ask, client) = (self.clone(), client.clone());
            let share = turns / at_once + usize::from(nth < turns % at_once);
            tasks.spawn(async move {
                let mut took = Vec::with_capacity(share);
                for _ in 0..share {
                    took.push(ask.once(&client).await?);
                }
                anyhow::Ok(took)
            });
        }
        let mut all = Vec::with_capacity(turns);
        while let Some(task) = tasks.join_next().await {
            all.extend(task??);
        }
        Ok(all)
    }
}

pub fn client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().no_proxy().tcp_nodelay(true).build()
}

/// Times of many turns at their middle and towards their end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread {
    pub p50: Duration,
    pub p99: Duration,
    pub p999: Duration,
}

impl Spread {
    pub fn of(times: impl IntoIterator<Item = Duration>) -> Self {
        let mut times: Vec<_> = times.into_iter().collect();
        times.sort_unstable();
        let at =
            |thousandths: usize| times.get(times.len() * thousandths / 1_000).copied().unwrap_or_default();
        Self { p50: at(500), p99: at(990), p999: at(999) }
    }
}
