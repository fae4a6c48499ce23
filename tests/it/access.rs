//! Who may do what: keys, grants, and what nobody else may. Always two servers where it matters.

mod keys;

use crate::support::server::Server;
use crate::support::{TestDatabase, TestStorage};

/// Two servers on one database, that remember a key for a second.
async fn two() -> (TestDatabase, Server, Server) {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let first = Server::of(&database, &storage).hurried().set("API_KEY_CACHE", "1s").start().await;
    let second = Server::of(&database, &storage).hurried().set("API_KEY_CACHE", "1s").start().await;
    (database, first, second)
}
