//! Turns as their owner finds them later: read, followed, stopped. The database is asked in any case, since only
//! it knows what was deleted and who was granted access; memory has the pieces of a turn that runs here, and answers alone
//! while the database is away.

use std::sync::Arc;

use super::input::item_uuid;
use super::stored::{adopted, chunks_of, end_of, resource};
use super::turn::{StopReason, Turn};
use super::{Engine, away};
use crate::access::Principal;
use crate::conversation::Viewer;
use crate::conversation::assembler::NoSink;
use crate::coordination::Wake;
use crate::database::audit::{Actor, Caller};
use crate::database::grants::{self, GrantedAccess};
use crate::database::responses::{self, CancelRequested, Order, Page, PageOf, StoredResponse};
use crate::database::threads::StoredItem;
use crate::ids::{ConversationId, ResponseId};
use crate::openresponses::{ApiError, ErrorType, Form, Item, Response, ResponseStatus, excerpt};

/// The database is away.
pub(super) const AWAY: &str = "database_unavailable";

/// A page of a turn's own input.
pub type InputItems = Page<StoredItem>;

/// Somebody's view of a turn.
pub struct Followed {
    pub viewer: Viewer,
    /// It is another owner's, of this conversation: to be shown for as long as the grant lasts.
    pub by_grant: Option<ConversationId>,
}

impl Engine {
    /// What is answered at once to whoever asked for a turn in the background: that it is queued, however far it has come
    /// by then; or how it stands, if an earlier try of the same request began it.
    pub async fn accepted(&self, who: &Principal, turn: &Turn) -> Result<Response, ApiError> {
        if turn.take_unanswered() {
            return Ok(Response { status: ResponseStatus::Queued, ..turn.begun.clone() });
        }
        self.get(who, &turn.id.to_string(), false).await
    }

    /// The response as it stands.
    pub async fn get(&self, who: &Principal, id: &str, show_encrypted: bool) -> Result<Response, ApiError> {
        let parsed = parse_id(id)?;
        let local = self.local(&who.owner, parsed).filter(|turn| turn.held.is_some());
        if let Some(turn) = local.as_ref().filter(|turn| turn.live.is_running()) {
            return if self.is_there(turn).await? { Ok(turn.begun.clone()) } else { Err(not_found(id)) };
        }
        let stored = match (self.stored(who, parsed).await, local.and_then(|turn| turn.live.result())) {
            (Err(error), Some(ended)) if error.code == AWAY => return Ok((*ended).clone()),
            (stored, _) => stored?.ok_or_else(|| not_found(id))?,
        };
        let mut response = resource(&stored, show_encrypted)?;
        // What failed in a conversation left no items there; what it said is in its log alone.
        if stored.state == ResponseStatus::Failed && stored.conversation.is_some() && stored.log_kept {
            response.output = self.logged_output(&stored, &response).await?;
        }
        Ok(response)
    }

    /// The output of a turn that has ended, put together from its log.
    async fn logged_output(
        &self,
        stored: &StoredResponse,
        response: &Response,
    ) -> Result<Vec<Arc<Item>>, ApiError> {
        let turn = adopted(stored)?;
        self.read_whole_log(&turn).await?;
        Ok(self.assemble(&turn).finish(&end_of(response), &mut NoSink).0.output)
    }

    /// Follows a response's events from after number `after`, wherever it runs or ran.
    pub async fn follow(
        &self,
        who: &Principal,
        id: &str,
        form: Form,
        after: Option<u64>,
        show_encrypted: bool,
    ) -> Result<Followed, ApiError> {
        let parsed = parse_id(id)?;
        let turn = self.find(who, id, parsed, after).await?;
        self.viewed(&turn).await?;
        let assembler = crate::conversation::Assembler::new(
            turn.begun.clone(),
            turn.id.0,
            show_encrypted || turn.show_encrypted,
        );
        let viewer = Viewer::new(Arc::clone(&turn.live), assembler, form, after);
        Ok(Followed { viewer, by_grant: turn.conversation.filter(|_| turn.owner != who.owner) })
    }

