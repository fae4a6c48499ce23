//! Senders as they are: they sign anew for each try, send again until they are told 2xx, more than once, in any order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::conversations::plan::Plan;
use crate::support::{FunctionApp, unique};

/// How many senders there are.
const SENDERS: usize = 4;

/// An event as Stripe sends it, `pending_webhooks` left out: every delivery has these bytes.
pub fn event(id: &str) -> String {
    json!({ "id": id, "type": "invoice.paid", "created": 1_763_700_000, "data": { "object": { "id": "in_1" } } })
        .to_string()
}

/// What was sent so far.
pub struct Senders {
    name: String,
    /// Distinct events of which a delivery was accepted.
    events: BTreeSet<String>,
    /// `x-request-id` of every delivery answered with 2xx.
    deliveries: BTreeSet<String>,
    made: usize,
    /// Answers by status; 0 for none.
    answers: BTreeMap<u16, usize>,
    /// Refusals by the type of their problem.
    refused: BTreeMap<String, usize>,
    dice: StdRng,
}

/// What the app has answered for.
pub struct Accepted<'a> {
    pub events: &'a BTreeSet<String>,
    pub deliveries: &'a BTreeSet<String>,
    pub answers: &'a BTreeMap<u16, usize>,
}

impl Senders {
    pub fn new() -> Self {
        Self::with(StdRng::seed_from_u64(rand::random()))
    }

    /// Senders whose order, doors and pauses come from a plan.
    pub fn planned(plan: Plan) -> Self {
        Self::with(plan.dice("senders", 0))
    }

    fn with(dice: StdRng) -> Self {
        Self {
            name: unique("evt"),
            events: BTreeSet::new(),
            deliveries: BTreeSet::new(),
            made: 0,
            answers: BTreeMap::new(),
            refused: BTreeMap::new(),
            dice,
        }
    }

    /// How many events there were to send so far.
    pub fn offered(&self) -> usize {
        self.made
    }

    /// Refusals of good deliveries by what was said of them: the last part of the problem's type, or `the host's 502` and
    /// its like while there was no handler.
    pub fn refused(&self) -> &BTreeMap<String, usize> {
        &self.refused
    }

    pub fn accepted(&self) -> Accepted<'_> {
        Accepted { events: &self.events, deliveries: &self.deliveries, answers: &self.answers }
    }

    /// Makes so many events and sends each once.
    pub async fn send_each_once(&mut self, apps: &[&FunctionApp], events: usize) {
        let deliveries = self.make(events);
        self.send(apps, deliveries).await;
    }

    /// Makes so many events and sends each one to three times, in any order.
    pub async fn send_doubled(&mut self, apps: &[&FunctionApp], events: usize) {
        let deliveries = self.doubled(events);
        self.send(apps, deliveries).await;
    }

    /// Ids of new events, one to three times each, shuffled.
    pub fn doubled(&mut self, events: usize) -> Vec<String> {
        let mut deliveries: Vec<String> = self
            .make(events)
            .into_iter()
            .enumerate()
            .flat_map(|(number, id)| std::iter::repeat_n(id, 1 + number % 3))
            .collect();
        deliveries.shuffle(&mut self.dice);
        deliveries
    }

    fn make(&mut self, events: usize) -> Vec<String> {
        let first = self.made;
        self.made += events;
        (first..self.made).map(|number| format!("{}-{number}", self.name)).collect()
    }

    /// Sends deliveries, several at a time, each to any app and again until one accepts it.
    pub async fn send(&mut self, apps: &[&FunctionApp], deliveries: Vec<String>) {
        let shares = deliveries.chunks(deliveries.len().div_ceil(SENDERS).max(1));
        let shares: Vec<_> = shares.map(|share| (share, StdRng::seed_from_u64(self.dice.random()))).collect();
        let sent = join_all(shares.into_iter().map(|(share, mut dice)| async move {
            let mut sent = Vec::new();
            for id in share {
                send_until_accepted(apps, id, &mut sent, &mut dice).await;
            }
            sent
        }))
        .await;
        for Sent { event, request, status, problem } in sent.into_iter().flatten() {
            *self.answers.entry(status).or_default() += 1;
            if let Some(problem) = problem {
                *self.refused.entry(problem).or_default() += 1;
            }
            if (200..300).contains(&status) {
                self.events.insert(event);
                self.deliveries.insert(request);
            }
        }
    }
}

struct Sent {
    event: String,
    request: String,
    /// 0 for no answer.
    status: u16,
    /// What was said of a refusal.
    problem: Option<String>,
}

async fn send_until_accepted(apps: &[&FunctionApp], id: &str, sent: &mut Vec<Sent>, dice: &mut StdRng) {
    let body = event(id);
    loop {
        let app = apps[dice.random_range(0..apps.len())];
        let (request, signature) = (unique("request"), app.stripe_signature(&body));
        let headers = [("stripe-signature", signature.as_str()), ("x-request-id", request.as_str())];
        let answer = app.try_deliver("stripe", &headers, body.clone()).await;
        let (mut status, mut problem) = (0, None);
        if let Ok(answer) = answer {
            status = answer.status().as_u16();
            if status != 200 {
                let body = answer.json::<Value>().await.unwrap_or_default();
                let kind = body["type"].as_str().and_then(|kind| kind.rsplit('/').next());
                problem = Some(kind.map_or_else(|| format!("the host's {status}"), str::to_owned));
            }
        }
        sent.push(Sent { event: id.to_owned(), request, status, problem });
        match status {
            200 => return,
            // Not the fault of the delivery.
            0 | 500..600 => tokio::time::sleep(Duration::from_millis(dice.random_range(50..250))).await,
            other => panic!("a good delivery was answered with {other}"),
        }
    }
}
