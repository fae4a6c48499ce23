//! A stored turn, read from the database, as what callers are shown.

use std::sync::Arc;

use super::away;
use super::ends::Told;
use super::turn::{NewTurn, OnDisconnect, Turn};
use crate::conversation::assembler::{End, without_encrypted};
use crate::database::Database;
use crate::database::responses::{self, StoredResponse};
use crate::ids::ResponseId;
use crate::llm::Chunk;
use crate::openresponses::{
    ApiError, ContentPart, ConversationOf, CreateResponse, IncompleteDetails, Item, Response, ResponseStatus,
    Summary,
};

/// A stored turn as it stands, for who has no engine. `None`: it is not there for this owner.
pub async fn stored(database: &Database, owner: &str, id: ResponseId) -> Result<Option<Response>, ApiError> {
    let client = database.client().await.map_err(away)?;
    let stored = responses::get_with_output(&client, owner, id).await.map_err(away)?;
    stored.map(|stored| resource(&stored, true)).transpose()
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

pub(super) fn adopted(stored: &StoredResponse) -> Result<Turn, ApiError> {
    let request = request_of(&stored.request)?;
    let show_encrypted = request.includes(crate::openresponses::Include::ReasoningEncryptedContent);
    let begun = begun(stored, &request);
    Ok(Turn::new(NewTurn {
        id: stored.id,
        owner: stored.owner.clone(),
        caller: None,
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
pub(super) fn resource(stored: &StoredResponse, show_encrypted: bool) -> Result<Response, ApiError> {
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

pub(super) fn end_of(response: &Response) -> End {
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
pub(super) fn chunks_of(item: &Item) -> Vec<Chunk> {
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
