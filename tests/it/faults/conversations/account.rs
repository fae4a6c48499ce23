//! The account at the end: what viewers saw, against what is stored.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::viewer::{Seen, Viewers, refusals};
use crate::support::TestDatabase;
use crate::support::server::API_KEY;

pub struct Account<'a> {
    pub database: &'a TestDatabase,
    pub servers: &'a [String],
    pub seen: &'a [Seen],
}

/// One line: what, how many there should be, how many there are.
pub type Line = (&'static str, i64, i64);

const REPLAYED: &str = "turns whose replay is what was seen";

const FINAL: &str = "('completed', 'incomplete', 'failed', 'cancelled')";

impl Account<'_> {
    /// Waits until every turn has ended, and compares. Gives the lines, what differs, and how long the waiting took.
    pub async fn turns(&self, limit: Duration) -> (Vec<Line>, Vec<String>, Duration) {
        let start = Instant::now();
        // What is left is ended by whoever finds its lease lapsed.
        let unfinished = format!("SELECT count(*) FROM responses WHERE state NOT IN {FINAL}");
        while self.database.count(&unfinished).await > 0 && start.elapsed() < limit {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let settled = start.elapsed();
        let mut lines = self.rows(&unfinished).await;
        let (compared, faults) = self.compared().await;
        lines.extend(compared);
        (lines, faults, settled)
    }

    async fn rows(&self, unfinished: &str) -> Vec<Line> {
        let row = async |query: &str| self.database.count(query).await;
        let locked = "SELECT count(*) FROM conversations WHERE active_response IS NOT NULL";
        let held =
            format!("SELECT count(*) FROM responses WHERE lease_until > now() AND state NOT IN {FINAL}");
        let half = format!("SELECT count(*) FROM responses WHERE state IN {FINAL} AND completed_at IS NULL");
        let torn = "SELECT count(*) FROM (SELECT response_id FROM response_events GROUP BY response_id
                    HAVING max(part) + 1 <> count(*) OR min(part) <> 0) torn";
        let twice =
            "SELECT count(*) FROM (SELECT thread_id, id FROM items GROUP BY 1, 2 HAVING count(*) > 1) twice";
        let told = "SELECT count(*) FROM responses r JOIN callbacks c ON c.response_id = r.id
                    WHERE c.type = 'response.' || r.state AND c.target = r.callback_target";
        let to_be_told = row("SELECT count(*) FROM responses WHERE callback_target IS NOT NULL").await;
        vec![
            ("ends told of as they were", to_be_told, row(told).await),
            ("callbacks", to_be_told, row("SELECT count(*) FROM callbacks").await),
            ("turns without an end", 0, row(unfinished).await),
            ("turns that ended at no time", 0, row(&half).await),
            ("leases on turns", 0, row(&held).await),
            ("conversations locked", 0, row(locked).await),
            ("logs with a gap", 0, row(torn).await),
            ("items doubled", 0, row(twice).await),
        ]
    }

    /// Every turn that somebody saw, against its resource and a fresh replay on each server.
    async fn compared(&self) -> (Vec<Line>, Vec<String>) {
        let (mut told, mut same, mut texts, mut replays) = (0, 0, 0, 0);
        let (mut whole, mut stored_whole) = (0, 0);
        let mut faults = Vec::new();
        for seen in self.seen.iter().filter(|seen| seen.stored) {
            let Some(id) = &seen.id else { continue };
            told += 1;
            let mut resources = Vec::new();
            let mut replayed = Vec::new();
            for server in self.servers {
                resources.push(resource(server, id).await);
                replayed.push(Viewers::replay(server, id).await);
            }
            same += i64::from(resources.windows(2).all(|two| two[0] == two[1]));
            let matches = replayed.iter().all(|replay| {
                replay.whole
                    && replay.events.starts_with(&seen.events)
                    && (!seen.whole || replay.events.len() == seen.events.len())
            });
            replays += i64::from(matches);
            if !matches {
                faults.push(difference(seen, &replayed));
            }
            let said = replayed.iter().all(|replay| text(&replay.events) == text_of(&resources[0]));
            texts += i64::from(said);
            if !said {
                faults.push(format!(
                    "{id}: the log says\n{}\nand the response\n{}",
                    text(&replayed[0].events),
                    resources[0]
                ));
            }
            if seen.whole {
                whole += 1;
                stored_whole += i64::from(text(&seen.events) == text_of(&resources[0]));
            }
        }
        let lines = vec![
            ("turns that both servers tell alike", told, same),
            (REPLAYED, told, replays),
            ("turns whose log leads to what is stored", told, texts),
            ("viewers to the end who saw what is stored", whole, stored_whole),
            (
                "patience that ran out",
                0,
                count(
                    self.seen
                        .iter()
                        .filter(|seen| seen.refused.as_ref().is_some_and(|(_, code)| code == "patience")),
                ),
            ),
        ];
        (lines, faults)
    }

    /// What viewers met, in words.
    pub fn met(&self) -> String {
        let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
        for seen in self.seen.iter().filter(|seen| seen.whole) {
            let kind = seen.events.last().and_then(|event| event["type"].as_str()).unwrap_or("none");
            *ends.entry(kind).or_default() += 1;
        }
        let resumed = self.seen.iter().filter(|seen| seen.resumed > 0).count();
        let times: u32 = self.seen.iter().map(|seen| seen.resumed).sum();
        let events: usize = self.seen.iter().map(|seen| seen.events.len()).sum();
        let given_up: usize = self.seen.iter().map(|seen| seen.given_up).sum();
        let refused = refusals(self.seen);
        format!(
            "ends seen: {ends:?}\nviewers that resumed: {resumed}, {times} times; events seen: {events}, \
             {given_up} of them unlogged and seen again\n\
             refusals that stood: {refused:?}\n"
        )
    }
}

