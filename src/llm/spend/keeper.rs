//! The one task that changes this process's slices: draws, gives back, reports, closes, sweeps, one after the other.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{BudgetKey, Scope, Spend, SpendError, State, Waiting, ledger::Refusal, sweep};
use crate::database::budgets::{self, Ask, Others};
use crate::database::{Class, Client, Database, DatabaseError};
use crate::telemetry::metrics;

/// A keeper that hangs holds up every turn that waits for a draw.
const STATEMENT_LIMIT: Duration = Duration::from_secs(5);
/// After a failure turns are refused at once until the next success, and at most for so long, instead of each waiting for
/// the next failure.
const AWAY: Duration = Duration::from_secs(30);
/// Heartbeats that a turn waits for others to give back what they do not need, and the shortest such time.
const GIVING_BACK: u32 = 3;
const GIVING_BACK_LEAST: Duration = Duration::from_secs(2);
/// How long a turn waits for what others, who know that the budget is near its end, have on its way back.
const ON_ITS_WAY: Duration = Duration::from_millis(150);
const PARTITIONS_EVERY: Duration = Duration::from_secs(12 * 3600);

struct Keeper {
    spend: Spend,
    database: Database,
    sequence: i64,
    registered: bool,
    /// The database has been reached without a break since.
    reached_since: Option<Instant>,
    beat_at: Option<Instant>,
    swept_at: Instant,
    partitions_at: Option<Instant>,
    failing: bool,
}

