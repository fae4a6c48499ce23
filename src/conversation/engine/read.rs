//! Turns as their owner finds them later: read, followed, stopped, deleted. From this process's memory where it has
//! them, else from the database. Somebody who was granted access is always let in by the database, which knows whether
//! that still holds.

use std::sync::Arc;

use super::ends::Told;
use super::input::item_uuid;
use super::turn::{NewTurn, OnDisconnect, StopReason, Turn};
use super::{Engine, away};
use crate::access::Principal;
use crate::conversation::Viewer;
use crate::conversation::assembler::{End, NoSink, without_encrypted};
use crate::coordination::Wake;
use crate::database::Database;
use crate::database::audit::{Actor, Caller};
use crate::database::grants::{self, GrantedAccess};
use crate::database::responses::{self, CancelRequested, Order, Page, PageOf, StoredResponse};
use crate::database::threads::{self, StoredItem};
use crate::ids::{ConversationId, ResponseId};
use crate::llm::Chunk;
use crate::openresponses::{
    ApiError, ContentPart, ConversationOf, CreateResponse, ErrorType, Form, IncompleteDetails, Item,
    Response, ResponseStatus, Summary, excerpt,
};

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
        if let Some(turn) = self.local(&who.owner, parsed) {
            if let Some(result) = turn.live.result() {
                if turn.held.is_some() {
                    return Ok((*result).clone());
                }
            } else if turn.held.is_some() && turn.live.was_cut().is_none() {
                return Ok(turn.begun.clone());
            }
        }
        let client = self.client().await?;
        let stored = responses::get_with_output(&client, &who.owner, parsed).await.map_err(away)?;
        drop(client);
        let stored = stored.ok_or_else(|| not_found(id))?;
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

    async fn find(
        &self,
        who: &Principal,
        id: &str,
        parsed: ResponseId,
        after: Option<u64>,
    ) -> Result<Arc<Turn>, ApiError> {
        if let Some(turn) = self.local(&who.owner, parsed).filter(|turn| turn.live.was_cut().is_none()) {
            // One that is not stored cannot be found again, here as anywhere.
            return if turn.held.is_some() { Ok(turn) } else { Err(not_found(id)) };
        }
        let client = self.client().await?;
        let stored = responses::get_with_output(&client, &who.owner, parsed).await.map_err(away)?;
        drop(client);
        let stored = stored.ok_or_else(|| not_found(id))?;
        if stored.owner != who.owner
            && let Some(turn) = self.local(&stored.owner, parsed).filter(|turn| turn.live.was_cut().is_none())
        {
            return Ok(turn);
        }
        let turn = Arc::new(adopted(&stored)?);
        if stored.log_kept {
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
        Ok(Some(turn))
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
            Some(response) => Ok((*response).clone()),
            None => self.get(who, id, false).await,
        }
    }

    /// Deletes a response: it is not there any more from now on.
    pub async fn delete(&self, who: &Principal, id: &str) -> Result<(), ApiError> {
        let parsed = parse_id(id)?;
        let mut client = self.client().await?;
        let name = who.actor();
        let caller = Caller { owner: &who.owner, actor: Some(Actor { name: &name, reason: None }) };
        let deleted = responses::delete(&client, caller, parsed).await.map_err(away)?;
        let thread = deleted.ok_or_else(|| not_found(id))?;
        if let Err(error) = threads::trim_now(&mut client, thread).await {
            // Upkeep will do it: the response itself is gone.
            drop(away(error));
        }
        drop(client);
        if let Some(turn) = self.turns().remove(&parsed) {
            turn.stop(StopReason::Cancelled);
        }
        Ok(())
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

/// A stored turn as it stands, for who has no engine. `None`: it is not there for this owner.
pub async fn stored(database: &Database, owner: &str, id: ResponseId) -> Result<Option<Response>, ApiError> {
    let client = database.client().await.map_err(away)?;
    let stored = responses::get_with_output(&client, owner, id).await.map_err(away)?;
    stored.map(|stored| resource(&stored, true)).transpose()
}

fn parse_id(id: &str) -> Result<ResponseId, ApiError> {
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

fn not_found(id: &str) -> ApiError {
    ApiError::not_found("Response", id)
}

/// The request as it was stored.
pub(super) fn request_of(json: &str) -> Result<CreateResponse, ApiError> {
    serde_json::from_str(json).map_err(|error| {
        tracing::error!(
            code = "request.unreadable",
            line = error.line(),
            "a stored request cannot be read; a newer version may have written it"
        );
        ApiError::internal()
    })
}

/// A stored turn as the response that began it.
fn begun(stored: &StoredResponse, request: &CreateResponse) -> Response {
    Response {
        background: stored.background,
        store: true,
        previous_response_id: stored.previous_response.map(|id| id.to_string()),
        conversation: stored.conversation.map(|id| ConversationOf { id: id.to_string() }),
        ..Response::begun(request, stored.id.to_string(), stored.model.clone(), stored.created_at.as_second())
    }
}

fn adopted(stored: &StoredResponse) -> Result<Turn, ApiError> {
    let request = request_of(&stored.request)?;
    let show_encrypted = request.includes(crate::openresponses::Include::ReasoningEncryptedContent);
    let begun = begun(stored, &request);
    Ok(Turn::new(NewTurn {
        id: stored.id,
        owner: stored.owner.clone(),
        key: String::new(),
        held: Some(crate::database::turns::Held { response: stored.id, epoch: stored.epoch }),
        conversation: stored.conversation,
        begun,
        show_encrypted,
        on_disconnect: OnDisconnect::Continue,
        title: None,
        context: Vec::new(),
        job: None,
        until: None,
        waits: None,
        trace_parent: None,
    }))
}

/// A stored turn as the resource.
fn resource(stored: &StoredResponse, show_encrypted: bool) -> Result<Response, ApiError> {
    let request = request_of(&stored.request)?;
    let mut response = begun(stored, &request);
    response.status = stored.state;
    response.incomplete_details = stored.incomplete_reason.clone().map(|reason| IncompleteDetails { reason });
    response.error = stored.error.as_deref().and_then(|json| serde_json::from_str(json).ok());
    let told = Told::read(stored.usage.as_deref());
    response.usage = told.usage;
    response.service_tier = told.service_tier.unwrap_or(response.service_tier);
    if stored.state == ResponseStatus::Completed {
        response.completed_at = stored.completed_at.map(jiff::Timestamp::as_second);
    }
    for json in &stored.output {
        let item = Arc::new(super::past::parse_item(json)?);
        response.output.push(if show_encrypted { item } else { without_encrypted(&item) });
    }
    Ok(response)
}

fn end_of(response: &Response) -> End {
    End {
        status: response.status,
        incomplete_reason: response.incomplete_details.as_ref().map(|details| details.reason.clone()),
        error: response.error.clone(),
        usage: response.usage,
        service_tier: Some(response.service_tier.clone()),
        completed_at: response.completed_at,
    }
}

/// An item as the pieces it might have come in, when the real ones are no longer kept.
fn chunks_of(item: &Item) -> Vec<Chunk> {
    match item {
        Item::Message(message) => message
            .content
            .iter()
            .flat_map(|part| match part {
                ContentPart::OutputText { text, annotations, logprobs } => {
                    let delta = text.as_str().into();
                    let said = match logprobs.is_empty() {
                        true => Chunk::Text(delta),
                        false => Chunk::TextLogProbs { delta, logprobs: logprobs.as_slice().into() },
                    };
                    let annotated =
                        annotations.iter().map(|annotation| Chunk::Annotation(annotation.to_string().into()));
                    std::iter::once(said).chain(annotated).collect()
                }
                ContentPart::Refusal { refusal } => vec![Chunk::Refusal(refusal.as_str().into())],
                _ => Vec::new(),
            })
            .collect(),
        Item::FunctionCall(call) => vec![
            Chunk::ToolCall {
                index: 0,
                call_id: call.call_id.as_str().into(),
                name: call.name.as_str().into(),
            },
            Chunk::ToolArguments { index: 0, delta: call.arguments.as_str().into() },
        ],
        Item::Reasoning(reasoning) => {
            let mut chunks: Vec<Chunk> = (0_u16..)
                .zip(&reasoning.summary)
                .map(|(part, Summary::SummaryText { text })| Chunk::ReasoningSummary {
                    part,
                    delta: text.as_str().into(),
                })
                .collect();
            chunks.extend(
                reasoning.content.iter().filter_map(|part| Some(Chunk::ReasoningText(part.text()?.into()))),
            );
            chunks.extend(
                reasoning.encrypted_content.as_deref().map(|sealed| Chunk::ReasoningEncrypted(sealed.into())),
            );
            chunks
        }
        Item::FunctionCallOutput(_) | Item::Compaction(_) => Vec::new(),
    }
}
