use std::time::Duration;

use tokio::task::JoinSet;
use uuid::Uuid;

use super::support::{Incoming, TestDatabase, count, value};
use crate::database::dead_letters::Actor;
use crate::database::work::{self, Claim, ClaimLimits, ClaimedWork, Held, Lease, Ticket};
use crate::database::{Client, Database, callbacks};
use crate::events::state::EventState;
use crate::ids::DeadLetterId;
use crate::jobs::state::{DeadLetterState, Failure, WorkKind, WorkState};

mod cut;
mod held;
mod letters;

const LIMITS: ClaimLimits = ClaimLimits { lease: Duration::from_secs(60), max_attempts: 3, max_age: None };
const ACTOR: Actor<'static> = Actor { name: "ada", reason: Some("consumer is back") };

struct Fixture {
    test: TestDatabase,
    database: Database,
    client: Client,
    session: tokio_postgres::Client,
    job: Uuid,
    callback: Uuid,
}

impl Fixture {
    async fn new() -> Self {
        let (test, database) = TestDatabase::migrated().await;
        let (client, session) = (database.client().await.expect("a client"), test.session().await);
        let stored = Incoming::new("k").store(&client).await;
        let (job, callback) = (stored.jobs[0].0, stored.callbacks[0].0);
        Self { test, database, client, session, job, callback }
    }

    async fn claim(&self, kind: WorkKind, id: Uuid, abandoned: &[Uuid]) -> (Uuid, Claim) {
        let ticket = Ticket { claim: Uuid::now_v7(), abandoned, ..Ticket::default() };
        (ticket.claim, work::claim(&self.client, kind, id, &LIMITS, ticket).await.expect("an answer"))
    }

    async fn claim_job(&self) -> Lease {
        job_lease(&claimed(self.claim(WorkKind::Job, self.job, &[]).await.1))
    }

    async fn job<T: for<'a> tokio_postgres::types::FromSql<'a>>(&self, column: &str) -> T {
        value(&self.session, &format!("SELECT {column} FROM jobs")).await
    }

    async fn run(&self, sql: &str) {
        self.session.batch_execute(sql).await.expect(sql);
    }

    async fn letter(&self) -> DeadLetterId {
        DeadLetterId(value(&self.session, "SELECT id FROM dead_letters WHERE state = 'open'").await)
    }
}

fn claimed(claim: Claim) -> ClaimedWork {
    match claim {
        Claim::Claimed(work) => *work,
        other => panic!("not claimed: {other:?}"),
    }
}

fn job_lease(work: &ClaimedWork) -> Lease {
    Lease { kind: WorkKind::Job, id: work.id, epoch: work.epoch }
}

