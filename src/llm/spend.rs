//! Spend: budgets a day, reserved before a turn and settled after it.
//!
//! A process draws *slices* of the budgets that apply (of the owner, of the key, in total) and reserves from them in
//! memory; the database is asked only when a slice runs low, ahead of need. Slices become smaller towards a budget's
//! end, and what no turn needs is given back then, so that the stop is exact to one turn. How the rows work together,
//! what a crash costs and what is exact: `docs/spend.md`.
//!
//! ```text
//! let mut reservation = spend.reserve(&who, estimate).await?;       // in memory, but for the end of a budget
//! let attempt = reservation.attempt(NewAttempt { .. });
//! spend.open(&attempt);                                             // grouped, not awaited
//! // … the provider answers …
//! turns::finish_and_settle(&client, &finish, &[settlement], …).await?; // a stored turn: with its finish
//! reservation.charge(cost);                                         // what is left of it returns when it is dropped
//! spend.settle(settlement);                                         // everything else: grouped, not awaited
//! ```

mod error;
mod keeper;
mod ledger;
mod reservation;
mod rows;
mod settings;
mod spool;
mod sweep;
mod wanted;
mod writer;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, oneshot, watch};
use uuid::Uuid;

pub use error::SpendError;
pub use reservation::Reservation;
pub use rows::{Attempt, BudgetKey, Micros, Reason, Scope, Settlement, UsageState, Who};
pub use settings::{Budgets, Clock, SpendSettings, WithoutDatabase, system_clock, today};
pub use spool::{Spool, SpoolError, bring_home};
pub use sweep::settle_dead;
pub use writer::WriterStatus;

use self::ledger::{Ledger, Limits, Refusal, Wanted};
use self::writer::Writer;
use crate::azure::Queue;
use crate::database::{Database, DatabaseError, Statements};
use crate::tasks::Tasks;

/// How long a process that ends tries to give its slices back.
const GIVE_BACK: Duration = Duration::from_secs(5);

/// The spending of one process. Cheap to clone.
#[derive(Clone)]
pub struct Spend {
    inner: Arc<Inner>,
}

struct Inner {
    settings: SpendSettings,
    clock: Clock,
    /// `None`: usage is not tracked, nothing is enforced.
    database: Option<Database>,
    state: Mutex<State>,
    /// Something for the keeper to do.
    wake: Notify,
    /// Whether the database knows this process: only then does somebody notice if it dies.
    enrolled: watch::Sender<bool>,
    /// Held while slices are changed in the database.
    keeping: tokio::sync::Mutex<()>,
    writer: Writer,
}

struct State {
    ledger: Ledger,
    /// Who waits for a draw, in order.
    waiting: Vec<Waiting>,
    /// The name under which slices are held. Changes if this process was given up as dead.
    holder: Uuid,
    /// Until when the slices are surely ours.
    held_until: Option<Instant>,
    /// The database failed a moment ago; nobody waits for it until then.
    away_until: Option<Instant>,
    /// Everything was given back; nothing is drawn any more.
    finished: bool,
}

impl State {
    /// Whether there is no use in waiting for a draw.
    fn is_away(&self) -> bool {
        self.finished || self.away_until.is_some_and(|until| Instant::now() < until)
    }
}

struct Waiting {
    who: Who,
    limits: Limits,
    wanted: Wanted,
    answer: oneshot::Sender<Result<Reservation, SpendError>>,
    /// Since when it waits for other processes to give back.
    since: Option<Instant>,
}

/// What an attempt is for, as far as its reservation does not know it.
#[derive(Clone, Debug)]
pub struct NewAttempt {
    /// `None`: the attempt belongs to no response.
    pub response: Option<Uuid>,
    pub model: Arc<str>,
    pub deployment: Arc<str>,
    pub provider: Arc<str>,
}

impl Spend {
    /// `database`: `None` with `DB_TRACK_USAGE=false`; then nothing is written and no budget enforced. `spool`: the
    /// queue `usage`, for rows that the database does not take. Connects to nothing; [`Spend::start`] begins the work.
    pub fn new(
        settings: SpendSettings,
        database: Option<Database>,
        spool: Option<Queue>,
        clock: Clock,
    ) -> Self {
        let today = day_of(clock());
        let writer = Writer::new(&settings, database.clone(), spool);
        let state = State {
            ledger: Ledger::new(today),
            waiting: Vec::new(),
            holder: Uuid::now_v7(),
            held_until: None,
            away_until: None,
            finished: false,
        };
        let (state, wake, keeping) = (Mutex::new(state), Notify::new(), tokio::sync::Mutex::default());
        let enrolled = watch::Sender::new(false);
        Self { inner: Arc::new(Inner { settings, clock, database, state, wake, enrolled, keeping, writer }) }
    }

    /// Begins drawing, reporting, writing and sweeping in the background.
    pub fn start(&self, tasks: &Tasks) {
        if self.inner.database.is_some() {
            tasks.spawn("spend.keeper", keeper::run(self.clone(), tasks.stopping()));
            tasks.spawn("spend.writer", writer::run(self.clone(), tasks.stopping()));
        }
    }

