//! Those who ask for turns and watch them: through any server, dropped at random, back where they were.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::{Value, json};

use super::upstream::MODELS;
use crate::support::server::API_KEY;
use crate::support::unique;

/// How long one turn is tried for.
const PATIENCE: Duration = Duration::from_secs(90);

/// How a turn is asked for and watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Manner {
    /// Streamed to its end, with drops in between.
    Streamed,
    /// The same as a background turn.
    Background,
    /// A background turn that nobody watches until it is over.
    Unwatched,
    /// One that its viewer leaves for good.
    Left,
    /// One that is cancelled in the middle.
    Cancelled,
    /// Not stored: watched until its end, or lost.
    NotStored,
}

const MANNERS: [Manner; 8] = [
    Manner::Streamed,
    Manner::Streamed,
    Manner::Streamed,
    Manner::Background,
    Manner::Unwatched,
    Manner::Left,
    Manner::Cancelled,
    Manner::NotStored,
];

/// What came of one turn, as far as its viewer could see.
#[derive(Debug, Default)]
pub struct Seen {
    pub id: Option<String>,
    pub stored: bool,
    /// In order; the number of each is its index.
    pub events: Vec<Value>,
    /// Whether the last of them is the last there is.
    pub whole: bool,
    /// The status and code of a refusal that stood.
    pub refused: Option<(u16, String)>,
    pub resumed: u32,
}

/// All of them.
pub struct Viewers {
    servers: Vec<String>,
    turns: usize,
    client: reqwest::Client,
}

/// What one request came to.
enum Came {
    /// The stream is over: its last event was seen.
    End,
    /// It broke, or was dropped.
    Broken,
    Refused(u16, String),
}

