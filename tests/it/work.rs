//! What follows from events: callbacks, jobs, dead letters, and sources that are held.

mod backfill;
mod callbacks;
mod dead_letters;
mod held;
mod rotations;
mod sailpoint;
mod upkeep;

use serde_json::{Value, json};

use crate::support::FunctionApp;

/// An event as Stripe sends it.
fn event(id: &str) -> String {
    json!({ "id": id, "type": "invoice.paid", "data": { "object": { "id": "in_1" } } }).to_string()
}

async fn deliver(app: &FunctionApp, id: &str) {
    assert_eq!(app.deliver_stripe(&event(id)).await.status(), 200);
}

/// The open dead letters.
async fn dead_letters(app: &FunctionApp) -> Vec<Value> {
    app.json(&["dead-letters", "list", "--json"]).await.as_array().expect("a list").clone()
}
