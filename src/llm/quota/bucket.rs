//! A level that rises steadily and may be drawn below zero by those who wait their turn.

use std::time::Duration;

/// How much of what is left processes hand out among them at each exchange: each knows of the others' last second only.
const HANDED_OUT: f64 = 0.5;
/// How fast a share follows demand, a second.
const FOLLOWS: f64 = 0.2;
/// The demand of a process that asks nothing, in parts of the limit: it may begin at once, with little.
const LEAST_DEMAND: f64 = 0.02;

/// What processes keep together, as this one knows it, and its part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    level: f64,
    capacity: f64,
    per_second: f64,
    /// Of what comes in.
    share: f64,
    /// Of what is left.
    part: f64,
    /// What this process may take until the next exchange.
    mine: f64,
    /// Taken here and not yet told to the others.
    untold: f64,
    /// What the shared counter came to the last time.
    told: Option<i64>,
    /// What this process took in a second, and the others: an average of the last.
    taken: (f64, f64),
}

impl Bucket {
    /// Full. `share`: of it that this process takes for its own before it heard of others. `None`: there is no limit.
    pub fn new(per_minute: u64, seconds_of_capacity: f64, share: f64) -> Option<Self> {
        let per_second = per_minute as f64 / 60.0;
        let capacity = (per_second * seconds_of_capacity).max(1.0);
        (per_minute > 0).then_some(Self {
            level: capacity,
            capacity,
            per_second,
            share,
            part: share,
            mine: capacity * share,
            untold: 0.0,
            told: None,
            taken: (0.0, 0.0),
        })
    }

    /// What an amount counts as: more than everything is everything.
    pub fn most(&self, amount: f64) -> f64 {
        amount.min(self.capacity)
    }

    /// How long until so much is left for all, and for this process.
    pub fn wait(&self, amount: f64) -> (Duration, Duration) {
        let until = |lacking: f64, per_second: f64| {
            if lacking <= 0.0 {
                return Duration::ZERO;
            }
            Duration::try_from_secs_f64(lacking / per_second).unwrap_or(Duration::MAX)
        };
        let of_mine = amount.min(self.capacity * self.part);
        (
            until(amount.min(self.capacity) - self.level, self.per_second),
            until(of_mine - self.mine, self.per_second * self.share),
        )
    }

    /// So many seconds have passed.
    pub fn refill(&mut self, seconds: f64) {
        self.level = (self.level + seconds * self.per_second).min(self.capacity);
        self.mine = (self.mine + seconds * self.per_second * self.share).min(self.capacity * self.part);
    }

    /// Below zero: takes.
    pub fn add(&mut self, amount: f64) {
        self.level = (self.level + amount).min(self.capacity);
        self.mine = (self.mine + amount).min(self.capacity * self.part);
        self.untold -= amount;
    }

    /// What the others are to be told.
    pub fn untold(&self) -> i64 {
        // Rounded; what is cut off is told the next time.
        self.untold as i64
    }

    /// The others were told `amount`, and the counter came to `total`; so many processes share it.
    pub fn tell(&mut self, amount: i64, total: i64, processes: i64) {
        self.untold -= amount as f64;
        // A counter that began anew knows of nobody before.
        let others = match self.told {
            Some(before) if total >= before.saturating_add(amount.min(0)) => {
                total.saturating_sub(before).saturating_sub(amount)
            }
            _ => 0,
        };
        self.told = Some(total);
        self.level = (self.level - others as f64).clamp(-self.capacity, self.capacity);
        let follow = |average: f64, now: i64| average + FOLLOWS * (now.max(0) as f64 - average);
        self.taken = (follow(self.taken.0, amount), follow(self.taken.1, others));
        let least = self.per_second * LEAST_DEMAND;
        if processes > 1 {
            let all = self.taken.0 + self.taken.1 + least * processes as f64;
            self.share = (self.taken.0 + least) / all;
            self.part = self.share * HANDED_OUT;
        } else {
            (self.share, self.part) = (1.0, 1.0);
        }
        self.mine = if self.level > 0.0 { self.level * self.part } else { self.level };
    }

    /// The others are not heard of: what they take is theirs, and this process keeps to a share.
    pub fn alone(&mut self, share: f64) {
        (self.share, self.part) = (share, share);
        (self.untold, self.told, self.taken) = (0.0, None, (0.0, 0.0));
        self.mine = self.mine.min(self.level.max(0.0) * share);
    }
}
