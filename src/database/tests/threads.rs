use uuid::Uuid;

use super::support::{TestDatabase, count, value};
use super::talk::{OTHER, OWNER, answer, ask, conversation, new_turn, past, said, trim_all, turn, window};
use crate::database::threads::{self, Anchor, Place};
use crate::database::turns::{self, Begun};
use crate::database::{Statements, conversations, responses};
use crate::ids::{ConversationId, ResponseId};
use crate::openresponses::ResponseStatus;

#[tokio::test]
async fn a_chain_of_turns_grows_one_thread() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let first = turn(&client, Anchor::New, "q1", "a1").await;
    let second = turn(&client, Anchor::Response(first), "q22", "a22").await;
    let third = turn(&client, Anchor::Response(second), "q3", "a3").await;
    let window = window(&client, Anchor::Response(third)).await;
    assert_eq!(window.response_state, Some(ResponseStatus::Completed));
    assert!(window.reaches_start());
    let shape: Vec<(&str, i32, i32, i64)> = window
        .items
        .iter()
        .map(|item| (item.data.as_str(), item.position, item.tokens, item.tokens_before))
        .collect();
    let expected = [
        ("a3", 6, 2, 12),
        ("q3", 5, 2, 10),
        ("a22", 4, 3, 7),
        ("q22", 3, 3, 4),
        ("a1", 2, 2, 2),
        ("q1", 1, 2, 0),
    ];
    assert_eq!(shape, expected);
    let Place::Append { head_position, head_response, tokens, .. } = window.place else {
        panic!("{:?}", window.place)
    };
    assert_eq!((head_position, head_response, tokens), (6, Some(third), 14));
    assert_eq!(count(&test.session().await, "threads").await, 1);
}

