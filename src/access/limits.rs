//! How much a key may do: requests and tokens a minute, turns at once. Decided in memory; what other instances let
//! through is learnt in the background, so that together they keep the limit after a moment, and no request waits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::time::Instant;

use super::Principal;
use super::bucket::Bucket;
use crate::config::{KeyLimits, RateDefaults};
use crate::coordination::{Add, Coordination};
use crate::openresponses::{ApiError, ErrorType};
use crate::tasks::Tasks;
use crate::telemetry::metrics;

/// How often instances tell each other.
const EVERY: Duration = Duration::from_secs(1);
/// Shared counters outlive a pause in a key's use by this.
const LIVES: Duration = Duration::from_secs(300);
/// Turns at once are counted anew in each slot of time, so that those of a crashed instance are forgotten.
const SLOT: Duration = Duration::from_secs(2);
/// How often operators are told of one caller who is at a limit.
const TELL_EVERY: Duration = Duration::from_secs(60);
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// Limits as they apply to one key. `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Applied {
    requests: Option<u64>,
    tokens: Option<u64>,
    turns: Option<u64>,
}

struct Account {
    applied: Applied,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    turns: u64,
    /// Turns of other instances, as of the slot before this one.
    others: u64,
    /// The last slot that turns were told in, and how many.
    counted: (u64, i64),
    used: Instant,
    /// When operators were last told that it is at its limit.
    told_at: Option<Instant>,
}

/// The limits of everybody. Cheap to clone.
#[derive(Clone)]
pub struct RateLimits(Arc<Inner>);

struct Inner {
    defaults: RateDefaults,
    accounts: Mutex<HashMap<Arc<str>, Account>>,
    coordination: Arc<dyn Coordination>,
}

/// A limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limit of {limit} ({most}) is reached; try again in {wait:?}")]
pub struct Limited {
    /// `requests`, `tokens` or `turns`.
    pub limit: &'static str,
    pub most: u64,
    pub wait: Duration,
    room: Room,
}

/// Of requests and of tokens: how many a minute, how many are left, and until when all are again.
type Room = [Option<(u64, u64, Duration)>; 2];

impl From<Limited> for ApiError {
    fn from(limited: Limited) -> Self {
        let what = match limited.limit {
            "turns" => "requests at once",
            "tokens" => "tokens a minute",
            _ => "requests a minute",
        };
        let seconds = limited.wait.as_secs_f64().max(0.1);
        let message = format!(
            "Rate limit reached: {} {what} are allowed. Please try again in {seconds:.1}s.",
            limited.most
        );
        let error = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            ErrorType::RateLimitError,
            "rate_limit_exceeded",
            message,
        );
        headers(limited.room)
            .fold(error.retry_after(limited.wait), |error, (name, value)| error.header(name, value))
    }
}

/// `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, as OpenAI sends them, where there are limits.
fn headers(room: Room) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    const NAMES: [[HeaderName; 3]; 2] = [
        [
            HeaderName::from_static("x-ratelimit-limit-requests"),
            HeaderName::from_static("x-ratelimit-remaining-requests"),
            HeaderName::from_static("x-ratelimit-reset-requests"),
        ],
        [
            HeaderName::from_static("x-ratelimit-limit-tokens"),
            HeaderName::from_static("x-ratelimit-remaining-tokens"),
            HeaderName::from_static("x-ratelimit-reset-tokens"),
        ],
    ];
    NAMES.into_iter().zip(room).filter_map(|(names, room)| Some((names, room?))).flat_map(
        |([limit, left, full], (most, remaining, reset))| {
            let reset = HeaderValue::try_from(span(reset)).ok().map(|reset| (full, reset));
            [(limit, HeaderValue::from(most)), (left, HeaderValue::from(remaining))].into_iter().chain(reset)
        },
    )
}

/// A time as OpenAI writes it: `120ms`, `8.64s`, `1m30s`, `1h0m0s`.
fn span(time: Duration) -> String {
    let ms = time.as_nanos().div_ceil(1_000_000);
    if ms > 0 && ms < 1_000 {
        return format!("{ms}ms");
    }
    let (hours, minutes, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms % 60_000);
    let mut text = String::new();
    if hours > 0 {
        text = format!("{hours}h");
    }
    if hours > 0 || minutes > 0 {
        text += &format!("{minutes}m");
    }
    text += &match ms % 1_000 {
        0 => format!("{}", ms / 1_000),
        part => format!("{}.{part:03}", ms / 1_000).trim_end_matches('0').to_owned(),
    };
    text + "s"
}

