//! The account at the end: every event against what became of it, every answer that was paid for against what became of
//! that.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::super::conversations::account::{Line, count, table};
use super::provider::GOOD;
use super::{Deaths, TAKEN_BY_A_KILL};
use crate::support::providers::{Answered, FakeProvider};
use crate::support::{Consumer, TestDatabase, TestStorage};

/// Longest time from a call to a provider until what came of it is stored, where nothing dies: the slowest answer, and
/// a database that has to come back.
const UNTIL_STORED: Duration = Duration::from_secs(12);

pub struct Account<'a> {
    pub database: &'a TestDatabase,
    pub storage: &'a TestStorage,
    pub provider: &'a FakeProvider,
    pub consumer: &'a Consumer,
}

/// What is stored of a call to a provider.
struct Row {
    event: String,
    /// Its end was stored by whoever heard it, with the provider's own numbers.
    known: bool,
}

/// What an answer that fits came to.
#[derive(Default)]
struct Paid {
    /// Calls whose answer is stored, by event.
    kept: BTreeMap<String, i64>,
    /// Answered to the end, and gone with the process that had asked.
    lost: i64,
    /// The same, in their middle.
    cut: i64,
    /// Both, by the death that took them.
    by_death: BTreeMap<usize, i64>,
    /// How many deaths there were.
    deaths: usize,
    /// Gone though nothing had died.
    unexplained: Vec<String>,
}

