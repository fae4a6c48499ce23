//! Turns of events that run on the conversation server.

use super::*;

const ON_SERVER: &str = "runs_on = \"server\"";

#[tokio::test]
async fn the_job_waits_without_holding_a_function_and_is_woken_by_the_turns_end() {
    // Only the wake can be that fast.
    let crm = Crm::open_with(ON_SERVER, |builder| builder.set("HINT_AFTER", "5m")).await;
    crm.post("feedback.create", &[record("r1", "One.")]).await;
    let waiting = "SELECT count(*) FROM jobs WHERE state = 'pending' AND error_code = 'turn_running'";
    eventually("a job that waits", PATIENCE, async || crm.count(waiting).await == 1).await;
    assert_eq!(crm.provider.seen().len(), 0, "the function app asks nobody");
    assert_eq!(crm.count("SELECT count(*) FROM responses WHERE state = 'queued' AND background").await, 1);

    let _server = crm.server(ON_SERVER).await;
    let told = crm.told(1).await;
    assert_eq!(told[0]["data"]["mood"], "good");
    // An answer that does not fit is repaired on the server, too.
    crm.provider.next([Script::says("{}"), good()]);
    crm.post("feedback.update", &[record("r1", "Two.")]).await;
    let told = crm.told(2).await;
    assert_eq!(told[0]["response"]["conversation"], told[1]["response"]["conversation"]);
    assert_eq!(crm.provider.seen().len(), 3);
}

#[tokio::test]
async fn a_provider_that_is_away_for_the_server_makes_the_event_wait() {
    let crm = Crm::open_with(ON_SERVER, |builder| builder.set("JOB_MAX_ATTEMPTS", "2")).await;
    crm.provider.always(Script::fails(503, "out"));
    let _server = crm.server(ON_SERVER).await;
    crm.post("feedback.create", &[record("r1", "One.")]).await;
    let failed = "SELECT count(*) FROM responses WHERE state = 'failed'";
    eventually("several turns in vain", PATIENCE, async || crm.count(failed).await >= 3).await;
    assert_eq!(crm.count("SELECT count(*) FROM dead_letters").await, 0);
    crm.provider.always(good());
    crm.told(1).await;
    assert_eq!(crm.count("SELECT coalesce(max(attempts), 0)::int8 FROM jobs").await, 1);
}

mod faults {
    use super::*;

    #[tokio::test]
    async fn a_server_killed_in_the_middle_is_replaced_by_another() {
        let crm = Crm::open_with(ON_SERVER, |builder| builder).await;
        let mut first = crm.server(ON_SERVER).await;
        crm.provider.next([good().pace(Duration::from_secs(5))]);
        crm.post("feedback.create", &[record("r1", "One.")]).await;
        eventually("the model to be asked", PATIENCE, async || crm.provider.seen().len() == 1).await;
        first.kill();
        let _second = crm.server(ON_SERVER).await;
        crm.told(1).await;
        assert_eq!(crm.provider.seen().len(), 2);
        assert_eq!(crm.count("SELECT count(*) FROM responses").await, 1, "the same turn, run again");
        assert_eq!(crm.consumer.callbacks().len(), 1);
    }
}
