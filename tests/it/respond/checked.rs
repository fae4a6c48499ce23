//! `function-handlers check` on routes that a model answers.

use super::*;

struct Checked {
    _database: TestDatabase,
    app: FunctionApp,
}

async fn checked(config: &str) -> (Checked, String) {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let app = FunctionApp::of(&database, &storage).config(config).start_without_waiting();
    let said = say(&app).await;
    (Checked { _database: database, app }, said)
}

async fn say(app: &FunctionApp) -> String {
    let output = app.command(&["check"]).await;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}{out}{err}", if output.status.success() { "passes: " } else { "fails: " })
}

#[tokio::test]
async fn templates_are_rehearsed_with_samples_and_mistakes_have_their_place() {
    let provider = FakeProvider::start(Wire::Chat);
    let good = config(&provider, "");
    let (_, said) = checked(&good).await;
    assert!(said.starts_with("passes: "), "{said}");

    // Well-formed, and not what the CRM sends.
    let bad = good.replace("event.payload.description", "event.payload.comment");
    let line = bad.lines().position(|line| line.starts_with("input = ")).unwrap() + 1;
    let (checked, said) = checked(&bad).await;
    assert!(said.starts_with("fails: "), "{said}");
    let place = format!("routes[0].input (line {line}, column ");
    assert!(said.contains(&place) && said.contains("`event.payload.comment` is not defined"), "{said}");

    // A deployment's own samples come before ours.
    let folder = checked.app.root().join("tests/fixtures/events");
    std::fs::create_dir_all(&folder).unwrap();
    let sample = json!([{ "id": "1", "name": "n", "rating": 1, "comment": "c" }]).to_string();
    std::fs::write(folder.join("crm.feedback.create.json"), sample).unwrap();
    let said = say(&checked.app).await;
    assert!(said.starts_with("passes: "), "{said}");
}

#[tokio::test]
async fn the_environment_has_its_say_in_a_rehearsal_if_it_is_asked() {
    let provider = FakeProvider::start(Wire::Chat);
    let long = config(&provider, "").replace("{{ event.payload.name }}", "${LABEL} {{ 'x' * 2000 }}");
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let app = FunctionApp::of(&database, &storage).config(&long).set("LABEL", "A label");
    let app = app.set("RESPOND_TEXT_MAX_BYTES", "1024").start_without_waiting();
    let said = say(&app).await;
    assert!(said.starts_with("passes: ") && said.contains("not rehearsed: input"), "{said}");
    let output = app.command(&["check", "--env"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("at most 1024 are allowed (RESPOND_TEXT_MAX_BYTES)"), "{said}");
}

#[tokio::test]
async fn what_does_not_fit_into_a_functions_time_is_refused() {
    let provider = FakeProvider::start(Wire::Chat);
    let (_, said) = checked(&config(&provider, "time_limit_seconds = 200")).await;
    assert!(said.contains("route `crm-answer`") && said.contains("runs_on = \"server\""), "{said}");
    let slow = config(&provider, "").replace("[models.small]", "[models.small]\nreasoning = true");
    let (_, said) = checked(&slow).await;
    assert!(said.contains("may take 300 s to its first event"), "{said}");
    let (_, said) =
        checked(&slow.replace("callback = \"crm\"", "callback = \"crm\"\nruns_on = \"server\"")).await;
    assert!(said.starts_with("passes: "), "{said}");
}

/// `colloquy.toml` with its example route in force.
fn with_example() -> String {
    let text = std::fs::read_to_string(crate::support::repository().join("colloquy.toml")).unwrap();
    let example = text.lines().skip_while(|line| !line.starts_with("# [[routes]]"));
    let example = example.take_while(|line| line.starts_with('#'));
    let example: Vec<&str> = example.map(|line| line.strip_prefix("# ").unwrap_or_default()).collect();
    format!("{text}\n{}\n", example.join("\n"))
}

#[tokio::test]
async fn the_example_of_colloquy_toml_passes_and_the_demo_model_answers_it() {
    let config = with_example();
    let (_, said) = checked(&config).await;
    assert!(said.starts_with("passes: "), "{said}");

    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    let app = FunctionApp::of(&database, &storage).config(&config).hurried().consumer(&consumer);
    let app = app.set("LLM_DEMO_TOKENS_PER_SECOND", "0").start().await;
    let sent =
        app.command(&["webhooks", "send", "crm", "--event", "feedback.create", "--url", &app.url("")]).await;
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    eventually("two records, each forwarded and answered", PATIENCE, async || consumer.accepted().len() == 4)
        .await;
    let answers: Vec<Value> = consumer.accepted().iter().map(|callback| callback.json()).collect();
    let answers: Vec<_> = answers.iter().filter(|told| told["type"] == "event.responded").collect();
    assert_eq!(answers.len(), 2);
    assert!(
        answers.iter().all(|told| told["data"]["mood"] == "good" && told["response"]["model"] == "small"),
        "{answers:#?}"
    );
}
