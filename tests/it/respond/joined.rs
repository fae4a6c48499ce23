//! The whole of it in one scene: a CRM's batch is answered by a model and told to the CRM, the provider is out in between,
//! and an operator sees all of it, mends one and holds the source. Once with answers in jobs, once on the server; every
//! part is a process of its own, the conversation server too.
//!
//! The provider is out by tries instead of by the clock: waits are seconds here and minutes in production, and what is to
//! be shown is that no number of tries loses an event. Two minutes are at most [`TRIES_OF_TWO_MINUTES`] with the settings'
//! defaults; the outage lasts until each event has been tried more often.
//!
//! `scripts/faults scene [SECONDS]` has it by the clock as well: the outage lasts so long, with the settings' own waits.

use std::time::Instant;

use super::*;
use crate::support::report;

/// With `RETRY_BASE` of 5 s, doubled and each time halved at most by jitter: at 0, 2.5, 7.5, 17.5, 37.5 and 77.5 s.
const TRIES_OF_TWO_MINUTES: i64 = 6;

/// Whatever an event's work is tried at in vain leaves a failed turn.
const FEWEST_TRIES: &str = "
    SELECT coalesce(min(tries), 0)::int8 FROM (
        SELECT count(r.id) FILTER (WHERE r.state = 'failed') AS tries
        FROM jobs j LEFT JOIN responses r ON r.job_id = j.id
        WHERE j.state IN ('pending', 'leased') GROUP BY j.id) AS waiting";

/// How long the provider is out, if that goes by the clock: `COLLOQUY_SCENE_OUTAGE=120s`.
fn outage_by_the_clock() -> Option<Duration> {
    let text = std::env::var("COLLOQUY_SCENE_OUTAGE").ok()?;
    Some(colloquy::config::duration(&text).expect("COLLOQUY_SCENE_OUTAGE: a time such as 120s"))
}

#[tokio::test]
async fn a_crm_is_answered_in_jobs_through_an_outage_and_its_operator_sees_all_of_it() {
    scene("").await;
}

#[tokio::test]
async fn a_crm_is_answered_on_the_server_through_an_outage_and_its_operator_sees_all_of_it() {
    scene("runs_on = \"server\"").await;
}

async fn scene(runs_on: &str) {
    let set = |builder: FunctionAppBuilder| {
        let builder = builder.set("LLM_RETRIES", "0").set("SWITCH_CACHE", "0s");
        match outage_by_the_clock() {
            Some(_) => builder.unset("RETRY_BASE").unset("RETRY_CAP").unset("OUTAGE_RETRY"),
            None => builder,
        }
    };
    let crm = Crm::open_with(runs_on, set).await;
    let server = crm.server(runs_on).await;
    batch_is_answered(&crm).await;
    outage_loses_nothing(&crm, runs_on).await;
    letter_is_replayed(&crm).await;
    source_is_held_and_released(&crm).await;
    all_is_there_to_see(&crm, &server).await;
    account_balances(&crm).await;
}

/// Which conversation the latest answer to a record stands in.
fn conversation(told: &[Value], subject: &str) -> String {
    let of = told.iter().rfind(|told| told["event"]["subject"] == subject).expect("an answer");
    of["response"]["conversation"]["id"].as_str().expect("a conversation").to_owned()
}

/// Records of one post, each answered by the small alias, as the route's template and schema have it.
async fn batch_is_answered(crm: &Crm) {
    let texts = ["One.", "Two.", "Three.", "Four.", "Five."];
    let records: Vec<Value> = (1..).zip(texts).map(|(n, text)| record(&format!("r{n}"), text)).collect();
    crm.post("feedback.create", &records).await;
    let told = crm.told(5).await;
    for told in &told {
        assert_eq!((&told["type"], &told["route"]), (&json!("event.responded"), &json!("crm-answer")));
        assert_eq!(told["data"], json!({ "mood": "good", "reply": "Thank you!" }));
    }
    for (seen, number) in crm.provider.seen().iter().zip(0..) {
        assert_eq!(seen.body["model"], "m-small");
        assert_eq!(seen.body["response_format"]["json_schema"]["name"], "answer");
        let asked = crm.asked(number);
        assert!(asked[0].1.starts_with("Answer feedback that came to crm.\n"), "{asked:?}");
        assert!(texts.iter().any(|text| asked[1].1.contains(&format!("Ada gives 4: {text}"))), "{asked:?}");
    }
}

