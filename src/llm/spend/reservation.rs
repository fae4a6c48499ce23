//! Money set aside.

use jiff::civil::Date;
use uuid::Uuid;

use super::ledger::Limits;
use super::{Attempt, Micros, NewAttempt, Spend, Who};

/// Money set aside for one turn. What was not charged returns when it is dropped.
pub struct Reservation {
    pub(super) spend: Spend,
    pub(super) who: Who,
    pub(super) limits: Limits,
    pub(super) day: Date,
    pub(super) holder: Option<Uuid>,
    pub(super) left: Micros,
}

impl Reservation {
    /// What is still set aside.
    pub fn left(&self) -> Micros {
        self.left
    }

    /// Whether a budget stands behind it.
    pub fn is_budgeted(&self) -> bool {
        !self.limits.is_empty()
    }

    /// Whose money it is.
    pub fn who(&self) -> &Who {
        &self.who
    }

    /// A new attempt on this account, which counts as all that is left until it is settled.
    pub fn attempt(&self, new: NewAttempt) -> Attempt {
        Attempt {
            id: Uuid::now_v7(),
            response: new.response,
            owner: self.who.owner.clone(),
            key: self.who.key.clone(),
            model: new.model,
            deployment: new.deployment,
            provider: new.provider,
            reserved: self.left,
            holder: self.holder,
            day: self.day,
            started_at: (self.spend.inner.clock)(),
        }
    }

    /// An attempt cost this much, whether or not so much was set aside. Call it once for each settlement, after the
    /// row is on its way. Memory only.
    pub fn charge(&mut self, cost: Micros) {
        let cost = cost.max(0);
        let covered = cost.min(self.left);
        self.left -= covered;
        if !self.limits.is_empty() {
            let wake = {
                let mut state = self.spend.state();
                state.ledger.charge(self.day, &self.who, self.limits, covered, cost)
            };
            if wake {
                self.spend.inner.wake.notify_one();
            }
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.left > 0 && !self.limits.is_empty() {
            let wake = {
                let mut state = self.spend.state();
                state.ledger.charge(self.day, &self.who, self.limits, self.left, 0)
            };
            if wake {
                self.spend.inner.wake.notify_one();
            }
        }
    }
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reservation")
            .field("left", &self.left)
            .field("day", &self.day)
            .finish_non_exhaustive()
    }
}