impl Viewers {
    pub fn new(servers: Vec<String>, turns: usize) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(1))
            .read_timeout(Duration::from_secs(5));
        Self { servers, turns, client: client.build().expect("a client") }
    }

    /// Runs all turns, so many at a time; every third is in one of a few conversations.
    pub async fn all(&self, at_once: usize) -> Vec<Seen> {
        let mut conversations = Vec::new();
        for _ in 0..(self.turns / 20).max(2) {
            conversations.push(self.conversation().await);
        }
        futures_util::stream::iter(0..self.turns)
            .map(|at| {
                let conversation = (at % 3 == 0).then(|| &*conversations[at % conversations.len()]);
                self.turn(MANNERS[at % MANNERS.len()], conversation)
            })
            .buffer_unordered(at_once)
            .collect()
            .await
    }

    fn somewhere(&self) -> &str {
        &self.servers[rand::random_range(0..self.servers.len())]
    }

    async fn conversation(&self) -> String {
        loop {
            let url = format!("{}/v1/conversations", self.somewhere());
            let answer = self.client.post(url).bearer_auth(API_KEY).json(&json!({})).send().await;
            if let Ok(answer) = answer
                && let Ok(body) = answer.json::<Value>().await
                && let Some(id) = body["id"].as_str()
            {
                return id.to_owned();
            }
            pause().await;
        }
    }

    async fn turn(&self, manner: Manner, conversation: Option<&str>) -> Seen {
        let mut seen = Seen { stored: manner != Manner::NotStored, ..Seen::default() };
        let mut body = json!({
            "model": MODELS[rand::random_range(0..MODELS.len())],
            "input": "Say something.",
            "stream": manner != Manner::Unwatched,
            "store": seen.stored,
            "background": matches!(manner, Manner::Background | Manner::Unwatched),
            "tools": [{ "type": "function", "name": "look_up", "parameters": {} }],
        });
        if body["background"] == true {
            body["callback"] = "crm".into();
        }
        if let Some(conversation) = conversation.filter(|_| seen.stored) {
            body["conversation"] = conversation.into();
        }
        let key = unique("turn");
        let until = Instant::now() + PATIENCE;
        let mut refusals = 0;
        let leaves = matches!(manner, Manner::Left | Manner::Cancelled);
        while Instant::now() < until {
            let post = self.client.post(format!("{}/v1/responses", self.somewhere())).json(&body);
            let post = post.header("idempotency-key", &key);
            let request = match &seen.id {
                None => post,
                Some(id) => {
                    seen.resumed += u32::from(!seen.events.is_empty());
                    let mut url = format!("{}/v1/responses/{id}?stream=true", self.somewhere());
                    if let Some(last) = seen.events.len().checked_sub(1) {
                        url += &format!("&starting_after={last}");
                    }
                    self.client.get(url)
                }
            };
            match self.watch(request, &mut seen, leaves || rand::random_bool(0.8)).await {
                Came::End => {
                    // Of one that nobody watches only the id is known; the account looks for its end.
                    seen.whole = !seen.events.is_empty();
                    return seen;
                }
                Came::Broken if seen.id.is_some() && !seen.stored => return seen,
                Came::Broken if seen.id.is_some() && manner == Manner::Left => return seen,
                Came::Broken if seen.id.is_some() && manner == Manner::Cancelled => {
                    self.cancel(seen.id.as_deref().unwrap_or_default(), until).await;
                }
                Came::Broken => {}
                Came::Refused(status, code) => {
                    // A lock goes away; that of a turn whose process died, with its lease.
                    let passing = code == "conversation_locked" || code == "database_unavailable";
                    refusals += u32::from(!passing);
                    seen.refused = Some((status, code));
                    if refusals >= 3 {
                        return seen;
                    }
                    pause().await;
                }
            }
            pause().await;
        }
        seen.refused.get_or_insert((0, "patience".to_owned()));
        seen
    }

    /// One request, and what comes of it until it ends or is dropped.
    async fn watch(&self, request: reqwest::RequestBuilder, seen: &mut Seen, drops: bool) -> Came {
        let Ok(answer) = request.bearer_auth(API_KEY).send().await else { return Came::Broken };
        let status = answer.status().as_u16();
        let kind = answer.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or("");
        if !kind.starts_with("text/event-stream") {
            let Ok(body) = answer.json::<Value>().await else { return Came::Broken };
            if status != 200 {
                let code = body["error"]["code"].as_str().unwrap_or("none").to_owned();
                return Came::Refused(status, code);
            }
            seen.refused = None;
            seen.id = body["id"].as_str().map(str::to_owned);
            return Came::End;
        }
        seen.refused = None;
        let most = if drops { rand::random_range(1..60) } else { usize::MAX };
        let mut count = 0;
        let mut buffer = Vec::new();
        let mut pieces = answer.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let Ok(piece) = piece else { return Came::Broken };
            buffer.extend_from_slice(&piece);
            while let Some(end) = buffer.windows(2).position(|two| two == b"\n\n") {
                let frame: Vec<u8> = buffer.drain(..end + 2).collect();
                let text = String::from_utf8(frame).expect("UTF-8");
                let Some(data) = text.lines().find_map(|line| line.strip_prefix("data: ")) else { continue };
                if data == "[DONE]" {
                    return Came::End;
                }
                let event: Value =
                    serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"));
                seen.take(event);
                count += 1;
                if count >= most {
                    return Came::Broken;
                }
            }
        }
        Came::Broken
    }

    async fn cancel(&self, id: &str, until: Instant) {
        while Instant::now() < until {
            let url = format!("{}/v1/responses/{id}/cancel", self.somewhere());
            let answer = self.client.post(url).bearer_auth(API_KEY).send().await;
            if answer.is_ok_and(|answer| answer.status() == 200) {
                return;
            }
            pause().await;
        }
    }

    /// One stored turn from one server, until that has no more to show.
    pub async fn once(server: &str, model: &str) -> Seen {
        let viewers = Self::new(vec![server.to_owned()], 0);
        let mut seen = Seen { stored: true, ..Seen::default() };
        let body = json!({ "model": model, "input": "Say something.", "stream": true });
        let request = viewers.client.post(format!("{server}/v1/responses")).json(&body);
        seen.whole = matches!(viewers.watch(request, &mut seen, false).await, Came::End);
        seen
    }

    /// What a fresh viewer is shown of a turn that is over.
    pub async fn replay(server: &str, id: &str) -> Seen {
        let viewers = Self::new(vec![server.to_owned()], 0);
        let mut seen = Seen { id: Some(id.to_owned()), ..Seen::default() };
        let request = viewers.client.get(format!("{server}/v1/responses/{id}?stream=true"));
        match viewers.watch(request, &mut seen, false).await {
            Came::End => seen.whole = true,
            Came::Broken => {}
            Came::Refused(status, code) => seen.refused = Some((status, code)),
        }
        seen
    }
}

impl Seen {
    fn take(&mut self, event: Value) {
        let number = event["sequence_number"].as_u64().unwrap_or_else(|| panic!("no number: {event}"));
        assert_eq!(number, self.events.len() as u64, "of {:?}: a gap or a double, {event}", self.id);
        if self.id.is_none() {
            self.id = event["response"]["id"].as_str().map(str::to_owned);
        }
        self.events.push(event);
    }
}

/// Statuses and codes of refusals that stood, counted.
pub fn refusals(seen: &[Seen]) -> BTreeMap<(u16, String), usize> {
    let mut counts = BTreeMap::new();
    for refused in seen.iter().filter_map(|seen| seen.refused.clone()) {
        *counts.entry(refused).or_default() += 1;
    }
    counts
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(rand::random_range(20..300))).await;
}