/// A second event of one record and a first of another come while nobody answers.
async fn outage_loses_nothing(crm: &Crm, runs_on: &str) {
    let first = conversation(&crm.told(5).await, "r1");
    crm.provider.always(Script::fails(503, "out"));
    crm.post("feedback.update", &[record("r1", "One more."), record("r6", "Six.")]).await;
    let by_the_clock = outage_by_the_clock();
    match by_the_clock {
        // Time is what is asked for here.
        Some(length) => tokio::time::sleep(length).await,
        None => {
            eventually("more tries than two minutes have", PATIENCE * 2, async || {
                crm.count(FEWEST_TRIES).await > TRIES_OF_TWO_MINUTES
            })
            .await;
        }
    }
    let tries = crm.count(FEWEST_TRIES).await;
    assert_eq!(crm.count("SELECT count(*) FROM dead_letters").await, 0);
    assert_eq!(crm.consumer.callbacks().len(), 5, "nobody is told of what is not answered");
    crm.provider.always(good());
    if let Some(length) = by_the_clock {
        let back = Instant::now();
        // The next try may be as far off as the outage was long, and half as far again.
        let patience = length * 3 + PATIENCE;
        eventually("the answers of the outage", patience, async || crm.consumer.accepted().len() >= 7).await;
        let place = if runs_on.is_empty() { "jobs" } else { "server" };
        let text = format!(
            "answers in: {place}; provider out for {} s; tries of each event meanwhile: {tries} or more; dead letters: 0; \
             answered {:.1} s after it was back",
            length.as_secs(),
            back.elapsed().as_secs_f64()
        );
        report(&format!("scene-{place}"), &text);
    }
    let told = crm.told(7).await;
    assert_eq!(conversation(&told, "r1"), first, "it goes on where it was");
    let mut asked = (0..crm.provider.seen().len()).map(|request| crm.asked(request));
    let last = asked.rfind(|asked| asked.last().unwrap().1.contains("One more.")).unwrap();
    let roles: Vec<&str> = last[1..].iter().map(|(role, _)| role.as_str()).collect();
    assert_eq!(
        roles,
        ["user", "assistant", "user"],
        "the model sees what it said, and nothing of the outage"
    );
}

/// One that no attempt can answer: an operator finds it with its reason, and tries it again once it is mended.
async fn letter_is_replayed(crm: &Crm) {
    crm.provider.next([Script::fails(400, "no such model version")]);
    crm.post("feedback.create", &[record("r7", "Seven.")]).await;
    let letter = crm.dead_letters(1).await.remove(0);
    assert_eq!((&letter["kind"], &letter["source"]), (&json!("job"), &json!("crm")));
    assert_eq!(letter["reason_code"], "provider_refused_request");
    let id = letter["id"].as_str().unwrap();
    let shown = crm.app.json(&["dead-letters", "show", id, "--json"]).await;
    assert_eq!(shown["reason_code"], "provider_refused_request");
    let replay = crm.app.command(&["dead-letters", "replay", "--yes", id, "--reason", "mended"]).await;
    assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stderr));
    crm.told(8).await;
    assert!(crm.dead_letters(0).await.is_empty());
}

/// What a held source sends is accepted, kept and answered later.
async fn source_is_held_and_released(crm: &Crm) {
    let state = async || {
        let sources = crm.app.json(&["sources", "list", "--json"]).await;
        sources.as_array().unwrap().iter().find(|row| row["source"] == "crm").unwrap()["stopped"].clone()
    };
    assert!(
        crm.app.command(&["sources", "stop", "crm", "--yes", "--reason", "import"]).await.status.success()
    );
    assert_eq!(state().await, "hold");
    let asked = crm.provider.seen().len();
    // In force on every instance within `SWITCH_CACHE`: 0 s in these tests.
    crm.post("feedback.create", &[record("r8", "Eight.")]).await;
    let held = "SELECT count(*) FROM events WHERE state = 'held'";
    eventually("a held event", PATIENCE, async || crm.count(held).await == 1).await;
    let shown = crm.app.json(&["events", "list", "--state", "held", "--json"]).await;
    assert_eq!(shown.as_array().unwrap().len(), 1);
    assert_eq!(crm.provider.seen().len(), asked, "nobody asks a model for what is held");
    assert!(crm.app.command(&["sources", "start", "crm", "--yes"]).await.status.success());
    assert_eq!(state().await, Value::Null);
    crm.told(9).await;
}

