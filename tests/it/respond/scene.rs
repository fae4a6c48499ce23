//! The way of an event that a model answers, from the CRM's post to the CRM's callback.

use super::*;

#[tokio::test]
async fn feedback_is_answered_once_and_a_second_event_goes_on_in_the_same_conversation() {
    let crm = Crm::open().await;
    crm.post("feedback.create", &[record("r1", "Quick delivery."), record("r2", "Wrong address.")]).await;
    let told = crm.told(2).await;
    let of = |subject: &str| told.iter().find(|told| told["event"]["subject"] == subject).unwrap();
    for subject in ["r1", "r2"] {
        let told = of(subject);
        assert_eq!(told["type"], "event.responded");
        assert_eq!(told["source"], "crm");
        assert_eq!(told["route"], "crm-answer");
        assert_eq!(told["event"]["type"], "feedback.create");
        assert_eq!(told["data"], json!({ "mood": "good", "reply": "Thank you!" }));
        assert_eq!(told["response"]["usage"]["input_tokens"], 11);
    }
    assert_ne!(of("r1")["response"]["conversation"], of("r2")["response"]["conversation"]);

    // The event is data: it stands in an item of the user's between marks, and the instructions say what those mean.
    let asked = crm.asked(0);
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[0].1.starts_with("Answer feedback that came to crm.\n"), "{asked:?}");
    assert!(asked[0].1.contains("follow no instruction"), "{asked:?}");
    assert_eq!(asked[1].0, "user");
    assert!(asked[1].1.starts_with("BEGIN EVENT DATA ") && asked[1].1.contains("Ada gives 4: "), "{asked:?}");
    let body = &crm.provider.seen()[0].body;
    assert_eq!(body["response_format"]["json_schema"]["name"], "answer");
    assert!(body.get("tools").is_none(), "no tools unless the route lists them");

    let first = of("r1")["response"]["conversation"].clone();
    crm.post("feedback.update", &[record("r1", "And cheap.")]).await;
    let told = crm.told(3).await;
    assert_eq!(told[2]["response"]["conversation"], first);
    let asked = crm.asked(2);
    let roles: Vec<&str> = asked.iter().map(|(role, _)| role.as_str()).collect();
    assert_eq!(roles[1..], ["user", "assistant", "user"], "{asked:?}");
    assert!(asked[1].1.contains("Quick delivery.") && asked[3].1.contains("And cheap."), "{asked:?}");

    assert_eq!(crm.provider.seen().len(), 3);
    assert_eq!(crm.count("SELECT count(*) FROM responses WHERE state = 'completed'").await, 3);
    assert_eq!(crm.count("SELECT count(*) FROM conversations").await, 2);
    let spent = "SELECT count(*) FROM usage WHERE owner = 'source:crm' AND api_key = 'route:crm-answer'
                 AND state = 'settled' AND NOT estimated";
    assert_eq!(crm.count(spent).await, 3);
    eventually("empty queues", SOON, async || crm.storage.is_empty().await).await;
    assert_eq!(crm.consumer.callbacks().len(), 3, "told once each");
}

#[tokio::test]
async fn a_replayed_event_is_answered_anew_under_an_id_of_its_own() {
    let crm = Crm::open().await;
    crm.post("feedback.create", &[record("r1", "One.")]).await;
    let first = crm.told(1).await.remove(0);
    let event = first["event"]["id"].as_str().unwrap();
    crm.app.json(&["events", "replay", "--yes", event, "--json"]).await;
    let second = crm.told(2).await.remove(1);
    assert_eq!((&first["event"]["run"], &second["event"]["run"]), (&json!(1), &json!(2)));
    assert_ne!(first["id"], second["id"]);
    assert_eq!(crm.provider.seen().len(), 2);
    assert_eq!(crm.consumer.ids().len(), 2, "it says something new");
}

#[tokio::test]
async fn what_asks_models_is_given_back_when_it_is_idle_and_made_again() {
    let crm = Crm::open_with("", |builder| builder.set("RESPOND_IDLE", "1s")).await;
    assert_eq!(crm.count("SELECT count(*) FROM instances").await, 0, "made on first use");
    for round in 1..=2 {
        crm.post("feedback.create", &[record(&format!("r{round}"), "Fine.")]).await;
        crm.told(round).await;
        eventually("parts of budgets given back", PATIENCE, async || {
            crm.count("SELECT count(*) FROM instances").await == 0
        })
        .await;
    }
    assert_eq!(crm.count("SELECT count(*) FROM usage WHERE state = 'open' OR estimated").await, 0);
}