fn failure() -> Failure {
    Failure::new("consumer_failed", "answered 500")
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_claims_at_once_one_wins() {
    let fixture = Fixture::new().await;
    for (kind, id) in [(WorkKind::Job, fixture.job), (WorkKind::Callback, fixture.callback)] {
        let mut calls = JoinSet::new();
        for _ in 0..20 {
            let database = fixture.database.clone();
            calls.spawn(async move {
                let client = database.client().await.expect("a client");
                let ticket = Ticket { claim: Uuid::now_v7(), abandoned: &[], ..Ticket::default() };
                work::claim(&client, kind, id, &LIMITS, ticket).await.expect("an answer")
            });
        }
        let won: Vec<ClaimedWork> = calls
            .join_all()
            .await
            .into_iter()
            .filter_map(|claim| match claim {
                Claim::Claimed(work) => Some(*work),
                _ => None,
            })
            .collect();
        let [work] = won.as_slice() else { panic!("one claim: {won:?}") };
        assert_eq!((work.id, work.epoch, work.attempts, work.outages, work.run), (id, 1, 1, 0, 1));
        assert_eq!((work.webhook_id, work.trace_parent.as_deref()), (id, Some("00-trace")));
        let event = work.event.as_ref().expect("its event");
        assert_eq!((event.source.as_str(), event.event_type.as_str()), ("shop", "order.paid"));
        assert_eq!(event.payload.as_deref(), Some(&b"{}"[..]));
        assert!(event.sealed.is_some());
    }
}

#[tokio::test]
async fn a_lost_lease_changes_nothing() {
    let fixture = Fixture::new().await;
    let stale = fixture.claim_job().await;
    fixture.run("UPDATE jobs SET lease_until = now() - interval '1 second'").await;
    assert_eq!(work::free_lapsed(&fixture.client, WorkKind::Job, 10).await.expect("freed"), [fixture.job]);
    for state in ["pending", "leased"] {
        assert_eq!(fixture.job::<String>("state").await, state);
        let (client, row) = (&fixture.client, fixture.job::<String>("jobs::text").await);
        assert!(!work::renew(client, stale, LIMITS.lease).await.expect("an answer"));
        assert!(!work::finish(client, stale).await.expect("an answer"));
        assert!(!work::finish_counting(client, stale).await.expect("an answer"));
        assert!(!work::finish_forgetting(client, stale).await.expect("an answer"));
        assert!(!work::retry(client, stale, Duration::ZERO, false, &failure()).await.expect("an answer"));
        assert!(!work::retry(client, stale, Duration::ZERO, true, &failure()).await.expect("an answer"));
        assert!(!work::give_up(client, stale, &failure()).await.expect("an answer"));
        assert_eq!(fixture.job::<String>("jobs::text").await, row, "{state}");
        if state == "pending" {
            assert_eq!(fixture.claim_job().await.epoch, 2);
        }
    }
    assert_eq!(count(&fixture.session, "dead_letters").await, 0);
    assert_eq!(count(&fixture.session, "event_counts").await, 0);
    assert_eq!(count(&fixture.session, "deliveries WHERE sealed IS NULL").await, 0);
}

#[tokio::test]
async fn a_lease_is_renewed_finished_and_then_final() {
    let fixture = Fixture::new().await;
    let lease = fixture.claim_job().await;
    assert!(matches!(fixture.claim(WorkKind::Job, fixture.job, &[]).await.1, Claim::NotDue));
    assert!(work::renew(&fixture.client, lease, Duration::from_secs(3_600)).await.expect("an answer"));
    assert!(fixture.job::<bool>("lease_until > now() + interval '59 minutes'").await);
    assert!(work::finish(&fixture.client, lease).await.expect("an answer"));
    assert!(
        fixture.job::<bool>("state = 'succeeded' AND finished_at IS NOT NULL AND lease_until IS NULL").await
    );
    assert!(!work::finish(&fixture.client, lease).await.expect("an answer"));
    assert!(matches!(fixture.claim(WorkKind::Job, fixture.job, &[]).await.1, Claim::NotDue));

    let work = claimed(fixture.claim(WorkKind::Callback, fixture.callback, &[]).await.1);
    let lease = Lease { kind: WorkKind::Callback, id: work.id, epoch: work.epoch };
    assert!(work::finish(&fixture.client, lease).await.expect("an answer"));
    assert_eq!(count(&fixture.session, "callbacks WHERE state = 'delivered'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_counted_once_however_often_its_job_is_finished() {
    let fixture = Fixture::new().await;
    let lease = fixture.claim_job().await;
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let database = fixture.database.clone();
        calls.spawn(async move {
            let client = database.client().await.expect("a client");
            work::finish_counting(&client, lease).await.expect("an answer")
        });
    }
    assert_eq!(calls.join_all().await.into_iter().filter(|counted| *counted).count(), 1);
    let counted = "SELECT events FROM event_counts WHERE source = 'shop' AND type = 'order.paid'";
    assert_eq!(value::<i64>(&fixture.session, counted).await, 1);

    let other = Incoming::new("other").store(&fixture.client).await.jobs[0].0;
    let work = claimed(fixture.claim(WorkKind::Job, other, &[]).await.1);
    assert!(work::finish_counting(&fixture.client, job_lease(&work)).await.expect("an answer"));
    assert_eq!(value::<i64>(&fixture.session, counted).await, 2);
}

#[tokio::test]
async fn a_failure_counts_and_waits_an_outage_does_not_count() {
    let fixture = Fixture::new().await;
    let lease = fixture.claim_job().await;
    let hour = Duration::from_secs(3_600);
    assert!(work::retry(&fixture.client, lease, hour, false, &failure()).await.expect("an answer"));
    assert!(
        fixture
            .job::<bool>("due_at > now() + interval '59 minutes' AND error_code = 'consumer_failed'")
            .await
    );
    assert!(matches!(fixture.claim(WorkKind::Job, fixture.job, &[]).await.1, Claim::NotDue), "not due yet");
    fixture.run("UPDATE jobs SET due_at = now()").await;
    for outages in 1..=10 {
        let lease = fixture.claim_job().await;
        assert!(
            work::retry(&fixture.client, lease, Duration::ZERO, true, &failure()).await.expect("an answer")
        );
        assert_eq!((fixture.job::<i32>("attempts").await, fixture.job::<i32>("outages").await), (1, outages));
    }
    let lease = fixture.claim_job().await;
    assert!(work::retry(&fixture.client, lease, Duration::ZERO, false, &failure()).await.expect("an answer"));
    assert_eq!((fixture.job::<i32>("attempts").await, fixture.job::<i32>("outages").await), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn exhausted_work_is_not_run_and_has_exactly_one_dead_letter() {
    let fixture = Fixture::new().await;
    fixture.run("UPDATE jobs SET attempts = 3").await;
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let (database, job) = (fixture.database.clone(), fixture.job);
        calls.spawn(async move {
            let client = database.client().await.expect("a client");
            let ticket = Ticket { claim: Uuid::now_v7(), abandoned: &[], ..Ticket::default() };
            work::claim(&client, WorkKind::Job, job, &LIMITS, ticket).await.expect("an answer")
        });
    }
    let mut reasons = Vec::new();
    for claim in calls.join_all().await {
        match claim {
            Claim::Exhausted { reason } => reasons.push(reason),
            Claim::NotDue => {}
            Claim::Claimed(work) => panic!("it was run: {work:?}"),
        }
    }
    let [reason] = reasons.as_slice() else { panic!("one says so: {reasons:?}") };
    assert!(reason.starts_with("after 3 attempts: the process ended"), "{reason}");
    let letters = "dead_letters WHERE kind = 'job' AND source = 'shop' AND attempts = 3 AND reason_code = 'process_lost'";
    assert_eq!(
        (count(&fixture.session, letters).await, count(&fixture.session, "dead_letters").await),
        (1, 1)
    );
    assert_eq!(fixture.job::<String>("state").await, "dead");
}

#[tokio::test]
async fn work_that_is_too_old_is_given_up_even_if_only_outages_kept_it() {
    let fixture = Fixture::new().await;
    fixture.run("UPDATE callbacks SET started_at = now() - interval '2 days', outages = 99").await;
    let aged = ClaimLimits { max_age: Some(Duration::from_secs(86_400)), ..LIMITS };
    let ticket = Ticket { claim: Uuid::now_v7(), abandoned: &[], ..Ticket::default() };
    let claim = work::claim(&fixture.client, WorkKind::Callback, fixture.callback, &aged, ticket).await;
    let Ok(Claim::Exhausted { reason }) = claim else { panic!("{claim:?}") };
    assert!(reason.starts_with("too old: "), "{reason}");

    // Replayed and left alone, it grows too old a second time: that is another death, with another letter.
    let letter = fixture.letter().await;
    assert_eq!(letters::replayed(&fixture.client, WorkKind::Callback, letter).await, [fixture.callback]);
    fixture.run("UPDATE callbacks SET started_at = now() - interval '2 days'").await;
    let claim = work::claim(&fixture.client, WorkKind::Callback, fixture.callback, &aged, ticket).await;
    assert!(matches!(claim, Ok(Claim::Exhausted { .. })), "{claim:?}");
    assert_eq!(count(&fixture.session, "dead_letters").await, 2);
    assert_eq!(count(&fixture.session, "dead_letters WHERE state = 'open'").await, 1);
}

#[tokio::test]
async fn an_abandoned_claim_is_taken_over_at_once_and_does_not_count() {
    let fixture = Fixture::new().await;
    let mut abandoned = Vec::new();
    for turn in 1..=10_i64 {
        let (claim, answer) = fixture.claim(WorkKind::Job, fixture.job, &abandoned).await;
        let work = claimed(answer);
        assert_eq!((work.epoch, work.attempts), (turn, 1));
        abandoned.push(claim);
    }
    let stranger = [Uuid::now_v7()];
    assert!(matches!(fixture.claim(WorkKind::Job, fixture.job, &stranger).await.1, Claim::NotDue));

    // A sweep may free the lease before the hint comes back.
    fixture.run("UPDATE jobs SET lease_until = now() - interval '1 second'").await;
    assert_eq!(work::free_lapsed(&fixture.client, WorkKind::Job, 10).await.expect("freed"), [fixture.job]);
    let (claim, answer) = fixture.claim(WorkKind::Job, fixture.job, &abandoned).await;
    let work = claimed(answer);
    assert_eq!((work.epoch, work.attempts), (11, 1));

    // The retry was written, only its answer was lost: it has given the attempt back itself.
    let lease = job_lease(&work);
    assert!(work::retry(&fixture.client, lease, Duration::ZERO, true, &failure()).await.expect("an answer"));
    let work = claimed(fixture.claim(WorkKind::Job, fixture.job, &[claim]).await.1);
    assert_eq!((work.epoch, work.attempts), (12, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn lapsed_leases_are_freed_once_by_any_number_of_sweeps_and_count() {
    let fixture = Fixture::new().await;
    for n in 0..40 {
        let job = Incoming::new(&format!("k{n}")).store(&fixture.client).await.jobs[0].0;
        claimed(fixture.claim(WorkKind::Job, job, &[]).await.1);
    }
    fixture.run("UPDATE jobs SET lease_until = now() - interval '1 second' WHERE state = 'leased'").await;
    let lasting = fixture.claim_job().await;
    let mut calls = JoinSet::new();
    for _ in 0..10 {
        let database = fixture.database.clone();
        calls.spawn(async move {
            let client = database.client().await.expect("a client");
            work::free_lapsed(&client, WorkKind::Job, 7).await.expect("freed").len()
        });
    }
    let freed: usize = calls.join_all().await.into_iter().sum();
    assert!(freed <= 40);
    let rest = work::free_lapsed(&fixture.client, WorkKind::Job, 100).await.expect("freed").len();
    assert_eq!(freed + rest, 40, "each once");
    assert_eq!(count(&fixture.session, "jobs WHERE state = 'pending' AND attempts = 1").await, 40);
    assert!(
        work::finish(&fixture.client, lasting).await.expect("an answer"),
        "a lease that holds is left alone"
    );
}

#[tokio::test]
async fn hints_are_given_again_for_due_rows_nobody_heard_of() {
    let fixture = Fixture::new().await;
    let minute = Duration::from_secs(60);
    let due = async |kind| {
        work::due_without_hint(&fixture.client, kind, minute, Held::default(), 10).await.expect("an answer")
    };
    assert!(due(WorkKind::Job).await.is_empty(), "hinted at just now");
    let hour_ago = "SET due_at = now() - interval '1 hour', hinted_at = now() - interval '1 hour'";
    fixture.run(&format!("UPDATE jobs {hour_ago}; UPDATE callbacks {hour_ago}")).await;
    assert_eq!(due(WorkKind::Job).await, [fixture.job]);
    assert!(due(WorkKind::Job).await.is_empty(), "marked as hinted");

    let down = callbacks::disable_target(&fixture.client, "ledger", "410 Gone").await;
    assert!(down.expect("an answer"));
    assert!(!callbacks::disable_target(&fixture.client, "ledger", "again").await.expect("an answer"));
    assert!(due(WorkKind::Callback).await.is_empty());
    let claim = fixture.claim(WorkKind::Callback, fixture.callback, &[]).await.1;
    assert!(matches!(claim, Claim::NotDue), "{claim:?}");
    let disabled = callbacks::disabled_targets(&fixture.client).await.expect("targets");
    assert_eq!((disabled.len(), disabled[0].0.as_str(), disabled[0].2.as_str()), (1, "ledger", "410 Gone"));
    let enable = async || callbacks::enable_target(&fixture.client, "ledger", ACTOR).await;
    assert!(enable().await.expect("an answer"));
    assert!(!enable().await.expect("an answer"));
    let audited =
        "api_audit WHERE actor = 'ada' AND action = 'callback_target.enable' AND subject = 'ledger'";
    assert_eq!(count(&fixture.session, audited).await, 1);
    assert_eq!(due(WorkKind::Callback).await, [fixture.callback]);
}

#[tokio::test]
async fn giving_up_writes_one_letter_and_an_attempt_is_logged_once() {
    let fixture = Fixture::new().await;
    let work = claimed(fixture.claim(WorkKind::Callback, fixture.callback, &[]).await.1);
    let lease = Lease { kind: WorkKind::Callback, id: work.id, epoch: work.epoch };
    let attempt = callbacks::Attempt {
        number: 1,
        millis: 12,
        status: Some(500),
        error_code: Some("consumer_failed"),
        response: Some("oh"),
    };
    for _ in 0..2 {
        callbacks::log_attempt(&fixture.client, lease, &attempt).await.expect("logged");
    }
    assert_eq!(count(&fixture.session, "callback_attempts WHERE status = 500").await, 1);
    assert!(work::give_up(&fixture.client, lease, &failure()).await.expect("an answer"));
    assert!(!work::give_up(&fixture.client, lease, &failure()).await.expect("an answer"));
    let letters =
        "dead_letters WHERE kind = 'callback' AND reason = 'answered 500' AND epoch = 1 AND attempts = 1";
    assert_eq!(
        (count(&fixture.session, letters).await, count(&fixture.session, "dead_letters").await),
        (1, 1)
    );
}

#[tokio::test]
async fn states_in_the_schema_are_those_of_the_program() {
    let fixture = Fixture::new().await;
    let work_of = |kind| {
        let other = match kind {
            WorkKind::Job => WorkState::done(WorkKind::Callback),
            WorkKind::Callback => WorkState::done(WorkKind::Job),
        };
        WorkState::ALL.iter().filter(|state| **state != other).map(|state| state.as_str()).collect::<Vec<_>>()
    };
    let expected = [
        ("jobs", work_of(WorkKind::Job)),
        ("callbacks", work_of(WorkKind::Callback)),
        ("events", EventState::ALL.iter().map(|state| state.as_str()).collect()),
        ("dead_letters", DeadLetterState::ALL.iter().map(|state| state.as_str()).collect()),
    ];
    for (table, mut states) in expected {
        let sql = format!(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint \
             WHERE conrelid = '{table}'::regclass AND contype = 'c' AND conname = '{table}_state_check'"
        );
        let check: String = value(&fixture.session, &sql).await;
        let mut found: Vec<&str> = check.split('\'').skip(1).step_by(2).collect();
        found.sort_unstable();
        states.sort_unstable();
        assert_eq!(found, states, "{table}: {check}");
    }
    drop(fixture.test);
}
