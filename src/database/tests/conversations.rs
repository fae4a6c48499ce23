use uuid::Uuid;

use super::support::{TestDatabase, count};
use super::talk::{OTHER, OWNER, Said, answer, ask, conversation, page, past, said, texts, turn, window};
use crate::database::Client;
use crate::database::conversations::{self, Added, Fork, Update};
use crate::database::responses::{self, Order};
use crate::database::threads::Anchor;
use crate::ids::ConversationId;

fn fork_of(source: ConversationId, at: Option<&Said>) -> Fork<'static> {
    Fork { source, at: at.map(|said| said.id), id: ConversationId::new(), title: None, metadata: None }
}

async fn delete_item(client: &mut Client, id: ConversationId, item: Uuid) -> bool {
    let found = conversations::delete_item(client, OWNER, id, item).await.expect("an answer");
    found.is_some()
}

#[tokio::test]
async fn a_conversation_is_made_read_changed_and_deleted_by_its_owner_alone() {
    let (_test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let first = said("one");
    let id = conversation(&client, &[&first]).await;
    let made = conversations::get(&client, OWNER, id).await.expect("an answer").expect("a conversation");
    assert_eq!((made.title, made.metadata.as_str()), (None, r#"{"topic":"sums"}"#));
    let update = Update { title: Some(Some("Sums")), metadata: None };
    let titled =
        conversations::update(&client, OWNER, id, update).await.expect("an answer").expect("changed");
    assert_eq!((titled.title.as_deref(), titled.metadata.as_str()), (Some("Sums"), r#"{"topic":"sums"}"#));
    assert!(titled.updated_at > made.updated_at);
    let update = Update { title: Some(None), metadata: Some(r#"{"a":"\u0000"}"#) };
    let changed =
        conversations::update(&client, OWNER, id, update).await.expect("an answer").expect("changed");
    assert_eq!((changed.title, changed.metadata.as_str()), (None, r#"{"a":"\u0000"}"#));

    assert!(conversations::get(&client, OTHER, id).await.expect("an answer").is_none());
    assert!(conversations::update(&client, OTHER, id, update).await.expect("an answer").is_none());
    assert!(conversations::delete(&client, OTHER, id).await.expect("an answer").is_none());
    assert_eq!(conversations::add_items(&client, OTHER, id, &[]).await.expect("an answer"), Added::NotFound);
    let all = page(None, 9, Order::Ascending);
    assert!(conversations::list_items(&client, OTHER, id, all).await.expect("an answer").is_none());
    assert!(conversations::get_item(&client, OTHER, id, first.id).await.expect("an answer").is_none());
    assert!(conversations::fork(&client, OTHER, &fork_of(id, None)).await.expect("an answer").is_none());
    assert!(conversations::get_item(&client, OWNER, id, first.id).await.expect("an answer").is_some());

    let held = ask(&client, Anchor::Conversation(id), "q").await;
    assert!(conversations::delete(&client, OWNER, id).await.expect("an answer").is_some());
    assert!(conversations::delete(&client, OWNER, id).await.expect("an answer").is_none());
    assert!(conversations::get(&client, OWNER, id).await.expect("an answer").is_none());
    let renewed = crate::database::turns::renew(&client, &[held], super::talk::LEASE).await.expect("renewed");
    assert!(renewed[0].cancel_requested, "its turn is asked to stop");
    assert!(responses::get(&client, OWNER, held.response).await.expect("an answer").is_none());
    answer(&client, held, "a").await;
}

#[tokio::test]
async fn conversations_are_listed_newest_first_and_found_by_title() {
    let (_test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let mut ids = Vec::new();
    for title in ["Tax 100%", "Holidays", "TAXES again", "taxi_ride"] {
        let id = conversation(&client, &[]).await;
        let update = Update { title: Some(Some(title)), metadata: None };
        conversations::update(&client, OWNER, id, update).await.expect("an answer").expect("changed");
        ids.push(id);
    }
    let deleted = conversation(&client, &[]).await;
    conversations::delete(&client, OWNER, deleted).await.expect("an answer").expect("deleted");
    let list = async |after, limit, order, search: Option<&str>| {
        let page =
            conversations::list(&client, OWNER, page(after, limit, order), search).await.expect("a page");
        let found =
            page.entries.iter().map(|entry| ids.iter().position(|id| *id == entry.id).expect("known"));
        (found.collect::<Vec<_>>(), page.has_more)
    };
    assert_eq!(list(None, 9, Order::Descending, None).await, (vec![3, 2, 1, 0], false));
    assert_eq!(list(None, 2, Order::Descending, None).await, (vec![3, 2], true));
    assert_eq!(list(Some(ids[2]), 2, Order::Descending, None).await, (vec![1, 0], false));
    assert_eq!(list(Some(ids[0]), 2, Order::Ascending, None).await, (vec![1, 2], true));
    assert_eq!(list(None, 2, Order::Descending, Some("tax")).await, (vec![3, 2], true));
    assert_eq!(list(Some(ids[2]), 2, Order::Descending, Some("tax")).await, (vec![0], false));
    for (search, found) in [("100%", vec![0]), ("_", vec![3]), ("%", vec![0]), ("\0", vec![])] {
        assert_eq!(list(None, 9, Order::Descending, Some(search)).await.0, found, "{search}");
    }
    let others = conversations::list(&client, OTHER, page(None, 9, Order::Descending), None).await;
    assert!(others.expect("a page").entries.is_empty());
}

#[tokio::test]
async fn items_are_added_listed_and_taken_out() {
    let (test, database) = TestDatabase::migrated().await;
    let mut client = database.client().await.expect("a client");
    let words: Vec<Said> = ["one", "two", "three", "four"].map(said).into();
    let id = conversation(&client, &[&words[0], &words[1]]).await;
    let more = [words[2].item(), words[3].item()];
    assert_eq!(conversations::add_items(&client, OWNER, id, &more).await.expect("an answer"), Added::Added);
    let list = async |client: &Client, after: Option<usize>, limit, order| {
        let page = page(after.map(|n| words[n].id), limit, order);
        let page =
            conversations::list_items(client, OWNER, id, page).await.expect("an answer").expect("items");
        (texts(&page.entries).join(" "), page.has_more)
    };
    assert_eq!(list(&client, None, 3, Order::Ascending).await, ("one two three".to_owned(), true));
    assert_eq!(list(&client, Some(2), 3, Order::Ascending).await, ("four".to_owned(), false));
    assert_eq!(list(&client, None, 3, Order::Descending).await, ("four three two".to_owned(), true));
    assert_eq!(list(&client, Some(1), 3, Order::Descending).await, ("one".to_owned(), false));

    assert!(delete_item(&mut client, id, words[1].id).await);
    assert!(!delete_item(&mut client, id, words[1].id).await, "gone");
    assert_eq!(list(&client, None, 9, Order::Ascending).await.0, "one three four");
    assert!(conversations::get_item(&client, OWNER, id, words[1].id).await.expect("an answer").is_none());
    let now = window(&client, Anchor::Conversation(id)).await;
    assert_eq!(texts(&now.items), ["four", "three", "one"], "windows skip the gap");
    assert_eq!(now.items[0].tokens_before, 11, "counts stay as they were");
    assert_eq!(count(&test.session().await, "items").await, 3);
    turn(&client, Anchor::Conversation(id), "q", "a").await;
    assert_eq!(past(&client, Anchor::Conversation(id)).await, ["one", "three", "four", "q", "a"]);

    let running = ask(&client, Anchor::Conversation(id), "q2").await;
    let late = said("late");
    let added = conversations::add_items(&client, OWNER, id, &[late.item()]).await.expect("an answer");
    assert_eq!(added, Added::Locked);
    answer(&client, running, "a2").await;
}

#[tokio::test]
async fn a_fork_goes_on_by_itself() {
    let (test, database) = TestDatabase::migrated().await;
    let mut client = database.client().await.expect("a client");
    let words: Vec<Said> = ["one", "two", "three"].map(said).into();
    let id = conversation(&client, &words.iter().collect::<Vec<_>>()).await;
    let mut fork = fork_of(id, Some(&words[1]));
    (fork.title, fork.metadata) = (Some("Fork"), Some("{}"));
    let made = conversations::fork(&client, OWNER, &fork).await.expect("an answer").expect("a fork");
    assert_eq!((made.title.as_deref(), made.metadata.as_str()), (Some("Fork"), "{}"));
    turn(&client, Anchor::Conversation(fork.id), "q", "a").await;
    turn(&client, Anchor::Conversation(id), "r", "s").await;
    assert_eq!(past(&client, Anchor::Conversation(fork.id)).await, ["one", "two", "q", "a"]);
    assert_eq!(past(&client, Anchor::Conversation(id)).await, ["one", "two", "three", "r", "s"]);
    let listed = conversations::list_items(&client, OWNER, fork.id, page(None, 3, Order::Ascending)).await;
    assert_eq!(texts(&listed.expect("an answer").expect("items").entries), ["one", "two", "q"]);
    let after = page(Some(words[1].id), 9, Order::Ascending);
    let listed = conversations::list_items(&client, OWNER, fork.id, after).await;
    assert_eq!(texts(&listed.expect("an answer").expect("items").entries), ["q", "a"]);
    let missing = conversations::get_item(&client, OWNER, fork.id, words[2].id).await.expect("an answer");
    assert!(missing.is_none(), "behind the fork");

    // What both have stays in the one it is not taken out of, and a fork of the fork is as the fork is now.
    assert!(delete_item(&mut client, fork.id, words[0].id).await);
    assert!(delete_item(&mut client, id, words[1].id).await);
    let again = fork_of(fork.id, None);
    let made = conversations::fork(&client, OWNER, &again).await.expect("an answer").expect("a fork");
    assert_eq!((made.title.as_deref(), made.metadata.as_str()), (Some("Fork"), "{}"));
    assert_eq!(past(&client, Anchor::Conversation(fork.id)).await, ["two", "q", "a"]);
    assert_eq!(past(&client, Anchor::Conversation(again.id)).await, ["two", "q", "a"]);
    assert_eq!(past(&client, Anchor::Conversation(id)).await, ["one", "three", "r", "s"]);
    let hidden = fork_of(fork.id, Some(&words[0]));
    assert!(conversations::fork(&client, OWNER, &hidden).await.expect("an answer").is_none());

    // Once no fork shows it any more, what is hidden goes for good.
    for id in [fork.id, again.id] {
        conversations::delete(&client, OWNER, id).await.expect("an answer").expect("deleted");
    }
    let session = test.session().await;
    let retention = crate::database::retention::delete_responses(
        &client,
        crate::database::retention::Superfluous::OfDeletedConversations,
        9,
    );
    assert_eq!(retention.await.expect("deleted"), 1);
    super::talk::trim_all(&mut client).await;
    assert_eq!(past(&client, Anchor::Conversation(id)).await, ["one", "three", "r", "s"]);
    assert_eq!(count(&session, "items").await, 4);
}

#[tokio::test]
async fn a_fork_of_a_running_conversation_leaves_the_running_turn_out() {
    let (_test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let id = conversation(&client, &[]).await;
    turn(&client, Anchor::Conversation(id), "q", "a").await;
    let running = ask(&client, Anchor::Conversation(id), "q2").await;
    let fork = fork_of(id, None);
    let made = conversations::fork(&client, OWNER, &fork).await.expect("an answer").expect("a fork");
    assert_eq!(made.active_response, None);
    turn(&client, Anchor::Conversation(fork.id), "r2", "s2").await;
    answer(&client, running, "a2").await;
    assert_eq!(past(&client, Anchor::Conversation(fork.id)).await, ["q", "a", "r2", "s2"]);
    let empty = fork_of(conversation(&client, &[]).await, None);
    conversations::fork(&client, OWNER, &empty).await.expect("an answer").expect("a fork");
    assert!(past(&client, Anchor::Conversation(empty.id)).await.is_empty());
}

/// Whatever happens to a conversation at once, nobody waits for somebody who waits for them.
#[tokio::test]
async fn everything_at_once_on_one_conversation_ends_without_a_deadlock() {
    let (_test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let id = conversation(&client, &[]).await;
    for round in 0..25 {
        let words = [said("one"), said("two")];
        let items = [words[0].item(), words[1].item()];
        assert_eq!(conversations::add_items(&client, OWNER, id, &items).await.expect("ok"), Added::Added);
        let held = ask(&client, Anchor::Conversation(id), "q").await;
        let clients = futures_util::future::try_join_all((0..5).map(|_| database.client())).await;
        let mut clients = clients.expect("clients").into_iter();
        let [finishing, mut taking, adding, forking, renaming] =
            std::array::from_fn(|_| clients.next().expect("a client"));
        let late = said("late");
        let late = [late.item()];
        let fork = fork_of(id, Some(&words[1]));
        let title = Update { title: Some(Some("title")), metadata: None };
        let (ended, taken, added, forked, renamed) = tokio::join!(
            answer(&finishing, held, "a"),
            conversations::delete_item(&mut taking, OWNER, id, words[0].id),
            conversations::add_items(&adding, OWNER, id, &late),
            conversations::fork(&forking, OWNER, &fork),
            conversations::update(&renaming, OWNER, id, title),
        );
        assert!(matches!(ended, crate::database::turns::Ended::As { .. }), "round {round}: {ended:?}");
        assert!(taken.expect("no deadlock").is_some());
        assert_ne!(added.expect("no deadlock"), Added::NotFound);
        assert!(forked.expect("no deadlock").is_some());
        assert!(renamed.expect("no deadlock").is_some());
    }
}
