//! What a process holds of the budgets, what of it is spent, and what is set aside: arithmetic, no I/O.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::civil::Date;

pub(super) use super::wanted::{Limits, Refusal, Wanted};
use super::{BudgetKey, Micros, Scope, SpendSettings, Who};
use crate::database::budgets::{Ask, Drawn, Others, Report, Return, Standing};

/// How long a budget that could not grant enough is taken to be spent, without asking again.
const DRY: Duration = Duration::from_millis(250);
/// A slice unused for so long is given back.
const IDLE: Duration = Duration::from_secs(60);

/// The part of one budget that this process holds.
#[derive(Clone, Debug)]
struct Slice {
    limit: Micros,
    drawn: Micros,
    /// Charged since this slice was opened.
    spent: Micros,
    reserved: Micros,
    /// Nothing is drawn ahead, and nothing kept that no turn needs.
    scarce: bool,
    /// The last draw did not grant enough.
    lacking: bool,
    /// Nothing more was to be had, until then.
    dry_until: Option<Instant>,
    used_at: Instant,
    /// `spent` or `scarce` changed since the last report.
    dirty: bool,
    /// A change may or may not have happened in the database: the next report asks.
    unsure: bool,
    /// The highest share of the limit that was reported, in percent: 0, 80 or 100.
    alerted: u8,
}

impl Slice {
    fn new(limit: Micros, now: Instant) -> Self {
        Self {
            limit,
            drawn: 0,
            spent: 0,
            reserved: 0,
            scarce: false,
            lacking: false,
            dry_until: None,
            used_at: now,
            dirty: false,
            unsure: false,
            alerted: 0,
        }
    }

    fn free(&self) -> Micros {
        self.drawn.saturating_sub(self.spent).saturating_sub(self.reserved)
    }

    /// What it may give back.
    fn spare(&self, now: Instant) -> Micros {
        let idle = now.duration_since(self.used_at) >= IDLE;
        if (self.scarce || idle) && !self.unsure { self.free().max(0) } else { 0 }
    }
}

/// A day's slices.
#[derive(Debug)]
struct Book {
    owners: HashMap<Arc<str>, Slice>,
    keys: HashMap<Arc<str>, Slice>,
    total: Option<Slice>,
}

impl Book {
    fn new() -> Self {
        Self { owners: HashMap::new(), keys: HashMap::new(), total: None }
    }

    fn get(&mut self, scope: Scope, subject: &str) -> Option<&mut Slice> {
        match scope {
            Scope::Owner => self.owners.get_mut(subject),
            Scope::Key => self.keys.get_mut(subject),
            Scope::Total => self.total.as_mut(),
        }
    }

    fn of(&mut self, scope: Scope, who: &Who) -> Option<&mut Slice> {
        match scope {
            Scope::Owner => self.owners.get_mut(&who.owner),
            Scope::Key => self.keys.get_mut(who.key.as_deref()?),
            Scope::Total => self.total.as_mut(),
        }
    }

    fn make(&mut self, scope: Scope, who: &Who, limit: Micros, now: Instant) -> &mut Slice {
        let new = || Slice::new(limit, now);
        match (scope, &who.key) {
            (Scope::Owner, _) => self.owners.entry(who.owner.clone()).or_insert_with(new),
            (Scope::Key, Some(key)) => self.keys.entry(key.clone()).or_insert_with(new),
            // A key's budget applies to nobody without a key.
            (Scope::Key, None) | (Scope::Total, _) => self.total.get_or_insert_with(new),
        }
    }

    fn all(&mut self, day: Date) -> impl Iterator<Item = (BudgetKey, &mut Slice)> {
        let key = move |scope, subject: &Arc<str>| BudgetKey { scope, subject: subject.clone(), day };
        let nobody: Arc<str> = Arc::from("");
        let owners = self.owners.iter_mut().map(move |(subject, slice)| (key(Scope::Owner, subject), slice));
        let keys = self.keys.iter_mut().map(move |(subject, slice)| (key(Scope::Key, subject), slice));
        let total = self.total.iter_mut().map(move |slice| (key(Scope::Total, &nobody), slice));
        owners.chain(keys).chain(total)
    }

    fn reserved(&self) -> Micros {
        let all = self.owners.values().chain(self.keys.values()).chain(&self.total);
        all.map(|slice| slice.reserved).fold(0, Micros::saturating_add)
    }
}

/// All slices of a process.
#[derive(Debug)]
pub(super) struct Ledger {
    day: Date,
    today: Book,
    /// Days that are over but have turns under way, or slices to close.
    past: Vec<(Date, Book)>,
    used: bool,
    /// Some slice is low, or one that is scarce has something to spare.
    attention: bool,
}

impl Ledger {
    /// Without a slice, on this UTC day.
    pub fn new(day: Date) -> Self {
        Self { day, today: Book::new(), past: Vec::new(), used: false, attention: false }
    }

