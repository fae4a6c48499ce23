//! An answer is paid for once, whatever dies; where it cannot be helped, the second is written down.

use super::*;
use crate::support::PrivatePostgres;

/// Holds up whoever wants to write the end of a job.
struct Hold {
    lock: tokio_postgres::Client,
    /// Within a transaction one sees the same activity again and again.
    look: tokio_postgres::Client,
}

impl Hold {
    /// Connected, and holding nothing yet: connecting may take longer than an answer.
    async fn of(crm: &Crm) -> Self {
        Self { lock: crm.database.client().await, look: crm.database.client().await }
    }

    async fn begin(&self) {
        self.lock.batch_execute("BEGIN; SELECT FROM jobs FOR UPDATE").await.expect("a lock");
    }

    /// Statements that wait for it.
    async fn waiting(&self) -> i64 {
        let sql = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%finished AS%told AS%'";
        self.look.query_one(sql, &[]).await.expect("a count").get(0)
    }

    /// Ends them: what a dead client had asked for is not carried out behind its back.
    async fn end_waiting(&self) {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%finished AS%told AS%'";
        self.look.query(sql, &[]).await.expect("their end");
    }

    async fn release(self) {
        self.lock.batch_execute("ROLLBACK").await.expect("its end");
    }
}

const COMPLETED: &str = "SELECT count(*) FROM responses WHERE state = 'completed'";

mod faults {
    use super::*;

    #[tokio::test]
    async fn an_answer_that_is_stored_outlives_the_handler_and_is_told_once() {
        // The lease outlives the hold, since renewing it is held up, too.
        let crm = Crm::open_with("", |builder| builder.set("WORK_LEASE", "10s")).await;
        crm.provider.next([good().first_after(Duration::from_secs(3))]);
        let hold = Hold::of(&crm).await;
        crm.post("feedback.create", &[record("r1", "Fine.")]).await;
        eventually("the model to be asked", PATIENCE, async || crm.provider.seen().len() == 1).await;
        hold.begin().await;
        eventually("the answer stored and its end waiting", PATIENCE, async || {
            crm.count(COMPLETED).await == 1 && hold.waiting().await > 0
        })
        .await;
        crm.app.kill_handler().await;
        hold.end_waiting().await;
        eventually("nobody waiting", PATIENCE, async || hold.waiting().await == 0).await;
        assert_eq!(crm.count("SELECT count(*) FROM callbacks").await, 0);
        hold.release().await;

        let told = crm.told(1).await;
        assert_eq!(told[0]["data"]["mood"], "good");
        assert_eq!(crm.provider.seen().len(), 1, "the model was asked once");
        assert_eq!(crm.count("SELECT count(*) FROM usage").await, 1);
        assert_eq!(crm.count("SELECT count(*) FROM jobs WHERE state = 'succeeded'").await, 1);
        assert_eq!(crm.consumer.callbacks().len(), 1);
    }

    #[tokio::test]
    async fn an_answer_that_comes_while_postgresql_is_away_for_longer_than_leases_is_kept() {
        let mut postgres = PrivatePostgres::start().await;
        let database = TestDatabase::within(&postgres).await;
        let crm = Crm::open_on(
            database,
            |provider| config(provider, ""),
            |builder| builder.set("DB_CONNECT_TIMEOUT", "2s"),
        )
        .await;
        // Until PostgreSQL is gone, whatever this machine takes for that; then well over a lease.
        crm.provider.next([good().first_after(Duration::from_secs(6))]);
        crm.post("feedback.create", &[record("r1", "Fine.")]).await;
        eventually("the model to be asked", PATIENCE, async || crm.provider.seen().len() == 1).await;
        postgres.stop().await;
        eventually("the answer", PATIENCE, async || {
            crm.provider.answered().iter().any(|answered| answered.told.is_some())
        })
        .await;
        postgres.start_again().await;

        let told = crm.told(1).await;
        assert_eq!(told[0]["data"]["mood"], "good");
        assert_eq!(crm.provider.seen().len(), 1, "the model was asked once");
        assert_eq!(crm.count("SELECT count(*) FROM usage WHERE estimated").await, 0);
        assert_eq!(crm.count("SELECT count(*) FROM jobs WHERE state = 'succeeded' AND epoch = 1").await, 1);
    }

