use std::time::Duration;

use super::support::{TestDatabase, count, value};
use super::talk::{
    LEASE, OTHER, OWNER, Said, answer, conversation, finish_as, lapse, new_turn, page, past, said, texts,
    turn,
};
use crate::database::audit::Actor;
use crate::database::conversations::{self, Added, Fork};
use crate::database::grants::{self, Grant, GrantFilter, GrantedAccess, Revoked};
use crate::database::responses::{self, Order};
use crate::database::threads::{self, Anchor};
use crate::database::turns::{self, Begun, Held, Idempotency};
use crate::database::{Client, Database, retention};
use crate::ids::{ConversationId, ResponseId};
use crate::openresponses::ResponseStatus;

use GrantedAccess::{Read, Write};

const ADA: Actor<'_> = Actor { name: "ada (key)", reason: None };

async fn give(client: &Client, id: ConversationId, grantee: &str, access: GrantedAccess) -> Option<Grant> {
    grants::give(client, Some(OWNER), id, grantee, access, ADA).await.expect("an answer")
}

async fn revoke(client: &mut Client, owner: Option<&str>, id: ConversationId, grantee: &str) -> Revoked {
    grants::revoke(client, owner, id, grantee, ADA).await.expect("an answer")
}

/// A turn of `caller`'s on a conversation of ada's, as the engine begins it.
async fn begin(client: &Client, id: ConversationId, caller: &str, key: Option<&str>) -> (ResponseId, Begun) {
    let window =
        threads::load_window(client, caller, Anchor::Conversation(id), 99, 9_999).await.expect("an answer");
    let Some(window) = window else { return (ResponseId::new(), Begun::NotFound) };
    let question = said("hers");
    let input = [question.item()];
    let mut turn = new_turn(window.place, &input);
    (turn.conversation, turn.owner) = (window.conversation, &window.owner);
    turn.caller = (caller != window.owner).then_some(caller);
    turn.idempotency = key.map(|key| Idempotency { key: Some(key), request_hash: b"1" });
    let begun = turns::begin(client, &turn).await.expect("an answer");
    (turn.id, begun)
}

