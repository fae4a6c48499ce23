//! What `run-job` and `send-callback` share: claim a row, work under its lease, write down what came of it.

use std::time::{Duration, Instant};

use colloquy::database::backfills;
use colloquy::database::respond::{self, NewCallback};
use colloquy::database::work::{self, Claim, ClaimLimits, ClaimedWork, Held, Lease, Ticket};
use colloquy::database::{Client, DatabaseError};
use colloquy::functions::{Invocation, Outcome};
use colloquy::ids::CallbackId;
use colloquy::jobs::state::{Failure, WorkKind};
use colloquy::switches::HeldWork;
use colloquy::telemetry::{metrics, trace};
use jiff::Timestamp;
use tracing::Instrument;
use uuid::Uuid;

use crate::hints;
use crate::services::Services;

/// How many abandoned claims a hint remembers. A forgotten one costs its row one attempt.
const MOST_ABANDONED: usize = 8;

/// What an attempt came to, and so what is written.
pub enum End {
    Done,
    /// Done, and the event is counted in the same statement.
    DoneCounting,
    /// Done, and the target is told in the same statement.
    DoneTelling {
        target: String,
        body: Vec<u8>,
    },
    /// Done, and the secrets that came with the event's delivery are forgotten in the same statement.
    DoneForgetting,
    /// A step of a backfill is done; the next begins at its checkpoint.
    Onward(serde_json::Value),
    /// Tried again after a delay. `outage`: the attempt does not count.
    Again {
        delay: Duration,
        outage: bool,
        failure: Failure,
    },
    /// Given up, with a dead letter.
    GiveUp(Failure),
}

/// One kind of work: what to do with a claimed row.
pub trait Worker: Sync {
    const KIND: WorkKind;

    fn limits(&self, services: &Services) -> ClaimLimits;

    /// One attempt. Cut without notice when the lease is lost or at `until`.
    fn attempt(
        &self,
        services: &Services,
        claimed: &ClaimedWork,
        until: Instant,
    ) -> impl Future<Output = End> + Send;

