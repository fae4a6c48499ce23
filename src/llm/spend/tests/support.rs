use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::database::spending::{self, BudgetFilter, MOST_BUDGETS};
use crate::database::tests::support::{TestDatabase, value};
use crate::database::{Client, Database, DatabaseSettings};
use crate::llm::TokenUsage;
use crate::llm::spend::{
    Attempt, Budgets, Clock, Micros, NewAttempt, Reason, Reservation, Scope, Settlement, Spend, SpendError,
    SpendSettings, Who,
};
use crate::tasks::Tasks;

pub const MIDDAY: &str = "2026-11-21T12:00:00Z";

/// A clock that a test can move.
#[derive(Clone)]
pub struct TestClock(Arc<AtomicI64>);

impl TestClock {
    pub fn at(text: &str) -> Self {
        let at: Timestamp = text.parse().expect("a timestamp");
        Self(Arc::new(AtomicI64::new(at.as_millisecond())))
    }

    pub fn advance(&self, by: SignedDuration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).expect("short"), Ordering::Relaxed);
    }

    pub fn clock(&self) -> Clock {
        let this = self.clone();
        Arc::new(move || Timestamp::from_millisecond(this.0.load(Ordering::Relaxed)).expect("in range"))
    }
}

/// A process that spends.
pub struct Process {
    pub spend: Spend,
    pub tasks: Tasks,
}

impl Process {
    pub fn start(test: &TestDatabase, clock: &TestClock, settings: SpendSettings) -> Self {
        Self::connected(test.settings(), clock, settings)
    }

    pub fn connected(mut connection: DatabaseSettings, clock: &TestClock, settings: SpendSettings) -> Self {
        connection.pool_size = 4;
        let database = Database::new(connection, None).expect("settings");
        let spend = Spend::new(settings, Some(database), None, clock.clock());
        let tasks = Tasks::new();
        spend.start(&tasks);
        Self { spend, tasks }
    }

    /// Ends as SIGKILL would: nothing is written, nothing given back.
    pub async fn kill(self) {
        self.tasks.stop(Duration::from_secs(5)).await.expect("stopped");
    }

    pub async fn end(self) {
        self.spend.finish().await.expect("given back");
        self.tasks.stop(Duration::from_secs(5)).await.expect("stopped");
    }
}

pub fn settings(budgets: Budgets) -> SpendSettings {
    SpendSettings {
        budgets,
        heartbeat: Duration::from_millis(50),
        patience: Duration::from_secs(10),
        ..SpendSettings::default()
    }
}

pub fn total(micros: Micros) -> Budgets {
    Budgets { total: Some(micros), ..Budgets::default() }
}

pub fn who(owner: &str, key: &str) -> Who {
    Who { owner: owner.into(), key: Some(key.into()), key_budget: None }
}

pub fn new_attempt() -> NewAttempt {
    NewAttempt { response: None, model: "small".into(), deployment: "one".into(), provider: "demo".into() }
}

pub fn settled(attempt: Attempt, cost: Micros) -> Settlement {
    let usage = TokenUsage { input: 3, output: 5, ..TokenUsage::default() };
    Settlement { attempt, reason: Reason::Completed, usage, cost, estimated: false, raw: None }
}

/// A turn of a request that is not stored.
pub async fn turn(spend: &Spend, who: &Who, estimate: Micros, cost: Micros) -> Result<(), SpendError> {
    let mut reservation = spend.reserve(who, estimate).await?;
    pay(spend, &mut reservation, cost);
    Ok(())
}

pub fn pay(spend: &Spend, reservation: &mut Reservation, cost: Micros) {
    let attempt = reservation.attempt(new_attempt());
    spend.open(&attempt);
    spend.settle(settled(attempt, cost));
    reservation.charge(cost);
}

/// What was charged on the total budget, in memory.
pub fn charged(processes: &[Process]) -> Micros {
    let slices = processes.iter().flat_map(|process| process.spend.slices());
    slices.filter(|(budget, _)| budget.scope == Scope::Total).map(|(_, [_, spent, _])| spent).sum()
}

/// What the tables say of a budget: spent, held, and the cost of the rows.
pub async fn books(test: &TestDatabase) -> (Micros, Micros, Micros) {
    let session = test.session().await;
    let one = |sql: &'static str| value::<i64>(&session, sql);
    (
        one("SELECT coalesce(sum(spent_micros), 0)::bigint FROM budgets WHERE scope = 'total'").await,
        one("SELECT coalesce(sum(held_micros), 0)::bigint FROM budgets").await,
        one("SELECT coalesce(sum(cost_micros), 0)::bigint FROM usage WHERE state = 'settled'").await,
    )
}

/// Takes a process for dead, as a sweep does whose lease time is over.
pub async fn sweep(client: &mut Client, test: &TestDatabase, dead: &Spend) -> super::super::sweep::Swept {
    let session = test.session().await;
    let lapse = "UPDATE instances SET lease_until = now() - interval '1 second' WHERE id = $1";
    let holder = dead.holder();
    loop {
        session.execute(lapse, &[&holder]).await.expect("lapsed");
        let swept = crate::llm::spend::settle_dead(client, Duration::ZERO).await.expect("swept");
        // Alive after all, it may have renewed in between.
        if swept.holders > 0 {
            return swept;
        }
    }
}

/// Every budget's invariant: what is held is what slices hold.
pub async fn assert_held_is_sliced(test: &TestDatabase) {
    let session = test.session().await;
    let sql = "SELECT count(*) FROM budgets WHERE held_micros <> (
                   SELECT coalesce(sum(amount_micros), 0) FROM budget_slices s
                   WHERE (s.scope, s.subject, s.day) = (budgets.scope, budgets.subject, budgets.day))";
    assert_eq!(value::<i64>(&session, sql).await, 0, "held is not the sum of the slices");
}

/// The status view, of one budget.
pub async fn status(database: &Database, day: &str) -> Vec<spending::BudgetStatus> {
    let client = database.client().await.expect("a client");
    let (day, all) = (day.parse().expect("a date"), BudgetFilter::default());
    spending::standing(&client, day, all, None, MOST_BUDGETS).await.expect("an answer").entries
}