#[tokio::test]
async fn grants_are_given_changed_and_taken_back() {
    let (test, database) = TestDatabase::migrated().await;
    let mut client = database.client().await.expect("a client");
    let id = conversation(&client, &[]).await;
    let may = async |client: &Client, who: &str, access| {
        grants::may(client, who, id, access).await.expect("asked").as_deref() == Some(OWNER)
    };
    assert!(may(&client, OWNER, Write).await && !may(&client, "bob", Read).await);
    let by_bob = grants::give(&client, Some("bob"), id, "bob", Write, ADA).await.expect("asked");
    assert_eq!(by_bob, None, "not his to give");
    assert_eq!(give(&client, id, OWNER, Read).await, None, "it is hers");
    assert!(give(&client, id, "bob", Read).await.is_some());
    assert!(
        may(&client, "bob", Read).await
            && !may(&client, "bob", Write).await
            && !may(&client, "eve", Read).await
    );
    assert!(give(&client, id, "bob", Write).await.is_some());
    assert!(may(&client, "bob", Read).await && may(&client, "bob", Write).await);
    let by_operator =
        grants::give(&client, None, id, "cyd", Read, Actor { name: "op", reason: Some("asked") });
    assert_eq!(by_operator.await.expect("asked").expect("given").owner, OWNER);

    let all = page(None, 9, Order::Ascending);
    let names =
        |grants: &[Grant]| -> Vec<String> { grants.iter().map(|grant| grant.grantee.clone()).collect() };
    let listed = grants::list(&client, OWNER, id, all).await.expect("listed").expect("hers");
    assert_eq!(names(&listed.entries), ["bob", "cyd"]);
    assert_eq!((listed.entries[0].access, listed.entries[0].created_by.as_str()), (Write, "ada (key)"));
    let after =
        grants::list(&client, OWNER, id, page(Some("bob"), 9, Order::Ascending)).await.expect("listed");
    assert_eq!(names(&after.expect("hers").entries), ["cyd"]);
    let last =
        grants::list(&client, OWNER, id, page(Some("zoe"), 9, Order::Ascending)).await.expect("listed");
    assert!(last.expect("still hers").entries.is_empty());
    assert!(grants::list(&client, "bob", id, all).await.expect("asked").is_none());
    let of = |filter| grants::list_all(&client, filter, page(None, 9, Order::Descending));
    let none = GrantFilter::default();
    assert_eq!(names(&of(none).await.expect("listed").entries), ["cyd", "bob"]);
    assert_eq!(
        names(&of(GrantFilter { grantee: Some("bob"), ..none }).await.expect("listed").entries),
        ["bob"]
    );
    assert!(of(GrantFilter { owner: Some("bob"), ..none }).await.expect("listed").entries.is_empty());
    let beyond = page(Some((id, "cyd")), 9, Order::Descending);
    let rest = grants::list_all(&client, GrantFilter { conversation: Some(id), ..none }, beyond).await;
    assert_eq!(names(&rest.expect("listed").entries), ["bob"]);

    assert_eq!(revoke(&mut client, Some("bob"), id, "bob").await, Revoked::NoConversation);
    assert_eq!(revoke(&mut client, Some(OWNER), id, "bob").await, Revoked::Revoked { stopped: None });
    assert_eq!(revoke(&mut client, Some(OWNER), id, "bob").await, Revoked::NoGrant, "once");
    assert_eq!(revoke(&mut client, None, id, "cyd").await, Revoked::Revoked { stopped: None });
    assert!(!may(&client, "bob", Read).await);
    assert!(give(&client, id, "bob", Read).await.is_some(), "and again");
    let session = test.session().await;
    let noted =
        async |what: &str| count(&session, &format!("api_audit WHERE subject = '{id}' AND {what}")).await;
    assert_eq!(noted("action = 'grant.give'").await, 4);
    assert_eq!(noted("action = 'grant.revoke'").await, 2);
    assert_eq!(noted("actor = 'op' AND detail->>'reason' = 'asked'").await, 1);

    conversations::delete(&client, OWNER, id).await.expect("an answer").expect("deleted");
    assert!(!may(&client, "bob", Read).await);
    assert_eq!(give(&client, id, "eve", Read).await, None);
    retention::delete_conversations(&client, 9).await.expect("swept");
    assert_eq!(count(&session, "grants").await, 0);
}

