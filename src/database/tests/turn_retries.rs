use std::time::Duration;

use super::support::TestDatabase;
use super::talk::{LEASE, OTHER, OWNER, finish_as, lapse, new_turn, said};
use crate::database::threads::Place;
use crate::database::turn_log::{self, Append, LogCursor};
use crate::database::turns::{self, FirstTry, Held, Idempotency};
use crate::database::{Client, responses};
use crate::ids::ResponseId;
use crate::openresponses::ResponseStatus;

const WITHIN: Duration = Duration::from_secs(60);

async fn begin(client: &Client, key: Option<&str>, hash: &[u8]) -> ResponseId {
    let question = said("q");
    let input = [question.item()];
    let mut turn = new_turn(Place::New, &input);
    turn.idempotency = Some(Idempotency { key, request_hash: hash });
    turns::begin(client, &turn).await.expect("begun");
    turn.id
}

async fn first_try(client: &Client, owner: &str, key: Option<&str>, hash: &[u8]) -> Option<FirstTry> {
    let request = Idempotency { key, request_hash: hash };
    turns::first_try(client, owner, request, WITHIN).await.expect("an answer")
}

#[tokio::test]
async fn a_first_try_is_found_by_its_key_or_its_digest() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let session = test.session().await;
    let found = |response| Some(FirstTry { response, same_request: true });
    let keyed = begin(&client, Some("k"), b"1").await;
    assert_eq!(first_try(&client, OWNER, Some("k"), b"1").await, found(keyed));
    let other = Some(FirstTry { response: keyed, same_request: false });
    assert_eq!(first_try(&client, OWNER, Some("k"), b"2").await, other);
    // A digest stands for requests that have no key.
    assert_eq!(first_try(&client, OWNER, None, b"1").await, None);
    let plain = begin(&client, None, b"1").await;
    assert_eq!(first_try(&client, OWNER, None, b"1").await, found(plain));
    for (owner, key, hash) in [(OTHER, None, b"1"), (OTHER, Some("k"), b"1"), (OWNER, None, b"3")] {
        assert_eq!(first_try(&client, owner, key, hash).await, None);
    }
    let latest = begin(&client, None, b"1").await;
    assert_eq!(first_try(&client, OWNER, None, b"1").await, found(latest), "the latest of the same");
    // What failed, was given up, is too old or deleted is not found by a digest; what somebody cancelled is.
    let set = async |what: &str| {
        let sql = format!("UPDATE responses SET {what} WHERE id = $1");
        session.execute(&sql, &[&latest.0]).await.expect("changed");
        let first = first_try(&client, OWNER, None, b"1").await;
        let back =
            "UPDATE responses SET state = 'in_progress', cancel_requested_at = NULL, deleted_at = NULL,
                    created_at = now() WHERE id = $1";
        session.execute(back, &[&latest.0]).await.expect("changed back");
        first == found(latest)
    };
    assert!(set("state = 'completed'").await && set("state = 'incomplete'").await);
    assert!(set("state = 'cancelled', cancel_requested_at = now()").await);
    assert!(!set("state = 'failed'").await && !set("state = 'cancelled'").await);
    assert!(!set("created_at = now() - interval '61 seconds'").await && !set("deleted_at = now()").await);
}

#[tokio::test]
async fn a_turn_is_watched_elsewhere_for_as_long_as_somebody_says_so() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let id = begin(&client, None, b"1").await;
    let held = Held { response: id, epoch: 1 };
    let watched = async |within| turns::watched_elsewhere(&client, held, within).await.expect("an answer");
    assert!(!watched(WITHIN).await);
    responses::mark_watched(&client, &[(OTHER, id), (OWNER, ResponseId::new())]).await.expect("done");
    assert!(!watched(WITHIN).await, "nobody watches another's turn");
    responses::mark_watched(&client, &[(OWNER, id)]).await.expect("done");
    assert!(watched(WITHIN).await && !watched(Duration::ZERO).await);
    lapse(&test.session().await, id).await;
    turns::lapsed(&client, 10, true, uuid::Uuid::now_v7(), LEASE).await.expect("taken over");
    assert!(!watched(WITHIN).await, "it has another holder");
}

#[tokio::test]
async fn a_log_is_rewritten_with_the_turns_end() {
    let (_test, database) = TestDatabase::migrated().await;
    let mut client = database.client().await.expect("a client");
    let id = begin(&client, None, b"1").await;
    let held = Held { response: id, epoch: 1 };
    let part = |part, data| Append { held, part, data };
    turn_log::append(&client, &[part(0, "[1,0]"), part(1, "[1,1]")]).await.expect("appended");
    let transaction = client.transaction().await.expect("a transaction");
    let end = finish_as(held, ResponseStatus::Incomplete, &[]);
    turns::finish(&transaction, &end).await.expect("ended");
    turn_log::rewrite(&transaction, id, &[(1, "[1]".to_owned()), (7, "[7]".to_owned())])
        .await
        .expect("rewritten");
    transaction.commit().await.expect("committed");
    let cursor = LogCursor { owner: OWNER, response: id, from_part: 0 };
    let slice = turn_log::read_log(&client, cursor).await.expect("an answer").expect("a log");
    assert_eq!(slice.parts, [(0, "[1,0]".to_owned()), (1, "[1]".to_owned())]);
}
