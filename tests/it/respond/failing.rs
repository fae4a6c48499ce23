//! What becomes of events when models or their answers fail.

use super::*;

const FAILED: &str = "SELECT count(*) FROM responses WHERE state = 'failed'";

#[tokio::test]
async fn an_answer_that_does_not_fit_is_repaired_once() {
    let crm = Crm::open().await;
    crm.provider.next([Script::says(r#"{"mood": "so so", "reply": ""}"#), good()]);
    crm.post("feedback.create", &[record("r1", "Fine.")]).await;
    let told = crm.told(1).await;
    assert_eq!(told[0]["data"]["mood"], "good");
    assert_eq!(crm.provider.seen().len(), 2);
    let repair = crm.asked(1).pop().unwrap().1;
    assert!(
        repair.contains("so so") && repair.contains("/mood: must be one of") && repair.contains("/reply"),
        "{repair}"
    );
    assert_eq!(
        crm.count("SELECT count(*) FROM jobs WHERE attempts = 1").await,
        1,
        "a repair costs no attempt"
    );
}

/// What a model was shown by a request, without the instructions: roles, and whether the rejected answer is in it.
fn shown(crm: &Crm, request: usize) -> (Vec<String>, bool) {
    let asked = crm.asked(request);
    let roles = asked[1..].iter().map(|(role, _)| role.clone()).collect();
    (roles, asked.iter().any(|(_, text)| text.contains("so so")))
}

/// An answer that does not fit, repaired or not, is not shown to the model that answers the next event; the owner and the
/// operator see all of it.
async fn rejected_answers_stay_out_of_the_conversation(crm: &Crm) {
    let misfit = || Script::says(r#"{"mood": "so so", "reply": "Hm."}"#);
    crm.provider.next([misfit(), good()]);
    crm.post("feedback.create", &[record("r1", "One.")]).await;
    let told = crm.told(1).await;
    assert_eq!(
        shown(crm, 1),
        (vec!["user".into(), "user".into()], true),
        "the repair has the event and the answer"
    );
    assert!(crm.asked(1)[1].1.contains("One."), "{:?}", crm.asked(1));

    crm.post("feedback.update", &[record("r1", "Two.")]).await;
    crm.told(2).await;
    let roles: Vec<String> = ["user", "assistant", "user"].map(str::to_owned).into();
    assert_eq!(shown(crm, 2), (roles.clone(), false), "{:?}", crm.asked(2));
    let asked = crm.asked(2);
    assert!(asked[1].1.contains("One.") && asked[2].1.contains("Thank you!") && asked[3].1.contains("Two."));

    // Twice in vain: nothing of that event stays, and the next one is answered.
    crm.provider.next([misfit(), misfit()]);
    crm.post("feedback.update", &[record("r1", "Three.")]).await;
    assert_eq!(crm.dead_letters(1).await[0]["reason_code"], "answer_invalid");
    crm.post("feedback.update", &[record("r1", "Four.")]).await;
    crm.told(3).await;
    let last = crm.provider.seen().len() - 1;
    let roles = [roles, vec!["assistant".into(), "user".into()]].concat();
    assert_eq!(shown(crm, last), (roles, false), "{:?}", crm.asked(last));
    assert!(crm.asked(last).iter().all(|(_, text)| !text.contains("Three.")), "{:?}", crm.asked(last));

    // The record is whole: every answer is stored and listed, and the turns say which are put aside.
    let answers = "SELECT count(*) FROM items WHERE role = 'assistant'";
    assert_eq!(crm.count(answers).await, 6);
    let event = told[0]["event"]["id"].as_str().unwrap();
    let event = crm.app.json(&["events", "show", event, "--json"]).await;
    let aside: Vec<_> = event["turns"].as_array().unwrap().iter().map(|turn| &turn["aside"]).collect();
    assert_eq!(aside, [&json!(true), &json!(false)], "{event}");
}

#[tokio::test]
async fn in_a_job_a_rejected_answer_is_no_part_of_the_conversation() {
    rejected_answers_stay_out_of_the_conversation(&Crm::open().await).await;
}

#[tokio::test]
async fn on_a_server_a_rejected_answer_is_no_part_of_the_conversation() {
    const ON_SERVER: &str = "runs_on = \"server\"";
    let crm = Crm::open_with(ON_SERVER, |builder| builder).await;
    let _server = crm.server(ON_SERVER).await;
    rejected_answers_stay_out_of_the_conversation(&crm).await;
}

#[tokio::test]
async fn a_rejected_answer_that_fits_by_now_counts_again_with_its_replay() {
    let crm = Crm::open().await;
    crm.provider.always(Script::says(r#"{"mood": "so so", "reply": "Hm."}"#));
    crm.post("feedback.create", &[record("r1", "One.")]).await;
    let letter = crm.dead_letters(1).await.remove(0);
    let path = crm.app.root().join("colloquy.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, config.replace(r#""good", "bad""#, r#""good", "bad", "so so""#)).unwrap();
    crm.app.kill_handler().await;
    let id = letter["id"].as_str().unwrap();
    assert!(crm.app.command(&["dead-letters", "replay", "--yes", id]).await.status.success());
    crm.told(1).await;
    assert_eq!(crm.provider.seen().len(), 2, "nobody is asked anew");
    crm.provider.always(good());
    crm.post("feedback.update", &[record("r1", "Two.")]).await;
    crm.told(2).await;
    let roles: Vec<String> = ["user", "assistant", "user"].map(str::to_owned).into();
    assert_eq!(shown(&crm, 2), (roles, true), "{:?}", crm.asked(2));
}

#[tokio::test]
async fn calls_that_do_not_fit_have_outputs_before_their_repair() {
    const TOOL: &str = r#"tools = [{ type = "function", name = "close", parameters = { type = "object",
        required = ["id"], properties = { id = { type = "string" } } } }]"#;
    // What calls functions is in no conversation.
    let config = |provider: &FakeProvider| {
        let text = config(provider, &TOOL.replace('\n', ""));
        let lines = text.lines().filter(|line| !line.starts_with("conversation = "));
        lines.collect::<Vec<_>>().join("\n")
    };
    let crm = Crm::open_as(config, |builder| builder).await;
    let calls = |arguments| Script::calls("close", arguments);
    crm.provider.next([calls(r#"{"id": 4711}"#), calls(r#"{"id": "r1"}"#)]);
    crm.post("feedback.create", &[record("r1", "Fine.")]).await;
    let told = crm.told(1).await;
    assert!(told[0].to_string().contains("close"), "{}", told[0]);
    let seen = crm.provider.seen();
    assert_eq!(seen.len(), 2);
    let messages = seen[1].body["messages"].as_array().unwrap();
    let roles: Vec<&str> = messages.iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles[1..], ["user", "assistant", "tool", "user"], "{messages:#?}");
    assert_eq!(messages[3]["tool_call_id"], messages[2]["tool_calls"][0]["id"]);
    let output = messages[3]["content"].as_str().unwrap();
    assert!(output.contains("not accepted") && output.contains("/id"), "{output}");
    assert!(!output.contains("4711"), "nothing of the answer: {output}");
}

#[tokio::test]
async fn an_answer_that_never_fits_is_a_dead_letter_and_its_replay_asks_anew() {
    let crm = Crm::open().await;
    crm.provider.always(Script::says("I feel good about it."));
    crm.post("feedback.create", &[record("r1", "My s3cr3t.")]).await;
    let letters = crm.dead_letters(1).await;
    assert_eq!(letters[0]["reason_code"], "answer_invalid");
    assert_eq!(crm.provider.seen().len(), 2);
    assert_eq!(crm.consumer.callbacks().len(), 0, "nothing acts on what does not fit");
    let log = crm.app.log().join("\n");
    assert!(!log.contains("s3cr3t") && !log.contains("I feel good"), "neither event nor answer is logged");

    crm.provider.always(good());
    let id = letters[0]["id"].as_str().unwrap();
    assert!(crm.app.command(&["dead-letters", "replay", "--yes", id]).await.status.success());
    crm.told(1).await;
    assert_eq!(crm.provider.seen().len(), 3);
    assert!(crm.asked(2).last().unwrap().1.contains("My s3cr3t."), "the event itself, not its repair");
}

#[tokio::test]
async fn a_provider_that_is_away_costs_no_attempt_and_loses_nothing() {
    let crm =
        Crm::open_with("", |builder| builder.set("LLM_RETRIES", "0").set("JOB_MAX_ATTEMPTS", "2")).await;
    crm.provider.always(Script::fails(503, "overloaded"));
    crm.post("feedback.create", &[record("r1", "One."), record("r2", "Two.")]).await;
    eventually("several failures each", PATIENCE, async || {
        crm.count("SELECT coalesce(min(outages), 0)::int8 FROM jobs").await >= 4
    })
    .await;
    assert_eq!(
        crm.count("SELECT coalesce(max(attempts), 0)::int8 FROM jobs WHERE state = 'pending'").await,
        0
    );
    let waits =
        "SELECT count(*) FROM jobs WHERE error_code IN ('provider_overloaded', 'provider_unavailable')";
    assert_eq!(crm.count(waits).await, 2);
    crm.provider.always(good());
    crm.told(2).await;
    assert_eq!(crm.count("SELECT count(*) FROM dead_letters").await, 0);
    // What failed is not in the conversation.
    assert_eq!(crm.asked(crm.provider.seen().len() - 1).len(), 2);
    assert!(crm.count(FAILED).await >= 8);
}

#[tokio::test]
async fn what_the_provider_refuses_for_good_is_a_dead_letter_at_once() {
    let crm = Crm::open().await;
    crm.provider.next([Script::fails(400, "no such parameter")]);
    crm.post("feedback.create", &[record("r1", "One.")]).await;
    assert_eq!(crm.dead_letters(1).await[0]["reason_code"], "provider_refused_request");
    assert_eq!(crm.provider.seen().len(), 1);

    crm.provider.next([good().finish("length")]);
    crm.post("feedback.create", &[record("r2", "Two.")]).await;
    let letters = crm.dead_letters(2).await;
    assert!(letters.iter().any(|letter| letter["reason_code"] == "max_output_tokens"), "{letters:?}");
}

#[tokio::test]
async fn a_spent_budget_makes_events_wait_under_its_own_reason() {
    let crm = Crm::open_with("\n[budgets.owners.\"source:crm\"]\nper_day = \"0.001\"", |builder| {
        builder.set("SPEND_HEARTBEAT", "200ms")
    })
    .await;
    let records: Vec<Value> = (0..3).map(|n| record(&format!("r{n}"), "Fine.")).collect();
    crm.post("feedback.create", &records).await;
    // Long, but not beyond the end of the day.
    let waits =
        "SELECT count(*) FROM jobs WHERE error_code = 'budget_spent' AND state = 'pending' AND attempts = 0
                 AND due_at > least(now() + interval '30 minutes',
                                    date_trunc('day', now(), 'UTC') + interval '1 day' - interval '1 second')";
    eventually("events that wait for their budget", PATIENCE, async || crm.count(waits).await >= 2).await;
    assert_eq!(crm.count("SELECT count(*) FROM dead_letters").await, 0);
}

#[tokio::test]
async fn events_of_one_conversation_queue() {
    let crm = Crm::open().await;
    crm.provider.always(good().pace(Duration::from_millis(150)));
    let records: Vec<Value> = (0..4).map(|n| record("r1", &format!("Number {n}."))).collect();
    crm.post("feedback.create", &records).await;
    crm.told(4).await;
    assert_eq!(crm.count("SELECT count(*) FROM conversations").await, 1);
    assert_eq!(crm.provider.seen().len(), 4, "none was refused or said twice");
    let longest = (0..4).map(|request| crm.asked(request).len()).max().unwrap();
    assert_eq!(longest, 2 + 2 * 3, "the last saw all others");
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_stopped_and_paid_for_so_many_times_only() {
    let crm =
        Crm::open_with("time_limit_seconds = 5", |builder| builder.set("RESPOND_ANSWERS_MAX", "2")).await;
    crm.provider.always(good().pace(Duration::from_secs(3)));
    crm.post("feedback.create", &[record("r1", "Fine.")]).await;
    let letters = crm.dead_letters(1).await;
    assert_eq!(letters[0]["reason_code"], "answers_exhausted");
    assert_eq!(crm.provider.seen().len(), 2);
    assert_eq!(crm.count("SELECT count(*) FROM usage WHERE reason = 'interrupted' AND estimated").await, 2);
}

#[tokio::test]
async fn an_event_that_a_template_cannot_be_filled_with_is_a_dead_letter() {
    let crm = Crm::open().await;
    crm.post("feedback.create", &[json!({ "id": "r1", "name": "Ada" })]).await;
    let letters = crm.dead_letters(1).await;
    assert_eq!(letters[0]["reason_code"], "template_failed");
    assert!(letters[0]["reason"].as_str().unwrap().contains("event.payload.rating"), "{}", letters[0]);
    assert_eq!(crm.provider.seen().len(), 0);
}
