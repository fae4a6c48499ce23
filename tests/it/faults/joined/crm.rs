//! A CRM that posts batches, again and again until each is accepted.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::super::conversations::plan::Plan;
use super::provider::ROUTES;
use crate::support::{FunctionApp, sign_espocrm};

/// How many post at the same time.
const SENDERS: usize = 4;
/// Records of one post, at most.
const BATCH: usize = 10;
/// How far it posts ahead of what it was told: Azurite sorts a whole queue at each step, and one of thousands of messages
/// leaves it no time for anything else.
const AHEAD: usize = 600;
/// Conversations of a route that has them.
const TOPICS: usize = 20;

pub struct Crm {
    /// Where the function app listens, and the secret it knows.
    doors: Vec<String>,
    secret: String,
    batches: Vec<(usize, Vec<Value>)>,
}

impl Crm {
    /// Every event is one record, named by its number; the routes take turns.
    pub fn new(hosts: &[FunctionApp], plan: Plan, events: usize) -> Self {
        let doors = hosts.iter().map(|host| host.url("/api/webhooks/crm")).collect();
        let secret = hosts[0].setting("WEBHOOK_SECRET_CRM").to_owned();
        let mut routes: Vec<Vec<Value>> = vec![Vec::new(); ROUTES];
        for number in 0..events {
            let record = json!({
                "id": name(plan, number), "topic": format!("t{}", number / ROUTES % TOPICS),
                "description": format!("Delivery {number} was quick."),
            });
            routes[number % ROUTES].push(record);
        }
        let batches = routes
            .iter()
            .enumerate()
            .flat_map(|(route, records)| records.chunks(BATCH).map(move |batch| (route, batch.to_vec())));
        let mut batches: Vec<_> = batches.collect();
        // Routes side by side instead of one after another.
        batches.sort_by_key(|(_, batch)| batch[0]["id"].as_str().map(str::len).unwrap_or_default());
        Self { doors, secret, batches }
    }

    /// Posts everything, as fast as what was told of it follows. Gives the names of all events accepted.
    pub async fn post_all(&self, told: impl Fn() -> usize) -> BTreeSet<String> {
        let told = &told;
        let senders = (0..SENDERS).map(|sender| async move {
            let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30));
            let client = client.build().expect("a client");
            for (number, batch) in self.batches.iter().enumerate().skip(sender).step_by(SENDERS) {
                // One of twenty may become a dead letter, of which nobody is told.
                while number * BATCH > told() * 20 / 19 + AHEAD {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                self.post_until_accepted(&client, number, batch).await;
            }
        });
        join_all(senders).await;
        let records = self.batches.iter().flat_map(|(_, batch)| batch);
        records.map(|record| record["id"].as_str().expect("an id").to_owned()).collect()
    }

    async fn post_until_accepted(
        &self,
        client: &reqwest::Client,
        number: usize,
        batch: &(usize, Vec<Value>),
    ) {
        let (route, records) = batch;
        let body = Value::from(records.clone()).to_string();
        let signature = sign_espocrm(&self.secret, "66f0c1d2a1b2c3d4e", body.as_bytes());
        for attempt in 0.. {
            let door = &self.doors[(number + attempt) % self.doors.len()];
            let post = client.post(format!("{door}/feedback.r{route}")).header("signature", &signature);
            let answer = post.header("content-type", "application/json").body(body.clone()).send().await;
            match answer.map(|answer| answer.status().as_u16()) {
                Ok(200) => return,
                // Nobody there, or somebody who is dying.
                Err(_) | Ok(500..600) => tokio::time::sleep(Duration::from_millis(100)).await,
                Ok(other) => panic!("a good delivery was answered with {other}"),
            }
        }
    }
}

/// What an event is called wherever it appears.
fn name(plan: Plan, number: usize) -> String {
    format!("event-{}-{number}", plan.seed)
}
