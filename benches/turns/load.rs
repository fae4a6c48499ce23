//! Clients.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::StreamExt;
use tokio::task::JoinSet;

use crate::parts::KEY;

/// What one turn took, on the clock.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    pub first: Duration,
    pub whole: Duration,
}

/// What is asked for, and how its end is known.
#[derive(Clone, Debug)]
pub struct Ask {
    pub url: String,
    pub body: String,
    /// The stream must have so many of these.
    pub piece: &'static [u8],
    pub pieces: usize,
}

/// A request of about 1 KB.
fn input() -> String {
    "Please tell me about the sea. ".repeat(30)
}

impl Ask {
    /// Of the bare provider.
    pub fn provider(url: &str, pieces: usize) -> Self {
        let body = serde_json::json!({ "model": "fake", "stream": true, "stream_options": { "include_usage": true },
                                       "messages": [{ "role": "user", "content": input() }] });
        Self {
            url: format!("{url}/chat/completions"),
            body: body.to_string(),
            piece: br#"{"content":"w"#,
            pieces,
        }
    }

    /// Of the server.
    pub fn server(address: &str, store: bool, pieces: usize) -> Self {
        let body = serde_json::json!({ "model": "fake", "stream": true, "store": store, "input": input() });
        let url = format!("{address}/v1/responses");
        Self { url, body: body.to_string(), piece: b"event: response.output_text.delta", pieces }
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
            if first.is_none() && find(&received, self.piece) {
                first = Some(started.elapsed());
            }
        }
        let whole = started.elapsed();
        let count = received.windows(self.piece.len()).filter(|window| *window == self.piece).count();
        ensure!(count == self.pieces, "{count} of {} pieces", self.pieces);
        ensure!(received.ends_with(b"data: [DONE]\n\n"), "the stream has no end");
        Ok(Took { first: first.context("no piece")?, whole })
    }

    /// So many, so many at a time.
    pub async fn many(&self, turns: usize, at_once: usize) -> anyhow::Result<Vec<Took>> {
        let client = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build()?;
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

fn find(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}

/// The median and the 99th of a hundred.
pub fn quantiles(mut took: Vec<Duration>) -> (Duration, Duration) {
    took.sort_unstable();
    let at = |share: usize| took.get(took.len() * share / 100).copied().unwrap_or_default();
    (at(50), at(99))
}