#[tokio::test]
async fn an_older_turn_and_forks_of_forks_see_their_own_past() {
    let (_test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let first = turn(&client, Anchor::New, "q1", "a1").await;
    let second = turn(&client, Anchor::Response(first), "q2", "a2").await;
    turn(&client, Anchor::Response(second), "q3", "a3").await;
    // From the second again, from that again, and from a point that the fork only inherited.
    let fork = turn(&client, Anchor::Response(second), "f3", "g3").await;
    let fork_head = turn(&client, Anchor::Response(fork), "f4", "g4").await;
    let deep = turn(&client, Anchor::Response(fork), "d4", "e4").await;
    let deeper = turn(&client, Anchor::Response(deep), "d5", "e5").await;
    assert_eq!(
        past(&client, Anchor::Response(fork_head)).await,
        ["q1", "a1", "q2", "a2", "f3", "g3", "f4", "g4"]
    );
    assert_eq!(
        past(&client, Anchor::Response(deeper)).await,
        ["q1", "a1", "q2", "a2", "f3", "g3", "d4", "e4", "d5", "e5"]
    );
    assert_eq!(past(&client, Anchor::Response(first)).await, ["q1", "a1"]);
    assert_eq!(past(&client, Anchor::InputOf(deep)).await, ["q1", "a1", "q2", "a2", "f3", "g3", "d4"]);
    let from_inherited = turn(&client, Anchor::Response(second), "h", "i").await;
    assert_eq!(past(&client, Anchor::Response(from_inherited)).await, ["q1", "a1", "q2", "a2", "h", "i"]);
    let newest = window(&client, Anchor::Response(deeper)).await;
    let sum: i64 = newest.items.iter().map(|item| i64::from(item.tokens)).sum();
    assert_eq!(newest.place.tokens(), sum, "tokens are counted through forks");
    assert_eq!(newest.items[0].tokens_before + 2, sum);
}

#[tokio::test]
async fn a_window_ends_at_its_limits() {
    let (_test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let first = turn(&client, Anchor::New, "q1", "a1").await;
    let second = turn(&client, Anchor::Response(first), "q2", "a2").await;
    let fork = turn(&client, Anchor::Response(first), "f2", "g2").await;
    for (anchor, items, tokens, expected) in [
        (second, 3, 1_000, vec!["a2", "q2", "a1"]),
        (second, 9, 4, vec!["a2", "q2", "a1"]),
        (second, 9, 3, vec!["a2", "q2"]),
        (second, 9, 0, vec!["a2"]),
        (fork, 3, 1_000, vec!["g2", "f2", "a1"]),
        (fork, 9, 4, vec!["g2", "f2", "a1"]),
    ] {
        let window = threads::load_window(&client, OWNER, Anchor::Response(anchor), items, tokens).await;
        let window = window.expect("an answer").expect("a window");
        assert_eq!(super::talk::texts(&window.items), expected);
        assert!(!window.reaches_start());
    }
}

#[tokio::test]
async fn another_owners_anchor_is_the_same_as_none() {
    let (_test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let response = turn(&client, Anchor::New, "q", "a").await;
    let conversation = conversation(&client, &[]).await;
    for (owner, anchor) in [
        (OTHER, Anchor::Response(response)),
        (OTHER, Anchor::InputOf(response)),
        (OTHER, Anchor::Conversation(conversation)),
        (OWNER, Anchor::Response(ResponseId::new())),
        (OWNER, Anchor::Conversation(ConversationId::new())),
    ] {
        let window = threads::load_window(&client, owner, anchor, 9, 9).await.expect("an answer");
        assert!(window.is_none(), "{anchor:?}");
    }
    // Nor does its place serve anybody else.
    for anchor in [Anchor::Response(response), Anchor::InputOf(response)] {
        let place = window(&client, anchor).await.place;
        let mut stolen = new_turn(place, &[]);
        stolen.owner = OTHER;
        assert_eq!(turns::begin(&client, &stolen).await.expect("an answer"), Begun::Conflict);
    }
    let items = window(&client, Anchor::Response(response)).await.items;
    let ids: Vec<Uuid> = items.iter().map(|item| item.id).collect();
    assert_eq!(threads::items_by_id(&client, OWNER, &ids).await.expect("items").len(), 2);
    assert!(threads::items_by_id(&client, OTHER, &ids).await.expect("items").is_empty());
}

#[tokio::test]
async fn a_running_turn_is_seen_and_cannot_be_continued() {
    let (_test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let first = turn(&client, Anchor::New, "q1", "a1").await;
    let running = ask(&client, Anchor::Response(first), "q2").await;
    let seen = window(&client, Anchor::Response(running.response)).await;
    assert_eq!(seen.response_state, Some(ResponseStatus::InProgress));
    assert_eq!(turns::begin(&client, &new_turn(seen.place, &[])).await.expect("an answer"), Begun::Conflict);
    // The one before can: beside it.
    let beside = turn(&client, Anchor::Response(first), "r2", "s2").await;
    answer(&client, running, "a2").await;
    assert_eq!(past(&client, Anchor::Response(beside)).await, ["q1", "a1", "r2", "s2"]);
    assert_eq!(past(&client, Anchor::Response(running.response)).await, ["q1", "a1", "q2", "a2"]);
}

#[tokio::test]
async fn a_turn_of_a_conversation_is_continued_beside_it() {
    let (_test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let id = conversation(&client, &[]).await;
    let response = turn(&client, Anchor::Conversation(id), "q", "a").await;
    let beside = turn(&client, Anchor::Response(response), "r", "s").await;
    assert_eq!(past(&client, Anchor::Conversation(id)).await, ["q", "a"]);
    assert_eq!(past(&client, Anchor::Response(beside)).await, ["q", "a", "r", "s"]);
}

/// Reads only what the window takes, by index: on 20,000 items and after PostgreSQL has settled on a generic plan.
#[tokio::test]
async fn a_window_of_a_long_thread_reads_little_and_by_index() {
    let (test, database) = TestDatabase::migrated().await;
    let mut client = database.client().await.expect("a client");
    let id = conversation(&client, &[]).await;
    let held = ask(&client, Anchor::Conversation(id), "q").await;
    answer(&client, held, "a").await;
    let session = test.session().await;
    let fill = "WITH t AS (UPDATE threads SET head_position = 20002 RETURNING id) \
                INSERT INTO items (thread_id, position, id, kind, tokens, tokens_before, data) \
                SELECT t.id, n, gen_random_uuid(), 'message', 1, n, 'x' FROM t, generate_series(3, 20002) n; \
                INSERT INTO items (thread_id, position, id, kind, tokens, tokens_before, data) \
                SELECT gen_random_uuid(), 1, gen_random_uuid(), 'message', 1, n, 'x' FROM generate_series(1, 20000) n; \
                ANALYZE";
    session.batch_execute(fill).await.expect("filled");
    const SCANS: &str = "SELECT coalesce(sum(seq_scan), 0)::int8 AS seq, coalesce(sum(idx_tup_fetch), 0)::int8 AS fetched \
                         FROM pg_stat_xact_user_tables WHERE relname LIKE 'items%'";
    for round in 0..8 {
        let transaction = client.transaction().await.expect("a transaction");
        let scans = async || {
            let row = transaction.query_one("test.scans", SCANS, &[]).await.expect("statistics");
            (row.get::<_, i64>("seq"), row.get::<_, i64>("fetched"))
        };
        let (seq_before, fetched_before) = scans().await;
        let window =
            threads::load_window(&transaction, OWNER, Anchor::Conversation(id), 2_000, 99).await.expect("ok");
        assert_eq!(window.expect("a window").items.len(), 100);
        let (seq, fetched) = scans().await;
        assert_eq!(seq - seq_before, 0, "round {round}");
        let fetched = fetched - fetched_before;
        assert!((100..200).contains(&fetched), "round {round}: {fetched} rows read");
        transaction.commit().await.expect("committed");
    }
    let plan = "EXPLAIN SELECT * FROM items WHERE id = '00000000-0000-7000-8000-000000000000'";
    let plan = session.query(plan, &[]).await.expect("a plan");
    assert!(plan.iter().all(|row| !row.get::<_, String>(0).contains("Seq Scan")), "{plan:?}");
}

#[tokio::test]
async fn deleting_the_head_takes_its_items_and_deleting_what_is_stood_on_takes_none() {
    let (test, database) = TestDatabase::migrated().await;
    let mut client = database.client().await.expect("a client");
    let first = turn(&client, Anchor::New, "q1", "a1").await;
    let second = turn(&client, Anchor::Response(first), "q2", "a2").await;
    let third = turn(&client, Anchor::Response(second), "q3", "a3").await;
    let fork = turn(&client, Anchor::Response(second), "f3", "g3").await;
    let session = test.session().await;
    let delete = async |client: &mut crate::database::Client, response| {
        let thread =
            responses::delete(&*client, OWNER, response).await.expect("deleted").expect("its thread");
        threads::trim_now(client, thread).await.expect("trimmed")
    };
    assert_eq!(delete(&mut client, second).await, 0, "the third and the fork stand on it");
    assert!(responses::get(&client, OWNER, second).await.expect("an answer").is_none());
    assert_eq!(past(&client, Anchor::Response(third)).await, ["q1", "a1", "q2", "a2", "q3", "a3"]);
    assert_eq!(delete(&mut client, third).await, 2, "nothing stands on it");
    assert_eq!(past(&client, Anchor::Response(fork)).await, ["q1", "a1", "q2", "a2", "f3", "g3"]);
    assert_eq!(delete(&mut client, fork).await, 4, "the second turn's items have nobody any more, either");
    assert_eq!(count(&session, "threads").await, 1, "the fork's thread is gone");
    assert_eq!(count(&session, "items").await, 2);
    let again = turn(&client, Anchor::Response(first), "n2", "m2").await;
    assert_eq!(past(&client, Anchor::Response(again)).await, ["q1", "a1", "n2", "m2"]);
    let head: i64 = value(&session, "SELECT head_tokens FROM threads WHERE base_thread IS NULL").await;
    assert_eq!(head, 8, "positions and counts go on from the first turn");
    assert_eq!(count(&session, "threads").await, 1, "the first turn is the head again");
    delete(&mut client, again).await;
    assert_eq!(delete(&mut client, first).await, 2);
    assert_eq!((count(&session, "threads").await, count(&session, "items").await), (0, 0));
}

#[tokio::test]
async fn a_fork_and_the_trimming_of_its_base_wait_for_each_other() {
    let (test, database) = TestDatabase::migrated().await;
    let mut client = database.client().await.expect("a client");
    let other = database.client().await.expect("a client");
    let first = turn(&client, Anchor::New, "q1", "a1").await;
    let second = turn(&client, Anchor::Response(first), "q2", "a2").await;
    let third = turn(&client, Anchor::Response(second), "q3", "a3").await;
    let stale = window(&client, Anchor::Response(second)).await;
    assert!(matches!(stale.place, Place::Fork { base_position: 4, .. }), "{:?}", stale.place);
    let mut thread = None;
    for gone in [second, third] {
        thread = responses::delete(&client, OWNER, gone).await.expect("deleted");
    }
    let transaction = client.transaction().await.expect("a transaction");
    threads::trim(&transaction, &[thread.expect("a thread")]).await.expect("trimmed");
    let turn = new_turn(stale.place, &[]);
    let session = test.session().await;
    let (begun, ()) = tokio::join!(turns::begin(&other, &turn), async {
        super::support::eventually("the fork waits", async || {
            let waits = "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
            count(&session, waits).await > 0
        })
        .await;
        transaction.commit().await.expect("committed");
    });
    assert_eq!(begun.expect("an answer"), Begun::Conflict, "what it would stand on is gone");
}

#[tokio::test]
async fn a_deleted_conversation_keeps_only_what_a_fork_needs() {
    let (test, database) = TestDatabase::migrated().await;
    let mut client = database.client().await.expect("a client");
    let [one, two] = [said("one"), said("two")];
    let id = conversation(&client, &[&one, &two]).await;
    let response = turn(&client, Anchor::Conversation(id), "q", "a").await;
    let fork = conversations::Fork {
        source: id,
        at: Some(two.id),
        id: ConversationId::new(),
        title: None,
        metadata: None,
    };
    conversations::fork(&client, OWNER, &fork).await.expect("an answer").expect("a fork");
    conversations::delete(&client, OWNER, id).await.expect("an answer").expect("deleted");
    assert!(responses::get(&client, OWNER, response).await.expect("an answer").is_none(), "gone with it");
    let anchor = Anchor::Response(response);
    assert!(threads::load_window(&client, OWNER, anchor, 9, 9).await.expect("an answer").is_none());
    trim_all(&mut client).await;
    assert_eq!(past(&client, Anchor::Conversation(fork.id)).await, ["one", "two"]);
    let session = test.session().await;
    assert_eq!(count(&session, "items").await, 2);
    conversations::delete(&client, OWNER, fork.id).await.expect("an answer").expect("deleted");
    trim_all(&mut client).await;
    assert_eq!((count(&session, "threads").await, count(&session, "items").await), (0, 0));
}