impl RateLimits {
    pub fn new(defaults: RateDefaults, coordination: Arc<dyn Coordination>) -> Self {
        Self(Arc::new(Inner { defaults, accounts: Mutex::default(), coordination }))
    }

    /// Begins to tell other instances, until `tasks` stop.
    pub fn start(&self, tasks: &Tasks) {
        let (limits, stopping) = (self.clone(), tasks.stopping());
        tasks.spawn("limits.reconcile", async move {
            loop {
                tokio::select! {
                    () = stopping.cancelled() => return,
                    () = tokio::time::sleep(EVERY) => {}
                }
                limits.reconcile().await;
            }
        });
    }

    /// Room for one more request of this caller, which may take so many tokens. Memory only.
    ///
    /// # Errors
    /// The limit that is reached, and for how long. Nothing was counted then.
    pub fn admit(&self, who: &Principal, tokens: u64) -> Result<Admitted, Limited> {
        let applied = self.applied(&who.limits);
        let now = Instant::now();
        let mut accounts = self.accounts();
        let name: Arc<str> = match accounts.get_key_value(who.account()) {
            Some((name, _)) => name.clone(),
            None => who.account().into(),
        };
        let account = accounts.entry(name.clone()).or_insert_with(|| Account::new(applied, now));
        account.follow(applied, now);
        if let Some(limited) = account.limited(tokens) {
            metrics::rate_limited(limited.limit);
            let tells = account.tells(now);
            drop(accounts);
            if tells {
                let Limited { limit, most, .. } = limited;
                tracing::warn!(
                    code = "access.limited",
                    account = &*name,
                    limit,
                    most,
                    "a caller is at its limit and refused; said once a minute"
                );
            }
            return Err(limited);
        }
        if let Some(bucket) = &mut account.requests {
            bucket.take(1);
        }
        if let Some(bucket) = &mut account.tokens {
            bucket.take(i64::try_from(tokens).unwrap_or(i64::MAX));
        }
        account.turns += 1;
        Ok(Admitted { limits: self.clone(), name, tokens, is_turn: true, room: account.room() })
    }

    fn applied(&self, own: &KeyLimits) -> Applied {
        let or = |own: Option<u64>, default: u64| own.or((default > 0).then_some(default));
        let defaults = &self.0.defaults;
        Applied {
            requests: or(own.requests_per_minute, defaults.requests_per_minute),
            tokens: or(own.tokens_per_minute, defaults.tokens_per_minute),
            turns: or(own.concurrent_turns, defaults.concurrent_turns),
        }
    }