    #[tokio::test]
    async fn an_answer_cut_in_its_middle_is_asked_for_again_and_what_the_first_cost_is_flagged() {
        let crm = Crm::open_with("", |builder| builder.set("SPEND_LEASE", "3s")).await;
        crm.provider.next([good().pace(Duration::from_secs(5)), good()]);
        crm.post("feedback.create", &[record("r1", "Fine.")]).await;
        eventually("an answer that has begun", PATIENCE, async || {
            crm.count("SELECT count(*) FROM responses WHERE state = 'in_progress'").await == 1
                && crm.provider.seen().len() == 1
        })
        .await;
        crm.app.kill_handler().await;

        let told = crm.told(1).await;
        assert_eq!(told[0]["data"]["mood"], "good");
        assert_eq!(crm.provider.seen().len(), 2);
        assert_eq!(crm.asked(0), crm.asked(1), "the same is asked again");
        assert_eq!(crm.count("SELECT count(*) FROM responses WHERE job_turn = 1 AND restarts = 1").await, 1);
        assert_eq!(crm.count("SELECT count(*) FROM responses").await, 1);
        let flagged =
            "SELECT count(*) FROM usage WHERE state = 'settled' AND reason = 'crashed' AND estimated";
        eventually("the first flagged as what a crash cost", PATIENCE, async || {
            crm.count(flagged).await == 1
        })
        .await;
        assert_eq!(crm.count("SELECT count(*) FROM usage WHERE NOT estimated").await, 1);
    }
}

mod unasked {
    use super::*;

    /// A process that dies while the deployment's own quota makes it wait has asked nobody: nothing was paid in vain.
    #[tokio::test]
    async fn a_process_that_dies_before_anybody_was_asked_costs_no_answer() {
        let quota = |provider: &FakeProvider| {
            config(provider, "").replace("price =", "requests_per_minute = 1\ntokens_per_minute = 0\nprice =")
        };
        let crm = Crm::open_as(quota, |builder| {
            builder.set("RESPOND_ANSWERS_MAX", "1").set("LLM_QUOTA_WAIT", "90s")
        })
        .await;
        crm.post("feedback.create", &[record("r1", "One.")]).await;
        crm.told(1).await;
        crm.post("feedback.create", &[record("r2", "Two.")]).await;
        let begun = "SELECT count(*) FROM responses WHERE state = 'in_progress' AND asked_epoch IS NULL";
        eventually("a turn that waits for the quota", PATIENCE, async || crm.count(begun).await == 1).await;
        crm.app.kill_handler().await;
        // Another process, with a quota of its own.
        crm.told(2).await;
        assert_eq!(crm.provider.seen().len(), 2);
        assert_eq!(
            crm.count("SELECT count(*) FROM responses WHERE restarts = 1 AND answers_lost = 0").await,
            1
        );
        assert_eq!(crm.count("SELECT count(*) FROM dead_letters").await, 0);
    }

    #[tokio::test]
    async fn a_process_that_dies_with_a_provider_asked_costs_one() {
        let crm =
            Crm::open_with("", |builder| builder.set("RESPOND_ANSWERS_MAX", "1").set("LLM_RETRIES", "0"))
                .await;
        crm.provider.next([good().pace(Duration::from_secs(30)), Script::fails(503, "out")]);
        crm.post("feedback.create", &[record("r1", "One.")]).await;
        eventually("the model to be asked", PATIENCE, async || crm.provider.seen().len() == 1).await;
        crm.app.kill_handler().await;
        assert_eq!(crm.dead_letters(1).await[0]["reason_code"], "answers_exhausted");
        assert_eq!(crm.count("SELECT count(*) FROM responses WHERE answers_lost = 1").await, 1);
    }
}

#[tokio::test]
async fn what_runs_in_a_job_is_not_taken_over_by_a_server() {
    let crm = Crm::open().await;
    let server = crm.server("").await;
    crm.provider.next([good().pace(Duration::from_millis(1_500))]);
    crm.post("feedback.create", &[record("r1", "Fine.")]).await;
    eventually("an answer that has begun", PATIENCE, async || crm.provider.seen().len() == 1).await;
    let frozen = crm.app.freeze_handler().await;
    let lapsed = "SELECT count(*) FROM responses WHERE lease_until < now() - interval '6 seconds'";
    eventually("a lease that lapsed long ago", PATIENCE, async || crm.count(lapsed).await == 1).await;
    assert_eq!(
        crm.count("SELECT count(*) FROM responses WHERE epoch = 1 AND state = 'in_progress'").await,
        1
    );
    assert!(server.read("/health/live").await.0 == 200, "the server lives");
    crm.app.thaw(frozen);
    crm.told(1).await;
}
