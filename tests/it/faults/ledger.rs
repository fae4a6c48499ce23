//! The account at the end: what was accepted, against what became of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::{Duration, Instant};

use super::senders::Accepted;
use crate::support::{Consumer, TestDatabase, TestStorage};

pub struct Ledger<'a> {
    database: &'a TestDatabase,
    storage: &'a TestStorage,
    consumer: &'a Consumer,
    accepted: Accepted<'a>,
}

/// One line: what, how many there should be, how many there are.
type Line = (&'static str, i64, i64);

impl<'a> Ledger<'a> {
    pub fn new(
        database: &'a TestDatabase,
        storage: &'a TestStorage,
        consumer: &'a Consumer,
        accepted: Accepted<'a>,
    ) -> Self {
        Self { database, storage, consumer, accepted }
    }

    /// Waits until every line balances; says which do not, if they never do. Gives the table.
    pub async fn balances(&self, limit: Duration) -> String {
        let start = Instant::now();
        loop {
            let lines = self.lines().await;
            let balanced = lines.iter().all(|(_, wanted, found)| wanted == found);
            if balanced || start.elapsed() > limit {
                let table = self.table(&lines);
                assert!(balanced, "not within {limit:?}:\n{table}");
                return table;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn lines(&self) -> Vec<Line> {
        let events = count(self.accepted.events);
        let deliveries = count(self.accepted.deliveries);
        let (stored, doubled) = self.stored_deliveries().await;
        let row = |query: &'static str| self.database.count(query);
        let queued: u64 = self.storage.depths().await.iter().map(|(_, depth)| depth).sum();
        let callbacks = self.callbacks();
        let one_id = callbacks.values().filter(|ids| ids.len() == 1).count();
        vec![
            ("accepted deliveries that are stored", deliveries, stored),
            ("accepted deliveries that are stored twice", 0, doubled),
            ("events, processed", events, row("SELECT count(*) FROM events WHERE state = 'processed'").await),
            (
                "events, held or in conflict",
                0,
                row("SELECT count(*) FROM events WHERE state <> 'processed'").await,
            ),
            ("effects", events, row("SELECT coalesce(sum(events), 0)::int8 FROM event_counts").await),
            ("jobs, succeeded", events, row("SELECT count(*) FROM jobs WHERE state = 'succeeded'").await),
            ("jobs, anything else", 0, row("SELECT count(*) FROM jobs WHERE state <> 'succeeded'").await),
            (
                "callbacks, delivered",
                events,
                row("SELECT count(*) FROM callbacks WHERE state = 'delivered'").await,
            ),
            (
                "callbacks, anything else",
                0,
                row("SELECT count(*) FROM callbacks WHERE state <> 'delivered'").await,
            ),
            ("events the consumer accepted", events, count(callbacks.keys())),
            ("of these, under one webhook-id", events, i64::try_from(one_id).unwrap_or(i64::MAX)),
            ("callbacks with a wrong signature", 0, self.forged()),
            ("dead letters", 0, row("SELECT count(*) FROM dead_letters").await),
            ("messages on all queues", 0, i64::try_from(queued).unwrap_or(i64::MAX)),
        ]
    }

    /// Accepted deliveries that are in the table, and those that are in it more than once.
    async fn stored_deliveries(&self) -> (i64, i64) {
        let query = "SELECT request_id, count(*) FROM deliveries GROUP BY request_id";
        let rows = self.database.client().await.query(query, &[]).await.expect("deliveries");
        let stored: Vec<i64> = rows
            .iter()
            .filter(|row| self.accepted.deliveries.contains(&row.get::<_, String>(0)))
            .map(|row| row.get(1))
            .collect();
        (count(&stored), count(stored.iter().filter(|times| **times > 1)))
    }

    /// The `webhook-id`s under which the consumer accepted each event.
    fn callbacks(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut events: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for callback in self.consumer.accepted() {
            let event = callback.json()["data"]["id"].as_str().expect("the event's id").to_owned();
            events.entry(event).or_default().insert(callback.id);
        }
        events
    }

    fn forged(&self) -> i64 {
        count(self.consumer.callbacks().iter().filter(|callback| callback.verified.is_err()))
    }

    fn table(&self, lines: &[Line]) -> String {
        let mut table = format!("{:<44} {:>8} {:>8}\n", "", "expected", "found");
        for (what, wanted, found) in lines {
            let mark = if wanted == found { "" } else { "  <--" };
            writeln!(table, "{what:<44} {wanted:>8} {found:>8}{mark}").expect("text");
        }
        let sent = self.consumer.callbacks().len();
        let answers = self.accepted.answers;
        writeln!(
            table,
            "answers to senders, by status (0: none): {answers:?}; requests to the consumer: {sent}"
        )
        .expect("text");
        table
    }
}

fn count<T>(things: impl IntoIterator<Item = T>) -> i64 {
    i64::try_from(things.into_iter().count()).expect("not that many")
}