/// Until `stopping`. What is held is given back by [`Spend::finish`].
pub(super) async fn run(spend: Spend, stopping: CancellationToken) {
    let Some(database) = spend.inner.database.clone() else { return };
    let mut keeper = Keeper {
        spend,
        database,
        sequence: 0,
        registered: false,
        reached_since: None,
        beat_at: None,
        swept_at: Instant::now(),
        partitions_at: None,
        failing: false,
    };
    loop {
        let more = match keeper.round().await {
            Ok(more) => {
                if std::mem::take(&mut keeper.failing) {
                    keeper.spend.state().away_until = None;
                }
                more
            }
            // Lost against another process; those who wait still do.
            Err(error) if error.class() == Class::Conflict => {
                metrics::database_error(error.code());
                true
            }
            Err(error) => {
                keeper.failed(&error);
                false
            }
        };
        let pause = if more { keeper.poll() } else { keeper.pause() };
        tokio::select! {
            () = stopping.cancelled() => return,
            () = keeper.spend.inner.wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Keeper {
    /// Everything there is to do now. Says whether somebody waits for other processes.
    async fn round(&mut self) -> Result<bool, DatabaseError> {
        let spend = self.spend.clone();
        let _alone = spend.inner.keeping.lock().await;
        if spend.state().finished {
            return Ok(false);
        }
        let mut client = self.database.client().await?;
        client.set_statement_timeout(STATEMENT_LIMIT);
        if !self.registered || self.beat_at.is_none_or(|at| at.elapsed() >= self.beat()) {
            self.heartbeat(&client).await?;
        }
        if !self.registered {
            // It was given up, and begins anew.
            self.heartbeat(&client).await?;
        }
        let waiting = self.draw(&client).await?;
        self.give_back(&client).await?;
        self.close_past(&mut client).await?;
        self.upkeep(&mut client).await?;
        Ok(waiting)
    }

    /// Without budgets a heartbeat only has to keep the lease.
    fn beat(&self) -> Duration {
        let settings = &self.spend.inner.settings;
        if self.spend.budgeted() { settings.heartbeat } else { settings.heartbeat.max(settings.lease / 4) }
    }

    /// Between looks at whether others gave back.
    fn poll(&self) -> Duration {
        (self.spend.inner.settings.heartbeat / 10).clamp(Duration::from_millis(10), Duration::from_millis(50))
    }

    /// How long others may take to give back, if they live.
    fn giving_back(&self) -> Duration {
        (self.spend.inner.settings.heartbeat * GIVING_BACK).max(GIVING_BACK_LEAST)
    }

    fn pause(&self) -> Duration {
        let beat = if self.failing { self.spend.inner.settings.heartbeat } else { self.beat() };
        self.beat_at.map_or(beat, |at| beat.saturating_sub(at.elapsed())).max(Duration::from_millis(10))
    }

    async fn heartbeat(&mut self, client: &Client) -> Result<(), DatabaseError> {
        let settings = &self.spend.inner.settings;
        // Taken before asking: the database counts the lease from later on.
        let asked = Instant::now();
        let holder = self.spend.holder();
        if !self.registered {
            budgets::register(client, holder, settings.lease).await?;
            self.registered = true;
        }
        self.sequence += 1;
        let reports = self.spend.state().ledger.reports();
        let standings = budgets::heartbeat(client, holder, settings.lease, self.sequence, &reports).await?;
        let Some(standings) = standings else {
            self.given_up();
            return Ok(());
        };
        let passed = {
            let mut state = self.spend.state();
            state.held_until = Some(asked + settings.lease);
            state.away_until = None;
            state.ledger.stands(&reports, &standings)
        };
        for (budget, percent) in self.untold(client, passed).await {
            metrics::budget_passed(budget.scope.as_str(), percent);
            tracing::warn!(
                code = if percent >= 100 { "budget_spent" } else { "budget_nearly_spent" },
                scope = budget.scope.as_str(),
                subject = &*budget.subject,
                day = %budget.day,
                percent,
                "a budget is running out"
            );
        }
        let today = self.spend.today();
        let total = standings.iter().find(|one| one.budget.scope == Scope::Total && one.budget.day == today);
        if let Some(total) = total {
            metrics::budget_used(today, total.spent, total.limit);
        }
        self.reached(asked);
        self.beat_at = Some(asked);
        self.spend.inner.enrolled.send_replace(true);
        Ok(())
    }

    /// Of budgets that this process saw pass a share of their limit, those that no process has told of. Should nobody know,
    /// rather told twice than never.
    async fn untold(&self, client: &Client, passed: Vec<(BudgetKey, u8)>) -> Vec<(BudgetKey, u8)> {
        if passed.is_empty() {
            return passed;
        }
        match budgets::tell(client, &passed).await {
            Ok(untold) => untold,
            Err(error) => {
                metrics::database_error(error.code());
                passed
            }
        }
    }

    /// Somebody who could reach the database when this process could not has closed its slices.
    fn given_up(&mut self) {
        let mut state = self.spend.state();
        tracing::warn!(
            code = "spend_lease_lost",
            holder = %state.holder,
            "this process did not reach the database for SPEND_LEASE; its slices were closed, and it begins anew"
        );
        state.holder = Uuid::now_v7();
        state.held_until = None;
        state.ledger.forget_slices();
        drop(state);
        (self.registered, self.sequence) = (false, 0);
        self.spend.inner.wake.notify_one();
    }

    fn reached(&mut self, now: Instant) {
        let lease = self.spend.inner.settings.lease;
        if self.beat_at.is_none_or(|last| now.duration_since(last) > lease) {
            self.reached_since = None;
        }
        self.reached_since.get_or_insert(now);
    }

    fn failed(&mut self, error: &DatabaseError) {
        metrics::database_error(error.code());
        if !self.failing {
            tracing::warn!(
                code = error.code(),
                %error,
                "budgets cannot be drawn from the database; turns go on with what is held"
            );
        }
        self.failing = true;
        self.reached_since = None;
        let waiting = {
            let mut state = self.spend.state();
            state.away_until = Some(Instant::now() + AWAY);
            std::mem::take(&mut state.waiting)
        };
        for one in waiting {
            answer(one, Err(SpendError::Unavailable));
        }
    }

    /// Draws until everybody who waits has an answer, or waits for other processes; then ahead. Says whether somebody
    /// still waits.
    async fn draw(&mut self, client: &Client) -> Result<bool, DatabaseError> {
        // A budget's first draw makes its row, the second draws; a third is for those who came meanwhile.
        for round in 0_u32.. {
            let (asks, holder) = {
                let mut state = self.spend.state();
                state.ledger.turn_to(self.spend.today());
                state.waiting.retain(|one| !one.answer.is_closed());
                let State { ledger, waiting, holder, .. } = &mut *state;
                let all = waiting.iter().map(|one| (&one.who, one.limits, one.wanted));
                (ledger.asks(all, &self.spend.inner.settings), *holder)
            };
            let mut others = Others::HoldNothing;
            let mut made = false;
            if !asks.is_empty() {
                let aware_within = self.giving_back();
                let drawn = match budgets::draw(client, holder, &asks, aware_within).await {
                    Ok(drawn) => drawn,
                    Err(error) => {
                        let budgets = asks.into_iter().map(|ask| ask.budget);
                        self.spend.state().ledger.doubt(budgets);
                        return Err(error);
                    }
                };
                others = drawn.iter().map(|one| one.others).max().unwrap_or(others);
                made = drawn.len() < asks.len();
                let settings = &self.spend.inner.settings;
                self.spend.state().ledger.drew(&drawn, &asks, settings, Instant::now());
            }
            let waits = self.answer_those_who_can_go(&asks, others, made);
            if waits == 0 || (others > Others::HoldNothing && !made) {
                return Ok(waits > 0);
            }
            if round >= 5 {
                // Nothing was drawn although nothing failed: this process is not registered any more.
                self.beat_at = None;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Everybody whom the slices cover gets a reservation, in order. Whoever a budget cannot cover is refused, unless
    /// others may give back. Says how many still wait.
    fn answer_those_who_can_go(&self, asks: &[Ask], others: Others, made: bool) -> usize {
        let patience = if others == Others::Unaware { self.giving_back() } else { ON_ITS_WAY };
        let asked = !asks.is_empty() && others > Others::HoldNothing && !made;
        let mut answers = Vec::new();
        let mut state = self.spend.state();
        let waiting = std::mem::take(&mut state.waiting);
        for mut one in waiting {
            match self.spend.try_reserve(&mut state, &one.who, one.limits, one.wanted) {
                Ok(reservation) => answers.push((one, Ok(reservation))),
                Err(Refusal::Spent(scope)) => {
                    let refused = self.spend.spent(scope);
                    answers.push((one, Err(refused)));
                }
                Err(Refusal::Short) => {
                    let now = Instant::now();
                    let since = *one.since.get_or_insert(now);
                    if asked && now >= since + patience {
                        let scope = state.ledger.dried_up(asks, now);
                        answers.push((one, Err(self.spend.spent(scope))));
                    } else {
                        state.waiting.push(one);
                    }
                }
            }
        }
        let waits = state.waiting.len();
        // A reservation that nobody takes any more returns to the ledger, behind the same lock.
        drop(state);
        for (one, result) in answers {
            answer(one, result);
        }
        waits
    }

    async fn give_back(&mut self, client: &Client) -> Result<(), DatabaseError> {
        let (returns, holder) = {
            let mut state = self.spend.state();
            state.ledger.wants_attention();
            (state.ledger.take_spare(Instant::now()), state.holder)
        };
        if returns.is_empty() {
            return Ok(());
        }
        self.sequence += 1;
        let result = budgets::give_back(client, holder, self.sequence, &returns).await;
        if result.is_err() {
            self.spend.state().ledger.doubt(returns.into_iter().map(|one| one.budget));
        }
        result
    }

    async fn close_past(&mut self, client: &mut Client) -> Result<(), DatabaseError> {
        let (finished, holder, today) = {
            let mut state = self.spend.state();
            state.ledger.turn_to(self.spend.today());
            (state.ledger.take_finished_days(), state.holder, state.ledger.today())
        };
        if finished.is_some() {
            budgets::close_past(client, holder, today).await?;
        }
        Ok(())
    }

    async fn upkeep(&mut self, client: &mut Client) -> Result<(), DatabaseError> {
        let lease = self.spend.inner.settings.lease;
        if self.partitions_at.is_none_or(|at| at.elapsed() >= PARTITIONS_EVERY) {
            crate::database::usage::ensure_partitions(client).await?;
            self.partitions_at = Some(Instant::now());
        }
        // While nobody could reach the database nobody could renew: only one who reached it for a whole lease can tell.
        let can_tell = self.reached_since.is_some_and(|since| since.elapsed() >= lease);
        if can_tell && self.swept_at.elapsed() >= lease / 4 {
            self.swept_at = Instant::now();
            let swept = sweep::settle_dead(client, Duration::ZERO).await?;
            if swept.holders > 0 {
                metrics::swept("spend", swept.rows);
                tracing::warn!(
                    code = "spend_of_dead_settled",
                    holders = swept.holders,
                    rows = swept.rows,
                    "processes died; what they had under way counts as estimated"
                );
            }
        }
        Ok(())
    }
}

fn answer(one: Waiting, result: Result<super::Reservation, SpendError>) {
    // Whoever left meanwhile gets nothing; a reservation returns by being dropped here.
    drop(one.answer.send(result));
}
