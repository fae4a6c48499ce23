//! Turns that wait and are nobody's, and the callbacks that tell of a turn's end.

use std::time::Duration;

use futures_util::future::join_all;
use uuid::Uuid;

use super::support::{TestDatabase, count};
use super::talk::{
    LEASE, OTHER, OWNER, answer, ask, conversation, finish_as, lapse, new_turn, past, said, window,
};
use crate::database::retention::{self, Whose};
use crate::database::threads::{Anchor, Place};
use crate::database::turns::{self, Begun, Callback, Ended, Held, NewTurn, Next, OfJob, Runner};
use crate::database::{Client, Database};
use crate::database::{expiring, responses};
use crate::ids::{JobId, ResponseId};
use crate::openresponses::ResponseStatus;
use crate::switches::TurnsHeld;

const PATIENT: Duration = Duration::from_secs(3_600);

async fn begin(client: &Client, turn: &NewTurn<'_>) -> ResponseId {
    let begun = turns::begin(client, turn).await.expect("an answer");
    assert!(matches!(begun, Begun::Begun { .. }), "{begun:?}");
    turn.id
}

/// A background turn that waits for anybody.
async fn queue(client: &Client) -> ResponseId {
    let question = said("q");
    let input = [question.item()];
    let mut turn = new_turn(Place::New, &input);
    (turn.background, turn.runner) = (true, Runner::Anybody);
    begin(client, &turn).await
}

async fn due(client: &Client, only: Option<ResponseId>) -> Vec<turns::Taken> {
    turns::due(client, 9, only, &TurnsHeld::default(), Uuid::now_v7(), LEASE).await.expect("a list")
}

#[tokio::test]
async fn a_queued_turn_goes_to_one_of_those_who_ask_and_never_counts_as_lapsed() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let mut queued = Vec::new();
    for _ in 0..20 {
        queued.push(queue(&client).await);
    }
    assert!(turns::lapsed(&client, 99, true, Uuid::now_v7(), LEASE).await.expect("a list").is_empty());
    let taken = join_all((0..5).map(async |_| {
        let client = database.client().await.expect("a client");
        turns::due(&client, 7, None, &TurnsHeld::default(), Uuid::now_v7(), LEASE).await.expect("a list")
    }))
    .await;
    let mut taken: Vec<_> = taken.into_iter().flatten().collect();
    taken.extend(
        turns::due(&client, 99, None, &TurnsHeld::default(), Uuid::now_v7(), LEASE).await.expect("the rest"),
    );
    assert!(taken.iter().all(|taken| taken.held.epoch == 2 && taken.next == Next::Run));
    let mut ids: Vec<ResponseId> = taken.iter().map(|taken| taken.held.response).collect();
    ids.sort();
    assert_eq!(ids, queued, "each once");
    assert!(due(&client, None).await.is_empty());
    assert_eq!(past(&client, Anchor::InputOf(ids[0])).await, ["q"]);
    // From here on it is a turn like any other.
    lapse(&test.session().await, ids[0]).await;
    let again = turns::lapsed(&client, 9, true, Uuid::now_v7(), LEASE).await.expect("a list");
    assert_eq!((again.len(), again[0].next, again[0].restarts), (1, Next::Run, 1));
}

#[tokio::test]
async fn a_turn_put_off_is_due_later_and_at_the_latest_when_its_time_is_over() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let session = test.session().await;
    let patient = async |patience| {
        let mut turn = new_turn(Place::New, &[]);
        (turn.background, turn.patience) = (true, patience);
        Held { response: begin(&client, &turn).await, epoch: 1 }
    };
    let held = patient(Some(PATIENT)).await;
    let put_off = async |held, delay| turns::put_off(&client, held, delay).await.expect("an answer");
    assert!(put_off(Held { epoch: 9, ..held }, Duration::ZERO).await.is_none(), "another's");
    assert!(put_off(held, Duration::from_secs(60)).await.is_some());
    assert!(put_off(held, Duration::ZERO).await.is_none(), "once");
    assert!(due(&client, Some(held.response)).await.is_empty(), "not yet");
    assert!(turns::lapsed(&client, 9, true, Uuid::now_v7(), LEASE).await.expect("a list").is_empty());
    // The former holder changes nothing any more.
    assert_eq!(turns::renew(&client, &[held], LEASE).await.expect("renewed"), []);
    assert_eq!(answer(&client, held, "a").await, Ended::Lost);
    session.execute("UPDATE responses SET due_at = now()", &[]).await.expect("time passes");
    let taken = due(&client, None).await.pop().expect("due");
    assert_eq!((taken.held.epoch, taken.waits, taken.restarts, taken.next), (3, Some(1), 0, Next::Run));

    session
        .execute("UPDATE responses SET wait_until = now() + interval '1 minute'", &[])
        .await
        .expect("time passes");
    assert!(put_off(taken.held, PATIENT).await.is_some());
    assert_eq!(count(&session, "responses WHERE due_at = wait_until").await, 1, "a last try");
    session
        .execute("UPDATE responses SET due_at = now(), wait_until = now()", &[])
        .await
        .expect("time passes");
    let last = due(&client, None).await.pop().expect("due");
    assert!(put_off(last.held, Duration::ZERO).await.is_none(), "its time is over");
    assert!(put_off(patient(None).await, Duration::ZERO).await.is_none(), "it does not wait");
    let stopped = patient(Some(PATIENT)).await;
    responses::request_cancel(&client, OWNER, stopped.response).await.expect("an answer").expect("a turn");
    assert!(put_off(stopped, Duration::ZERO).await.is_none(), "it was asked to stop");
}