    /// The day that turns are paid on now.
    pub fn today(&self) -> Date {
        self.day
    }

    /// Whether any budget has ever applied.
    pub fn is_used(&self) -> bool {
        self.used
    }

    /// Begins a day. A clock that goes back begins none: a closed slice must not be opened again.
    pub fn turn_to(&mut self, day: Date) {
        if day > self.day {
            let over = std::mem::replace(&mut self.today, Book::new());
            self.past.push((self.day, over));
            self.day = day;
        }
    }

    /// Sets an amount aside in every budget that applies, or in none: the most that is wanted, or the least where a
    /// budget is near its end. Gives the amount, and whether a slice runs low. `ours`: whether the slices in hand can be
    /// relied on.
    pub fn reserve(
        &mut self,
        who: &Who,
        limits: Limits,
        wanted: Wanted,
        ours: bool,
        now: Instant,
    ) -> Result<(Micros, bool), Refusal> {
        self.used = true;
        let mut refusal = None;
        let mut amount = wanted.most;
        for (scope, limit) in limits.each() {
            let slice = self.today.make(scope, who, limit, now);
            slice.limit = limit;
            slice.used_at = now;
            let near_its_end = slice.scarce || (slice.lacking && slice.free() < wanted.most);
            // Half of it is worth no draw: one ahead of need follows.
            let enough = if near_its_end { wanted.least } else { wanted.least.max(wanted.most / 2) };
            if wanted.most > 0 && (!ours || slice.free() < enough) {
                let dry = ours && slice.dry_until.is_some_and(|until| now < until);
                refusal = match refusal {
                    None | Some(Refusal::Short) if dry => Some(Refusal::Spent(scope)),
                    None => Some(Refusal::Short),
                    known => known,
                };
            } else {
                amount = amount.min(if near_its_end { wanted.least } else { slice.free().max(0) });
            }
        }
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        let mut low = false;
        for (scope, _) in limits.each() {
            if let Some(slice) = self.today.of(scope, who) {
                slice.reserved = slice.reserved.saturating_add(amount);
                low |= !slice.scarce && slice.free() < slice.drawn / 4;
            }
        }
        self.attention |= low;
        Ok((amount, low))
    }

    /// Takes `covered` from what is set aside, and counts `cost` as spent. Says whether there is something to give
    /// back now.
    pub fn charge(&mut self, day: Date, who: &Who, limits: Limits, covered: Micros, cost: Micros) -> bool {
        let book = if day == self.day {
            Some(&mut self.today)
        } else {
            self.past.iter_mut().find(|(past, _)| *past == day).map(|(_, book)| book)
        };
        let Some(book) = book else { return false };
        let mut spare = false;
        for (scope, _) in limits.each() {
            if let Some(slice) = book.of(scope, who) {
                slice.reserved = slice.reserved.saturating_sub(covered);
                slice.spent = slice.spent.saturating_add(cost);
                slice.dirty |= cost > 0;
                spare |= day == self.day && slice.scarce && slice.free() > 0;
                if covered > cost {
                    slice.dry_until = None;
                }
            }
        }
        self.attention |= spare;
        spare
    }

    /// Whether slices want to be drawn ahead or given back, since the last time this was asked.
    pub fn wants_attention(&mut self) -> bool {
        std::mem::take(&mut self.attention)
    }

    /// What to draw: for those who wait, and ahead for slices that run low.
    pub fn asks<'w>(
        &mut self,
        waiting: impl Iterator<Item = (&'w Who, Limits, Wanted)>,
        settings: &SpendSettings,
    ) -> Vec<Ask> {
        let mut needs: HashMap<BudgetKey, (Wanted, Micros)> = HashMap::new();
        for (who, limits, wanted) in waiting {
            for (scope, _) in limits.each() {
                let subject = match scope {
                    Scope::Owner => who.owner.clone(),
                    Scope::Key => who.key.clone().unwrap_or_default(),
                    Scope::Total => Arc::from(""),
                };
                let (sum, smallest) = needs
                    .entry(BudgetKey { scope, subject, day: self.day })
                    .or_insert((Wanted::default(), Micros::MAX));
                sum.least = sum.least.saturating_add(wanted.least);
                sum.most = sum.most.saturating_add(wanted.most);
                *smallest = wanted.least.min(*smallest);
            }
        }
        let mut asks = Vec::new();
        for (budget, slice) in self.today.all(self.day) {
            let size = settings.slice(slice.limit);
            let need = |sum: &Wanted| if slice.scarce { sum.least } else { sum.most };
            match needs.get(&budget) {
                Some((sum, smallest)) if need(sum) > slice.free() => asks.push(Ask {
                    limit: slice.limit,
                    least: smallest.saturating_sub(slice.free()).max(1),
                    need: need(sum).saturating_sub(slice.free()),
                    slice: size,
                    budget,
                }),
                // Something was drawn before: a slice that nobody needed yet is not drawn ahead.
                _ if slice.drawn > 0 && !slice.scarce && slice.free() < slice.drawn.min(size) / 4 => {
                    asks.push(Ask { limit: slice.limit, least: 1, need: 0, slice: size, budget });
                }
                _ => {}
            }
        }
        asks
    }

