//! The audit trail of what callers change.

use http::Method;
use serde_json::{Value, json};

use super::{id, make, two};
use crate::support::TestDatabase;
use crate::support::server::Server;

/// Who made a change of this kind to this, by the rows there are.
async fn rows(database: &TestDatabase, action: &str, subject: &str) -> Vec<String> {
    let sql = "SELECT actor FROM api_audit WHERE action = $1 AND subject = $2";
    let rows = database.client().await.query(sql, &[&action, &subject]).await.expect("the audit trail");
    rows.iter().map(|row| row.get(0)).collect()
}

async fn call(server: &Server, key: &str, method: Method, path: &str, body: Option<Value>) -> Value {
    let (status, answer) = server.call(method.clone(), path, body, key).await;
    assert_eq!(status, 200, "{method} {path}: {answer}");
    answer
}

/// A change and its row are one commit: there is neither without the other, whatever becomes of the server.
#[tokio::test]
async fn every_change_has_its_row_though_the_server_is_killed_right_after_its_answer() {
    let (database, mut first, mut second) = two().await;
    let (key_id, key) = make(&first, json!({ "name": "a test's", "owner": "ada" })).await;
    let ada = format!("ada ({key_id})");
    let conversation = id(&call(&first, &key, Method::POST, "/v1/conversations", Some(json!({}))).await);
    first.kill();
    assert_eq!(rows(&database, "conversation.create", &conversation).await, std::slice::from_ref(&ada));

    let path = format!("/v1/conversations/{conversation}");
    let said = json!({ "items": [{ "role": "user", "content": "My name is Ada." }] });
    let post = async |path: &str, body: Value| call(&second, &key, Method::POST, path, Some(body)).await;
    let added = post(&format!("{path}/items"), said).await;
    let item = id(&added["data"][0]);
    post(&path, json!({ "title": "Names" })).await;
    let fork = id(&post(&format!("{path}/fork"), json!({})).await);
    let begun = json!({ "model": "demo", "input": "Tell me a story in 300 words.", "background": true });
    let response = id(&post("/v1/responses", begun).await);
    for _ in 0..2 {
        assert_eq!(post(&format!("/v1/responses/{response}/cancel"), json!({})).await["status"], "cancelled");
    }
    for path in [format!("{path}/items/{item}"), format!("/v1/responses/{response}"), path.clone()] {
        call(&second, &key, Method::DELETE, &path, None).await;
    }
    // What changes nothing has none.
    assert_eq!(second.call(Method::DELETE, &path, None, &key).await.0, 404);
    second.kill();
    for (action, subject) in [
        ("conversation.item.add", &conversation),
        ("conversation.update", &conversation),
        ("conversation.fork", &conversation),
        ("conversation.item.delete", &item),
        ("response.cancel", &response),
        ("response.delete", &response),
        ("conversation.delete", &conversation),
    ] {
        assert_eq!(rows(&database, action, subject).await, std::slice::from_ref(&ada), "{action}");
    }
    assert_ne!(fork, conversation);
}