    /// Whether a grant still lets somebody read a conversation. Where nobody can be asked, it does.
    pub async fn still_granted(&self, who: &Principal, conversation: ConversationId) -> bool {
        let asked = async {
            let client = self.0.database.client().await?;
            grants::may(&client, &who.owner, conversation, GrantedAccess::Read).await
        };
        match asked.await {
            Ok(owner) => owner.is_some(),
            Err(error) => {
                drop(away(error));
                true
            }
        }
    }

    /// Tells whoever runs a turn that it was asked to stop.
    pub fn tell_cancelled(&self, id: ResponseId) {
        self.0.coordination.wake(Wake::Cancelled(id.0));
    }

    /// The turn with its output, if it is there for the caller.
    async fn stored(&self, who: &Principal, id: ResponseId) -> Result<Option<StoredResponse>, ApiError> {
        let client = self.client().await?;
        responses::get_with_output(&client, &who.owner, id).await.map_err(away)
    }

    /// Whether a stored turn that runs here was not deleted meanwhile. While nobody can be asked, it was not.
    async fn is_there(&self, turn: &Turn) -> Result<bool, ApiError> {
        let asked = async {
            let client = self.client().await?;
            responses::is_there(&client, &turn.owner, turn.id).await.map_err(away)
        };
        match asked.await {
            Err(error) if error.code == AWAY => Ok(true),
            answer => answer,
        }
    }

    async fn find(
        &self,
        who: &Principal,
        id: &str,
        parsed: ResponseId,
        after: Option<u64>,
    ) -> Result<Arc<Turn>, ApiError> {
        let local = self.local(&who.owner, parsed).filter(|turn| turn.live.was_cut().is_none());
        // One that is not stored cannot be found again, here as anywhere.
        if local.as_ref().is_some_and(|turn| turn.held.is_none()) {
            return Err(not_found(id));
        }
        if let Some(turn) = local.as_ref().filter(|turn| turn.live.is_running()) {
            return if self.is_there(turn).await? { Ok(Arc::clone(turn)) } else { Err(not_found(id)) };
        }
        let stored = match (self.stored(who, parsed).await, local) {
            (Err(error), Some(ended)) if error.code == AWAY => return Ok(ended),
            (stored, _) => stored?.ok_or_else(|| not_found(id))?,
        };
        // Whose items were deleted is shown without them, and so not as it was said.
        let as_said = stored.log_kept && !stored.lacks_output();
        if as_said
            && let Some(turn) = self.local(&stored.owner, parsed).filter(|turn| turn.live.was_cut().is_none())
        {
            return Ok(turn);
        }
        let turn = Arc::new(adopted(&stored)?);
        if as_said {
            self.0.foreign.follow(Arc::clone(&turn));
        } else if after.is_some() {
            let message = "The events of this response are no longer kept. Retrieve it without 'stream'.";
            return Err(ApiError::invalid("stream_expired", "starting_after", message));
        } else {
            let response = resource(&stored, true)?;
            turn.live.keep_and_show(response.output.iter().flat_map(|item| chunks_of(item)));
            turn.live.end(end_of(&response), response);
        }
        Ok(turn)
    }

    /// Says, before anything is shown, that somebody sees the turn: it is not run again then.
    pub async fn viewed(&self, turn: &Turn) -> Result<(), ApiError> {
        if !turn.background || turn.held.is_none() || turn.live.ended().is_some() || !turn.set_viewed() {
            return Ok(());
        }
        let client = self.client().await?;
        responses::mark_viewed(&client, &turn.owner, turn.id).await.map_err(away)
    }

    /// The turn that an earlier try of the same request began, if this process still has it and the caller may see it.
    pub(super) async fn again(&self, who: &Principal, id: ResponseId) -> Result<Option<Arc<Turn>>, ApiError> {
        let Some(turn) = self.turns().get(&id).filter(|turn| !turn.is_spoilt()).cloned() else {
            return Ok(None);
        };
        if turn.owner != who.owner {
            let client = self.client().await?;
            let seen = responses::get(&client, &who.owner, id).await.map_err(away)?;
            return Ok(seen.map(|_| turn));
        }
        let there = turn.held.is_none() || self.is_there(&turn).await?;
        Ok(there.then_some(turn))
    }

