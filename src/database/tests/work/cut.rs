//! Attempts that were cut, and what they leave behind.

use super::*;

#[tokio::test]
async fn a_secret_is_forgotten_with_the_end_of_the_job_that_used_it() {
    let fixture = Fixture::new().await;
    let lease = fixture.claim_job().await;
    assert_eq!(count(&fixture.session, "deliveries WHERE sealed IS NOT NULL").await, 1);
    assert!(work::finish_forgetting(&fixture.client, lease).await.expect("an answer"));
    assert_eq!(fixture.job::<String>("state").await, "succeeded");
    assert_eq!(count(&fixture.session, "deliveries WHERE sealed IS NOT NULL").await, 0);
}

#[tokio::test]
async fn a_claim_tells_of_an_attempt_whose_end_was_never_written() {
    let fixture = Fixture::new().await;
    let first = claimed(fixture.claim(WorkKind::Job, fixture.job, &[]).await.1);
    assert!(!first.cut_before && first.last_error.is_none());
    fixture.run("UPDATE jobs SET lease_until = now() - interval '1 second'").await;
    assert_eq!(work::free_lapsed(&fixture.client, WorkKind::Job, 10).await.expect("freed"), [fixture.job]);
    let second = claimed(fixture.claim(WorkKind::Job, fixture.job, &[]).await.1);
    assert!(second.cut_before, "its lease lapsed");
    let now = Duration::ZERO;
    assert!(work::retry(&fixture.client, job_lease(&second), now, false, &failure()).await.expect("written"));
    let third = claimed(fixture.claim(WorkKind::Job, fixture.job, &[]).await.1);
    assert!(!third.cut_before, "the second said how it ended");
    assert_eq!(third.last_error.as_deref(), Some("consumer_failed"));
}