/// Turns that are stored and of which somebody was told, and those of them that are found again as they were told.
pub fn told_and_found(lines: &[Line]) -> (i64, i64) {
    let of_replays = lines.iter().find(|(what, ..)| *what == REPLAYED);
    of_replays.map(|(_, told, found)| (*told, *found)).expect("the line of replays")
}

/// Lines as a table; those that do not balance are marked.
pub fn table(lines: &[Line]) -> String {
    let mut table = format!("{:<52} {:>8} {:>8}\n", "", "expected", "found");
    for (what, wanted, found) in lines {
        let mark = if wanted == found { "" } else { "  <--" };
        writeln!(table, "{what:<52} {wanted:>8} {found:>8}{mark}").expect("text");
    }
    table
}

async fn resource(server: &str, id: &str) -> Value {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let answer = client.get(format!("{server}/v1/responses/{id}")).bearer_auth(API_KEY).send().await;
    answer.expect("an answer").json().await.expect("JSON")
}

/// Everything said, in pieces.
fn text(events: &[Value]) -> String {
    let deltas = events.iter().filter(|event| {
        matches!(
            event["type"].as_str(),
            Some("response.output_text.delta" | "response.function_call_arguments.delta")
        )
    });
    deltas.filter_map(|event| event["delta"].as_str()).collect()
}

/// Everything said, as stored.
fn text_of(response: &Value) -> String {
    let items = response["output"].as_array().into_iter().flatten();
    items
        .map(|item| match item["type"].as_str() {
            Some("message") => {
                let parts = item["content"].as_array().into_iter().flatten();
                parts.filter_map(|part| part["text"].as_str()).collect::<String>()
            }
            Some("function_call") => item["arguments"].as_str().unwrap_or_default().to_owned(),
            _ => String::new(),
        })
        .collect()
}

fn difference(seen: &Seen, replayed: &[Seen]) -> String {
    let mut told = format!("{:?} ({} events, whole: {}):", seen.id, seen.events.len(), seen.whole);
    for replay in replayed {
        let at = seen.events.iter().zip(&replay.events).position(|(one, other)| one != other);
        write!(
            told,
            "\n  replay of {} events, whole: {}, refused: {:?}, differs at {at:?}",
            replay.events.len(),
            replay.whole,
            replay.refused
        )
        .expect("text");
        if let Some(at) = at {
            write!(told, "\n    seen   {}\n    stored {}", seen.events[at], replay.events[at]).expect("text");
        } else if let Some(extra) = seen.events.get(replay.events.len()) {
            write!(told, "\n    seen beyond: {extra}\n    last stored: {:?}", replay.events.last())
                .expect("text");
        }
    }
    told
}

pub fn count<T>(things: impl IntoIterator<Item = T>) -> i64 {
    i64::try_from(things.into_iter().count()).expect("not that many")
}
