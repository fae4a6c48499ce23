//! What a turn costs: set aside before, written down for every attempt that may have been charged, whatever ended it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::watched::Place;
use super::{Engine, create::Start};
use crate::access::{Admitted, Principal};
use crate::llm::spend::{Attempt, NewAttempt, Reason, Reservation, Settlement, Spend, Who};
use crate::llm::{
    Alias, AttemptReport, ErrorClass, ModelRequest, NextAttempt, OpenLimits, OpenStream, Price, TokenUsage,
    cost, estimate_item, estimate_tokens,
};
use crate::openresponses::{ApiError, CreateResponse, Item};
use crate::telemetry::metrics;

/// Tokens that an answer without a limit has set aside at least; and what is set aside at a time for one that goes on.
const USUAL_ANSWER: u64 = 4_096;
/// Bytes of English a token: what an answer is measured by while it comes.
const BYTES_PER_TOKEN: u64 = 4;
/// Bytes of a provider's own words on usage that are kept; longer ones are not.
const LONGEST_RAW: usize = 4_096;

/// The account of a turn.
pub(super) struct Paying {
    reservation: Reservation,
    /// Set aside later: for an answer that goes on, and for attempts that came to nothing and may be charged.
    further: Further,
    /// Output tokens that what is set aside pays for. `None`: no budget applies.
    covered: Option<u64>,
    /// Beyond so many output tokens, as they are measured, the answer surely passes the limit that its provider was sent.
    ceiling: Option<u64>,
    /// Of the dearest deployment.
    price: Price,
    /// What the answer may have at most because no more was set aside.
    limit: Option<u32>,
    /// The row that is opened before anything is paid.
    pub first: Attempt,
    estimated_input: u64,
    /// Attempts that came to nothing.
    failed: Vec<AttemptReport>,
    /// The attempt that began to answer.
    begun: Option<Answering>,
    /// As the provider told, so far.
    pub usage: Option<TokenUsage>,
    /// In the provider's own words.
    pub raw: Option<Arc<str>>,
    /// The provider came to its end, so what it told is the whole.
    pub whole: bool,
    /// Tokens counted of what was said before some of it was taken back: they were paid for all the same.
    pub retracted: u64,
    /// The caller's room, given back at the end.
    pub admitted: Option<Admitted>,
    /// A place among the turns that nobody watches, given back at the end.
    pub unwatched: Option<Place>,
}

#[derive(Debug)]
struct Answering {
    id: Uuid,
    deployment: Arc<str>,
    provider: &'static str,
    price: Price,
}

/// Tokens of an answer that is yet to come.
struct Length {
    /// With less set aside the turn does not begin.
    least: u64,
    most: u64,
    /// Its caller said so.
    is_limited: bool,
}

#[derive(Clone, Default)]
struct Further(Arc<Mutex<Vec<Reservation>>>);

impl Further {
    fn all(&self) -> MutexGuard<'_, Vec<Reservation>> {
        // Every change is one push.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets more aside. `false`: the budget does not have it.
    async fn add(&self, spend: &Spend, who: &Who, amount: i64) -> bool {
        let reserved = spend.reserve(who, amount).await;
        reserved.map(|reserved| self.all().push(reserved)).is_ok()
    }
}

/// At the dearest of the alias's deployments.
fn dearest(alias: &Alias) -> Price {
    let price = alias.price();
    Price { input: price.input.max(price.cache_write), ..price }
}

fn most(input: u64, output: u64, price: &Price) -> i64 {
    cost(&TokenUsage { input, output, ..TokenUsage::default() }, price)
}

impl Engine {
    /// Sets money aside for a turn.
    pub(super) async fn reserve(&self, start: &Start<'_>, items: &[Arc<Item>]) -> Result<Paying, ApiError> {
        self.reserve_for(start.who, start.id.0, start.alias, start.request, items).await
    }

    pub(super) async fn reserve_for(
        &self,
        who: &Principal,
        response: Uuid,
        alias: &Alias,
        params: &Arc<CreateResponse>,
        items: &[Arc<Item>],
    ) -> Result<Paying, ApiError> {
        let request = ModelRequest { params: Arc::clone(params), items: items.to_vec() };
        let input = estimate_tokens(&request);
        let longest = u64::from(alias.max_output_tokens());
        let output = match params.max_output_tokens.map(u64::from) {
            Some(asked) => Length { least: asked, most: asked, is_limited: true },
            None => Length { least: USUAL_ANSWER.min(longest), most: longest, is_limited: false },
        };
        self.account(who, alias, Some(response), input, output).await
    }

