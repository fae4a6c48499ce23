//! Turns that are written down for whoever is free to run them: begun without a model at hand, taken up by a server.

use crate::access::Principal;
use crate::database::Database;
use crate::database::threads::{self, Anchor, NewItem};
use crate::database::turns::{self, Begun, NewTurn, OfJob, Runner};
use crate::ids::ResponseId;
use crate::openresponses::{ApiError, CreateResponse};
use crate::telemetry::trace;

use super::engine::{Entry, OwnItem, away, entries};

/// Writes a turn down that a job asks for, in the background and nobody's. Its model is not asked and nothing is set aside
/// for it before a server takes it up.
pub async fn queue(
    database: &Database,
    who: &Principal,
    mut request: CreateResponse,
    of: OfJob,
) -> Result<ResponseId, ApiError> {
    /// A thread that changes under our hands is looked at again.
    const TRIES: u32 = 3;
    request.background = Some(true);
    request.validate()?;
    let own: Vec<OwnItem> = entries(request.input.take())?
        .into_iter()
        .filter_map(|entry| match entry {
            Entry::New(own) => Some(own),
            // Events name no stored items.
            Entry::Reference { .. } => None,
        })
        .collect();
    let input: Vec<NewItem<'_>> = own.iter().map(OwnItem::row).collect();
    let model = request.model.clone().ok_or_else(|| ApiError::missing("model"))?;
    let previous: Option<ResponseId> =
        request.previous_response_id.as_deref().map(|id| parsed(id, "previous_response_id")).transpose()?;
    let conversation = request.conversation.as_ref().map(|of| parsed(of.id(), "conversation")).transpose()?;
    let anchor = match (previous, conversation) {
        (Some(previous), _) => Anchor::Response(previous),
        (None, Some(conversation)) => Anchor::Conversation(conversation),
        (None, None) => Anchor::New,
    };
    let parameters = serde_json::to_string(&request).map_err(|_| ApiError::internal())?;
    let client = database.client().await.map_err(away)?;
    for _ in 0..TRIES {
        let window = threads::load_window(&client, &who.owner, anchor, 1, 0).await.map_err(away)?;
        let window = window.ok_or_else(gone)?;
        if window.active_response.is_some() {
            return Err(locked());
        }
        let turn = NewTurn {
            id: ResponseId::new(),
            owner: &who.owner,
            caller: None,
            api_key: Some(&who.key),
            place: window.place,
            conversation: window.conversation,
            previous_response: previous,
            runner: Runner::Anybody,
            model: &model,
            request: &parameters,
            background: true,
            background_max: None,
            stream: false,
            on_disconnect: None,
            input: &input,
            idempotency: None,
            attempt: None,
            callback: None,
            patience: None,
            job: Some(of),
            trace_parent: Some(&trace::current()),
        };
        match turns::begin(&client, &turn).await.map_err(away)? {
            Begun::Begun { .. } => return Ok(turn.id),
            Begun::Locked => return Err(locked()),
            Begun::NotFound => return Err(gone()),
            Begun::Conflict | Begun::Crowded | Begun::Repeated { .. } => {}
        }
    }
    Err(ApiError::unavailable("thread_changed", "The conversation changed while the turn began."))
}

fn parsed<T: std::str::FromStr>(id: &str, field: &str) -> Result<T, ApiError> {
    id.parse().map_err(|_| ApiError::invalid_value(field, "This is no id."))
}

fn gone() -> ApiError {
    ApiError::unavailable("thread_changed", "What the turn goes on from is not there any more.")
}

fn locked() -> ApiError {
    ApiError::unavailable("conversation_locked", "Another turn of the conversation runs.")
}