#[tokio::test]
async fn a_reader_sees_a_conversation_and_its_turns_and_changes_nothing() {
    let (_test, database) = TestDatabase::migrated().await;
    let mut client = database.client().await.expect("a client");
    let first = said("one");
    let id = conversation(&client, &[&first]).await;
    let response = turn(&client, Anchor::Conversation(id), "q", "a").await;
    let all = page(None, 9, Order::Ascending);
    give(&client, id, OTHER, Read).await.expect("given");

    let seen = conversations::get(&client, OTHER, id).await.expect("an answer").expect("seen");
    assert_eq!((seen.owner.as_str(), seen.granted), (OWNER, Some(Read)));
    let own = conversations::get(&client, OWNER, id).await.expect("an answer").expect("seen");
    assert_eq!(own.granted, None);
    let shared = conversations::list_shared(&client, OTHER, page(None, 9, Order::Descending), None).await;
    assert_eq!(shared.expect("listed").entries.iter().map(|shared| shared.id).collect::<Vec<_>>(), [id]);
    let none = conversations::list(&client, OTHER, page(None, 9, Order::Descending), None).await;
    assert!(none.expect("listed").entries.is_empty(), "it is not hers");
    let none = conversations::list_shared(&client, OWNER, page(None, 9, Order::Descending), None).await;
    assert!(none.expect("listed").entries.is_empty(), "nor shared with its owner");
    let items = conversations::list_items(&client, OTHER, id, all).await.expect("an answer").expect("seen");
    assert_eq!(texts(&items.entries), ["one", "q", "a"]);
    assert!(conversations::get_item(&client, OTHER, id, first.id).await.expect("an answer").is_some());
    let stored =
        responses::get_with_output(&client, OTHER, response).await.expect("an answer").expect("seen");
    assert_eq!((stored.owner.as_str(), stored.output), (OWNER, vec!["a".to_owned()]));
    let input =
        responses::input_items(&client, OTHER, response, all).await.expect("an answer").expect("seen");
    assert_eq!(texts(&input.entries), ["q"]);
    assert_eq!(threads::items_by_id(&client, OTHER, &[first.id]).await.expect("items").len(), 1);

    let update = conversations::Update { title: Some(Some("Mine")), metadata: None };
    assert!(conversations::update(&client, OTHER, id, update).await.expect("an answer").is_none());
    assert!(conversations::delete(&client, OTHER, id).await.expect("an answer").is_none());
    assert!(conversations::delete_item(&mut client, OTHER, id, first.id).await.expect("an answer").is_none());
    let item = said("two");
    let added = conversations::add_items(&client, OTHER, id, &[item.item()]).await.expect("an answer");
    assert_eq!(added, Added::NotFound);
    assert!(responses::delete(&client, OTHER, response).await.expect("an answer").is_none());
    assert!(responses::request_cancel(&client, OTHER, response).await.expect("an answer").is_none());
    assert_eq!(begin(&client, id, OTHER, None).await.1, Begun::NotFound);
    let anchor = Anchor::Response(response);
    assert!(threads::load_window(&client, OTHER, anchor, 9, 99).await.expect("an answer").is_none());
    assert!(
        grants::list(&client, OTHER, id, page(None, 9, Order::Ascending)).await.expect("an answer").is_none()
    );
    let items = conversations::list_items(&client, OWNER, id, all).await.expect("an answer").expect("hers");
    assert_eq!(items.entries.len(), 3);

    revoke(&mut client, Some(OWNER), id, OTHER).await;
    assert!(conversations::get(&client, OTHER, id).await.expect("an answer").is_none());
    assert!(responses::get(&client, OTHER, response).await.expect("an answer").is_none());
    assert!(threads::items_by_id(&client, OTHER, &[first.id]).await.expect("items").is_empty());
    let shared = conversations::list_shared(&client, OTHER, page(None, 9, Order::Descending), None).await;
    assert!(shared.expect("listed").entries.is_empty());
}

#[tokio::test]
async fn a_readers_fork_is_the_readers_and_outlives_the_grant() {
    let (_test, database) = TestDatabase::migrated().await;
    let mut client = database.client().await.expect("a client");
    let words: Vec<Said> = ["one", "two"].map(said).into();
    let id = conversation(&client, &words.iter().collect::<Vec<_>>()).await;
    give(&client, id, OTHER, Read).await.expect("given");
    let fork = Fork { source: id, at: None, id: ConversationId::new(), title: None, metadata: None };
    let made = conversations::fork(&client, OTHER, &fork).await.expect("an answer").expect("a fork");
    assert_eq!(made.owner, OTHER);
    revoke(&mut client, Some(OWNER), id, OTHER).await;
    let seen =
        threads::load_window(&client, OTHER, Anchor::Conversation(fork.id), 9, 99).await.expect("an answer");
    let seen = seen.expect("hers");
    assert_eq!((seen.owner.as_str(), texts(&seen.items)), (OTHER, vec!["two", "one"]));
    let mut owners = threads::owners_of_past(&client, seen.thread().expect("a past")).await.expect("owners");
    owners.sort();
    assert_eq!(owners, [OWNER], "the fork itself has nothing yet");
    assert!(conversations::get(&client, OWNER, fork.id).await.expect("an answer").is_none(), "not ada's");
    // What it inherited can be referred to, and outlives the original.
    let ids = [words[0].id];
    assert_eq!(threads::items_by_id(&client, OTHER, &ids).await.expect("items").len(), 1);
    assert!(threads::items_by_id(&client, "cyd", &ids).await.expect("items").is_empty());
    conversations::delete(&client, OWNER, id).await.expect("an answer").expect("deleted");
    super::talk::trim_all(&mut client).await;
    let items = conversations::list_items(&client, OTHER, fork.id, page(None, 9, Order::Ascending)).await;
    assert_eq!(texts(&items.expect("an answer").expect("hers").entries), ["one", "two"]);
}

