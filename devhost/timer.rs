//! timerTrigger: one host at a time, never overlapping, one call for whatever was missed. functions-host.md §6.

mod schedule;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::envelope::{self, ScheduleStatus, Sys};
use crate::functions::Function;
use crate::log;
use crate::storage::{Blobs, StorageFailure, Task};
pub use schedule::Schedule;

/// The container of the host's locks and timers.
pub const CONTAINER: &str = "azure-webjobs-hosts";
/// How often a host that does not hold the lock asks for it.
const LOCK_INTERVAL: Duration = Duration::from_secs(5);

/// Runs one occurrence; a trait so that the listener can be tested without a process.
pub trait RunTimer: Send + Sync + 'static {
    fn run<'a>(&'a self, function: &'a Function, envelope: Vec<u8>, reason: &'a str) -> Task<'a, ()>;
}

/// One function's timer.
pub struct Listener {
    pub function: Arc<Function>,
    pub schedule: Schedule,
    pub run_on_startup: bool,
    pub use_monitor: bool,
    pub host_id: String,
    pub lease: Duration,
    pub speed: f64,
    pub zone: TimeZone,
    pub blobs: Arc<dyn Blobs>,
    pub runner: Arc<dyn RunTimer>,
    pub tasks: TaskTracker,
}

impl Listener {
    /// Waits for the lock, keeps the timer while it is held, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let lock = format!("locks/{}/{}.listener", self.host_id, self.function.name);
        let mut complaint = None;
        let mut first = true;
        while !stop.is_cancelled() {
            match self.blobs.lease(&lock, self.lease).await {
                Ok(Some(lease)) => {
                    complaint = None;
                    self.hold(&lock, &lease, first, &stop).await;
                    first = false;
                    continue;
                }
                Ok(None) => {
                    if complaint.is_none() {
                        log::information(format!(
                            "Timer '{}' waits: another host of this app holds its lock",
                            self.function.name
                        ));
                        complaint = Some(StorageFailure::Missing);
                    }
                }
                Err(cause) => {
                    if complaint.as_ref() != Some(&cause) {
                        log::error(format!(
                            "Timer '{}' cannot take its lock and keeps asking: {cause}",
                            self.function.name
                        ));
                        complaint = Some(cause);
                    }
                }
            }
            tokio::select! {
                () = sleep(LOCK_INTERVAL.div_f64(self.speed.max(1.0))) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Runs the schedule while a task of its own renews the lock.
    async fn hold(&self, lock: &str, lease: &str, first: bool, stop: &CancellationToken) {
        let until = stop.child_token();
        let renewal = {
            let (blobs, lock, lease, until) =
                (Arc::clone(&self.blobs), lock.to_owned(), lease.to_owned(), until.clone());
            let (name, length) = (self.function.name.clone(), self.lease);
            async move {
                renew(&*blobs, &lock, &lease, length, &name, &until).await;
                until.cancel();
            }
        };
        let renewal = self.tasks.spawn(renewal);
        self.keep_schedule(first, &until).await;
        until.cancel();
        if let Err(cause) = renewal.await {
            log::error(format!("the renewal of a timer's lock ended badly: {cause}"));
        }
        if stop.is_cancelled() {
            // Best effort: the lock lapses by itself.
            self.blobs.release(lock, lease).await.ok();
        }
    }

    /// Ends when `until` is cancelled, never in the middle of an invocation.
    async fn keep_schedule(&self, first: bool, until: &CancellationToken) {
        // Real waits are the schedule's waits divided by speed; `clock` says what time the schedule believes it is.
        let clock = schedule::Clock::new(Timestamp::now(), self.speed);
        let now = Timestamp::now();
        let mut status = match self.use_monitor {
            true => match self.load_status(now, until).await {
                Some(status) => Some(status),
                None => return,
            },
            false => None,
        };
        if let Some(known) = status.filter(|status| now > status.next) {
            let late = now.duration_since(known.next).unsigned_abs();
            log::information(format!(
                "Function '{}' is past due on startup by {late:?}. Executing now.",
                self.function.name
            ));
            self.occur(&mut status, true, now, &clock, until).await;
        } else if first && self.run_on_startup {
            log::information(format!(
                "Function '{}' is configured to run on startup. Executing now.",
                self.function.name
            ));
            self.occur(&mut status, false, now, &clock, until).await;
        }
        loop {
            let Some(due) = clock.next(&self.schedule, Timestamp::now(), &self.zone) else {
                log::error(format!("The schedule of '{}' never occurs again", self.function.name));
                return until.cancelled().await;
            };
            tokio::select! {
                () = until_wall_clock(due) => {}
                () = until.cancelled() => return,
            }
            self.occur(&mut status, false, due, &clock, until).await;
        }
    }

    async fn occur(
        &self,
        status: &mut Option<ScheduleStatus>,
        past_due: bool,
        due: Timestamp,
        clock: &schedule::Clock,
        until: &CancellationToken,
    ) {
        if until.is_cancelled() {
            return;
        }
        let name = &self.function.name;
        let reported =
            status.map(|status| ScheduleStatus { next: if past_due { status.next } else { due }, ..status });
        let binding = &self.function.trigger_binding().name;
        // The later of both: a wall clock that was set back must not make the same occurrence due again.
        let at = Timestamp::now().max(due);
        match envelope::timer_info(binding, reported, past_due, &self.zone, &Sys::new(name)) {
            Ok(envelope) => {
                let reason = format!(
                    "Timer fired at {}",
                    at.to_zoned(self.zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%.f%:z")
                );
                // A failure is logged by the runner and not retried: the next occurrence is the retry.
                self.runner.run(&self.function, envelope, &reason).await.ok();
            }
            Err(cause) => log::error(format!("cannot encode the timer of '{name}': {cause}")),
        }
        if status.is_some() {
            let next = clock.next(&self.schedule, at, &self.zone).unwrap_or(Timestamp::MAX);
            let done = ScheduleStatus { last: Some(at), next, last_updated: at };
            *status = Some(done);
            self.save_status(&done).await;
        }
    }

    /// The recorded status, or a first one. `None` only when `until` is cancelled while storage is away.
    async fn load_status(&self, now: Timestamp, until: &CancellationToken) -> Option<ScheduleStatus> {
        loop {
            let cause = match self.blobs.read(&self.status_blob()).await {
                Ok(found) => {
                    let recorded = found.and_then(|bytes| status::parse(&bytes));
                    let checked = status::reconcile(recorded, now, &self.schedule, &self.zone, self.speed);
                    if Some(checked) != recorded {
                        self.save_status(&checked).await;
                    }
                    return Some(checked);
                }
                Err(cause) => cause,
            };
            log::error(format!("cannot read when '{}' last ran; trying again: {cause}", self.function.name));
            tokio::select! {
                () = sleep(LOCK_INTERVAL) => {}
                () = until.cancelled() => return None,
            }
        }
    }

    async fn save_status(&self, status: &ScheduleStatus) {
        if let Err(cause) =
            self.blobs.write(&self.status_blob(), status::format(status, &self.zone).into()).await
        {
            log::error(format!("cannot record when '{}' ran: {cause}", self.function.name));
        }
    }

    fn status_blob(&self) -> String {
        format!("timers/{}/{}/status", self.host_id, self.function.name)
    }
}

async fn renew(
    blobs: &dyn Blobs,
    lock: &str,
    lease: &str,
    length: Duration,
    timer: &str,
    until: &CancellationToken,
) {
    let mut expires = Instant::now() + length;
    loop {
        tokio::select! {
            () = sleep(length / 3) => {}
            () = until.cancelled() => return,
        }
        let asked = Instant::now();
        match blobs.renew(lock, lease).await {
            Ok(()) => expires = asked + length,
            Err(StorageFailure::Missing) => {
                return log::warning(format!("Timer '{timer}' lost its lock to another host"));
            }
            Err(cause) if Instant::now() >= expires => {
                return log::error(format!(
                    "Timer '{timer}' could not renew its lock and lets it go: {cause}"
                ));
            }
            Err(_) => {}
        }
    }
}

/// Sleeps to a wall-clock time, however the clocks drift meanwhile.
async fn until_wall_clock(due: Timestamp) {
    while let Ok(left) = Duration::try_from(due.duration_since(Timestamp::now())) {
        if left.is_zero() {
            return;
        }
        sleep_until(Instant::now() + left.min(Duration::from_secs(60))).await;
    }
}