    /// What a draw came to.
    pub fn drew(&mut self, drawn: &[Drawn], asks: &[Ask], settings: &SpendSettings, now: Instant) {
        for got in drawn {
            let need = asks.iter().find(|ask| ask.budget == got.budget).map_or(0, |ask| ask.need);
            if got.budget.day != self.day {
                continue;
            }
            if let Some(slice) = self.today.get(got.budget.scope, &got.budget.subject) {
                slice.drawn = got.amount;
                slice.unsure = false;
                slice.scarce = got.free < settings.slice(slice.limit);
                slice.lacking = got.granted < need;
                let nothing_comes = slice.lacking && got.others == Others::HoldNothing;
                slice.dry_until = nothing_comes.then(|| now + DRY);
            }
        }
    }

    /// Others were waited for in vain. Names a budget that could not grant enough.
    pub fn dried_up(&mut self, asks: &[Ask], now: Instant) -> Scope {
        let mut scope = Scope::Total;
        for ask in asks {
            if let Some(slice) = self.slice(&ask.budget).filter(|slice| slice.lacking) {
                slice.dry_until = Some(now + DRY);
                scope = ask.budget.scope;
            }
        }
        scope
    }

    /// The answer to a draw or a return was lost: what they changed is asked for with the next report.
    pub fn doubt(&mut self, budgets: impl Iterator<Item = BudgetKey>) {
        for budget in budgets {
            if let Some(slice) = self.slice(&budget) {
                slice.unsure = true;
            }
        }
    }

    /// Takes what is to be given back out of the slices.
    pub fn take_spare(&mut self, now: Instant) -> Vec<Return> {
        let day = self.day;
        let spare = self.today.all(day).filter_map(|(budget, slice)| {
            let micros = slice.spare(now);
            (micros > 0).then(|| {
                slice.drawn -= micros;
                Return { budget, micros, scarce: slice.scarce }
            })
        });
        spare.collect()
    }

    /// What changed since the last report.
    pub fn reports(&mut self) -> Vec<Report> {
        let day = self.day;
        let changed = self.today.all(day).filter(|(_, slice)| slice.dirty || slice.unsure);
        changed.map(|(budget, slice)| Report { budget, spent: slice.spent, scarce: slice.scarce }).collect()
    }

    /// A report was taken: how the budgets stand. Gives those whose use passed 80 or 100 percent.
    pub fn stands(&mut self, reported: &[Report], standings: &[Standing]) -> Vec<(BudgetKey, u8)> {
        for report in reported {
            if let Some(slice) = self.slice(&report.budget) {
                slice.dirty = slice.spent != report.spent || slice.scarce != report.scarce;
            }
        }
        let mut passed = Vec::new();
        for standing in standings {
            let asked = reported.iter().any(|report| report.budget == standing.budget);
            let Some(slice) = self.slice(&standing.budget) else { continue };
            if asked && slice.unsure {
                slice.drawn = standing.amount.unwrap_or(0);
                slice.unsure = false;
            }
            if standing.wanted && !slice.scarce {
                slice.scarce = true;
                slice.dirty = true;
            }
            let percent = standing.spent.saturating_mul(100).checked_div(standing.limit).unwrap_or(100);
            let level = if percent >= 100 {
                100
            } else if percent >= 80 {
                80
            } else {
                0
            };
            if level > slice.alerted {
                slice.alerted = level;
                passed.push((standing.budget.clone(), level));
            }
        }
        passed
    }

    /// The days that are over and have no turn under way; they are forgotten.
    pub fn take_finished_days(&mut self) -> Option<Date> {
        let last = self.past.iter().map(|(day, _)| *day).max()?;
        self.past.iter().all(|(_, book)| book.reserved() == 0).then(|| {
            self.past.clear();
            last
        })
    }

    /// The slices are no longer ours: they were closed, or this process was given up as dead.
    pub fn forget_slices(&mut self) {
        self.past.clear();
        for (_, slice) in self.today.all(self.day) {
            (slice.drawn, slice.spent, slice.dirty, slice.unsure) = (0, 0, false, false);
        }
    }

    /// Budget, and drawn, spent, reserved.
    pub fn slices(&mut self) -> Vec<(BudgetKey, [Micros; 3])> {
        let day = self.day;
        self.today.all(day).map(|(key, slice)| (key, [slice.drawn, slice.spent, slice.reserved])).collect()
    }

    fn slice(&mut self, budget: &BudgetKey) -> Option<&mut Slice> {
        if budget.day != self.day {
            return None;
        }
        self.today.get(budget.scope, &budget.subject)
    }
}