    /// Waits until the database knows this process, so that what it opens is settled if it dies. For a process that opens
    /// its first attempt as soon as it spends; one that lives long is known by then.
    ///
    /// # Errors
    /// [`SpendError::Unavailable`] if that takes longer than a turn waits for its budget.
    pub async fn enrolled(&self) -> Result<(), SpendError> {
        if self.inner.database.is_none() {
            return Ok(());
        }
        let mut enrolled = self.inner.enrolled.subscribe();
        match tokio::time::timeout(self.inner.settings.patience, enrolled.wait_for(|enrolled| *enrolled))
            .await
        {
            Ok(Ok(_)) => Ok(()),
            _ => Err(SpendError::Unavailable),
        }
    }

    /// Whether usage is written at all.
    pub fn is_tracking(&self) -> bool {
        self.inner.database.is_some()
    }

    /// Sets `estimate` aside from every budget that applies: in memory, or after a draw that is shared by all turns
    /// that wait. The reservation returns what was not charged when it is dropped.
    ///
    /// # Errors
    /// [`SpendError::Spent`] once a budget cannot cover it; [`SpendError::Unavailable`] with the database away and
    /// nothing left in hand, unless `SPEND_WITHOUT_DATABASE=allow`.
    pub async fn reserve(&self, who: &Who, estimate: Micros) -> Result<Reservation, SpendError> {
        self.reserve_between(who, estimate, estimate).await
    }

    /// The same where a turn is content with less: it gets `most`, but no more than `SPEND_ANSWER_PERCENT` of any
    /// budget, and near a budget's end `least`.
    ///
    /// # Errors
    /// As [`Spend::reserve`], of `least`.
    pub async fn reserve_between(
        &self,
        who: &Who,
        least: Micros,
        most: Micros,
    ) -> Result<Reservation, SpendError> {
        let reserved = self.set_aside(who, least.max(0), most).await;
        if let Err(error) = &reserved {
            crate::telemetry::metrics::budget_refused(error.code());
        }
        reserved
    }

    async fn set_aside(&self, who: &Who, least: Micros, most: Micros) -> Result<Reservation, SpendError> {
        let limits = self.limits(who);
        let Some(smallest) = limits.smallest().filter(|_| self.is_tracking()) else {
            return Ok(self.unbudgeted(who, most.max(least)));
        };
        let wanted = Wanted { least, most: most.min(self.inner.settings.answer(smallest)).max(least) };
        let answer = {
            let mut state = self.state();
            match self.try_reserve(&mut state, who, limits, wanted) {
                Ok(reservation) => return Ok(reservation),
                Err(Refusal::Spent(scope)) => return Err(self.spent(scope)),
                Err(Refusal::Short) if state.is_away() => {
                    // What is left in hand may do for less.
                    let least = Wanted::exactly(least);
                    match self.try_reserve(&mut state, who, limits, least) {
                        Ok(reservation) => return Ok(reservation),
                        Err(_) => None,
                    }
                }
                Err(Refusal::Short) => {
                    let (answer, answered) = oneshot::channel();
                    let who = who.clone();
                    state.waiting.push(Waiting { who, limits, wanted, answer, since: None });
                    Some(answered)
                }
            }
        };
        let Some(answered) = answer else { return self.without_database(who, wanted) };
        self.inner.wake.notify_one();
        match tokio::time::timeout(self.inner.settings.patience, answered).await {
            Ok(Ok(Err(SpendError::Unavailable))) | Ok(Err(_)) | Err(_) => {
                let in_hand = {
                    let mut state = self.state();
                    self.try_reserve(&mut state, who, limits, Wanted::exactly(least))
                };
                in_hand.or_else(|_| self.without_database(who, wanted))
            }
            Ok(Ok(answer)) => answer,
        }
    }

    /// Opens an attempt's row, so that a crash leaves one. Grouped, not awaited. For a stored turn whose row is opened
    /// with its begin, see [`usage::open`](crate::database::usage::open).
    pub fn open(&self, attempt: &Attempt) {
        if self.inner.database.is_some() {
            self.inner.writer.open(attempt.clone());
        }
    }

    /// The same, and waits until the row is written: for a further attempt of a stored turn, which whoever takes the turn
    /// over has to find. While the database is away it is grouped like the others.
    pub async fn open_before_asking(&self, attempt: &Attempt) {
        /// A provider is about to be asked; its answer is worth more than the row of a crash.
        const PATIENCE: Duration = Duration::from_secs(1);
        let Some(database) = &self.inner.database else { return };
        let opened = async {
            let client = database.client().await?;
            crate::database::usage::open(&client, std::slice::from_ref(attempt)).await
        };
        if !self.state().is_away() && matches!(tokio::time::timeout(PATIENCE, opened).await, Ok(Ok(_))) {
            return;
        }
        self.open(attempt);
    }