#[tokio::test]
async fn a_waiting_turn_that_is_cancelled_or_deleted_is_due_at_once() {
    let (_test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    for delete in [false, true] {
        let mut turn = new_turn(Place::New, &[]);
        (turn.background, turn.patience) = (true, Some(PATIENT));
        let held = Held { response: begin(&client, &turn).await, epoch: 1 };
        turns::put_off(&client, held, PATIENT).await.expect("an answer").expect("put off");
        if delete {
            responses::delete(&client, OWNER, held.response).await.expect("an answer").expect("a turn");
        } else {
            let asked = responses::request_cancel(&client, OWNER, held.response).await.expect("an answer");
            let asked = asked.expect("a turn");
            assert_eq!((asked.state, asked.waiting), (ResponseStatus::Queued, true));
        }
        let taken = due(&client, Some(held.response)).await.pop().expect("due");
        assert_eq!(taken.next, Next::Cancel);
        let ended = answer(&client, taken.held, "a").await;
        assert!(matches!(ended, Ended::As { state: ResponseStatus::Cancelled, .. }), "{ended:?}");
    }
}

async fn told_of(database: &Database, id: ResponseId) -> Vec<(Uuid, String, String, Option<String>)> {
    let client = database.client().await.expect("a client");
    use crate::database::{Columns, Statements, Type};
    const SQL: &str = "SELECT id, type, target, url FROM callbacks WHERE response_id = $1 AND owner = $2
                       AND webhook_id = id AND state = 'pending' AND event_id IS NULL";
    let rows = client.query("test", SQL, &[(&id.0, Type::UUID), (&OWNER, Type::TEXT)]).await.expect("rows");
    let column = |row: &crate::database::Row| -> Result<_, crate::database::DatabaseError> {
        Ok((row.column("id")?, row.column("type")?, row.column("target")?, row.column("url")?))
    };
    rows.iter().map(|row| column(row).expect("a row")).collect()
}

#[tokio::test]
async fn every_end_of_a_turn_is_told_of_once_in_the_commit_that_ends_it() {
    let (test, database) = TestDatabase::migrated().await;
    let mut client = database.client().await.expect("a client");
    let id = conversation(&client, &[]).await;
    let question = said("q");
    let input = [question.item()];
    let callback = Callback { target: "crm".to_owned(), url: Some("https://crm.invalid/1".to_owned()) };
    for state in [
        ResponseStatus::Completed,
        ResponseStatus::Incomplete,
        ResponseStatus::Failed,
        ResponseStatus::Cancelled,
    ] {
        let mut turn = new_turn(window(&client, Anchor::Conversation(id)).await.place, &input);
        (turn.background, turn.conversation, turn.callback) = (true, Some(id), Some(&callback));
        let held = Held { response: begin(&client, &turn).await, epoch: 1 };
        let finish = finish_as(held, state, &[]);
        // A commit that never came.
        let transaction = client.transaction().await.expect("a transaction");
        turns::finish(&transaction, &finish).await.expect("an answer");
        drop(transaction);
        assert!(told_of(&database, held.response).await.is_empty());

        let ended = turns::finish(&client, &finish).await.expect("an answer");
        let Ended::As { callback: Some(told), .. } = ended else { panic!("{ended:?}") };
        let again = turns::finish(&client, &finish).await.expect("an answer");
        assert!(matches!(again, Ended::Already { callback: Some(id), .. } if id == told), "{again:?}");
        let kind = format!("response.{}", state.as_str());
        let row = (told.0, kind, "crm".to_owned(), Some("https://crm.invalid/1".to_owned()));
        assert_eq!(told_of(&database, held.response).await, [row]);
    }
    // Whoever asked for none is told of none.
    let held = ask(&client, Anchor::New, "q").await;
    let ended = answer(&client, held, "a").await;
    assert!(matches!(ended, Ended::As { callback: None, .. }), "{ended:?}");
    assert_eq!(count(&test.session().await, "callbacks").await, 4);
}

#[tokio::test]
async fn a_cancel_and_a_completion_at_once_are_told_of_as_they_ended() {
    let (_test, database) = TestDatabase::migrated().await;
    let (client, other) =
        (database.client().await.expect("a client"), database.client().await.expect("another"));
    let callback = Callback { target: "crm".to_owned(), url: None };
    for _ in 0..20 {
        let mut turn = new_turn(Place::New, &[]);
        (turn.background, turn.callback) = (true, Some(&callback));
        let held = Held { response: begin(&client, &turn).await, epoch: 1 };
        let (ended, _) =
            tokio::join!(answer(&client, held, "a"), responses::request_cancel(&other, OWNER, held.response));
        let Ended::As { state, .. } = ended else { panic!("{ended:?}") };
        let told = told_of(&database, held.response).await;
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].1, format!("response.{}", state.as_str()));
    }
}