    /// Tells the others what was let through here, and learns what they let through.
    async fn reconcile(&self) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.reconcile_in(since.as_secs() / SLOT.as_secs()).await;
    }

    async fn reconcile_in(&self, slot: u64) {
        let now = Instant::now();
        let mut adds = Vec::new();
        let mut of = Vec::new();
        {
            let mut accounts = self.accounts();
            accounts.retain(|_, account| account.is_remembered(now));
            for (name, account) in accounts.iter_mut() {
                for (kind, bucket) in [("r", &account.requests), ("t", &account.tokens)] {
                    if let Some(bucket) = bucket {
                        adds.push(Add {
                            key: format!("rate:{kind}:{name}"),
                            by: bucket.untold(),
                            lives: LIVES,
                        });
                        of.push((name.clone(), kind, bucket.untold()));
                    }
                }
                // A slot is added to once by each instance, and read when all have done so.
                if account.applied.turns.is_some() && account.counted.0 != slot {
                    let turns = i64::try_from(account.turns).unwrap_or(i64::MAX);
                    let (told_in, told) = std::mem::replace(&mut account.counted, (slot, turns));
                    let mine = if told_in == slot.wrapping_sub(1) { told } else { 0 };
                    for (slot, by) in [(slot, turns), (slot.wrapping_sub(1), 0)] {
                        adds.push(Add { key: format!("turns:{slot}:{name}"), by, lives: SLOT * 5 });
                    }
                    of.push((name.clone(), "", 0));
                    of.push((name.clone(), "c", mine));
                }
            }
        }
        let Ok(totals) = self.0.coordination.add(&adds).await else {
            // Alone for now: what others have under way is not known.
            self.accounts().values_mut().for_each(|account| account.others = 0);
            return;
        };
        let mut accounts = self.accounts();
        for ((name, kind, by), total) in of.into_iter().zip(totals) {
            let Some(account) = accounts.get_mut(&name) else { continue };
            match (kind, &mut account.requests, &mut account.tokens) {
                ("r", Some(bucket), _) | ("t", _, Some(bucket)) => bucket.tell(by, total),
                ("c", ..) => account.others = u64::try_from(total.saturating_sub(by)).unwrap_or(0),
                _ => {}
            }
        }
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<Arc<str>, Account>> {
        self.0.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    fn new(applied: Applied, now: Instant) -> Self {
        Self {
            applied,
            requests: applied.requests.map(|most| Bucket::new(most, now)),
            tokens: applied.tokens.map(|most| Bucket::new(most, now)),
            turns: 0,
            others: 0,
            counted: (0, 0),
            used: now,
            told_at: None,
        }
    }

    /// Whether operators are to be told that it is at its limit. Callers who are refused come again and again.
    fn tells(&mut self, now: Instant) -> bool {
        let tells = self.told_at.is_none_or(|at| now.saturating_duration_since(at) >= TELL_EVERY);
        if tells {
            self.told_at = Some(now);
        }
        tells
    }

    fn follow(&mut self, applied: Applied, now: Instant) {
        self.used = now;
        if self.applied != applied {
            for (bucket, most) in [(&mut self.requests, applied.requests), (&mut self.tokens, applied.tokens)]
            {
                match (&mut *bucket, most) {
                    (Some(bucket), Some(most)) => bucket.resize(most),
                    (_, most) => *bucket = most.map(|most| Bucket::new(most, now)),
                }
            }
            self.applied = applied;
        }
        for bucket in [&mut self.requests, &mut self.tokens].into_iter().flatten() {
            bucket.refill(now);
        }
    }

    fn limited(&self, tokens: u64) -> Option<Limited> {
        let over = |limit, most: Option<u64>, bucket: &Option<Bucket>, amount| {
            let wait = bucket.as_ref()?.wait(amount);
            (!wait.is_zero()).then_some(Limited { limit, most: most?, wait, room: self.room() })
        };
        over("requests", self.applied.requests, &self.requests, 1)
            .or_else(|| over("tokens", self.applied.tokens, &self.tokens, tokens))
            .or_else(|| {
                let most = self.applied.turns?;
                let room = self.room();
                (self.turns + self.others >= most).then_some(Limited {
                    limit: "turns",
                    most,
                    wait: EVERY,
                    room,
                })
            })
    }

    fn is_remembered(&self, now: Instant) -> bool {
        let told = |bucket: &Option<Bucket>| bucket.as_ref().is_none_or(|bucket| bucket.untold() == 0);
        self.turns > 0
            || now.saturating_duration_since(self.used) < FORGET_AFTER
            || !told(&self.requests)
            || !told(&self.tokens)
    }

    fn room(&self) -> Room {
        let describe = |most: Option<u64>, bucket: &Option<Bucket>| {
            let bucket = bucket.as_ref()?;
            Some((most?, bucket.remaining(), bucket.reset()))
        };
        [describe(self.applied.requests, &self.requests), describe(self.applied.tokens, &self.tokens)]
    }
}

/// Room for one request. The turn it counts as ends when this is dropped.
pub struct Admitted {
    limits: RateLimits,
    name: Arc<str>,
    tokens: u64,
    is_turn: bool,
    room: Room,
}

impl Admitted {
    /// Adds `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, as OpenAI sends them, where there are limits.
    pub fn describe(&self, into: &mut HeaderMap) {
        into.extend(headers(self.room));
    }

    /// For what the same request takes beside its own tokens. No further request or turn; settled by itself.
    #[must_use]
    pub fn beside(&self) -> Self {
        let Self { limits, name, room, .. } = self;
        Self { limits: limits.clone(), name: Arc::clone(name), tokens: 0, is_turn: false, room: *room }
    }

    /// The request took so many tokens instead of what was estimated. Also tells the next caller.
    pub fn settle(&mut self, tokens: u64) {
        let more = i64::try_from(tokens).unwrap_or(i64::MAX) - i64::try_from(self.tokens).unwrap_or(i64::MAX);
        self.tokens = tokens;
        if let Some(bucket) =
            self.limits.accounts().get_mut(&self.name).and_then(|account| account.tokens.as_mut())
        {
            bucket.take(more);
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if self.is_turn
            && let Some(account) = self.limits.accounts().get_mut(&self.name)
        {
            account.turns = account.turns.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests;