impl Account<'_> {
    /// Waits until all work of all events has ended, everything paid is settled, and hints that were to come later have
    /// come. Gives how long that took.
    pub async fn all_ended(&self, sent: &BTreeSet<String>, limit: Duration) -> Duration {
        const OPEN: &str = "
            SELECT (SELECT count(*) FROM jobs WHERE state IN ('pending', 'leased'))
                 + (SELECT count(*) FROM callbacks WHERE state IN ('pending', 'leased'))
                 + (SELECT count(*) FROM responses WHERE state IN ('queued', 'in_progress'))
                 + (SELECT count(*) FROM usage WHERE state = 'open')";
        let start = Instant::now();
        loop {
            // PostgreSQL is away now and then.
            let stored = self.ask("SELECT count(*) FROM events").await;
            let open = self.ask(OPEN).await;
            if stored == Some(count(sent)) && open == Some(0) && self.queued().await == 0 {
                return start.elapsed();
            }
            // What is left then stands in the account.
            if start.elapsed() > limit {
                return limit;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn queued(&self) -> u64 {
        self.storage.depths().await.iter().map(|(_, depth)| depth).sum()
    }

    async fn ask(&self, sql: &str) -> Option<i64> {
        let (client, connection) =
            tokio_postgres::connect(&self.database.direct_url, tokio_postgres::NoTls).await.ok()?;
        tokio::spawn(connection);
        Some(client.query_one(sql, &[]).await.ok()?.get(0))
    }

    /// Whether everything balances, and the account itself.
    pub async fn balance(&self, sent: &BTreeSet<String>, deaths: &Deaths) -> (bool, String) {
        let mut lines = self.of_events(sent).await;
        lines.extend(self.of_work().await);
        let paid = self.paid(deaths).await;
        let (of_money, notes) = self.of_money(&paid).await;
        lines.extend(of_money);
        let balanced = lines.iter().all(|(_, wanted, found)| wanted == found);
        (balanced, format!("{}{}{notes}", table(&lines), self.letters().await))
    }

    async fn count(&self, sql: &str) -> i64 {
        self.database.count(sql).await
    }

    /// Each event against its two possible ends.
    async fn of_events(&self, sent: &BTreeSet<String>) -> Vec<Line> {
        const ENDS: &str = "
            SELECT e.subject,
                   (SELECT count(*) FROM callbacks c WHERE c.event_id = e.id AND c.state = 'delivered') AS delivered,
                   (SELECT count(*) FROM dead_letters l WHERE l.event_id = e.id AND l.reason_code <> ''
                                                          AND l.reason <> '') AS dead
            FROM events e";
        let rows = self.database.client().await.query(ENDS, &[]).await.expect("events");
        let (mut delivered, mut once, mut ours) = (BTreeSet::new(), 0, 0);
        for row in &rows {
            let (subject, told, dead): (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
            once += i64::from(told + dead == 1);
            ours += i64::from(sent.contains(&subject));
            if told > 0 {
                delivered.insert(subject);
            }
        }
        let mut ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for callback in self.consumer.accepted() {
            let subject = callback.json()["event"]["subject"].as_str().expect("a subject").to_owned();
            ids.entry(subject).or_default().insert(callback.id);
        }
        let forged = self.consumer.callbacks().iter().filter(|callback| callback.verified.is_err()).count();
        let told: BTreeSet<String> = ids.keys().cloned().collect();
        vec![
            ("events accepted that are stored, once", count(sent), ours),
            ("events, anything else", 0, count(&rows) - ours),
            ("events with one end: delivered or dead letter", count(sent), once),
            (
                "delivered events that the consumer accepted",
                count(&delivered),
                count(told.intersection(&delivered)),
            ),
            ("others that the consumer accepted", 0, count(told.difference(&delivered))),
            ("of these, under one webhook-id", count(&ids), count(ids.values().filter(|ids| ids.len() == 1))),
            ("callbacks with a wrong signature", 0, i64::try_from(forged).expect("few")),
        ]
    }

    /// What is still open anywhere.
    async fn of_work(&self) -> Vec<Line> {
        let open = async |table: &str, states: &str| {
            self.count(&format!("SELECT count(*) FROM {table} WHERE state IN ({states})")).await
        };
        let locked = "SELECT count(*) FROM conversations WHERE active_response IS NOT NULL";
        vec![
            ("jobs open", 0, open("jobs", "'pending', 'leased'").await),
            ("callbacks open", 0, open("callbacks", "'pending', 'leased'").await),
            ("turns open", 0, open("responses", "'queued', 'in_progress'").await),
            ("usage open", 0, open("usage", "'open'").await),
            ("conversations locked", 0, self.count(locked).await),
            ("messages on all queues", 0, i64::try_from(self.queued().await).expect("few")),
        ]
    }

    /// What became of every answer that fits.
    async fn paid(&self, deaths: &Deaths) -> Paid {
        let mut rows = self.rows().await;
        let mut paid = Paid { deaths: deaths.kills.len(), ..Paid::default() };
        for answered in self.provider.answered().iter().filter(|answered| answered.script == GOOD) {
            let row = answered.attempt.as_ref().and_then(|id| rows.remove(id));
            if let Some(row) = row.as_ref().filter(|row| row.known) {
                *paid.kept.entry(row.event.clone()).or_default() += 1;
                continue;
            }
            let Some(death) = deaths.explain(answered.at) else {
                paid.unexplained.push(why(answered, row.as_ref()));
                continue;
            };
            *paid.by_death.entry(death).or_default() += 1;
            match answered.told {
                Some(_) => paid.lost += 1,
                None => paid.cut += 1,
            }
        }
        paid
    }

    /// Calls by the id under which the provider knows them.
    async fn rows(&self) -> HashMap<String, Row> {
        const ROWS: &str = "
            SELECT u.id::text, e.subject, u.reason = 'completed' AND NOT u.estimated AND r.state = 'completed'
            FROM usage u JOIN responses r ON r.id = u.response_id JOIN jobs j ON j.id = r.job_id
            JOIN events e ON e.id = j.event_id WHERE u.state = 'settled'";
        let rows = self.database.client().await.query(ROWS, &[]).await.expect("usage");
        rows.iter().map(|row| (row.get(0), Row { event: row.get(1), known: row.get(2) })).collect()
    }

    async fn of_money(&self, paid: &Paid) -> (Vec<Line>, String) {
        let delivered = self.count("SELECT count(DISTINCT event_id) FROM callbacks").await;
        let again = count(paid.kept.values().filter(|times| **times > 1));
        let calls = self.provider.answered();
        let failed = count(calls.iter().filter(|answered| answered.script != GOOD));
        let lines = vec![
            ("events told of with an answer that is stored", delivered, count(paid.kept.keys())),
            ("events with two stored answers that fit", 0, again),
            ("answers gone though nothing had died", 0, count(&paid.unexplained)),
            ("answers gone beyond what the killed had in hand", 0, paid.beyond()),
        ];
        let flagged = "SELECT count(*) FROM usage WHERE estimated AND reason IN ('crashed', 'interrupted')";
        let notes = format!(
            "calls to the provider: {}, of these failed {failed} ({} %)\n\
             paid for and gone with a killed process: {} answers at their end, {} in their middle; rows flagged so: {}\n\
             together {} of at most {} ({} kills, each of what {TAKEN_BY_A_KILL} jobs and turns had in hand); the most by one: {}\n{}",
            calls.len(),
            failed * 100 / count(&calls).max(1),
            paid.lost,
            paid.cut,
            self.count(flagged).await,
            paid.lost + paid.cut,
            paid.deaths * TAKEN_BY_A_KILL,
            paid.deaths,
            paid.by_death.values().max().copied().unwrap_or_default(),
            paid.unexplained.iter().take(10).fold(String::new(), |text, why| text + why + "\n"),
        );
        (lines, notes)
    }

    /// Dead letters by their reason.
    async fn letters(&self) -> String {
        let sql = "SELECT kind, reason_code, count(*) FROM dead_letters GROUP BY 1, 2 ORDER BY 3 DESC";
        let rows = self.database.client().await.query(sql, &[]).await.expect("dead letters");
        let of = |row: &tokio_postgres::Row| {
            format!("{} {} of a {}", row.get::<_, i64>(2), row.get::<_, &str>(1), row.get::<_, &str>(0))
        };
        format!("dead letters: {}\n", rows.iter().map(of).collect::<Vec<_>>().join(", "))
    }
}

impl Deaths {
    /// The death before which the answer to a call of this time may not have been stored yet.
    fn explain(&self, at: Instant) -> Option<usize> {
        self.kills
            .iter()
            .position(|(from, until)| at <= *until && from.saturating_duration_since(at) <= UNTIL_STORED)
    }
}

impl Paid {
    /// Answers that a death took beyond as many as its processes could have in hand.
    fn beyond(&self) -> i64 {
        let most = i64::try_from(TAKEN_BY_A_KILL).expect("few");
        self.by_death.values().map(|gone| (gone - most).max(0)).sum()
    }
}

fn why(answered: &Answered, row: Option<&Row>) -> String {
    format!("{answered:?}: {}", row.map_or("no row", |row| &row.event))
}