    /// Writes an attempt's end. Grouped, not awaited; kept in memory, then on the queue `usage`, while the database is
    /// away. For attempts without a stored turn, and for a stored turn whose finish could not be written.
    pub fn settle(&self, settlement: Settlement) {
        if self.inner.database.is_some() {
            self.inner.writer.settle(settlement);
        }
    }

    /// What of these ends of attempts is written with a stored turn's finish, see
    /// [`finish_and_settle`](crate::database::turns::finish_and_settle): all, or none without tracking. And whether
    /// budgets may apply.
    pub fn settled_with_turn<'s>(&self, settlements: &'s [Settlement]) -> (&'s [Settlement], bool) {
        if self.is_tracking() { (settlements, self.budgeted()) } else { (&[], false) }
    }

    /// Settles what a turn's former process left open as what was set aside for it, for whoever took the turn over. That
    /// process may live after all and know better: what it says then stands.
    pub async fn settle_abandoned(
        &self,
        client: &impl Statements,
        response: Uuid,
    ) -> Result<u64, DatabaseError> {
        if self.inner.database.is_none() {
            return Ok(0);
        }
        let abandoned = crate::database::usage::abandoned_of(client, response).await?;
        // Always as if there were budgets: those of the other process count.
        crate::database::usage::settle(client, &abandoned, true).await
    }

    /// The last steps of a process that has no turns left: writes what is pending, gives all slices back. What cannot
    /// be written goes to the queue. Nothing is drawn afterwards.
    ///
    /// # Errors
    /// The slices could not be given back; they return when the lease lapses.
    pub async fn finish(&self) -> Result<(), DatabaseError> {
        let Some(database) = &self.inner.database else { return Ok(()) };
        let _alone = self.inner.keeping.lock().await;
        let holder = {
            let mut state = self.state();
            state.finished = true;
            state.holder
        };
        writer::drain(self).await;
        let give_back = async {
            let mut client = database.client().await?;
            sweep::settle_own(&mut client, holder).await
        };
        let late = DatabaseError::Timeout { statement: "budgets.retire", limit: GIVE_BACK };
        tokio::time::timeout(GIVE_BACK, give_back).await.unwrap_or(Err(late))?;
        self.state().ledger.forget_slices();
        Ok(())
    }

    /// The name under which this process holds slices and opens rows.
    pub fn holder(&self) -> Uuid {
        self.state().holder
    }

    /// Rows waiting to be written.
    pub fn writer_status(&self) -> WriterStatus {
        self.inner.writer.status()
    }

    /// The slices in hand, for `/health/status`: budget, drawn, spent, reserved.
    pub fn slices(&self) -> Vec<(BudgetKey, [Micros; 3])> {
        self.state().ledger.slices()
    }

    fn limits(&self, who: &Who) -> Limits {
        self.inner.settings.budgets.limits(who)
    }

    /// Whether any budget may apply to anybody.
    fn budgeted(&self) -> bool {
        // A key's own budget is not known beforehand; the ledger remembers that there was one.
        !self.inner.settings.budgets.is_empty() || self.state().ledger.is_used()
    }

    fn try_reserve(
        &self,
        state: &mut State,
        who: &Who,
        limits: Limits,
        wanted: Wanted,
    ) -> Result<Reservation, Refusal> {
        let now = Instant::now();
        state.ledger.turn_to(self.today());
        let ours = state.held_until.is_some_and(|until| now < until);
        let (amount, low) = state.ledger.reserve(who, limits, wanted, ours, now)?;
        if low {
            self.inner.wake.notify_one();
        }
        Ok(Reservation {
            spend: self.clone(),
            who: who.clone(),
            limits,
            day: state.ledger.today(),
            holder: Some(state.holder),
            left: amount,
        })
    }

    /// A reservation that no budget stands behind.
    fn unbudgeted(&self, who: &Who, amount: Micros) -> Reservation {
        Reservation {
            spend: self.clone(),
            who: who.clone(),
            limits: Limits::default(),
            day: self.today(),
            holder: self.inner.database.as_ref().map(|_| self.holder()),
            left: amount,
        }
    }

    fn without_database(&self, who: &Who, wanted: Wanted) -> Result<Reservation, SpendError> {
        match self.inner.settings.without_database {
            WithoutDatabase::Allow => Ok(self.unbudgeted(who, wanted.most)),
            WithoutDatabase::Refuse => Err(SpendError::Unavailable),
        }
    }

    fn spent(&self, scope: Scope) -> SpendError {
        let now = (self.inner.clock)();
        let until = next_day(now);
        let wait = SignedDuration::try_from(until - now).unwrap_or_default();
        SpendError::Spent { scope, until, wait: wait.try_into().unwrap_or_default() }
    }

    fn today(&self) -> Date {
        day_of((self.inner.clock)())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The UTC day of an instant.
fn day_of(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

/// The UTC midnight that ends an instant's day.
fn next_day(at: Timestamp) -> Timestamp {
    let tomorrow = day_of(at).tomorrow().and_then(|day| day.to_zoned(TimeZone::UTC));
    tomorrow.map_or(Timestamp::MAX, |midnight| midnight.timestamp())
}

#[cfg(test)]
mod tests;
