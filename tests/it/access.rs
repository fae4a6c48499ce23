//! Who may do what: keys, grants, and what nobody else may. Always two servers on one database.

mod audit;
mod grants;
mod keys;
mod owners;
mod strangers;

use http::Method;
use serde_json::{Value, json};

use crate::support::server::Server;
use crate::support::{TestDatabase, TestStorage};

/// Two servers on one database, that remember a key for a second.
async fn two() -> (TestDatabase, Server, Server) {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let start = || {
        let server = Server::of(&database, &storage).hurried().set("API_KEY_CACHE", "1s");
        server.set("LLM_DEMO_TOKENS_PER_SECOND", "20").start()
    };
    let (first, second) = (start().await, start().await);
    (database, first, second)
}

/// Makes a key by request. Gives its id and the key itself.
async fn make(server: &Server, body: Value) -> (String, String) {
    let (status, made) = server.post("/admin/keys", body).await;
    assert_eq!(status, 200, "{made}");
    (id(&made), made["key"].as_str().unwrap().to_owned())
}

/// A key of an owner's.
async fn key_of(server: &Server, owner: &str) -> String {
    make(server, json!({ "name": "a test's", "owner": owner })).await.1
}

fn id(resource: &Value) -> String {
    resource["id"].as_str().unwrap_or_else(|| panic!("{resource}")).to_owned()
}

/// A conversation of a key's owner, with a turn on it. Gives the ids of both.
async fn talk(server: &Server, key: &str) -> (String, String) {
    let (_, conversation) = server.call(Method::POST, "/v1/conversations", Some(json!({})), key).await;
    let said = json!({ "model": "demo", "input": "My name is Ada.", "conversation": conversation["id"] });
    let (status, turn) = server.call(Method::POST, "/v1/responses", Some(said), key).await;
    assert_eq!(status, 200, "{turn}");
    (id(&conversation), id(&turn))
}