    /// Finds the turn that an earlier try of the same request began.
    pub(super) async fn attach(&self, who: &Principal, id: ResponseId) -> Result<Arc<Turn>, ApiError> {
        let turn = self.find(who, &id.to_string(), id, None).await?;
        turn.set_opened(Ok(()));
        Ok(turn)
    }

    /// Asks a turn to stop and gives the response as it then is. Asking again gives the same.
    /// `actor`: who asks, as the audit row says it.
    pub async fn cancel(&self, who: &Principal, id: &str, actor: Actor<'_>) -> Result<Response, ApiError> {
        let parsed = parse_id(id)?;
        let client = self.client().await?;
        let caller = Caller { owner: &who.owner, actor: Some(actor) };
        let asked = responses::request_cancel(&client, caller, parsed).await.map_err(away)?;
        drop(client);
        let asked = asked.ok_or_else(|| not_found(id))?;
        if asked.state.is_final() {
            return self.get(who, id, false).await;
        }
        self.cancelled(who, parsed, asked).await
    }

    /// The same by an operator, whosever it is; audited with the change.
    ///
    /// Errors: 404, also for a turn that nobody stores; 409 `turn_ended`.
    pub async fn cancel_by_operator(&self, id: ResponseId, actor: Actor<'_>) -> Result<Response, ApiError> {
        let client = self.client().await?;
        let asked = responses::cancel_by_operator(&client, id, actor).await.map_err(away)?;
        drop(client);
        let (owner, asked) = asked.ok_or_else(|| not_found(&id.to_string()))?;
        if asked.state.is_final() {
            return Err(has_ended(asked.state));
        }
        self.cancelled(&Principal { owner, ..Principal::default() }, id, asked).await
    }

    /// Brings about the end of a turn that was asked to stop, and waits for it for a while.
    async fn cancelled(
        &self,
        who: &Principal,
        parsed: ResponseId,
        asked: CancelRequested,
    ) -> Result<Response, ApiError> {
        let id = &*parsed.to_string();
        if asked.waiting {
            self.take_up_due(Some(parsed)).await.map_err(away)?;
        }
        if let Some(turn) = self.turns().get(&parsed) {
            turn.stop(StopReason::Cancelled);
        }
        // Elsewhere the holder hears of it now, or with its next append or renewal.
        self.tell_cancelled(parsed);
        let turn = self.find(who, id, parsed, None).await?;
        let patience = std::time::Duration::from_secs(10);
        let mut changes = turn.live.changes();
        let ended = async {
            while turn.live.result().is_none() && turn.live.was_cut().is_none() {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        drop(tokio::time::timeout(patience, ended).await);
        match turn.live.result() {
            Some(response) if turn.live.was_cut().is_none() => Ok((*response).clone()),
            _ => self.get(who, id, false).await,
        }
    }

    /// The items a turn was given itself.
    pub async fn input_items(
        &self,
        who: &Principal,
        id: &str,
        after: Option<&str>,
        limit: u32,
        order: Order,
    ) -> Result<InputItems, ApiError> {
        let parsed = parse_id(id)?;
        let after = after.map(|after| {
            let message = format!("No item with id '{}' in this list.", excerpt(after));
            item_uuid(after).ok_or_else(|| ApiError::invalid_value("after", message))
        });
        let page = PageOf { after: after.transpose()?, limit, order };
        let client = self.client().await?;
        let items = responses::input_items(&client, &who.owner, parsed, page).await.map_err(away)?;
        items.ok_or_else(|| not_found(id))
    }
}

pub(super) fn parse_id(id: &str) -> Result<ResponseId, ApiError> {
    // The bare UUID is for operators.
    if !id.starts_with("resp_") {
        return Err(not_found(id));
    }
    id.parse().map_err(|_| not_found(id))
}

/// 409: what has ended cannot be stopped.
pub fn has_ended(state: ResponseStatus) -> ApiError {
    let message = format!("The turn has ended already: {}.", state.as_str());
    let conflict = http::StatusCode::CONFLICT;
    ApiError::new(conflict, ErrorType::ConflictError, "turn_ended", message).should_retry(false)
}

pub(super) fn not_found(id: &str) -> ApiError {
    ApiError::not_found("Response", id)
}
