use std::time::Duration;

use futures_util::future::join_all;
use uuid::Uuid;

use super::support::{TestDatabase, count, eventually};
use super::talk::{
    LEASE, OTHER, OWNER, answer, ask, conversation, finish_as, lapse, new_turn, past, said, turn, window,
};
use crate::database::responses::{self, Order, PageOf};
use crate::database::threads::{Anchor, Place};
use crate::database::turn_log::{self, Append};
use crate::database::turns::{self, Begun, Ended, Held, Idempotency, MAX_RESTARTS, Next, Renewed, Runner};
use crate::database::{Database, conversations};
use crate::ids::{ConversationId, ResponseId};
use crate::openresponses::ResponseStatus;
use crate::switches::TurnsHeld;

#[tokio::test]
async fn a_turn_is_stored_whole_and_shown_to_its_owner_alone() {
    let (_test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let questions = [said("q1"), said("q2"), said("q3")];
    let input: Vec<_> = questions.iter().map(super::talk::Said::item).collect();
    let mut new = new_turn(Place::New, &input);
    new.background = true;
    new.runner = Runner::Anybody;
    let begun = turns::begin(&client, &new).await.expect("an answer");
    let Begun::Begun { created_at } = begun else { panic!("{begun:?}") };
    let get = async || responses::get_with_output(&client, OWNER, new.id).await.expect("an answer");
    let queued = get().await.expect("a turn");
    assert_eq!((queued.state, queued.created_at), (ResponseStatus::Queued, created_at));
    let held =
        turns::due(&client, 9, None, &TurnsHeld::default(), Uuid::now_v7(), LEASE).await.expect("a list")[0]
            .held;
    assert_eq!(held, Held { response: new.id, epoch: 2 });
    let (thought, reply) = (said("hm"), said("four"));
    let output = [thought.item(), reply.item()];
    let mut finish = finish_as(held, ResponseStatus::Incomplete, &output);
    finish.incomplete_reason = Some("max_output_tokens");
    let ended = turns::finish(&client, &finish).await.expect("an answer");
    let Ended::As { state: ResponseStatus::Incomplete, completed_at, callback: None, deleted: false } = ended
    else {
        panic!("{ended:?}")
    };
    let again = turns::finish(&client, &finish).await.expect("an answer");
    let stored = ResponseStatus::Incomplete;
    assert_eq!(again, Ended::Already { state: stored, completed_at, callback: None, deleted: false });

    let whole = get().await.expect("a turn");
    assert_eq!(whole.output, ["hm", "four"]);
    assert_eq!(whole.request, r#"{"model":"demo"}"#);
    assert_eq!(whole.usage.as_deref(), Some(r#"{"total_tokens":3}"#));
    assert_eq!(whole.incomplete_reason.as_deref(), Some("max_output_tokens"));
    assert_eq!((whole.completed_at, whole.log_kept), (Some(completed_at), true));
    assert!(whole.background && whole.stream && !whole.cancel_requested);

    let inputs = async |after: Option<usize>, limit, order| {
        let page = PageOf { after: after.map(|n| questions[n].id), limit, order };
        let page = responses::input_items(&client, OWNER, new.id, page).await.expect("an answer");
        let page = page.expect("a turn");
        (page.entries.into_iter().map(|item| item.data).collect::<Vec<_>>().join(" "), page.has_more)
    };
    assert_eq!(inputs(None, 2, Order::Descending).await, ("q3 q2".to_owned(), true));
    assert_eq!(inputs(Some(1), 2, Order::Descending).await, ("q1".to_owned(), false));
    assert_eq!(inputs(None, 3, Order::Ascending).await, ("q1 q2 q3".to_owned(), false));
    assert_eq!(inputs(Some(0), 1, Order::Ascending).await, ("q2".to_owned(), true));
    assert_eq!(inputs(Some(2), 9, Order::Ascending).await, (String::new(), false));

    assert!(responses::get(&client, OTHER, new.id).await.expect("an answer").is_none());
    assert!(responses::get_with_output(&client, OTHER, new.id).await.expect("an answer").is_none());
    let page = PageOf { after: None, limit: 9, order: Order::Ascending };
    assert!(responses::input_items(&client, OTHER, new.id, page).await.expect("an answer").is_none());
    assert!(responses::request_cancel(&client, OTHER, new.id).await.expect("an answer").is_none());
    assert!(responses::delete(&client, OTHER, new.id).await.expect("an answer").is_none());
    assert!(get().await.is_some());
}

async fn begin_apart(database: &Database, turn: turns::NewTurn<'_>) -> Begun {
    let client = database.client().await.expect("a client");
    turns::begin(&client, &turn).await.expect("an answer")
}

#[tokio::test]
async fn of_many_turns_at_once_on_a_conversation_one_begins() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let id = conversation(&client, &[]).await;
    let place = window(&client, Anchor::Conversation(id)).await.place;
    let question = said("q");
    let input = [question.item()];
    let begun = join_all((0..10).map(|_| {
        let mut turn = new_turn(place, &input);
        turn.conversation = Some(id);
        begin_apart(&database, turn)
    }))
    .await;
    let count_of = |what: fn(&Begun) -> bool| begun.iter().filter(|begun| what(begun)).count();
    assert_eq!(count_of(|begun| matches!(begun, Begun::Begun { .. })), 1, "{begun:?}");
    assert_eq!(count_of(|begun| *begun == Begun::Locked), 9, "{begun:?}");
    let session = test.session().await;
    assert_eq!((count(&session, "items").await, count(&session, "responses").await), (1, 1));

    let running = window(&client, Anchor::Conversation(id)).await.active_response.expect("a running turn");
    let ended = answer(&client, Held { response: running, epoch: 1 }, "a").await;
    assert!(matches!(ended, Ended::As { .. }));
    let now = window(&client, Anchor::Conversation(id)).await;
    assert_eq!(now.active_response, None);
    // The window from before is stale: what it says was true then is not any more.
    let mut stale = new_turn(place, &input);
    stale.conversation = Some(id);
    assert_eq!(turns::begin(&client, &stale).await.expect("an answer"), Begun::Conflict);
    turn(&client, Anchor::Conversation(id), "q2", "a2").await;
    assert_eq!(past(&client, Anchor::Conversation(id)).await, ["q", "a", "q2", "a2"]);
}

#[tokio::test]
async fn of_many_turns_at_once_after_one_turn_one_appends_and_the_others_are_told() {
    let (_test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let first = turn(&client, Anchor::New, "q", "a").await;
    let place = window(&client, Anchor::Response(first)).await.place;
    let begun = join_all((0..8).map(|_| begin_apart(&database, new_turn(place, &[])))).await;
    assert_eq!(begun.iter().filter(|begun| matches!(begun, Begun::Begun { .. })).count(), 1, "{begun:?}");
    assert_eq!(begun.iter().filter(|begun| **begun == Begun::Conflict).count(), 7, "{begun:?}");
    // Whoever loads again forks.
    let place = window(&client, Anchor::Response(first)).await.place;
    assert!(matches!(place, Place::Fork { .. }), "{place:?}");
    assert!(matches!(begin_apart(&database, new_turn(place, &[])).await, Begun::Begun { .. }));
}

#[tokio::test]
async fn a_conversation_that_is_not_there_takes_no_turn() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let id = conversation(&client, &[]).await;
    let place = window(&client, Anchor::Conversation(id)).await.place;
    for (owner, conversation) in [(OTHER, id), (OWNER, ConversationId::new())] {
        let mut turn = new_turn(place, &[]);
        (turn.owner, turn.conversation) = (owner, Some(conversation));
        assert_eq!(turns::begin(&client, &turn).await.expect("an answer"), Begun::NotFound);
    }
    assert_eq!(count(&test.session().await, "responses").await, 0);
}

#[tokio::test]
async fn a_repeated_request_finds_its_turn() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let question = said("q");
    let input = [question.item()];
    let keyed = |key: &'static str, hash: &'static [u8]| {
        let mut turn = new_turn(Place::New, &input);
        turn.idempotency = Some(Idempotency { key: Some(key), request_hash: hash });
        turn
    };
    let first = keyed("k", b"1");
    assert!(matches!(turns::begin(&client, &first).await.expect("an answer"), Begun::Begun { .. }));
    let again = turns::begin(&client, &keyed("k", b"1")).await.expect("an answer");
    assert_eq!(again, Begun::Repeated { response: first.id, same_request: true });
    let other = turns::begin(&client, &keyed("k", b"2")).await.expect("an answer");
    assert_eq!(other, Begun::Repeated { response: first.id, same_request: false });
    let mut others = keyed("k", b"1");
    others.owner = OTHER;
    assert!(matches!(turns::begin(&client, &others).await.expect("an answer"), Begun::Begun { .. }));

    let begun = join_all((0..8).map(|_| begin_apart(&database, keyed("race", b"1")))).await;
    assert_eq!(begun.iter().filter(|begun| matches!(begun, Begun::Begun { .. })).count(), 1, "{begun:?}");
    let same = |begun: &&Begun| matches!(begun, Begun::Repeated { same_request: true, .. });
    assert_eq!(begun.iter().filter(same).count(), 7, "{begun:?}");
    let session = test.session().await;
    let counts = (count(&session, "threads").await, count(&session, "items").await);
    assert_eq!(counts, (3, 3), "repetitions leave nothing");
}

#[tokio::test]
async fn a_cancel_beats_a_late_completion_and_never_changes_an_end() {
    let (_test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let held = ask(&client, Anchor::New, "q").await;
    let cancel =
        async |id| responses::request_cancel(&client, OWNER, id).await.expect("an answer").expect("a turn");
    for _ in 0..2 {
        assert_eq!(cancel(held.response).await.state, ResponseStatus::InProgress);
    }
    let renewed = turns::renew(&client, &[held], LEASE).await.expect("renewed");
    assert_eq!(renewed, [Renewed { response: held.response, cancel_requested: true }]);
    let ended = answer(&client, held, "a").await;
    assert!(matches!(ended, Ended::As { state: ResponseStatus::Cancelled, .. }), "{ended:?}");
    let done = turn(&client, Anchor::New, "q", "a").await;
    assert_eq!(cancel(done).await.state, ResponseStatus::Completed);
    let shown = responses::get_with_output(&client, OWNER, done).await.expect("an answer").expect("a turn");
    assert_eq!((shown.state, shown.cancel_requested), (ResponseStatus::Completed, false));

    // Both at once, either way round: whichever came second saw the first.
    for _ in 0..20 {
        let held = ask(&client, Anchor::New, "q").await;
        let other = database.client().await.expect("a client");
        let (ended, _) = tokio::join!(answer(&other, held, "a"), cancel(held.response));
        let shown = responses::get(&client, OWNER, held.response).await.expect("an answer").expect("a turn");
        let Ended::As { state, .. } = ended else { panic!("{ended:?}") };
        assert_eq!(shown.state, state);
        assert_eq!(shown.cancel_requested, state == ResponseStatus::Cancelled);
    }
}

#[tokio::test]
async fn what_failed_leaves_nothing_said() {
    let (_test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let id = conversation(&client, &[]).await;
    turn(&client, Anchor::Conversation(id), "q1", "a1").await;
    let held = ask(&client, Anchor::Conversation(id), "q2").await;
    let mut finish = finish_as(held, ResponseStatus::Failed, &[]);
    finish.error = Some(r#"{"code":"server_error"}"#);
    finish.title = Some("a \0 title");
    turns::finish(&client, &finish).await.expect("an answer");
    let failed = responses::get(&client, OWNER, held.response).await.expect("an answer").expect("a turn");
    assert_eq!(failed.error.as_deref(), Some(r#"{"code":"server_error"}"#));
    turn(&client, Anchor::Conversation(id), "q2", "a2").await;
    let now = window(&client, Anchor::Conversation(id)).await;
    assert_eq!(super::talk::texts(&now.items), ["a2", "q2", "a1", "q1"]);
    assert_eq!((now.place.tokens(), now.place.next_position()), (8, 5));
    let titled = conversations::get(&client, OWNER, id).await.expect("an answer").expect("a conversation");
    assert_eq!(titled.title.as_deref(), Some("a \u{fffd} title"));

    // The same after a turn: whoever tries again goes on where the failed one began.
    let first = turn(&client, Anchor::New, "q1", "a1").await;
    let held = ask(&client, Anchor::Response(first), "q2").await;
    turns::finish(&client, &finish_as(held, ResponseStatus::Failed, &[])).await.expect("an answer");
    let again = window(&client, Anchor::Response(first)).await;
    assert!(matches!(again.place, Place::Append { head_position: 2, tokens: 4, .. }), "{:?}", again.place);
}

#[tokio::test]
async fn a_turn_that_is_deleted_while_it_runs_keeps_no_output() {
    let (test, database) = TestDatabase::migrated().await;
    let mut client = database.client().await.expect("a client");
    let held = ask(&client, Anchor::New, "q").await;
    responses::delete(&client, OWNER, held.response).await.expect("an answer").expect("deleted");
    super::talk::trim_all(&mut client).await;
    let renewed = turns::renew(&client, &[held], LEASE).await.expect("renewed");
    assert_eq!(renewed, [Renewed { response: held.response, cancel_requested: true }]);
    let ended = answer(&client, held, "a").await;
    assert!(matches!(ended, Ended::As { state: ResponseStatus::Cancelled, .. }), "{ended:?}");
    assert!(responses::get(&client, OWNER, held.response).await.expect("an answer").is_none());
    assert_eq!(count(&test.session().await, "items").await, 1, "the input, until the next sweep");
    use crate::database::retention::{Superfluous, delete_responses};
    assert_eq!(delete_responses(&client, Superfluous::Deleted, 9).await.expect("deleted"), 1);
    super::talk::trim_all(&mut client).await;
    assert_eq!(count(&test.session().await, "items").await, 0);
}

#[tokio::test]
async fn a_holder_that_slept_through_a_takeover_changes_nothing() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let held = ask(&client, Anchor::New, "q").await;
    let append = |part, data| Append { held, part, data };
    turn_log::append(&client, &[append(0, "kept")]).await.expect("appended");
    let holder = Uuid::now_v7();
    assert!(turns::lapsed(&client, 9, true, holder, LEASE).await.expect("a list").is_empty(), "it holds");
    lapse(&test.session().await, held.response).await;
    let mut taken = turns::lapsed(&client, 9, true, holder, LEASE).await.expect("a list");
    let taken = taken.pop().expect("taken over");
    assert_eq!(taken.held, Held { response: held.response, epoch: 2 });
    assert_eq!((taken.owner.as_str(), taken.next, taken.stream), (OWNER, Next::Interrupt, true));
    assert!(turns::lapsed(&client, 9, true, holder, LEASE).await.expect("a list").is_empty(), "held again");

    let answered = turn_log::append(&client, &[append(1, "late")]).await.expect("an answer");
    assert!(!answered[&held.response].stored);
    assert_eq!(turns::renew(&client, &[held], LEASE).await.expect("an answer"), []);
    assert_eq!(answer(&client, held, "late").await, Ended::Lost);
    let cursor = turn_log::LogCursor { owner: OWNER, response: held.response, from_part: 0 };
    let log = turn_log::read_log(&client, cursor).await.expect("an answer").expect("a log");
    assert_eq!((log.parts, log.epoch), (vec![(0, "kept".to_owned())], 2));

    let finish = finish_as(taken.held, ResponseStatus::Incomplete, &[]);
    assert!(matches!(turns::finish(&client, &finish).await.expect("an answer"), Ended::As { .. }));
    assert_eq!(answer(&client, held, "later").await, Ended::Lost);
}

#[tokio::test]
async fn a_background_turn_nobody_saw_is_run_again_three_times() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let session = test.session().await;
    let question = said("q");
    let input = [question.item()];
    let begin = async || {
        let mut turn = new_turn(Place::New, &input);
        turn.background = true;
        turn.request = r#"{"n": 1}"#;
        turns::begin(&client, &turn).await.expect("begun");
        let held = Held { response: turn.id, epoch: 1 };
        turn_log::append(&client, &[Append { held, part: 0, data: "wasted" }]).await.expect("appended");
        turn.id
    };
    let take = async |id| {
        lapse(&session, id).await;
        let mut taken = turns::lapsed(&client, 9, true, Uuid::now_v7(), LEASE).await.expect("a list");
        assert_eq!(taken.len(), 1);
        taken.pop().expect("taken over")
    };
    let id = begin().await;
    for restart in 1..=MAX_RESTARTS {
        let taken = take(id).await;
        assert_eq!(taken.next, Next::Run, "{taken:?}");
        assert_eq!((taken.restarts, taken.request.as_str()), (restart, r#"{"n": 1}"#));
        assert_eq!(count(&session, "response_events").await, 0, "its log begins anew");
        let append = Append { held: taken.held, part: 0, data: "again" };
        assert!(turn_log::append(&client, &[append]).await.expect("appended")[&id].stored);
    }
    let last = take(id).await;
    assert_eq!(last.next, Next::GiveUp, "often enough: {last:?}");
    assert_eq!(last.restarts, MAX_RESTARTS);
    assert_eq!(past(&client, Anchor::InputOf(id)).await, ["q"]);
    turns::finish(&client, &finish_as(last.held, ResponseStatus::Incomplete, &[])).await.expect("ended");

    let seen = begin().await;
    responses::mark_viewed(&client, OWNER, seen).await.expect("marked");
    assert_eq!(take(seen).await.next, Next::Interrupt);
    let stopped = begin().await;
    responses::request_cancel(&client, OWNER, stopped).await.expect("an answer").expect("a turn");
    assert_eq!(take(stopped).await.next, Next::Cancel);
}

#[tokio::test]
async fn sweeps_at_once_share_what_lapsed() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let session = test.session().await;
    for _ in 0..20 {
        let held = ask(&client, Anchor::New, "q").await;
        lapse(&session, held.response).await;
    }
    let sweeps = join_all((0..5).map(async |_| {
        let client = database.client().await.expect("a client");
        turns::lapsed(&client, 7, true, Uuid::now_v7(), LEASE).await.expect("a list")
    }))
    .await;
    let mut ids: Vec<ResponseId> = sweeps.iter().flatten().map(|taken| taken.held.response).collect();
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all, "none twice");
    assert!(sweeps.iter().flatten().all(|taken| taken.held.epoch == 2));
}

/// An append that came first is in the log the next holder reads; one that came second is refused.
#[tokio::test]
async fn a_takeover_and_an_append_wait_for_each_other() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let held = ask(&client, Anchor::New, "q").await;
    lapse(&test.session().await, held.response).await;
    let mut other = database.client().await.expect("a client");
    let transaction = other.transaction().await.expect("a transaction");
    assert_eq!(turns::lapsed(&transaction, 9, true, Uuid::now_v7(), LEASE).await.expect("a list").len(), 1);
    let session = test.session().await;
    let batch = [Append { held, part: 0, data: "late" }];
    let (appended, ()) = tokio::join!(turn_log::append(&client, &batch), async {
        eventually("the append waits", async || {
            let waits = "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
            count(&session, waits).await > 0
        })
        .await;
        transaction.commit().await.expect("committed");
    });
    assert!(!appended.expect("an answer")[&held.response].stored);
    assert_eq!(count(&session, "response_events").await, 0);
}

#[tokio::test]
async fn renewing_lengthens_only_what_is_held() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(ask(&client, Anchor::New, "q").await);
    }
    answer(&client, held[1], "a").await;
    held.push(Held { epoch: 7, ..held[0] });
    let renewed = turns::renew(&client, &held, Duration::from_secs(3_600)).await.expect("renewed");
    let mut ids: Vec<ResponseId> = renewed.iter().map(|renewed| renewed.response).collect();
    ids.sort();
    assert_eq!(ids, [held[0].response, held[2].response]);
    let long = "responses WHERE lease_until > now() + interval '50 minutes'";
    assert_eq!(count(&test.session().await, long).await, 2);
    assert_eq!(turns::renew(&client, &[], LEASE).await.expect("nothing"), []);
}

/// Counts the statements that go out.
#[derive(Clone, Default)]
struct Statements(std::sync::Arc<std::sync::Mutex<Vec<&'static str>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Statements {
    fn on_new_span(
        &self,
        attributes: &tracing::span::Attributes<'_>,
        _: &tracing::span::Id,
        _: tracing_subscriber::layer::Context<'_, S>,
    ) {
        if attributes.metadata().name() == "database.statement" {
            self.0.lock().expect("a list").push(attributes.metadata().target());
        }
    }
}

#[tokio::test]
async fn a_turn_is_three_round_trips_before_its_first_token_and_one_after_its_last() {
    use tracing_subscriber::layer::SubscriberExt;
    let (_test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let id = conversation(&client, &[&said("before")]).await;
    let first = turn(&client, Anchor::New, "q", "a").await;
    let statements = Statements::default();
    let counted = || std::mem::take(&mut *statements.0.lock().expect("a list")).len();
    let subscriber = tracing_subscriber::registry().with(statements.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    for (anchor, round_trips) in
        [(Anchor::Conversation(id), 3), (Anchor::Response(first), 3), (Anchor::New, 2)]
    {
        let held = ask(&client, anchor, "q").await;
        turn_log::append(&client, &[Append { held, part: 0, data: "[1]" }]).await.expect("appended");
        assert_eq!(counted(), round_trips, "{anchor:?}");
        answer(&client, held, "a").await;
        assert_eq!(counted(), 1, "{anchor:?}");
    }
}
