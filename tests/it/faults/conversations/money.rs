//! The account of money: what the providers counted, against rows of usage, budgets and slices.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::account::{Line, count};
use super::upstream::Upstreams;
use super::viewer::Seen;
use super::wrong::Told;
use crate::support::server::{API_KEY, Server};
use crate::support::{Handler, TestDatabase, TestStorage};

pub struct Money<'a> {
    pub database: &'a TestDatabase,
    pub storage: &'a TestStorage,
    pub upstreams: &'a Upstreams,
    pub seen: &'a [Seen],
    pub told: &'a Told,
}

/// A row of usage.
struct Row {
    deployment: String,
    tokens: (u64, u64),
    estimated: bool,
    settled: bool,
}

impl Money<'_> {
    /// Waits until those who died are settled and what was spooled is home, with upkeep in the function app's place.
    pub async fn settled(&self, servers: &[Server], upkeep: &Handler, limit: Duration) -> Duration {
        let start = Instant::now();
        let living = i64::try_from(servers.len()).expect("few");
        while start.elapsed() < limit {
            assert_eq!(upkeep.tick("maintain").await, 200);
            let settled = self.count("SELECT count(*) FROM usage WHERE state = 'open'").await == 0
                && self.count("SELECT count(*) FROM instances").await == living
                && self.count("SELECT count(DISTINCT holder) FROM budget_slices").await <= living
                && self.storage.usage_depth().await == 0
                && reserved(servers).await == 0;
            if settled {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        start.elapsed()
    }

    /// While the servers live.
    pub async fn in_use(&self, servers: &[Server]) -> Vec<Line> {
        let living = count(servers);
        vec![
            ("usage rows open", 0, self.count("SELECT count(*) FROM usage WHERE state = 'open'").await),
            ("messages of usage on the queue", 0, count(0..self.storage.usage_depth().await)),
            ("processes on the list", living, self.count("SELECT count(*) FROM instances").await),
            ("money set aside in living servers", 0, reserved(servers).await),
            ("turns in flight in living servers", 0, in_flight(servers).await),
        ]
    }

    /// Once the servers have ended in order.
    pub async fn given_back(&self) -> Vec<Line> {
        let wrong = "SELECT count(*) FROM budgets b WHERE spent_micros <> (
                         SELECT coalesce(sum(cost_micros), 0) FROM usage u
                         WHERE u.day = b.day AND u.state = 'settled'
                           AND CASE b.scope WHEN 'owner' THEN u.owner = b.subject
                                            WHEN 'key' THEN u.api_key = b.subject ELSE true END)";
        let spent = "SELECT coalesce(sum(spent_micros), 0)::int8 FROM budgets WHERE scope = 'total'";
        let cost = "SELECT coalesce(sum(cost_micros), 0)::int8 FROM usage";
        vec![
            ("processes on the list at the end", 0, self.count("SELECT count(*) FROM instances").await),
            ("slices of budgets", 0, self.count("SELECT count(*) FROM budget_slices").await),
            (
                "held of budgets (micros)",
                0,
                self.count("SELECT coalesce(sum(held_micros), 0)::int8 FROM budgets").await,
            ),
            ("spent of the total (micros), sum of usage", self.count(cost).await, self.count(spent).await),
            ("budgets whose spent is not their usage", 0, self.count(wrong).await),
        ]
    }

    /// Every request to a provider against its row, every row against its request. Gives the lines, what differs, and what
    /// there is to say of it.
    pub async fn usage(&self) -> (Vec<Line>, Vec<String>, String) {
        let (asked, mut rows) = (self.upstreams.asked(), self.rows().await);
        let stored: BTreeMap<&str, bool> =
            self.seen.iter().map(|seen| (&*seen.name, seen.stored && seen.id.is_some())).collect();
        let (total, of_rows, flagged) =
            (count(&asked), count(&rows), count(rows.values().filter(|row| row.estimated)));
        let ids: BTreeSet<_> = asked.iter().filter_map(|asked| asked.answered.attempt.as_deref()).collect();
        let (ids, mut faults) = (count(ids), Vec::new());
        let (mut recorded, mut lost, mut covered) = (0, 0, 0);
        let (mut told, mut as_told, mut silent) = (0, 0, 0);
        for asked in &asked {
            let Some(row) = asked.answered.attempt.as_ref().and_then(|id| rows.remove(id)) else {
                // The first row of a stored turn is there before anything is sent; it covers what follows it.
                let is_stored = asked.turn.as_deref().and_then(|turn| stored.get(turn)) == Some(&true);
                if !self.told.may_have_lost_its_row(asked.answered.at) {
                    faults.push(format!("no row, though no process was killed: {asked:?}"));
                } else if is_stored {
                    covered += 1;
                } else {
                    lost += 1;
                }
                continue;
            };
            recorded += 1;
            let right = row.deployment == asked.deployment && row.settled;
            if !right {
                faults.push(format!("row of {}, settled: {}: {asked:?}", row.deployment, row.settled));
            }
            match (row.estimated, asked.answered.charged) {
                (true, _) => {}
                (false, true) => {
                    told += 1;
                    if asked.answered.told == Some(row.tokens) {
                        as_told += 1;
                    } else {
                        faults.push(format!("{:?} and not flagged: {asked:?}", row.tokens));
                    }
                }
                (false, false) if row.tokens == (0, 0) => {}
                (false, false) => {
                    silent += 1;
                    faults.push(format!("{:?} for nothing: {asked:?}", row.tokens));
                }
            }
        }
        // What is left: turns that were stopped, refused or killed before they asked anybody.
        let invented = rows.values().filter(|row| !row.estimated && row.tokens != (0, 0));
        let unpaid = "SELECT count(*) FROM responses r
                      WHERE NOT EXISTS (SELECT FROM usage u WHERE u.response_id = r.id)";
        let unsettled = "SELECT count(*) FROM responses r WHERE state = 'completed' AND NOT EXISTS
                         (SELECT FROM usage u WHERE u.response_id = r.id AND u.state = 'settled')";
        let occurred = self.upstreams.occurred();
        let lines = vec![
            ("requests to providers under an id of their own", total, ids),
            ("requests to providers with a row of usage", total - lost - covered, recorded),
            ("rows not flagged that say what a provider told", told, as_told),
            ("rows not flagged of what cost nothing", 0, silent),
            ("rows not flagged of what was never asked", 0, count(invented)),
            ("stored turns without a row of usage", 0, self.count(unpaid).await),
            ("completed turns whose usage is not settled", 0, self.count(unsettled).await),
            (
                "ways to answer and to fail that occurred",
                count(&occurred),
                count(occurred.values().filter(|count| **count > 0)),
            ),
        ];
        let ways: Vec<String> = occurred.iter().map(|(way, count)| format!("{way} {count}")).collect();
        let notes = format!(
            "requests to providers: {total}; on the bill: {:?}\n\
             rows of usage: {of_rows}, of these flagged as estimated {flagged}, of nothing asked {}\n\
             requests whose row went down with their process: {lost} not stored, {covered} covered by the row of their \
             stored turn\n\
             how providers answered: {}\n",
            self.upstreams.charged(),
            rows.len(),
            ways.join(", "),
        );
        (lines, faults, notes)
    }

    async fn rows(&self) -> HashMap<String, Row> {
        let sql = "SELECT id::text, deployment, input_tokens, output_tokens, estimated, state FROM usage";
        let rows = self.database.client().await.query(sql, &[]).await.expect("usage");
        let number = |row: &tokio_postgres::Row, column: usize| {
            u64::try_from(row.get::<_, i64>(column)).expect("no debt")
        };
        rows.iter()
            .map(|row| {
                let of = Row {
                    deployment: row.get(1),
                    tokens: (number(row, 2), number(row, 3)),
                    estimated: row.get(4),
                    settled: row.get::<_, &str>(5) == "settled",
                };
                (row.get(0), of)
            })
            .collect()
    }

    async fn count(&self, query: &str) -> i64 {
        self.database.count(query).await
    }
}

async fn statuses(servers: &[Server]) -> Vec<Value> {
    let status = |server: &Server| {
        let (client, url) = (server.client().clone(), server.url("/health/status"));
        async move {
            let answer = client.get(url).bearer_auth(API_KEY).send().await.expect("a status");
            answer.json().await.expect("JSON")
        }
    };
    futures_util::future::join_all(servers.iter().map(status)).await
}

/// What turns have set aside of the slices of all servers.
async fn reserved(servers: &[Server]) -> i64 {
    let statuses = statuses(servers).await;
    let slices = statuses.iter().flat_map(|status| status["budgets"]["slices"].as_array().expect("slices"));
    slices.map(|slice| slice["reserved_micros"].as_i64().expect("a number")).sum()
}

async fn in_flight(servers: &[Server]) -> i64 {
    let statuses = statuses(servers).await;
    let turns = statuses.iter().flat_map(|status| status["turns"].as_array().expect("turns"));
    count(turns.filter(|turn| turn["awaits"] != "nothing"))
}