#[tokio::test]
async fn callbacks_of_turns_go_when_they_are_old_and_settled() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let session = test.session().await;
    let callback = Callback { target: "crm".to_owned(), url: None };
    let mut ids = Vec::new();
    for _ in 0..5 {
        let mut turn = new_turn(Place::New, &[]);
        (turn.background, turn.callback) = (true, Some(&callback));
        let held = Held { response: begin(&client, &turn).await, epoch: 1 };
        let ended = answer(&client, held, "a").await;
        let Ended::As { callback: Some(told), .. } = ended else { panic!("{ended:?}") };
        ids.push(told.0);
    }
    let [old, young, buried, settled, waiting] = ids[..] else { panic!("five") };
    for (id, state, age, letter) in [
        (old, "delivered", 9, None),
        (young, "delivered", 1, None),
        (buried, "dead", 9, Some("open")),
        (settled, "dead", 9, Some("discarded")),
        (waiting, "pending", 9, None),
    ] {
        let sql =
            "UPDATE callbacks SET state = $2, finished_at = now() - make_interval(days => $3) WHERE id = $1";
        session.execute(sql, &[&id, &state, &age]).await.expect("time passes");
        if let Some(letter) = letter {
            let sql = "INSERT INTO dead_letters (id, kind, subject_id, reason_code, reason, state)
                       VALUES ($1, 'callback', $1, 'x', 'x', $2)";
            session.execute(sql, &[&id, &letter]).await.expect("a letter");
        }
        let sql = "INSERT INTO callback_attempts (callback_id, epoch, attempt, millis) VALUES ($1, 1, 1, 1)";
        session.execute(sql, &[&id]).await.expect("an attempt");
    }
    let week = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(7 * 24);
    let gone = async |whose| {
        let told = expiring::turn_callbacks(&client, whose, week).await.expect("counted");
        let gone = retention::delete_turn_callbacks(&client, whose, week, 9).await.expect("deleted");
        assert_eq!(told.iter().map(|told| told.rows.unsigned_abs()).sum::<u64>(), gone, "{whose:?}");
        gone
    };
    assert_eq!(gone(Whose::Of("eve")).await, 0);
    assert_eq!(gone(Whose::Except(&[OWNER])).await, 0, "an owner has a time of their own");
    let unowned = "UPDATE callbacks SET owner = NULL WHERE id = $1";
    session.execute(unowned, &[&old]).await.expect("nobody's");
    assert_eq!(gone(Whose::Except(&[OWNER])).await, 1);
    assert_eq!(gone(Whose::Of(OWNER)).await, 1);
    let left = session.query("SELECT id FROM callbacks ORDER BY id", &[]).await.expect("rows");
    let left: Vec<Uuid> = left.iter().map(|row| row.get(0)).collect();
    assert_eq!(left, [young, buried, waiting]);
    assert_eq!(count(&session, "callback_attempts").await, 3);
    assert_eq!(count(&session, "dead_letters").await, 1);
}

