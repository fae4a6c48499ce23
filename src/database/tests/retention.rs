use jiff::{SignedDuration, Timestamp};

use super::support::{TestDatabase, count};
use super::talk::{OWNER, answer, conversation, new_turn, past, response_at, trim_all, turn};
use crate::database::expiring;
use crate::database::retention::{self, Superfluous};
use crate::database::threads::{Anchor, Place};
use crate::database::turn_log::{self, Append, LogCursor};
use crate::database::turns::{self, Held};
use crate::database::{Client, conversations, responses};
use crate::ids::ResponseId;

fn ago(hours: i64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_hours(hours)
}

/// A running turn that began some hours ago, with one part in its log.
async fn begun(client: &Client, hours: i64) -> Held {
    let mut turn = new_turn(Place::New, &[]);
    turn.id = response_at(ago(hours));
    turns::begin(client, &turn).await.expect("begun");
    let held = Held { response: turn.id, epoch: 1 };
    turn_log::append(client, &[Append { held, part: 0, data: "x" }]).await.expect("appended");
    held
}

#[tokio::test]
async fn days_of_logs_are_dropped_when_no_log_of_them_is_kept() {
    let (test, database) = TestDatabase::migrated().await;
    let mut client = database.client().await.expect("a client");
    let session = test.session().await;
    let done = begun(&client, 24 * 5).await;
    let running = begun(&client, 24 * 4).await;
    let kept = begun(&client, 24 * 3).await;
    begun(&client, 0).await;
    answer(&client, done, "a").await;
    answer(&client, kept, "a").await;
    let over = "UPDATE responses SET log_until = now() - interval '1 second' WHERE id = $1";
    session.execute(over, &[&done.response.0]).await.expect("over");
    let read = async |client: &Client, response: ResponseId| {
        let cursor = LogCursor { owner: OWNER, response, from_part: 0 };
        turn_log::read_log(client, cursor).await.expect("an answer").expect("a log")
    };
    let ended = read(&client, done.response).await;
    assert!(ended.parts.is_empty() && !ended.log_kept, "its time is over, dropped or not");
    assert!(!responses::get(&client, OWNER, done.response).await.expect("ok").expect("a turn").log_kept);

    let told = async |client: &Client, hours| {
        let told = expiring::logs(client, ago(hours)).await.expect("counted");
        told.into_iter().map(|told| (told.what, told.of, told.rows)).collect::<Vec<_>>()
    };
    assert_eq!(told(&client, 24 * 6).await, []);
    assert_eq!(retention::drop_old_logs(&mut client, ago(24 * 6)).await.expect("dropped"), 0);
    assert_eq!(told(&client, 24).await, [("response_events", OWNER.to_owned(), 1)]);
    assert_eq!(retention::drop_old_logs(&mut client, ago(24)).await.expect("dropped"), 1);
    assert_eq!(told(&client, 24).await, []);
    assert_eq!(count(&session, "response_events").await, 3);
    for held in [running, kept] {
        assert_eq!(read(&client, held.response).await.parts.len(), 1);
    }
    assert_eq!(retention::ensure_log_partitions(&client, Timestamp::now(), 3).await.expect("made"), 0);
    assert_eq!(retention::ensure_log_partitions(&client, Timestamp::now(), 5).await.expect("made"), 2);
}

#[tokio::test]
async fn old_turns_go_and_what_stands_on_their_items_stays_whole() {
    let (test, database) = TestDatabase::migrated().await;
    let mut client = database.client().await.expect("a client");
    let session = test.session().await;
    let old = begun(&client, 24 * 40).await;
    let running = begun(&client, 24 * 40).await;
    answer(&client, old, "a1").await;
    let next = turn(&client, Anchor::Response(old.response), "q2", "a2").await;
    let alone = begun(&client, 24 * 40).await;
    answer(&client, alone, "b1").await;
    let month = Superfluous::BegunBefore { before: ago(24 * 30), except: &[] };
    assert_eq!(
        retention::delete_responses(&client, month, 1).await.expect("deleted"),
        1,
        "no more than asked for"
    );
    assert_eq!(retention::delete_responses(&client, month, 9).await.expect("deleted"), 1);
    assert_eq!(retention::delete_responses(&client, month, 9).await.expect("deleted"), 0, "one still runs");
    assert!(responses::get(&client, OWNER, running.response).await.expect("an answer").is_some());
    trim_all(&mut client).await;
    assert_eq!(past(&client, Anchor::Response(next)).await, ["a1", "q2", "a2"]);
    assert_eq!((count(&session, "threads").await, count(&session, "items").await), (2, 3));
}

#[tokio::test]
async fn a_conversation_outlives_its_turns_and_goes_after_them_once_deleted() {
    let (test, database) = TestDatabase::migrated().await;
    let mut client = database.client().await.expect("a client");
    let session = test.session().await;
    let id = conversation(&client, &[]).await;
    turn(&client, Anchor::Conversation(id), "q", "a").await;
    let all =
        Superfluous::BegunBefore { before: Timestamp::now() + SignedDuration::from_hours(1), except: &[] };
    assert_eq!(retention::delete_responses(&client, all, 9).await.expect("deleted"), 1);
    trim_all(&mut client).await;
    assert_eq!(past(&client, Anchor::Conversation(id)).await, ["q", "a"]);
    turn(&client, Anchor::Conversation(id), "q2", "a2").await;
    conversations::delete(&client, OWNER, id).await.expect("an answer").expect("deleted");
    trim_all(&mut client).await;
    assert_eq!(count(&session, "items").await, 0, "items go first");
    assert_eq!(retention::delete_conversations(&client, 9).await.expect("deleted"), 0, "it has a turn");
    let of_deleted = Superfluous::OfDeletedConversations;
    assert_eq!(retention::delete_responses(&client, of_deleted, 9).await.expect("deleted"), 1);
    assert_eq!(retention::delete_conversations(&client, 9).await.expect("deleted"), 1);
    trim_all(&mut client).await;
    let mut left = Vec::new();
    for table in ["conversations", "responses", "threads", "items", "response_events"] {
        left.push(count(&session, table).await);
    }
    assert_eq!(left, [0, 0, 0, 0, 0]);
}