    /// Counts an attempt that ended; `outcome` is `done`, `failed`, `outage`, `given_up` or `lost_lease`.
    fn measure(&self, object: &str, outcome: &'static str, elapsed: Duration);
}

/// A hint, whatever its kind of work.
pub struct Hinted {
    pub id: Uuid,
    pub abandoned: Vec<Uuid>,
    pub outages: u32,
}

/// Takes a hint: does the work if its row is due.
pub async fn take<W: Worker>(
    worker: &W,
    services: &Services,
    hint: Hinted,
    invocation: &Invocation,
) -> Outcome {
    let limits = worker.limits(services);
    let claim = Uuid::now_v7();
    let Some(held) = services.held_work().await else {
        let unknown = "the switches could not be read since this process started, so anything may be stopped";
        return put_off::<W>(services, hint, "switches_unknown", unknown).await;
    };
    let client = match services.database.client().await {
        Ok(client) => client,
        Err(error) => return database_away::<W>(services, hint, &error).await,
    };
    let ticket = Ticket { claim, abandoned: &hint.abandoned, held: Held::of(W::KIND, &held) };
    let claimed = work::claim(&client, W::KIND, hint.id, &limits, ticket).await;
    drop(client);
    match claimed {
        Ok(Claim::Claimed(claimed)) => {
            let queue = services.work_queue(W::KIND);
            let span = tracing::info_span!(
                "work",
                otel.name = format!("process {}", queue.name()),
                otel.kind = "consumer",
                messaging.system = "azure_storage_queue",
                messaging.operation.name = "process",
                messaging.destination.name = queue.name(),
                id = W::KIND.public_id(hint.id),
                object = claimed.object,
                attempt = claimed.attempts,
                epoch = claimed.epoch,
                request_id = claimed.event.as_ref().and_then(|event| event.request_id.as_deref())
            );
            trace::carry_on(&span, claimed.trace_parent.as_deref());
            let holder =
                Holder { lease: Lease { kind: W::KIND, id: claimed.id, epoch: claimed.epoch }, claim };
            work_on(worker, services, &limits, *claimed, holder, invocation).instrument(span).await
        }
        Ok(Claim::NotDue) => Outcome::Done,
        Ok(Claim::Exhausted { reason }) => {
            tracing::error!(
                code = "work_given_up",
                kind = W::KIND.as_str(),
                id = W::KIND.public_id(hint.id),
                reason,
                "given up; see `function-handlers dead-letters list`"
            );
            metrics::dead_letter(W::KIND.as_str(), "attempts_exhausted");
            Outcome::Done
        }
        Err(error) => {
            // The claim may have been made all the same, with its answer lost on the way.
            let mut hint = hint;
            hint.abandoned.push(claim);
            let forget = hint.abandoned.len().saturating_sub(MOST_ABANDONED);
            hint.abandoned.drain(..forget);
            database_away::<W>(services, hint, &error).await
        }
    }
}

/// Something the work needs is away: tried again soon, and nothing is counted.
pub fn outage(services: &Services, claimed: &ClaimedWork, failure: Failure) -> End {
    let delay =
        services.backoff.delay(claimed.outages.unsigned_abs() + 1).min(services.config.work.outage_retry);
    End::Again { delay, outage: true, failure }
}

async fn database_away<W: Worker>(services: &Services, hint: Hinted, error: &DatabaseError) -> Outcome {
    metrics::database_error(error.code());
    put_off::<W>(services, hint, error.code(), &error.to_string()).await
}

/// What a claim needs did not answer: the hint comes back later, and nothing is counted.
async fn put_off<W: Worker>(services: &Services, hint: Hinted, code: &'static str, problem: &str) -> Outcome {
    let outages = hint.outages.saturating_add(1);
    let delay = services.backoff.delay(outages).min(services.config.work.outage_retry);
    tracing::warn!(
        code,
        error = problem,
        kind = W::KIND.as_str(),
        id = W::KIND.public_id(hint.id),
        delay_ms = delay.as_millis(),
        "work is claimed later"
    );
    let queue = services.work_queue(W::KIND);
    match hints::put_hint(&queue, W::KIND, hint.id, hint.abandoned, outages, delay).await {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::retry(error.to_string()),
    }
}

async fn work_on<W: Worker>(
    worker: &W,
    services: &Services,
    limits: &ClaimLimits,
    claimed: ClaimedWork,
    holder: Holder,
    invocation: &Invocation,
) -> Outcome {
    let lease = holder.lease;
    let started = Instant::now();
    // Time to write the end down before the SDK cuts the handler.
    let deadline = invocation.deadline - invocation.remaining().min(Duration::from_secs(10)) / 2;
    let refused = services.refused(W::KIND, &claimed);
    // Boxed, since an attempt that asks a model is large.
    let attempt = Box::pin(async {
        match refused {
            Some(failure) => End::GiveUp(failure),
            None => worker.attempt(services, &claimed, deadline).await,
        }
    });
    let end = tokio::select! {
        end = attempt => end,
        () = keep(services, lease, limits.lease) => {
            worker.measure(&claimed.object, "lost_lease", started.elapsed());
            tracing::warn!(code = "lease_lost", "the lease was lost while working; work stopped");
            return Outcome::Done;
        }
        () = tokio::time::sleep_until(deadline.into()) => End::Again {
            delay: services.backoff.delay(claimed.attempts.unsigned_abs()),
            outage: false,
            failure: Failure::new("deadline", "not finished within the function's time (functionTimeout)"),
        },
    };
    worker.measure(&claimed.object, end.outcome(), started.elapsed());
    end.log();
    write_end(services, holder, &end, invocation).await
}

impl Services {
    /// The work that an operator holds. `None`: this process could not read the switches yet.
    pub async fn held_work(&self) -> Option<HeldWork> {
        let switches = self.switches.current().await?;
        Some(switches.held_work(&self.config.app, self.config.environment, Timestamp::now()))
    }