    /// The same for embeddings, which have no output.
    pub(super) async fn reserve_embeddings(
        &self,
        who: &Principal,
        alias: &Alias,
        input: u64,
    ) -> Result<Paying, ApiError> {
        self.account(who, alias, None, input, Length { least: 0, most: 0, is_limited: true }).await
    }

    async fn account(
        &self,
        who: &Principal,
        alias: &Alias,
        response: Option<Uuid>,
        estimated_input: u64,
        output: Length,
    ) -> Result<Paying, ApiError> {
        let Length { least: shortest, most: longest, is_limited } = output;
        let price = dearest(alias);
        let priced = |output| most(estimated_input, output, &price);
        let (least, dear) = (priced(shortest), priced(longest));
        let reservation = self.0.spend.reserve_between(&who.who(), least, dear).await?;
        let covered = reservation.is_budgeted().then(|| {
            if reservation.left() >= dear {
                return longest;
            }
            let output = u64::try_from(reservation.left() - priced(0)).unwrap_or(0);
            (output.saturating_mul(1_000_000) / price.output.max(1)).clamp(shortest, longest)
        });
        let limit = covered.filter(|covered| *covered < longest).and_then(|covered| covered.try_into().ok());
        let first = reservation.attempt(NewAttempt {
            response,
            model: alias.name().into(),
            deployment: alias.deployments().next().cloned().unwrap_or_else(|| "".into()),
            provider: alias.owned_by().into(),
        });
        Ok(Paying {
            reservation,
            further: Further::default(),
            covered,
            ceiling: covered.filter(|_| is_limited || limit.is_some()).map(|sent| sent.saturating_mul(2)),
            price,
            limit,
            first,
            estimated_input,
            failed: Vec::new(),
            begun: None,
            usage: None,
            raw: None,
            whole: false,
            retracted: 0,
            admitted: None,
            unwatched: None,
        })
    }
}

impl Paying {
    /// The request as it goes to the provider: an answer that nobody limited is limited to what is set aside for it,
    /// where that is less than the model's longest.
    pub fn limited(&self, request: &Arc<CreateResponse>) -> Arc<CreateResponse> {
        match self.limit {
            Some(_) => Arc::new(CreateResponse { max_output_tokens: self.limit, ..(**request).clone() }),
            None => Arc::clone(request),
        }
    }

    /// Whether what is set aside pays for an answer of so many bytes, and for what the provider has told so far.
    pub fn is_covered(&self, bytes: usize) -> bool {
        self.covered.is_none_or(|covered| self.counted(bytes) <= covered)
    }

    fn counted(&self, bytes: usize) -> u64 {
        (bytes as u64 / BYTES_PER_TOKEN).max(self.usage.map_or(0, |usage| usage.output))
    }

    /// Sets more aside until it does. `false`: the budget does not have it.
    pub async fn cover(&mut self, spend: &Spend, bytes: usize) -> bool {
        while let Some(covered) = self.covered
            && self.counted(bytes) > covered
        {
            let more = most(0, USUAL_ANSWER, &self.price);
            let over = self.ceiling.is_some_and(|ceiling| self.counted(bytes) > ceiling);
            if over || !self.further.add(spend, self.reservation.who(), more).await {
                tracing::info!(
                    code = "budget_answer_cut",
                    model = &*self.first.model,
                    over_its_limit = over,
                    "an answer longer than what was set aside for it is ended"
                );
                return false;
            }
            self.covered = Some(covered.saturating_add(USUAL_ANSWER));
        }
        true
    }

    /// How the router names its attempts, pays for each that failed, and writes the next down before it is made. `stored`:
    /// it lasts by then, for whoever takes the turn over.
    pub fn limits(&self, spend: &Spend, stored: bool) -> OpenLimits {
        let (spend, first, further) = (spend.clone(), self.first.clone(), self.further.clone());
        let who = self.reservation.is_budgeted().then(|| self.reservation.who().clone());
        let next_attempt = NextAttempt::new(move |failed, next| {
            let (failed, next) = (failed_row(&first, failed), attempt_of(&first, next));
            let (spend, further, who) = (spend.clone(), further.clone(), who.clone());
            Box::pin(async move {
                if let Some(who) = who.filter(|_| failed.cost > 0)
                    && !further.add(&spend, &who, failed.cost).await
                {
                    return false;
                }
                spend.settle(failed);
                match stored {
                    true => spend.open_before_asking(&next).await,
                    false => spend.open(&next),
                }
                true
            })
        });
        OpenLimits {
            first_attempt: Some(self.first.id),
            next_attempt: Some(next_attempt),
            ..OpenLimits::default()
        }
    }

