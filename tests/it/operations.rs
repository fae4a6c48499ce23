//! What operators do by request and by command: always the function app and servers on one database and storage.

mod malformed;
mod openapi;
mod platform;
mod switches;
mod turns;
mod work;

use http::Method;
use serde_json::{Value, json};

use crate::support::server::{API_KEY, Server};
use crate::support::{FunctionApp, SOON, TestDatabase, eventually};

/// An event as Stripe sends it.
async fn deliver(app: &FunctionApp, id: &str) {
    let event = json!({ "id": id, "type": "invoice.paid", "data": { "object": { "id": "in_1" } } });
    assert_eq!(app.deliver_stripe(&event.to_string()).await.status(), 200);
}

/// The entries of a list.
async fn list(server: &Server, path: &str) -> Vec<Value> {
    let (status, list) = server.read(path).await;
    assert_eq!(status, 200, "{path}: {list}");
    list["data"].as_array().unwrap_or_else(|| panic!("{path}: {list}")).clone()
}

/// The open dead letters, once there are so many.
async fn letters(server: &Server, count: usize) -> Vec<Value> {
    let mut found = Vec::new();
    eventually("dead letters", SOON, async || {
        found = list(server, "/admin/dead-letters?order=asc").await;
        found.len() == count
    })
    .await;
    found
}

fn id(row: &Value) -> &str {
    row["id"].as_str().unwrap_or_else(|| panic!("{row}"))
}

async fn put(server: &Server, path: &str, body: Value) -> (u16, Value) {
    server.call(Method::PUT, path, Some(body), API_KEY).await
}

async fn delete(server: &Server, path: &str, body: Value) -> (u16, Value) {
    server.call(Method::DELETE, path, Some(body), API_KEY).await
}

/// Rows of the audit trail that a server's operator wrote.
async fn audited(database: &TestDatabase, action: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM api_audit WHERE action = '{action}' AND actor = 'tester (test)'");
    database.count(&sql).await
}
