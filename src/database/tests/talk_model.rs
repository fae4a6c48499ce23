//! Turns, forks and deletions at random, beside a model that copies where the database shares.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::support::{TestDatabase, count, value};
use super::talk::{OWNER, conversation, page, past, said, trim_all, turn, window};
use crate::database::Client;
use crate::database::conversations::{self, Added, Fork};
use crate::database::responses::{self, Order};
use crate::database::retention::{Superfluous, delete_conversations, delete_responses};
use crate::database::threads::Anchor;
use crate::ids::{ConversationId, ResponseId};

/// What each turn and each conversation should show, in order.
#[derive(Default)]
struct Model {
    turns: BTreeMap<ResponseId, Vec<(Uuid, String)>>,
    conversations: BTreeMap<ConversationId, Vec<(Uuid, String)>>,
    /// The turns that a conversation takes with it.
    of: Vec<(ResponseId, ConversationId)>,
}

/// Enough randomness, and the same from the same seed.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % sides.max(1)
    }

    fn of<K: Copy, V>(&mut self, map: &BTreeMap<K, V>) -> Option<K> {
        let at = self.throw(map.len());
        map.keys().nth(at).copied()
    }
}

/// What stands at an anchor now, by the database.
async fn shown(client: &Client, anchor: Anchor) -> Vec<(Uuid, String)> {
    window(client, anchor).await.items.into_iter().rev().map(|item| (item.id, item.data)).collect()
}

#[tokio::test]
async fn what_is_shared_looks_as_if_it_were_copied() {
    for seed in [1, 2, 4] {
        talk(seed).await;
    }
}

async fn talk(seed: u64) {
    let (test, database) = TestDatabase::migrated().await;
    let mut client = database.client().await.expect("a client");
    let (mut dice, mut model) = (Dice(seed), Model::default());
    for step in 0..160 {
        let (q, a) = (format!("q{step}"), format!("a{step}"));
        match dice.throw(12) {
            0..=3 => {
                let anchor = match dice.throw(5) {
                    0 => Anchor::New,
                    _ => dice.of(&model.turns).map_or(Anchor::New, Anchor::Response),
                };
                let id = turn(&client, anchor, &q, &a).await;
                let mut whole = match anchor {
                    Anchor::Response(before) => model.turns[&before].clone(),
                    _ => Vec::new(),
                };
                let said = shown(&client, Anchor::Response(id)).await;
                whole.extend_from_slice(&said[said.len() - 2..]);
                model.turns.insert(id, whole);
            }
            4 => {
                let words = [said(&q), said(&a)];
                let id = conversation(&client, &[&words[0], &words[1]]).await;
                model.conversations.insert(id, words.map(|said| (said.id, said.text)).to_vec());
            }
            5 | 6 => {
                let Some(id) = dice.of(&model.conversations) else { continue };
                let response = turn(&client, Anchor::Conversation(id), &q, &a).await;
                let said = shown(&client, Anchor::Conversation(id)).await;
                let whole = model.conversations.get_mut(&id).expect("known");
                whole.extend_from_slice(&said[said.len() - 2..]);
                model.turns.insert(response, whole.clone());
                model.of.push((response, id));
            }
            7 => {
                let Some(source) = dice.of(&model.conversations) else { continue };
                let whole = &model.conversations[&source];
                let upto = dice.throw(whole.len() + 1);
                let at = whole.get(upto).map(|(id, _)| *id);
                let fork = Fork { source, at, id: ConversationId::new(), title: None, metadata: None };
                conversations::fork(&client, OWNER, &fork).await.expect("an answer").expect("a fork");
                let whole = whole[..whole.len().min(upto + 1)].to_vec();
                model.conversations.insert(fork.id, whole);
            }
            8 => {
                let Some(id) = dice.of(&model.conversations) else { continue };
                let whole = model.conversations.get_mut(&id).expect("known");
                if whole.is_empty() {
                    let word = said(&q);
                    let added = conversations::add_items(&client, OWNER, id, &[word.item()]).await;
                    assert_eq!(added.expect("an answer"), Added::Added);
                    whole.push((word.id, word.text));
                    continue;
                }
                let (gone, _) = whole.remove(dice.throw(whole.len()));
                let found =
                    conversations::delete_item(&mut client, OWNER, id, gone).await.expect("an answer");
                assert!(found.is_some(), "seed {seed}, step {step}");
                // Its own turns stand on the same thread.
                for (response, of) in &model.of {
                    if *of == id
                        && let Some(whole) = model.turns.get_mut(response)
                    {
                        whole.retain(|(item, _)| *item != gone);
                    }
                }
            }
            9 => {
                let Some(id) = dice.of(&model.turns) else { continue };
                responses::delete(&client, OWNER, id).await.expect("an answer").expect("deleted");
                model.turns.remove(&id);
            }
            10 => {
                let Some(id) = dice.of(&model.conversations) else { continue };
                conversations::delete(&client, OWNER, id).await.expect("an answer").expect("deleted");
                model.conversations.remove(&id);
                let Model { turns, of, .. } = &mut model;
                turns.retain(|response, _| !of.contains(&(*response, id)));
            }
            _ => {
                delete_responses(&client, Superfluous::Deleted, 100).await.expect("deleted");
                delete_responses(&client, Superfluous::OfDeletedConversations, 100).await.expect("deleted");
                delete_conversations(&client, 100).await.expect("deleted");
                trim_all(&mut client).await;
            }
        }
        if step % 20 == 19 {
            check(&client, &model, &format!("seed {seed}, step {step}")).await;
        }
    }
    for id in model.turns.keys() {
        // Those of conversations that still are may go before them.
        responses::delete(&client, OWNER, *id).await.expect("an answer").expect("deleted");
    }
    for id in model.conversations.keys() {
        conversations::delete(&client, OWNER, *id).await.expect("an answer").expect("deleted");
    }
    trim_all(&mut client).await;
    let session = test.session().await;
    assert_eq!((count(&session, "items").await, count(&session, "threads").await), (0, 0), "seed {seed}");
    let flagged: i64 = value(&session, "SELECT count(*) FROM threads WHERE trim_at IS NOT NULL").await;
    assert_eq!(flagged, 0);
}

async fn check(client: &Client, model: &Model, when: &str) {
    for (id, whole) in &model.turns {
        assert_eq!(shown(client, Anchor::Response(*id)).await, *whole, "{when}: {id}");
    }
    for (id, whole) in &model.conversations {
        assert_eq!(shown(client, Anchor::Conversation(*id)).await, *whole, "{when}: {id}");
        let listed = conversations::list_items(client, OWNER, *id, page(None, 1_000, Order::Ascending)).await;
        let listed = listed.expect("an answer").expect("a conversation").entries;
        let texts: Vec<&str> = listed.iter().map(|item| item.data.as_str()).collect();
        assert_eq!(texts, past(client, Anchor::Conversation(*id)).await, "{when}: {id}");
    }
}