    /// What the router tried. `stream`: what began to answer.
    pub fn tried(&mut self, attempts: Vec<AttemptReport>, stream: Option<&OpenStream>) {
        let id = stream.map(OpenStream::attempt);
        self.failed = attempts.into_iter().filter(|attempt| Some(attempt.id) != id).collect();
        self.begun = stream.map(|stream| Answering {
            id: stream.attempt(),
            deployment: stream.deployment().into(),
            provider: stream.provider(),
            price: stream.price(),
        });
    }

    /// What the router tried to get embeddings; the last attempt gave them, if there are any. `usage`: as its provider
    /// told.
    pub fn embedded(&mut self, mut attempts: Vec<AttemptReport>, succeeded: bool, usage: Option<TokenUsage>) {
        self.usage = usage;
        self.whole = succeeded;
        self.begun = if succeeded { attempts.pop() } else { None }.map(|report| Answering {
            id: report.id,
            deployment: report.deployment,
            provider: report.provider,
            price: report.price,
        });
        self.failed = attempts;
    }

    /// The rows of all attempts. Of the one that was answering, `reason` says why it ended; where the provider did not
    /// tell what it charged, the tokens are counted from what came.
    pub fn settlements(&self, items: &[Arc<Item>], reason: Reason) -> Vec<Settlement> {
        let mut rows: Vec<Settlement> =
            self.failed.iter().map(|attempt| self.failed_for(attempt, reason)).collect();
        if let Some(answering) = &self.begun {
            let counted: u64 = items.iter().map(|item| estimate_item(item)).sum();
            // What was to come beyond what is set aside was stopped, or not let begin.
            let counted = counted.max(self.retracted).min(self.covered.unwrap_or(u64::MAX));
            let told = self.usage.unwrap_or_default();
            let usage = if self.whole && self.usage.is_some() {
                told
            } else {
                TokenUsage {
                    input: if told.input > 0 { told.input } else { self.estimated_input },
                    output: told.output.max(counted),
                    ..told
                }
            };
            rows.push(Settlement {
                attempt: Attempt {
                    id: answering.id,
                    deployment: Arc::clone(&answering.deployment),
                    provider: answering.provider.into(),
                    ..self.first.clone()
                },
                reason,
                usage,
                cost: cost(&usage, &answering.price),
                estimated: !(self.whole && self.usage.is_some()),
                raw: self
                    .raw
                    .as_deref()
                    .filter(|raw| raw.len() <= LONGEST_RAW)
                    .and_then(|raw| serde_json::from_str(raw).ok()),
            });
        }
        // The row that was opened is settled in any case, or it would count as a crash.
        if !rows.iter().any(|row| row.attempt.id == self.first.id) {
            rows.push(Settlement {
                attempt: self.first.clone(),
                reason,
                usage: TokenUsage::default(),
                cost: 0,
                estimated: false,
                raw: None,
            });
        }
        rows
    }

    /// The row of an attempt that came to nothing: because it failed, or because nobody wanted its answer any more.
    fn failed_for(&self, attempt: &AttemptReport, reason: Reason) -> Settlement {
        let row = failed_row(&self.first, attempt);
        let given_up = attempt.outcome == ErrorClass::Cancelled.code();
        if given_up { Settlement { reason, ..row } } else { row }
    }

    /// Takes the cost off what was set aside. After the rows are on their way.
    pub fn charge(mut self, rows: &[Settlement]) {
        for row in rows {
            self.reservation.charge(row.cost);
            metrics::spent(&row.attempt.deployment, row.cost);
        }
        if let Some(mut admitted) = self.admitted.take() {
            admitted.settle(rows.iter().map(|row| row.usage.input + row.usage.output).sum());
        }
    }
}

/// A further attempt on the account of the first.
fn attempt_of(first: &Attempt, report: &AttemptReport) -> Attempt {
    Attempt {
        id: report.id,
        deployment: Arc::clone(&report.deployment),
        provider: report.provider.into(),
        started_at: report.started,
        ..first.clone()
    }
}

/// The row of an attempt that came to nothing.
fn failed_row(first: &Attempt, report: &AttemptReport) -> Settlement {
    let input = if report.charged { report.estimated_input } else { 0 };
    let usage = TokenUsage { input, ..TokenUsage::default() };
    Settlement {
        attempt: attempt_of(first, report),
        reason: Reason::Failed,
        usage,
        cost: cost(&usage, &report.price),
        estimated: report.charged,
        raw: None,
    }
}
