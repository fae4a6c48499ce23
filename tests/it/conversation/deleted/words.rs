//! The words of what was deleted are in no column of no table.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Scene, ask, delete, id, scene};
use crate::conversation::sse::Sse;
use crate::support::providers::{Ending, Script};
use crate::support::{SOON, TestDatabase, eventually};

/// In everything that is said, asked for, or named here.
const WORD: &str = "zanzibar";

/// The tables with a row that says the word, in whatever column, as text or as bytes.
async fn saying(database: &TestDatabase) -> Vec<String> {
    const TABLES: &str = "
        SELECT c.relname::text FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1";
    let client = database.client().await;
    let bytes: String = WORD.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut saying = Vec::new();
    for row in client.query(TABLES, &[]).await.expect("tables") {
        let table: &str = row.get(0);
        let sql = format!(
            "SELECT EXISTS (SELECT FROM \"{table}\" t WHERE t::text ILIKE '%{WORD}%' OR t::text ILIKE '%{bytes}%')"
        );
        if client.query_one(&sql, &[]).await.expect("rows").get(0) {
            saying.push(table.to_owned());
        }
    }
    saying
}

async fn is_said_by(scene: &Scene, tables: &[&str], case: &str) {
    assert_eq!(saying(&scene.database).await, tables, "{case}");
}

/// Nowhere in a moment: what was under way has an end to be stored.
async fn is_said_nowhere(scene: &Scene, case: &str) {
    let mut left = Vec::new();
    eventually(&format!("{case}: the word is gone"), SOON, async || {
        left = saying(&scene.database).await;
        if !left.is_empty() {
            eprintln!("{case}: still said by {left:?}");
        }
        left.is_empty()
    })
    .await;
}

/// A turn that says the word wherever a request and its answer may.
fn telling(more: Value) -> Value {
    let mut body = json!({ "model": "it", "input": format!("Where is {WORD}?"), "instructions": format!("Say {WORD}."),
                           "metadata": { "about": WORD } });
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    body
}

fn answers() -> Script {
    Script::says(&format!("Far away is {WORD} I think"))
}

async fn conversation(scene: &Scene) -> Value {
    let items = json!([{ "type": "message", "role": "user", "content": format!("I was in {WORD}.") }]);
    let new = json!({ "metadata": { "about": WORD }, "items": items });
    let (status, conversation) = scene.servers.post("/v1/conversations", new).await;
    assert_eq!(status, 200, "{conversation}");
    conversation["id"].clone()
}

#[tokio::test]
async fn a_deleted_response_leaves_no_word() {
    let scene = scene().await;
    scene.provider.always(answers());
    let [first, second] = scene.servers.both();
    for (key, deleting) in [("here", first), ("elsewhere", second)] {
        let (status, response) = ask(first, key, telling(json!({}))).await;
        assert_eq!(status, 200, "{response}");
        is_said_by(&scene, &["items", "response_events", "responses"], key).await;
        delete(deleting, &format!("/v1/responses/{}", id(&response))).await;
        is_said_by(&scene, &[], key).await;
    }
    // What another turn stands on is deleted with the last of those.
    let (_, before) = ask(first, "before", telling(json!({}))).await;
    let plain = json!({ "input": "on", "previous_response_id": before["id"] });
    let (_, after) = ask(first, "after", plain).await;
    delete(second, &format!("/v1/responses/{}", id(&before))).await;
    is_said_by(&scene, &["items", "response_events"], "the one before").await;
    let (status, shown) = first.read(&format!("/v1/responses/{}/input_items", id(&before))).await;
    assert_eq!(status, 404, "{shown}");
    delete(second, &format!("/v1/responses/{}", id(&after))).await;
    is_said_by(&scene, &[], "both").await;
}

#[tokio::test]
async fn a_deleted_conversation_leaves_no_word() {
    let scene = scene().await;
    scene.provider.always(answers());
    let [first, second] = scene.servers.both();
    for (key, deleting) in [("here", first), ("elsewhere", second)] {
        let conversation = conversation(&scene).await;
        let (status, response) = ask(first, key, telling(json!({ "conversation": conversation }))).await;
        assert_eq!(status, 200, "{response}");
        // What a failed turn said is in its log alone.
        scene.provider.next([answers().ending_after(
            4,
            Ending::Error(json!({ "error": { "message": "no", "type": "server_error" } })),
        )]);
        let mut failing = Sse::post(first, telling(json!({ "conversation": conversation }))).await;
        failing.until("response.failed").await;
        let path = format!("/v1/conversations/{}", conversation.as_str().expect("an id"));
        let (_, titled) = second.post(&path, json!({ "title": format!("About {WORD}") })).await;
        assert_eq!(titled["title"], format!("About {WORD}"), "{titled}");
        is_said_by(&scene, &["conversations", "items", "response_events", "responses"], key).await;
        delete(deleting, &path).await;
        is_said_by(&scene, &[], key).await;
    }
    // A fork keeps what it shares, until it goes.
    let conversation = conversation(&scene).await;
    let path = format!("/v1/conversations/{}", conversation.as_str().expect("an id"));
    let (status, fork) =
        first.post(&format!("{path}/fork"), json!({ "metadata": {}, "title": "Mine" })).await;
    assert_eq!(status, 200, "{fork}");
    delete(second, &path).await;
    is_said_by(&scene, &["items"], "forked").await;
    delete(second, &format!("/v1/conversations/{}", id(&fork))).await;
    is_said_by(&scene, &[], "with its fork").await;
}

#[tokio::test]
async fn what_is_deleted_in_mid_turn_leaves_no_word() {
    let scene = scene().await;
    let slow = || {
        Script { text: vec![format!("{WORD} "); 400], ..Script::default() }.pace(Duration::from_millis(50))
    };
    let [first, second] = scene.servers.both();
    for by_conversation in [false, true] {
        let case = if by_conversation { "its conversation" } else { "itself" };
        scene.provider.next([slow()]);
        let conversation = match by_conversation {
            true => conversation(&scene).await,
            false => Value::Null,
        };
        let mut stream = Sse::post(first, telling(json!({ "conversation": conversation }))).await;
        let response = id(&stream.until("response.created").await["response"]);
        stream.until("response.output_text.delta").await;
        assert!(saying(&scene.database).await.contains(&"response_events".to_owned()), "{case}");
        let path = match conversation.as_str() {
            Some(conversation) => format!("/v1/conversations/{conversation}"),
            None => format!("/v1/responses/{response}"),
        };
        delete(second, &path).await;
        is_said_nowhere(&scene, case).await;
        let ended = "SELECT count(*) FROM responses WHERE state NOT IN ('cancelled')";
        assert_eq!(scene.database.count(ended).await, 0, "{case}");
    }
}

#[tokio::test]
async fn an_item_taken_out_of_a_conversation_is_in_no_log() {
    let scene = scene().await;
    scene.provider.always(answers());
    let [first, second] = scene.servers.both();
    let (_, conversation) = first.post("/v1/conversations", json!({})).await;
    let asked = json!({ "input": "Where?", "conversation": conversation["id"] });
    let (status, response) = ask(first, "item", asked).await;
    assert_eq!(status, 200, "{response}");
    is_said_by(&scene, &["items", "response_events"], "before").await;
    let item = id(&response["output"][0]);
    delete(second, &format!("/v1/conversations/{}/items/{item}", id(&conversation))).await;
    is_said_by(&scene, &[], "after").await;
    let events = Sse::follow(first, &id(&response), None).await.all().await;
    assert!(!json!(events).to_string().contains(WORD), "{events:?}");
}
