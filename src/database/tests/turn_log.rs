use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};

use super::support::{TestDatabase, count, eventually};
use super::talk::{OTHER, OWNER, answer, ask, finish_as, new_turn, response_at};
use crate::database::responses;
use crate::database::threads::{Anchor, Place};
use crate::database::turn_log::{self, Append, LogCursor, READ_PARTS};
use crate::database::turns::{self, Ended, Finish, Held};
use crate::ids::ResponseId;
use crate::openresponses::ResponseStatus;

fn cursor(response: ResponseId, from_part: i32) -> LogCursor<'static> {
    LogCursor { owner: OWNER, response, from_part }
}

#[tokio::test]
async fn parts_of_many_turns_are_appended_at_once_and_again_without_effect() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(ask(&client, Anchor::New, "q").await);
    }
    answer(&client, held[2], "a").await;
    responses::request_cancel(&client, OWNER, held[3].response).await.expect("an answer");
    let mut batch: Vec<Append<'_>> =
        held.iter().map(|held| Append { held: *held, part: 0, data: "[1]" }).collect();
    batch.push(Append { held: held[0], part: 1, data: "second" });
    for _ in 0..2 {
        let answer = turn_log::append(&client, &batch).await.expect("an answer");
        let outcomes: Vec<(bool, bool)> = held
            .iter()
            .map(|held| answer[&held.response])
            .map(|appended| (appended.stored, appended.cancel_requested))
            .collect();
        assert_eq!(outcomes, [(true, false), (true, false), (false, false), (true, true)]);
    }
    assert_eq!(count(&test.session().await, "response_events").await, 4);
    let log =
        turn_log::read_log(&client, cursor(held[0].response, 1)).await.expect("an answer").expect("a log");
    assert_eq!(log.parts, [(1, "second".to_owned())]);
    assert!(turn_log::append(&client, &[]).await.expect("nothing").is_empty());
}

#[tokio::test]
async fn two_appends_at_once_both_last() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(ask(&client, Anchor::New, "q").await);
    }
    // In opposite orders, with renewals between: nobody waits for somebody who waits for them.
    join_all((0..12_usize).map(async |n| {
        let client = database.client().await.expect("a client");
        let mut order = held.clone();
        if n % 2 == 0 {
            order.reverse();
        }
        if n % 3 == 0 {
            turns::renew(&client, &order, super::talk::LEASE).await.expect("renewed");
        }
        let part = i32::try_from(n).expect("few");
        let batch: Vec<Append<'_>> =
            order.iter().map(|held| Append { held: *held, part, data: "x" }).collect();
        // Behind whoever has the part before.
        eventually("all parts before are there", async || {
            let answer = turn_log::append(&client, &batch).await.expect("an answer");
            answer.values().all(|appended| appended.stored)
        })
        .await;
    }))
    .await;
    assert_eq!(count(&test.session().await, "response_events").await, 8 * 12);
}

/// As after a crash of PostgreSQL, which loses the last moments of what nobody waited for.
#[tokio::test]
async fn a_log_that_lost_its_end_takes_no_part_beyond_it_and_its_turn_does_not_end() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let held = ask(&client, Anchor::New, "q").await;
    let append = async |part| {
        let batch = [Append { held, part, data: "x" }];
        turn_log::append(&client, &batch).await.expect("an answer")[&held.response]
    };
    for part in 0..4 {
        assert!(append(part).await.stored);
    }
    let lose = "DELETE FROM response_events WHERE part >= 2";
    test.session().await.batch_execute(lose).await.expect("lost");
    let refused = append(4).await;
    assert_eq!((refused.stored, refused.ends_before), (false, Some(2)));
    let shortened = async |parts| turn_log::shortened(&client, &[(held.response, parts)]).await.expect("ok");
    assert_eq!(shortened(4).await, [(held.response, 2)]);
    assert_eq!(shortened(2).await, []);
    let finish = Finish { parts: 4, ..finish_as(held, ResponseStatus::Completed, &[]) };
    assert_eq!(turns::finish(&client, &finish).await.expect("an answer"), Ended::LogShort);
    for part in 2..5 {
        assert!(append(part).await.stored);
    }
    let finish = Finish { parts: 5, ..finish };
    assert!(matches!(turns::finish(&client, &finish).await.expect("an answer"), Ended::As { .. }));
    assert!(matches!(turns::finish(&client, &finish).await.expect("an answer"), Ended::Already { .. }));
}

