//! The first commit of a stored turn.

use std::sync::Arc;
use std::time::Duration;

use super::create::Start;
use super::input::OwnItem;
use super::paying::Paying;
use super::retries::key_reused;
use super::turn::Turn;
use super::{Engine, away};
use crate::conversation::combinations::Transport;
use crate::database::threads::{self, NewItem, Window};
use crate::database::turns::{self, Begun, Held};
use crate::ids::ResponseId;
use crate::openresponses::{ApiError, ErrorType};

/// How beginning a turn went.
pub(super) enum Beginning {
    New(Arc<Turn>),
    /// An earlier try of the same request began it.
    Repeated(ResponseId),
}

impl Engine {
    /// Begins a turn. `None`: the thread has changed meanwhile.
    pub(super) async fn begin(
        &self,
        start: &Start<'_>,
        window: Option<&Window>,
        own: &[OwnItem],
        paying: &Paying,
    ) -> Result<Option<Beginning>, ApiError> {
        let Start { who, id, request, call, alias } = *start;
        let parameters = serde_json::to_string(&**request).map_err(|error| {
            tracing::error!(code = "request.unwritable", %error, "a request could not be written as JSON");
            ApiError::internal()
        })?;
        let input: Vec<NewItem<'_>> = own.iter().map(OwnItem::row).collect();
        let conversation = window.and_then(|window| window.conversation);
        let previous = request.previous_response_id.as_deref().and_then(|id| id.parse().ok());
        let turn = turns::NewTurn {
            id,
            owner: &who.owner,
            api_key: Some(&who.key),
            place: window.map_or(threads::Place::New, |window| window.place),
            conversation,
            previous_response: previous,
            holder: self.0.instance,
            lease: self.0.limits.lease,
            queued: false,
            model: alias.name(),
            request: &parameters,
            background: request.background.unwrap_or(false),
            stream: request.stream.unwrap_or(false) || call.transport == Transport::WebSocket,
            on_disconnect: request.on_disconnect.as_deref(),
            input: &input,
            idempotency: Some(call.idempotency()),
            attempt: self.0.spend.is_tracking().then_some(&paying.first),
        };
        let client = self.client().await?;
        match turns::begin(&client, &turn).await.map_err(away)? {
            Begun::Begun { created_at } => {
                let held = Held { response: id, epoch: 1 };
                let turn = start.turn(Some(held), conversation, start.begun(created_at), own, Vec::new());
                Ok(Some(Beginning::New(Arc::new(turn))))
            }
            Begun::Repeated { response, same_request: true } => Ok(Some(Beginning::Repeated(response))),
            Begun::Repeated { same_request: false, .. } => Err(key_reused()),
            Begun::Locked => Err(locked()),
            Begun::NotFound => {
                let id = request.conversation.as_ref().map_or("", |conversation| conversation.id());
                Err(ApiError::not_found("Conversation", id).on("conversation"))
            }
            Begun::Conflict => Ok(None),
        }
    }
}

pub(super) fn locked() -> ApiError {
    let message = "Another turn of this conversation is in progress. Wait for its end, or cancel it.";
    ApiError::invalid(LOCKED, "conversation", message)
}

pub(super) const LOCKED: &str = "conversation_locked";

/// 409, which SDKs answer by trying again.
pub(super) fn changed_meanwhile() -> ApiError {
    ApiError::new(
        http::StatusCode::CONFLICT,
        ErrorType::ConflictError,
        "thread_changed",
        "The conversation changed while this request began. Please try again.",
    )
    .retry_after(Duration::from_millis(100))
}
