//! Work that an operator holds: not due, not tried, not too old.

use super::*;
use crate::switches::HeldWork;

async fn claim(
    fixture: &Fixture,
    kind: WorkKind,
    id: Uuid,
    held: &HeldWork,
    max_age: Option<Duration>,
) -> Claim {
    let limits = ClaimLimits { max_age, ..LIMITS };
    let ticket = Ticket { claim: Uuid::now_v7(), abandoned: &[], held: Held::of(kind, held) };
    work::claim(&fixture.client, kind, id, &limits, ticket).await.expect("an answer")
}

#[tokio::test]
async fn what_is_held_is_neither_claimed_nor_hinted_at() {
    let fixture = Fixture::new().await;
    fixture.run("UPDATE jobs SET hinted_at = now() - interval '1 h', due_at = now() - interval '1 h'").await;
    fixture
        .run("UPDATE callbacks SET hinted_at = now() - interval '1 h', due_at = now() - interval '1 h'")
        .await;
    let route = |table: &str| format!("SELECT route FROM {table}");
    let of_job: String = value(&fixture.session, &route("jobs")).await;
    let of_callback: String = value(&fixture.session, &route("callbacks")).await;
    let target: String = value(&fixture.session, "SELECT target FROM callbacks").await;
    let by_route =
        HeldWork { job_routes: vec![of_job], callback_routes: vec![of_callback], ..HeldWork::default() };
    let by_target = HeldWork { targets: vec![target], ..HeldWork::default() };
    let all = HeldWork { all_targets: true, ..HeldWork::default() };
    for (kind, id, holding) in [
        (WorkKind::Job, fixture.job, vec![&by_route]),
        (WorkKind::Callback, fixture.callback, vec![&by_route, &by_target, &all]),
    ] {
        for held in holding {
            assert!(matches!(claim(&fixture, kind, id, held, None).await, Claim::NotDue), "{kind}: {held:?}");
            let hinted = work::due_without_hint(
                &fixture.client,
                kind,
                Duration::from_secs(60),
                Held::of(kind, held),
                9,
            )
            .await;
            assert_eq!(hinted.expect("an answer"), Vec::<Uuid>::new(), "{kind}: {held:?}");
        }
    }
    assert_eq!(
        count(&fixture.session, "jobs WHERE attempts = 0 AND epoch = 0 AND state = 'pending'").await,
        1
    );
    // A switch over callbacks is none over jobs.
    assert!(matches!(claim(&fixture, WorkKind::Job, fixture.job, &all, None).await, Claim::Claimed(_)));
}

#[tokio::test]
async fn being_held_makes_no_job_too_old() {
    let fixture = Fixture::new().await;
    let (day, quarter) = (Duration::from_secs(86_400), Duration::from_secs(21_600));
    let route: String = value(&fixture.session, "SELECT route FROM jobs").await;
    fixture.run("UPDATE jobs SET started_at = now() - interval '7 h'").await;
    let young = async |routes: &[String]| {
        work::keep_young(&fixture.client, routes, quarter, 9).await.expect("an answer")
    };
    assert_eq!(young(&[]).await, 0);
    assert_eq!(young(&["elsewhere".to_owned()]).await, 0);
    assert_eq!(young(std::slice::from_ref(&route)).await, 1);
    assert_eq!(young(&[route]).await, 0, "not with every sweep");
    fixture.run("UPDATE jobs SET started_at = started_at - interval '20 h'").await;
    let free = HeldWork::default();
    assert!(matches!(claim(&fixture, WorkKind::Job, fixture.job, &free, Some(day)).await, Claim::Claimed(_)));
}