#[tokio::test]
async fn what_is_deleted_is_not_logged_any_more() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let held = ask(&client, Anchor::New, "q").await;
    for part in 0..3 {
        let batch = [Append { held, part, data: "x" }];
        let appended = turn_log::append(&client, &batch).await.expect("an answer")[&held.response];
        assert_eq!((appended.stored, appended.cancel_requested), (true, part == 2));
        if part == 1 {
            responses::delete(&client, OWNER, held.response).await.expect("an answer").expect("deleted");
        }
    }
    assert_eq!(count(&test.session().await, "response_events").await, 0);
    let finish = Finish { parts: 3, ..finish_as(held, ResponseStatus::Cancelled, &[]) };
    assert!(matches!(turns::finish(&client, &finish).await.expect("an answer"), Ended::As { .. }));
}

#[tokio::test]
async fn a_day_without_a_partition_gets_it() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let mut batch = Vec::new();
    for days in [0, 400, 400, 401, -400] {
        let id = response_at(Timestamp::now() - SignedDuration::from_hours(24 * days));
        let mut turn = new_turn(Place::New, &[]);
        turn.id = id;
        turns::begin(&client, &turn).await.expect("begun");
        batch.push(Append { held: Held { response: id, epoch: 1 }, part: 0, data: "x" });
    }
    let session = test.session().await;
    let partitions = "pg_inherits WHERE inhparent = 'response_events'::regclass";
    let before = count(&session, partitions).await;
    // Any number may find it missing at once.
    join_all((0..4).map(async |_| {
        let client = database.client().await.expect("a client");
        let answer = turn_log::append(&client, &batch).await.expect("an answer");
        assert!(answer.values().all(|appended| appended.stored));
    }))
    .await;
    assert_eq!(count(&session, "response_events").await, 5);
    assert_eq!(count(&session, partitions).await, before + 3);
}

#[tokio::test]
async fn many_logs_are_read_at_one_instant_with_how_far_their_turns_are() {
    let (_test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let running = ask(&client, Anchor::New, "q").await;
    let done = ask(&client, Anchor::New, "q").await;
    let deleted = ask(&client, Anchor::New, "q").await;
    let parts = i32::try_from(READ_PARTS).expect("few") + 1;
    let texts: Vec<String> = (0..parts).map(|n| n.to_string()).collect();
    let mut batch: Vec<Append<'_>> =
        (0..parts).zip(&texts).map(|(part, data)| Append { held: running, part, data }).collect();
    batch.push(Append { held: done, part: 0, data: "x" });
    batch.push(Append { held: deleted, part: 0, data: "x" });
    turn_log::append(&client, &batch).await.expect("appended");
    answer(&client, done, "a").await;
    responses::delete(&client, OWNER, deleted.response).await.expect("an answer").expect("deleted");

    let stranger = LogCursor { owner: OTHER, ..cursor(done.response, 0) };
    let cursors =
        [cursor(running.response, 0), cursor(done.response, 0), cursor(deleted.response, 0), stranger];
    let logs = turn_log::read_logs(&client, &cursors).await.expect("logs");
    assert_eq!(logs.len(), 2);
    let of = |id| logs.iter().find(|log| log.response == id).expect("its log");
    let first = of(running.response);
    assert_eq!((first.state, first.parts.len(), first.has_more), (ResponseStatus::InProgress, 500, true));
    assert_eq!(first.parts[499], (499, "499".to_owned()));
    let ended = of(done.response);
    assert_eq!((ended.state, ended.parts.len(), ended.has_more), (ResponseStatus::Completed, 1, false));
    assert_eq!(ended.usage.as_deref(), Some(r#"{"total_tokens":3}"#));
    assert!(ended.completed_at.is_some());
    let rest = turn_log::read_log(&client, cursor(running.response, 500)).await.expect("ok").expect("a log");
    assert_eq!((rest.parts, rest.has_more), (vec![(500, "500".to_owned())], false));
    let nothing =
        turn_log::read_log(&client, cursor(running.response, 501)).await.expect("ok").expect("a log");
    assert!(nothing.parts.is_empty());
}
