//! Dead letters: settled once, one by one or many at a rate.

use super::super::support::refuse_audits;
use super::*;
use crate::database::inspect::DeadLetterFilter;
use crate::database::{backfills, dead_letters};
use crate::ids::JobId;

/// The rows that a letter's replay puts back.
pub(super) async fn replayed(client: &Client, kind: WorkKind, letter: DeadLetterId) -> Vec<Uuid> {
    let kind = Some(kind.as_str().to_owned());
    let filter = DeadLetterFilter { id: Some(letter), kind, ..DeadLetterFilter::default() };
    let back = dead_letters::replay(client, &filter, 10, 1, ACTOR).await.expect("an answer");
    back.into_iter().map(|replayed| replayed.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_replays_of_a_dead_letter_one_happens_and_is_audited() {
    let fixture = Fixture::new().await;
    for (kind, id) in [(WorkKind::Job, fixture.job), (WorkKind::Callback, fixture.callback)] {
        let work = claimed(fixture.claim(kind, id, &[]).await.1);
        let lease = Lease { kind, id, epoch: work.epoch };
        assert!(work::give_up(&fixture.client, lease, &failure()).await.expect("an answer"));
        let letter = fixture.letter().await;
        let mut calls = JoinSet::new();
        for _ in 0..20 {
            let database = fixture.database.clone();
            calls.spawn(async move {
                let client = database.client().await.expect("a client");
                replayed(&client, kind, letter).await
            });
        }
        assert_eq!(calls.join_all().await.concat(), [id]);
        let audited = format!("api_audit WHERE actor = 'ada' AND subject = 'dl_{}'", letter.0);
        assert_eq!(count(&fixture.session, &audited).await, 1);
        let work = claimed(fixture.claim(kind, id, &[]).await.1);
        assert_eq!((work.attempts, work.epoch), (1, 2), "all its attempts again, under a new epoch");
    }
    assert_eq!(count(&fixture.session, "dead_letters WHERE state = 'replayed'").await, 2);
}

#[tokio::test]
async fn a_letter_is_settled_once_and_replayed_only_while_its_row_is_dead() {
    let fixture = Fixture::new().await;
    let lease = fixture.claim_job().await;
    assert!(work::give_up(&fixture.client, lease, &failure()).await.expect("an answer"));
    let letter = fixture.letter().await;
    let wrong = replayed(&fixture.client, WorkKind::Callback, letter).await;
    assert!(wrong.is_empty(), "not a callback's letter");
    let settle =
        async |state| dead_letters::settle(&fixture.client, letter, state, ACTOR).await.expect("an answer");
    assert!(settle(DeadLetterState::Discarded).await);
    assert!(!settle(DeadLetterState::Replayed).await);
    assert!(replayed(&fixture.client, WorkKind::Job, letter).await.is_empty());
    assert_eq!(fixture.job::<String>("state").await, "dead");
    let audited =
        "api_audit WHERE action = 'dead_letter.discarded' AND detail->>'reason' = 'consumer is back'";
    assert_eq!(count(&fixture.session, audited).await, 1);
    assert_eq!(count(&fixture.session, "api_audit").await, 1);
    dead_letters::audit(&fixture.client, ACTOR, "target.enable", "ledger").await.expect("audited");
    assert_eq!(count(&fixture.session, "api_audit").await, 2);
}

/// More dead jobs of the fixture's event, each with its letter.
async fn dead_jobs(fixture: &Fixture, count: u32) {
    let sql = format!(
        "INSERT INTO jobs (id, kind, event_id, run, route, state, attempts)
         SELECT gen_random_uuid(), 'count-event', (SELECT id FROM events), 100 + n, 'count', 'dead', 3
         FROM generate_series(1, {count}) AS n;
         INSERT INTO dead_letters (id, kind, subject_id, source, reason_code, reason)
         SELECT gen_random_uuid(), 'job', id, 'stripe', 'test', 'a test' FROM jobs WHERE state = 'dead'"
    );
    fixture.run(&sql).await;
}

#[tokio::test]
async fn many_go_back_in_one_statement_at_a_pace_that_stands_in_their_rows() {
    let fixture = Fixture::new().await;
    dead_jobs(&fixture, 30).await;
    let source = Some("stripe".to_owned());
    let filter = DeadLetterFilter { source, route: Some("count".to_owned()), ..DeadLetterFilter::default() };
    let counts = dead_letters::count(&fixture.client, &filter).await.expect("counts");
    assert_eq!(counts, [("job".to_owned(), "test".to_owned(), 30)]);
    for other in [
        DeadLetterFilter { route: Some("elsewhere".to_owned()), ..filter.clone() },
        DeadLetterFilter { kind: Some("callback".to_owned()), ..filter.clone() },
        DeadLetterFilter { reason_code: Some("other".to_owned()), ..filter.clone() },
        DeadLetterFilter { before: Some(jiff::Timestamp::UNIX_EPOCH), ..filter.clone() },
    ] {
        assert_eq!(dead_letters::replay(&fixture.client, &other, 99, 10, ACTOR).await.expect("none"), []);
    }
    let back = dead_letters::replay(&fixture.client, &filter, 21, 10, ACTOR).await.expect("back");
    assert_eq!(back.len(), 21, "the limit");
    let seconds = back[20].due_at.duration_since(back[0].due_at).as_secs_f64();
    assert!((seconds - 2.0).abs() < 0.001, "ten a second: {seconds}");
    assert!(back.is_sorted_by_key(|replayed| replayed.due_at));
    assert_eq!(
        count(&fixture.session, "jobs WHERE state = 'pending' AND due_at > now() + interval '1 s'").await,
        10
    );
    assert_eq!(
        count(&fixture.session, "api_audit WHERE action = 'dead_letter.replay' AND actor = 'ada'").await,
        21
    );
    let discarded = dead_letters::discard(&fixture.client, &filter, 99, ACTOR).await.expect("discarded");
    assert_eq!(discarded.len(), 9, "the rest");
    assert_eq!(count(&fixture.session, "api_audit WHERE action = 'dead_letter.discarded'").await, 9);
    assert_eq!(count(&fixture.session, "dead_letters WHERE state = 'open'").await, 0);
}

#[tokio::test]
async fn a_backfill_goes_back_only_if_it_is_named() {
    let fixture = Fixture::new().await;
    fixture
        .run(
            "INSERT INTO jobs (id, kind, run, route, state)
             VALUES (gen_random_uuid(), 'reseal-secrets', 1, 'backfill', 'dead'),
                    (gen_random_uuid(), 'reseal-secrets', 1, 'backfill', 'dead');
             INSERT INTO dead_letters (id, kind, subject_id, reason_code, reason)
             SELECT gen_random_uuid(), 'job', id, 'test', 'a test' FROM jobs WHERE state = 'dead'",
        )
        .await;
    let all = DeadLetterFilter::default();
    assert_eq!(dead_letters::replay(&fixture.client, &all, 99, 10, ACTOR).await.expect("none"), []);
    let one = DeadLetterId(value(&fixture.session, "SELECT id FROM dead_letters LIMIT 1").await);
    assert_eq!(replayed(&fixture.client, WorkKind::Job, one).await.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_audited_does_not_happen() {
    let fixture = Fixture::new().await;
    let down = callbacks::disable_target(&fixture.client, "ledger", "410 Gone").await;
    assert!(down.expect("an answer"));
    refuse_audits(&fixture.session).await;
    let enabled = callbacks::enable_target(&fixture.client, "ledger", ACTOR).await;
    assert!(enabled.is_err(), "{enabled:?}");
    assert_eq!(count(&fixture.session, "callback_targets WHERE disabled_at IS NOT NULL").await, 1);
    let begun = backfills::begin(&fixture.client, JobId::new(), "reseal-secrets", ACTOR).await;
    assert!(begun.is_err(), "{begun:?}");
    assert_eq!(count(&fixture.session, "jobs").await, 1, "the fixture's own");
}
