//! Those who ask for turns and watch them: through any server, dropped at random, back where they were.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::plan::Plan;
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
    /// What the turn is called in its input.
    pub name: String,
    pub id: Option<String>,
    pub stored: bool,
    /// In order; the number of each is its index.
    pub events: Vec<Value>,
    /// Whether the last of them is the last there is.
    pub whole: bool,
    /// From which event on nothing was logged, as the stream said.
    unlogged: Option<usize>,
    /// Events that were shown without a log and given up for it.
    pub given_up: usize,
    /// The status and code of a refusal that stood.
    pub refused: Option<(u16, String)>,
    pub resumed: u32,
}

/// All of them.
pub struct Viewers {
    servers: Vec<String>,
    plan: Plan,
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
    pub fn new(servers: Vec<String>, plan: Plan) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(1))
            .read_timeout(Duration::from_secs(5));
        Self { servers, plan, client: client.build().expect("a client") }
    }

    /// Runs all turns, some at a time, and then more until `done`; every third is in one of a few conversations.
    pub async fn all(&self, done: impl Fn() -> bool) -> Vec<Seen> {
        let turns = self.plan.turns;
        let mut dice = self.plan.dice("conversations", 0);
        let mut conversations = Vec::new();
        for _ in 0..(turns / 20).max(2) {
            conversations.push(self.conversation(&mut dice).await);
        }
        let wanted = (0..turns * 4).take_while(|at| *at < turns || !done());
        futures_util::stream::iter(wanted)
            .map(|at| {
                let conversation = (at % 3 == 0).then(|| &*conversations[at % conversations.len()]);
                self.turn(MANNERS[at % MANNERS.len()], conversation, self.plan.dice("turn", at))
            })
            .buffer_unordered(self.plan.at_once())
            .collect()
            .await
    }

    fn somewhere(&self, dice: &mut StdRng) -> &str {
        &self.servers[dice.random_range(0..self.servers.len())]
    }

    async fn conversation(&self, dice: &mut StdRng) -> String {
        loop {
            let url = format!("{}/v1/conversations", self.somewhere(dice));
            let answer = self.client.post(url).bearer_auth(API_KEY).json(&json!({})).send().await;
            if let Ok(answer) = answer
                && let Ok(body) = answer.json::<Value>().await
                && let Some(id) = body["id"].as_str()
            {
                return id.to_owned();
            }
            pause(dice).await;
        }
    }

    async fn turn(&self, manner: Manner, conversation: Option<&str>, mut dice: StdRng) -> Seen {
        let name = unique("turn");
        let mut seen = Seen { name: name.clone(), stored: manner != Manner::NotStored, ..Seen::default() };
        let mut body = json!({
            "model": MODELS[dice.random_range(0..MODELS.len())],
            "input": format!("Say something to {name}."),
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
        let until = Instant::now() + PATIENCE;
        let mut refusals = 0;
        let leaves = matches!(manner, Manner::Left | Manner::Cancelled);
        while Instant::now() < until {
            let post = self.client.post(format!("{}/v1/responses", self.somewhere(&mut dice)));
            let post = post.json(&body).header("idempotency-key", &name);
            let request = match &seen.id {
                None => post,
                Some(id) => {
                    seen.resumed += u32::from(!seen.events.is_empty());
                    let mut url = format!("{}/v1/responses/{id}?stream=true", self.somewhere(&mut dice));
                    if let Some(last) = seen.events.len().checked_sub(1) {
                        url += &format!("&starting_after={last}");
                    }
                    self.client.get(url)
                }
            };
            let drops = leaves || dice.random_bool(0.8);
            let most = if drops { dice.random_range(1..60) } else { usize::MAX };
            match self.watch(request, &mut seen, most).await {
                Came::End => {
                    // Of one that nobody watches only the id is known; the account looks for its end.
                    seen.whole = !seen.events.is_empty();
                    return seen;
                }
                Came::Broken if seen.id.is_some() && !seen.stored => return seen,
                Came::Broken if seen.id.is_some() && manner == Manner::Left => return seen,
                Came::Broken if seen.id.is_some() && manner == Manner::Cancelled => {
                    self.cancel(seen.id.as_deref().unwrap_or_default(), until, &mut dice).await;
                }
                Came::Broken => {}
                Came::Refused(status, code) => {
                    // A lock goes away; that of a turn whose process died, with its lease.
                    let passing = matches!(
                        &*code,
                        "conversation_locked" | "database_unavailable" | "budget_unavailable"
                    );
                    refusals += u32::from(!passing);
                    seen.refused = Some((status, code));
                    if refusals >= 3 {
                        return seen;
                    }
                    pause(&mut dice).await;
                }
            }
            pause(&mut dice).await;
        }
        seen.refused.get_or_insert((0, "patience".to_owned()));
        seen
    }

    /// One request, and what comes of it until it ends or is dropped after so many events.
    async fn watch(&self, request: reqwest::RequestBuilder, seen: &mut Seen, most: usize) -> Came {
        let came = self.read(request, seen, most).await;
        // Whoever was told that nothing is logged cannot rely on it without the end, which is told once all is.
        if let Some(logged) = seen.unlogged.take()
            && !matches!(came, Came::End)
        {
            seen.given_up += seen.events.len() - logged;
            seen.events.truncate(logged);
        }
        came
    }

    async fn read(&self, request: reqwest::RequestBuilder, seen: &mut Seen, most: usize) -> Came {
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
        let mut count = 0;
        let mut buffer = Vec::new();
        let mut pieces = answer.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let Ok(piece) = piece else { return Came::Broken };
            buffer.extend_from_slice(&piece);
            while let Some(end) = buffer.windows(2).position(|two| two == b"\n\n") {
                let frame: Vec<u8> = buffer.drain(..end + 2).collect();
                let text = String::from_utf8(frame).expect("UTF-8");
                if text.starts_with(": unlogged") {
                    seen.unlogged.get_or_insert(seen.events.len());
                }
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

    async fn cancel(&self, id: &str, until: Instant, dice: &mut StdRng) {
        while Instant::now() < until {
            let url = format!("{}/v1/responses/{id}/cancel", self.somewhere(dice));
            let answer = self.client.post(url).bearer_auth(API_KEY).send().await;
            if answer.is_ok_and(|answer| answer.status() == 200) {
                return;
            }
            pause(dice).await;
        }
    }

    /// One stored turn from one server, until that has no more to show.
    pub async fn once(server: &str, model: &str) -> Seen {
        let viewers = Self::new(vec![server.to_owned()], Plan::fixed());
        let mut seen = Seen { stored: true, ..Seen::default() };
        let body = json!({ "model": model, "input": "Say something.", "stream": true });
        let request = viewers.client.post(format!("{server}/v1/responses")).json(&body);
        seen.whole = matches!(viewers.watch(request, &mut seen, usize::MAX).await, Came::End);
        seen
    }

    /// What a fresh viewer is shown of a turn that is over.
    pub async fn replay(server: &str, id: &str) -> Seen {
        let viewers = Self::new(vec![server.to_owned()], Plan::fixed());
        let mut seen = Seen { id: Some(id.to_owned()), ..Seen::default() };
        let request = viewers.client.get(format!("{server}/v1/responses/{id}?stream=true"));
        match viewers.watch(request, &mut seen, usize::MAX).await {
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

async fn pause(dice: &mut StdRng) {
    tokio::time::sleep(Duration::from_millis(dice.random_range(20..300))).await;
}