#[tokio::test]
async fn a_writers_turn_is_the_owners_and_the_writer_pays() {
    let (test, database) = TestDatabase::migrated().await;
    let mut client = database.client().await.expect("a client");
    let id = conversation(&client, &[&said("one")]).await;
    give(&client, id, OTHER, Write).await.expect("given");
    let item = said("two");
    let added = conversations::add_items(&client, OTHER, id, &[item.item()]).await.expect("an answer");
    assert_eq!(added, Added::Added);
    let (response, begun) = begin(&client, id, OTHER, Some("k")).await;
    assert!(matches!(begun, Begun::Begun { .. }), "{begun:?}");
    let session = test.session().await;
    let whose: String = value(&session, "SELECT owner || '/' || caller FROM responses").await;
    assert_eq!(whose, "ada/eve");
    let held = Held { response, epoch: 1 };
    answer(&client, held, "a").await;
    assert_eq!(past(&client, Anchor::Conversation(id)).await, ["one", "two", "hers", "a"]);
    for who in [OWNER, OTHER] {
        let seen = responses::get_with_output(&client, who, response).await.expect("an answer");
        assert_eq!(seen.expect("seen").output, ["a"], "{who}");
    }
    // Each chooses idempotency keys apart: neither finds the other's turn by one.
    let (_, again) = begin(&client, id, OTHER, Some("k")).await;
    assert_eq!(again, Begun::Repeated { response, same_request: true });
    let (hers, begun) = begin(&client, id, OWNER, Some("k")).await;
    assert!(matches!(begun, Begun::Begun { .. }), "{begun:?}");
    assert!(
        responses::request_cancel(&client, OTHER, hers).await.expect("an answer").is_none(),
        "ada's turn"
    );
    answer(&client, Held { response: hers, epoch: 1 }, "b").await;

    // Taken over, it is still known who asked.
    let (response, _) = begin(&client, id, OTHER, None).await;
    assert!(
        responses::request_cancel(&client, OTHER, response).await.expect("an answer").is_some(),
        "hers to stop"
    );
    lapse(&session, response).await;
    let lapsed = turns::lapsed(&client, 9, true, uuid::Uuid::now_v7(), LEASE).await.expect("taken over");
    assert_eq!((lapsed[0].owner.as_str(), lapsed[0].caller.as_deref()), (OWNER, Some(OTHER)));
    turns::finish(&client, &finish_as(lapsed[0].held, ResponseStatus::Incomplete, &[])).await.expect("ended");
    // What is the owner's goes with the owner's conversation.
    conversations::delete(&client, OWNER, id).await.expect("an answer").expect("deleted");
    assert!(responses::get(&client, OTHER, response).await.expect("an answer").is_none());
    revoke(&mut client, Some(OWNER), id, OTHER).await;
}

async fn revoke_apart(database: &Database, id: ConversationId) -> Revoked {
    let mut client = database.client().await.expect("a client");
    revoke(&mut client, Some(OWNER), id, OTHER).await
}

async fn begin_apart(database: &Database, id: ConversationId) -> (ResponseId, Begun) {
    let client = database.client().await.expect("a client");
    begin(&client, id, OTHER, None).await
}

/// Whatever comes first: after a revocation no turn of the grantee's runs on that was not asked to stop.
#[tokio::test]
async fn a_turn_that_begins_while_its_grant_is_taken_back_does_not_run_on() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let session = test.session().await;
    let (mut begun_first, mut revoked_first) = (0, 0);
    for round in 0..40_u64 {
        let id = conversation(&client, &[]).await;
        give(&client, id, OTHER, Write).await.expect("given");
        let ((response, begun), revoked) = tokio::join!(begin_apart(&database, id), async {
            tokio::time::sleep(Duration::from_micros(round * 100)).await;
            revoke_apart(&database, id).await
        });
        match begun {
            Begun::Begun { .. } => {
                assert_eq!(revoked, Revoked::Revoked { stopped: Some(response) }, "round {round}");
                begun_first += 1;
            }
            Begun::NotFound => {
                assert_eq!(revoked, Revoked::Revoked { stopped: None }, "round {round}");
                revoked_first += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(begun_first > 0, "{begun_first} began before, {revoked_first} after");
    let running_on = "responses WHERE caller = 'eve' AND cancel_requested_at IS NULL";
    assert_eq!(count(&session, running_on).await, 0);
}
