//! The scene: a conversation, streamed, cut, resumed, cancelled, listed; then the same with a server killed in mid-turn
//! and another taking over. Played by the unmodified SDKs.

use std::time::Duration;

use super::sdk::Sdk;
use crate::support::server::Server;
use crate::support::{Front, Process, TestDatabase, TestStorage};

async fn plays(sdk: Sdk) {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let servers = Server::of(&database, &storage).start_two().await;
    let front = Front::of(servers.both()).await;
    let mut command = sdk.command("scene", &[]);
    command.env("OPENAI_BASE_URL", front.base_url());
    let mut process = Process::start(&format!("{sdk:?}"), command);
    let status = process.end(Duration::from_secs(90)).await;
    assert!(status.success(), "{sdk:?}:\n{}", process.log().join("\n"));
    assert_eq!(process.log().last().map(String::as_str), Some("ok"));
    assert_eq!(
        database.count("SELECT count(*) FROM responses WHERE state IN ('queued', 'in_progress')").await,
        0
    );
}

#[tokio::test]
async fn the_python_sdk_plays_the_scene() {
    plays(Sdk::Python).await;
}

#[tokio::test]
async fn the_node_sdk_plays_the_scene() {
    plays(Sdk::Node).await;
}

async fn is_taken_over(sdk: Sdk) {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let mut first = Server::of(&database, &storage).hurried().start().await;
    let second = Server::of(&database, &storage).hurried().start().await;
    let mut command = sdk.command("scene", &["takeover"]);
    command.env("OPENAI_BASE_URL", first.base_url()).env("COLLOQUY_OTHER_URL", second.base_url());
    let mut process = Process::start_with_input(&format!("{sdk:?}"), command);
    let streaming = |line: &str| line.strip_prefix("streaming ").map(str::to_owned);
    process.find("a turn that streams", Duration::from_secs(30), streaming).await;
    first.kill();
    process.write_line("killed");
    let status = process.end(Duration::from_secs(90)).await;
    assert!(status.success(), "{sdk:?}:\n{}", process.log().join("\n"));
    assert_eq!(process.log().last().map(String::as_str), Some("ok"));
}

/// `kill -9` of the server in mid-turn: the other ends the turn with what was logged, and the viewer that resumes there
/// sees exactly that.
#[tokio::test]
async fn a_killed_servers_turn_is_resumed_elsewhere_by_python() {
    is_taken_over(Sdk::Python).await;
}

#[tokio::test]
async fn a_killed_servers_turn_is_resumed_elsewhere_by_node() {
    is_taken_over(Sdk::Node).await;
}