#[tokio::test]
async fn what_an_operator_holds_stays_in_the_queue_and_can_still_be_cancelled() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let (first, second) = (queue(&client).await, queue(&client).await);
    let held = [
        TurnsHeld { models: vec!["demo".to_owned()], owners: Vec::new() },
        TurnsHeld { models: Vec::new(), owners: vec![OWNER.to_owned()] },
    ];
    let model = "UPDATE responses SET model = 'demo'";
    test.session().await.execute(model, &[]).await.expect("one model");
    let none = TurnsHeld::default();
    let ask = async |held: &TurnsHeld| {
        let taken = turns::due(&client, 9, None, held, Uuid::now_v7(), LEASE).await.expect("a list");
        taken.into_iter().map(|taken| (taken.held, taken.next)).collect::<Vec<_>>()
    };
    for held in &held {
        assert!(ask(held).await.is_empty(), "{held:?}");
    }
    responses::request_cancel(&client, OWNER, first).await.expect("an answer").expect("a turn");
    let cancelled = ask(&held[0]).await;
    assert_eq!((cancelled.len(), cancelled[0].0.response, cancelled[0].1), (1, first, Next::Cancel));

    // One that was taken up goes back, and is nobody's again.
    let taken = ask(&none).await;
    assert_eq!((taken.len(), taken[0].0.response), (1, second));
    assert!(turns::set_aside(&client, taken[0].0).await.expect("an answer"));
    assert!(!turns::set_aside(&client, taken[0].0).await.expect("an answer"), "it is lost");
    assert!(ask(&held[1]).await.is_empty());
    assert_eq!(ask(&none).await.len(), 1);
}

#[tokio::test]
async fn as_many_background_turns_are_open_for_whoever_asks_as_may_be() {
    let (_test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let begun = async |owner: &str, runner: Option<Runner>, job: Option<OfJob>| {
        let mut turn = new_turn(Place::New, &[]);
        (turn.owner, turn.background, turn.background_max, turn.job) = (owner, true, Some(2), job);
        turn.runner = runner.unwrap_or(turn.runner);
        let begun = turns::begin(&client, &turn).await.expect("an answer");
        (begun, Held { response: turn.id, epoch: 1 })
    };
    let job = OfJob { job: JobId::new(), number: 1 };
    assert!(matches!(begun(OWNER, None, Some(job)).await.0, Begun::Begun { .. }), "a job's does not count");
    let (first, held) = begun(OWNER, None, None).await;
    assert!(matches!(first, Begun::Begun { .. }), "{first:?}");
    assert!(matches!(begun(OWNER, Some(Runner::Anybody), None).await.0, Begun::Begun { .. }));
    assert_eq!(begun(OWNER, None, None).await.0, Begun::Crowded, "what is queued counts");
    assert!(matches!(begun(OTHER, None, None).await.0, Begun::Begun { .. }));
    // In a conversation it is the same, and not as if that were not there.
    let conversation = conversation(&client, &[]).await;
    let window = window(&client, Anchor::Conversation(conversation)).await;
    let mut turn = new_turn(window.place, &[]);
    (turn.conversation, turn.background, turn.background_max) = (Some(conversation), true, Some(2));
    assert_eq!(turns::begin(&client, &turn).await.expect("an answer"), Begun::Crowded);
    // One that is watched is not in question, and what has ended makes room.
    turn.background_max = None;
    assert!(matches!(turns::begin(&client, &turn).await.expect("an answer"), Begun::Begun { .. }));
    answer(&client, Held { response: turn.id, epoch: 1 }, "a").await;
    answer(&client, held, "a").await;
    assert!(matches!(begun(OWNER, None, None).await.0, Begun::Begun { .. }));
}

#[tokio::test]
async fn who_has_no_room_takes_over_what_is_only_to_be_ended() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let session = test.session().await;
    let mut lapsed = Vec::new();
    for background in [true, false, true] {
        let mut turn = new_turn(Place::New, &[]);
        turn.background = background;
        let id = begin(&client, &turn).await;
        lapse(&session, id).await;
        lapsed.push(id);
    }
    let take = async |limit, runs| {
        let taken = turns::lapsed(&client, limit, runs, Uuid::now_v7(), LEASE).await.expect("a list");
        taken.iter().map(|taken| (taken.held.response, taken.next)).collect::<Vec<_>>()
    };
    assert_eq!(take(9, false).await, [(lapsed[1], Next::Interrupt)]);
    assert_eq!(take(9, false).await, [], "the others stay as they are");
    assert_eq!(take(1, true).await, [(lapsed[0], Next::Run)]);
    assert_eq!(take(9, true).await, [(lapsed[2], Next::Run)]);
}