/// By the commands, and over the API for whoever the turns belong to.
async fn all_is_there_to_see(crm: &Crm, server: &Server) {
    let done = async || crm.app.json(&["events", "list", "--source", "crm", "--json"]).await;
    let all_done = |event: &Value| {
        event["state"] == "processed" && (&event["work_done"], &event["dead"]) == (&json!(2), &json!(0))
    };
    let mut events = Vec::new();
    // A callback's row says delivered a moment after its consumer has it.
    eventually("nine events with all their work done", SOON, async || {
        events = done().await.as_array().unwrap().clone();
        events.len() == 9 && events.iter().all(all_done)
    })
    .await;
    let shown = crm.app.json(&["events", "show", events[0]["id"].as_str().unwrap(), "--json"]).await;
    let work: Vec<_> =
        shown["work"].as_array().unwrap().iter().map(|work| (&work["object"], &work["state"])).collect();
    assert_eq!(work, [(&json!("crm"), &json!("delivered")), (&json!("respond"), &json!("succeeded"))]);
    assert_eq!((&shown["verdict"], &shown["subject"]), (&json!("espocrm"), &json!("r8")));
    let callbacks = crm.app.json(&["callbacks", "list", "--state", "delivered", "--json"]).await;
    assert_eq!(callbacks["callbacks"].as_array().unwrap().len(), 9);

    let told = crm.told(9).await;
    let read = async |path: String| server.call(http::Method::GET, &path, None, CRM_KEY).await;
    let path = format!("/v1/conversations/{}/items", conversation(&told, "r1"));
    let (status, items) = read(path).await;
    assert_eq!(status, 200, "{items}");
    let roles: Vec<_> = items["data"].as_array().unwrap().iter().map(|item| &item["role"]).collect();
    assert_eq!(roles, ["assistant", "user", "assistant", "user"]);
    let (status, usage) = read("/v1/usage".to_owned()).await;
    assert_eq!(status, 200, "{usage}");
    let answered =
        usage["data"].as_array().unwrap().iter().filter(|day| day["api_key"] == "route:crm-answer");
    // Of 11 tokens in at 1.00 and 7 out at 2.00 a million.
    assert_eq!(answered.map(|day| day["cost_micros"].as_i64().unwrap()).sum::<i64>(), 9 * (11 + 2 * 7));
}

/// Each event answered once, paid once and told once, under the CRM's own signature; the operator's acts are written down.
async fn account_balances(crm: &Crm) {
    assert_eq!(crm.consumer.ids().len(), 9);
    assert!(crm.consumer.accepted_by_id().values().all(|times| *times == 1), "each answer told once");
    assert_eq!(crm.provider.charged().requests, 9, "what failed costs nothing");
    assert_eq!(crm.count("SELECT count(*) FROM responses WHERE state = 'completed'").await, 9);
    assert_eq!(crm.count("SELECT count(*) FROM usage WHERE estimated").await, 0);
    assert_eq!(crm.count("SELECT count(*) FROM conversations").await, 8);
    let audited = crm.database.client().await;
    let rows = audited.query("SELECT action FROM api_audit ORDER BY id", &[]).await.expect("the audit trail");
    let actions: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(actions, ["dead_letter.replay", "source.hold", "source.start"]);
    // A hint that was to come in two minutes at most may come when its work is long done.
    let patience = outage_by_the_clock().map_or(SOON, |length| length * 3 + PATIENCE * 2);
    eventually("empty queues", patience, async || crm.storage.is_empty().await).await;
}
