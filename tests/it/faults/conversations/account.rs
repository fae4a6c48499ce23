//! The account at the end: what viewers saw, against what is stored.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::upstream::Upstreams;
use super::viewer::{Seen, Viewers, refusals};
use crate::support::TestDatabase;
use crate::support::server::API_KEY;

pub struct Account<'a> {
    pub database: &'a TestDatabase,
    pub servers: &'a [String],
    pub seen: &'a [Seen],
    pub upstreams: &'a Upstreams,
}

/// One line: what, how many there should be, how many there are.
type Line = (&'static str, i64, i64);

const FINAL: &str = "('completed', 'incomplete', 'failed', 'cancelled')";

impl Account<'_> {
    /// Waits until every line balances; says which do not, if they never do. Gives the table.
    pub async fn balances(&self, limit: Duration) -> String {
        let start = Instant::now();
        // What is left is ended by whoever finds its lease lapsed.
        let unfinished = format!("SELECT count(*) FROM responses WHERE state NOT IN {FINAL}");
        while self.database.count(&unfinished).await > 0 && start.elapsed() < limit {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let settled = start.elapsed();
        let mut lines = self.rows(&unfinished).await;
        let (compared, mut faults) = self.compared().await;
        lines.extend(compared);
        lines.extend(self.usage().await);
        let mut table = self.table(&lines);
        table += &self.flagged().await;
        writeln!(table, "settled {settled:.1?} after the last viewer").expect("text");
        let balanced = lines.iter().all(|(_, wanted, found)| wanted == found);
        faults.truncate(10);
        assert!(balanced, "{table}\n{}", faults.join("\n"));
        table
    }

    async fn rows(&self, unfinished: &str) -> Vec<Line> {
        let row = async |query: &str| self.database.count(query).await;
        let locked = format!(
            "SELECT count(*) FROM conversations c WHERE active_response IS NOT NULL AND NOT EXISTS
             (SELECT FROM responses r WHERE r.id = c.active_response AND r.state IN {FINAL})"
        );
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
            ("conversations locked", 0, row(&locked).await),
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
            ("turns whose replay is what was seen", told, replays),
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

    /// Usage rows against what the providers counted: a row that is not flagged is one of their answers, to the token.
    async fn usage(&self) -> Vec<Line> {
        let told = "SELECT deployment, input_tokens, output_tokens FROM usage
                    WHERE state = 'settled' AND NOT estimated AND input_tokens + output_tokens > 0";
        let mut answers = self.upstreams.told();
        let (mut rows, mut known) = (0, 0);
        for row in self.database.client().await.query(told, &[]).await.expect("usage") {
            let tokens = (number(&row, 1), number(&row, 2));
            let of = answers.entry(row.get(0)).or_default();
            rows += 1;
            if let Some(at) = of.iter().position(|answer| *answer == tokens) {
                of.swap_remove(at);
                known += 1;
            } else {
                println!("{} never told of {tokens:?}", row.get::<_, String>(0));
            }
        }
        let row = async |query: &str| self.database.count(query).await;
        let unpaid = "SELECT count(*) FROM responses r
                      WHERE NOT EXISTS (SELECT FROM usage u WHERE u.response_id = r.id)";
        let unsettled = "SELECT count(*) FROM responses r WHERE state = 'completed' AND NOT EXISTS
                         (SELECT FROM usage u WHERE u.response_id = r.id AND u.state = 'settled')";
        vec![
            ("usage as told that a provider told", rows, known),
            ("stored turns without a usage row", 0, row(unpaid).await),
            ("completed turns whose usage is not settled", 0, row(unsettled).await),
        ]
    }

    /// What the rest of the usage rows says.
    async fn flagged(&self) -> String {
        let estimated = self.database.count("SELECT count(*) FROM usage WHERE estimated").await;
        let open = self.database.count("SELECT count(*) FROM usage WHERE state = 'open'").await;
        let rows = self.database.count("SELECT count(*) FROM usage").await;
        format!("usage rows: {rows}, estimated {estimated}, open until their process counts as dead {open}\n")
    }

    fn table(&self, lines: &[Line]) -> String {
        let mut table = format!("{:<44} {:>8} {:>8}\n", "", "expected", "found");
        for (what, wanted, found) in lines {
            let mark = if wanted == found { "" } else { "  <--" };
            writeln!(table, "{what:<44} {wanted:>8} {found:>8}{mark}").expect("text");
        }
        let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
        for seen in self.seen.iter().filter(|seen| seen.whole) {
            let kind = seen.events.last().and_then(|event| event["type"].as_str()).unwrap_or("none");
            *ends.entry(kind).or_default() += 1;
        }
        let resumed = self.seen.iter().filter(|seen| seen.resumed > 0).count();
        let times: u32 = self.seen.iter().map(|seen| seen.resumed).sum();
        let events: usize = self.seen.iter().map(|seen| seen.events.len()).sum();
        let refused = refusals(self.seen);
        let (requests, charged) = (self.upstreams.requests(), self.upstreams.charged());
        writeln!(
            table,
            "ends seen: {ends:?}\nviewers that resumed: {resumed}, {times} times; events seen: {events}"
        )
        .expect("text");
        writeln!(
            table,
            "refusals that stood: {refused:?}\nrequests to providers: {requests}; on the bill: {charged:?}"
        )
        .expect("text");
        table
    }
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

fn number(row: &tokio_postgres::Row, column: usize) -> u64 {
    u64::try_from(row.get::<_, i64>(column)).expect("no debt")
}

fn count<T>(things: impl IntoIterator<Item = T>) -> i64 {
    i64::try_from(things.into_iter().count()).expect("not that many")
}
