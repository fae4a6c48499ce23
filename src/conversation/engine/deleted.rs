//! What its owner deletes is not there any more from that moment on, and its words are nowhere soon after.

use super::read::{not_found, parse_id};
use super::turn::StopReason;
use super::{Engine, away};
use crate::access::Principal;
use crate::database::Client;
use crate::database::audit::{Actor, Caller};
use crate::database::{conversations, responses, threads};
use crate::ids::{ConversationId, ResponseId};
use crate::openresponses::ApiError;

impl Engine {
    /// Deletes a response. One that runs is stopped.
    ///
    /// Errors: 404 if there is none, 503 while the database is away.
    pub async fn delete(&self, who: &Principal, id: &str) -> Result<(), ApiError> {
        let parsed = parse_id(id)?;
        let client = self.client().await?;
        let name = who.actor();
        let caller = Caller { owner: &who.owner, actor: Some(Actor { name: &name, reason: None }) };
        let deleted = responses::delete(&client, caller, parsed).await.map_err(away)?;
        let thread = deleted.ok_or_else(|| not_found(id))?;
        self.trim(client, thread).await;
        let turn = self.turns().get(&parsed).cloned();
        if let Some(turn) = turn {
            if turn.live.is_running() {
                turn.stop(StopReason::Cancelled);
            } else {
                self.forget(&turn);
            }
        }
        // Its viewers elsewhere hear of it, too.
        self.tell_cancelled(parsed);
        Ok(())
    }

    /// Deletes a conversation with its responses. One that runs is stopped.
    ///
    /// Errors: 404 if there is none, 503 while the database is away.
    pub async fn delete_conversation(&self, who: &Principal, id: ConversationId) -> Result<(), ApiError> {
        let client = self.client().await?;
        let name = who.actor();
        let caller = Caller { owner: &who.owner, actor: Some(Actor { name: &name, reason: None }) };
        let deleted = conversations::delete(&client, caller, id).await.map_err(away)?;
        let deleted = deleted.ok_or_else(|| ApiError::not_found("Conversation", &id.to_string()))?;
        if let Some(turn) = deleted.stopped {
            self.tell_cancelled(turn);
        }
        self.turns().retain(|_, turn| turn.conversation != Some(id) || turn.live.is_running());
        self.trim(client, deleted.thread).await;
        Ok(())
    }

    async fn trim(&self, mut client: Client, thread: uuid::Uuid) {
        if let Err(error) = threads::trim_now(&mut client, thread).await {
            // Upkeep will do it: what was deleted is gone for everybody.
            drop(away(error));
        }
    }

    /// Of a turn that was asked to stop and has ended: if that was because it was deleted, its words go now. Nobody waits
    /// for it.
    pub(super) fn trim_if_deleted(&self, id: ResponseId) {
        let engine = self.clone();
        self.0.tasks.spawn("deleted turn", async move {
            let trimmed = async {
                let mut client = engine.0.database.client().await?;
                threads::trim_deleted(&mut client, id).await
            };
            if let Err(error) = trimmed.await {
                // Its thread is flagged for upkeep.
                drop(away(error));
            }
        });
    }
}
