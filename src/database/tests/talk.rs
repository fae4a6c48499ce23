//! Turns and conversations for tests: what is said is its own JSON, and costs a token a byte.

use std::time::Duration;

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::database::conversations::{self, NewConversation};
use crate::database::responses::{Order, PageOf};
use crate::database::threads::{self, Anchor, NewItem, Place, StoredItem, Window};
use crate::database::turns::{self, Aside, Begun, Ended, Finish, Held, NewTurn, Runner};
use crate::database::{Client, Statements};
use crate::ids::{ConversationId, ResponseId};
use crate::openresponses::ResponseStatus;

pub const OWNER: &str = "ada";
pub const OTHER: &str = "eve";
pub const LEASE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub struct Said {
    pub id: Uuid,
    pub text: String,
}

pub fn said(text: &str) -> Said {
    Said { id: Uuid::now_v7(), text: text.to_owned() }
}

impl Said {
    pub fn item(&self) -> NewItem<'_> {
        NewItem {
            id: self.id,
            kind: "message",
            role: Some("user"),
            tokens: i32::try_from(self.text.len()).expect("short"),
            data: &self.text,
        }
    }
}

pub fn new_turn<'a>(place: Place, input: &'a [NewItem<'a>]) -> NewTurn<'a> {
    NewTurn {
        id: ResponseId::new(),
        owner: OWNER,
        caller: None,
        api_key: Some("test"),
        place,
        conversation: None,
        previous_response: None,
        runner: Runner::Holder { holder: Uuid::now_v7(), lease: LEASE },
        model: "demo",
        request: r#"{"model":"demo"}"#,
        background: false,
        background_max: None,
        stream: true,
        on_disconnect: None,
        input,
        idempotency: None,
        attempt: None,
        job: None,
        callback: None,
        patience: None,
        trace_parent: None,
    }
}

pub fn finish_as<'a>(held: Held, state: ResponseStatus, output: &'a [NewItem<'a>]) -> Finish<'a> {
    Finish {
        held,
        state,
        output,
        incomplete_reason: None,
        error: None,
        usage: Some(r#"{"total_tokens":3}"#),
        title: None,
        keep_log: Duration::from_secs(24 * 3_600),
        drop_failed_input: true,
        trace_parent: None,
        aside: Aside::Nothing,
        parts: 0,
    }
}

pub async fn window(client: &impl Statements, anchor: Anchor) -> Window {
    let window = threads::load_window(client, OWNER, anchor, 1_000, 1_000_000).await.expect("an answer");
    window.unwrap_or_else(|| panic!("no window of {anchor:?}"))
}

/// What a turn that goes on from there is shown, oldest first.
pub async fn past(client: &impl Statements, anchor: Anchor) -> Vec<String> {
    window(client, anchor).await.items.into_iter().rev().map(|item| item.data).collect()
}

/// Begins a turn after an anchor, as the engine does: one window, one begin.
pub async fn ask(client: &impl Statements, anchor: Anchor, text: &str) -> Held {
    let window = window(client, anchor).await;
    let question = said(text);
    let input = [question.item()];
    let mut turn = new_turn(window.place, &input);
    turn.conversation = window.conversation;
    if let Anchor::Response(previous) = anchor {
        turn.previous_response = Some(previous);
    }
    let begun = turns::begin(client, &turn).await.expect("an answer");
    assert!(matches!(begun, Begun::Begun { .. }), "{begun:?}");
    Held { response: turn.id, epoch: 1 }
}

pub async fn answer(client: &impl Statements, held: Held, text: &str) -> Ended {
    let answer = said(text);
    let output = [answer.item()];
    turns::finish(client, &finish_as(held, ResponseStatus::Completed, &output)).await.expect("an answer")
}

/// A whole turn.
pub async fn turn(client: &impl Statements, anchor: Anchor, question: &str, reply: &str) -> ResponseId {
    let held = ask(client, anchor, question).await;
    let ended = answer(client, held, reply).await;
    assert!(matches!(ended, Ended::As { state: ResponseStatus::Completed, .. }), "{ended:?}");
    held.response
}

pub async fn conversation(client: &impl Statements, items: &[&Said]) -> ConversationId {
    let items: Vec<NewItem<'_>> = items.iter().map(|said| said.item()).collect();
    let new = NewConversation {
        id: ConversationId::new(),
        owner: OWNER,
        title: None,
        metadata: r#"{"topic":"sums"}"#,
        items: &items,
    };
    conversations::create(client, &new, None).await.expect("created").id
}

pub fn page<C>(after: Option<C>, limit: u32, order: Order) -> PageOf<C> {
    PageOf { after, limit, order }
}

pub fn texts(items: &[StoredItem]) -> Vec<&str> {
    items.iter().map(|item| item.data.as_str()).collect()
}

/// Makes a turn's lease lapse.
pub async fn lapse(session: &tokio_postgres::Client, response: ResponseId) {
    let sql = "UPDATE responses SET lease_until = now() - interval '1 second' WHERE id = $1";
    let id: &(dyn ToSql + Sync) = &response.0;
    assert_eq!(session.execute(sql, &[id]).await.expect("lapsed"), 1);
}

/// A new id of an instant.
pub fn response_at(at: jiff::Timestamp) -> ResponseId {
    let seconds = u64::try_from(at.as_second()).expect("after 1970");
    ResponseId(Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, 0)))
}

/// All that trimming finds to do.
pub async fn trim_all(client: &mut Client) {
    loop {
        let transaction = client.transaction().await.expect("a transaction");
        let flagged = threads::trim_flagged(&transaction, 100).await.expect("trimmed");
        transaction.commit().await.expect("committed");
        if flagged == 0 {
            return;
        }
    }
}
