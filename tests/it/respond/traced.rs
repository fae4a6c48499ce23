//! One trace from a delivery through queue, job and model's call to the callback, wherever the turn runs and whoever dies.

use super::*;

const ON_SERVER: &str = "runs_on = \"server\"";

/// Posts a record within a trace of the sender's. Gives the trace's id.
async fn post(crm: &Crm, id: &str) -> String {
    let trace = uuid::Uuid::new_v4().simple().to_string();
    let body = Value::from(vec![record(id, "Fine.")]).to_string();
    let secret = crm.app.setting("WEBHOOK_SECRET_CRM");
    let signature = sign_espocrm(secret, "66f0c1d2a1b2c3d4e", body.as_bytes());
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let headers = [("signature", signature.as_str()), ("traceparent", parent.as_str())];
    let answer = crm.app.deliver("crm/feedback.create", &headers, body).await;
    assert_eq!(answer.status(), 200);
    trace
}

fn trace_of(headers: &http::HeaderMap) -> String {
    let parent = headers.get("traceparent").expect("a traceparent").to_str().unwrap();
    parent.split('-').nth(1).unwrap().to_owned()
}

/// Every call to the model and the one callback are of this trace, and `events show` says so.
async fn is_one_trace(crm: &Crm, trace: &str, calls: usize) {
    let told = crm.told(1).await.remove(0);
    let asked: Vec<String> = crm.provider.seen().iter().map(|seen| trace_of(&seen.headers)).collect();
    assert_eq!(asked, vec![trace.to_owned(); calls], "calls to the model");
    assert_eq!(trace_of(&crm.consumer.accepted()[0].headers), trace, "the callback");
    let event = told["event"]["id"].as_str().unwrap();
    let shown = crm.app.json(&["events", "show", event, "--json"]).await;
    assert_eq!(shown["trace_id"], trace, "{shown}");
    assert_eq!(shown["turns"][0]["trace_id"], trace, "{shown}");
    assert_eq!(shown["turns"][0]["id"], told["response"]["id"], "{shown}");
    let text = String::from_utf8(crm.app.command(&["events", "show", event]).await.stdout).unwrap();
    let turn = told["response"]["id"].as_str().unwrap();
    assert!(text.lines().any(|line| line.contains(turn) && line.contains(trace)), "{text}");
}

#[tokio::test]
async fn a_turn_in_a_job_is_in_its_events_trace() {
    let crm = Crm::open().await;
    let trace = post(&crm, "r1").await;
    is_one_trace(&crm, &trace, 1).await;
}

#[tokio::test]
async fn a_turn_on_a_server_is_in_its_events_trace() {
    let crm = Crm::open_with(ON_SERVER, |builder| builder).await;
    let _server = crm.server(ON_SERVER).await;
    let trace = post(&crm, "r1").await;
    is_one_trace(&crm, &trace, 1).await;
}

#[tokio::test]
async fn a_turn_that_is_put_off_goes_on_in_the_trace_of_its_request_and_so_does_its_callback() {
    let crm = Crm::open().await;
    let server = crm.server("").await;
    crm.provider.always(Script::fails(503, "out"));
    let trace = uuid::Uuid::new_v4().simple().to_string();
    let asked = json!({ "model": "small", "input": "Hello.", "background": true, "callback": "crm" });
    let request = server.client().post(server.url("/v1/responses")).bearer_auth(CRM_KEY).json(&asked);
    let answer =
        request.header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01")).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    eventually("the turn put off", PATIENCE, async || {
        crm.count("SELECT count(*) FROM responses WHERE waits > 0").await == 1
    })
    .await;
    crm.provider.always(good());
    eventually("the callback", PATIENCE, async || !crm.consumer.accepted().is_empty()).await;
    assert!(crm.provider.seen().iter().all(|seen| trace_of(&seen.headers) == trace), "calls to the model");
    assert_eq!(trace_of(&crm.consumer.accepted()[0].headers), trace);
}

mod faults {
    use super::*;

    #[tokio::test]
    async fn after_a_killed_handler_it_is_the_same_trace() {
        let crm = Crm::open().await;
        crm.provider.next([good().pace(Duration::from_secs(30))]);
        let trace = post(&crm, "r1").await;
        eventually("the model to be asked", PATIENCE, async || crm.provider.seen().len() == 1).await;
        crm.app.kill_handler().await;
        is_one_trace(&crm, &trace, 2).await;
    }

    #[tokio::test]
    async fn after_a_killed_server_it_is_the_same_trace() {
        let crm = Crm::open_with(ON_SERVER, |builder| builder).await;
        let mut first = crm.server(ON_SERVER).await;
        crm.provider.next([good().pace(Duration::from_secs(30))]);
        let trace = post(&crm, "r1").await;
        eventually("the model to be asked", PATIENCE, async || crm.provider.seen().len() == 1).await;
        first.kill();
        let _second = crm.server(ON_SERVER).await;
        is_one_trace(&crm, &trace, 2).await;
    }
}