    /// Why a claimed row is not to be done at all.
    fn refused(&self, kind: WorkKind, claimed: &ClaimedWork) -> Option<Failure> {
        let (switches, now) = (self.switches.known()?, Timestamp::now());
        let (app, environment) = (&self.config.app, self.config.environment);
        let stopped = match kind {
            WorkKind::Job => switches.refused_job(&claimed.route, app, environment, now),
            WorkKind::Callback => switches.refused_callback(&claimed.route, &claimed.object, now),
        }?;
        let message = format!(
            "an operator has switched {} `{}` off; clear the switch and replay",
            stopped.kind, stopped.name
        );
        Some(Failure::new(stopped.code(), message))
    }
}

/// A lease, and the ticket it was claimed with.
#[derive(Clone, Copy)]
struct Holder {
    lease: Lease,
    claim: Uuid,
}

impl Holder {
    /// The callback that this claim may write: one id, however often it is written.
    fn callback(self) -> CallbackId {
        CallbackId(self.claim)
    }
}

/// Renews a lease until the row says that it is somebody else's. A database that is away for longer than the lease is no
/// reason to lose what the work has paid for: upkeep frees no lease before its holder could renew it, and every write is
/// fenced.
async fn keep(services: &Services, lease: Lease, length: Duration) {
    loop {
        tokio::time::sleep(length / 3).await;
        let renewal = async { work::renew(&services.database.client().await?, lease, length).await };
        if let Ok(Ok(false)) = tokio::time::timeout(length / 3, renewal).await {
            return;
        }
    }
}

/// Writes the end of an attempt, trying again while the database is away and time remains. What cannot be written
/// travels in the hint: its reader may take the lease over at once.
async fn write_end(services: &Services, holder: Holder, end: &End, invocation: &Invocation) -> Outcome {
    let mut tries = 0;
    loop {
        let written = async { write(&services.database.client().await?, holder, end).await };
        match written.await {
            Ok(true) => return after(services, holder, end).await,
            Ok(false) => {
                tracing::warn!(code = "lease_lost", "the lease was lost before the end was written");
                return Outcome::Done;
            }
            Err(error) => {
                metrics::database_error(error.code());
                tries += 1;
                let delay = services.backoff.delay(tries);
                if !(error.is_outage() || error.is_retryable()) || delay * 2 > invocation.remaining() {
                    tracing::error!(code = error.code(), %error, "the end of an attempt could not be written");
                    return abandon(services, holder).await;
                }
                tokio::time::sleep(delay).await;
            }
        }
    }
}

async fn write(client: &Client, holder: Holder, end: &End) -> Result<bool, DatabaseError> {
    let lease = holder.lease;
    match end {
        End::Done => work::finish(client, lease).await,
        End::DoneTelling { target, body } => {
            let callback = NewCallback { id: holder.callback(), target, body };
            respond::finish_telling(client, lease, callback).await
        }
        End::DoneCounting => work::finish_counting(client, lease).await,
        End::DoneForgetting => work::finish_forgetting(client, lease).await,
        End::Onward(checkpoint) => backfills::advance(client, lease, checkpoint).await,
        End::Again { delay, outage, failure } => work::retry(client, lease, *delay, *outage, failure).await,
        End::GiveUp(failure) => work::give_up(client, lease, failure).await,
    }
}

async fn after(services: &Services, holder: Holder, end: &End) -> Outcome {
    let lease = holder.lease;
    let delay = match end {
        End::Done | End::DoneCounting | End::DoneForgetting => return Outcome::Done,
        End::DoneTelling { .. } => {
            services.hint_all(WorkKind::Callback, vec![holder.callback().0]).await;
            return Outcome::Done;
        }
        End::Onward(_) => Duration::ZERO,
        End::Again { delay, .. } => *delay,
        End::GiveUp(failure) => {
            metrics::dead_letter(lease.kind.as_str(), failure.code);
            return Outcome::Done;
        }
    };
    let queue = services.work_queue(lease.kind);
    if let Err(error) = hints::put_hint(&queue, lease.kind, lease.id, Vec::new(), 0, delay).await {
        tracing::warn!(code = error.code(), %error, "a hint could not be sent; `maintain` sends it again");
    }
    Outcome::Done
}

async fn abandon(services: &Services, holder: Holder) -> Outcome {
    let Lease { kind, id, .. } = holder.lease;
    let delay = services.config.work.outage_retry;
    match hints::put_hint(&services.work_queue(kind), kind, id, vec![holder.claim], 1, delay).await {
        Ok(()) => Outcome::Done,
        // The lease lapses, and `maintain` frees it.
        Err(error) => Outcome::retry(error.to_string()),
    }
}

impl End {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Done
            | Self::DoneCounting
            | Self::DoneTelling { .. }
            | Self::DoneForgetting
            | Self::Onward(_) => "done",
            Self::Again { outage: true, .. } => "outage",
            Self::Again { .. } => "failed",
            Self::GiveUp(_) => "given_up",
        }
    }

    fn log(&self) {
        match self {
            Self::Done | Self::DoneCounting | Self::DoneTelling { .. } | Self::DoneForgetting => {
                tracing::info!(code = "work_done", "done")
            }
            Self::Onward(_) => tracing::info!(code = "work_step_done", "a step is done"),
            Self::Again { delay, failure, .. } => tracing::warn!(
                code = failure.code,
                reason = failure.message,
                delay_ms = delay.as_millis(),
                "tried again later"
            ),
            Self::GiveUp(failure) => tracing::error!(
                code = failure.code,
                reason = failure.message,
                "given up; see `function-handlers dead-letters list`"
            ),
        }
    }
}
