//! What goes over a connection beside the events of turns: what its peer sends, errors, and the end.

use bytes::Bytes;
use colloquy::openresponses::{ApiError, ErrorType};
use futures_util::SinkExt;
use http::StatusCode;
use serde_json::json;
use tokio::time::error::Elapsed;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};

use super::Socket;

/// How one wait on a connection ended.
pub enum Event {
    Text(String),
    /// Anything that shows life, or nothing worth an answer.
    Alive,
    Silence,
    TooOld,
    Stopping,
    Gone,
}

/// What reading a socket gave. `None`: its peer closed it.
pub type Received = Option<Result<Message, tokio_tungstenite::tungstenite::Error>>;

/// What came, or came not, while a turn is under way.
pub async fn beside(
    socket: &mut Socket,
    message: Result<Received, Elapsed>,
) -> Result<(), Option<CloseFrame>> {
    match message.map(event) {
        Err(_) => socket.send(Message::Ping(Bytes::new())).await.map_err(|_| None),
        Ok(Event::Gone) => Err(None),
        Ok(Event::Text(_)) => send_error(socket, &in_flight()).await.map_err(|_| None),
        Ok(_) => Ok(()),
    }
}

/// What a message means to a session.
pub fn event(message: Received) -> Event {
    match message {
        Some(Ok(Message::Text(text))) => Event::Text(text.to_string()),
        Some(Ok(Message::Close(_)) | Err(_)) | None => Event::Gone,
        // Pongs; and binary messages, which the protocol has none of.
        Some(Ok(_)) => Event::Alive,
    }
}

/// An `error` message, as Open Responses has it.
pub async fn send_error(
    socket: &mut Socket,
    error: &ApiError,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    let message = json!({ "type": "error", "status": error.status.as_u16(), "error": error.payload() });
    socket.send(Message::text(message.to_string())).await
}

/// A close frame with a reason of ours.
pub fn close(code: CloseCode, reason: &'static str) -> CloseFrame {
    CloseFrame { code, reason: reason.into() }
}

/// The close frame behind [`too_old`].
pub fn outlived() -> CloseFrame {
    close(CloseCode::Policy, "websocket_connection_limit_reached")
}

/// 400, in Open Responses' words.
pub fn too_old() -> ApiError {
    let message = "This connection has reached its lifetime (WEBSOCKET_LIFETIME). Open a new one to go on; a stored \
                   response that is in progress can be resumed.";
    ApiError::new(
        StatusCode::BAD_REQUEST,
        ErrorType::InvalidRequestError,
        "websocket_connection_limit_reached",
        message,
    )
}

fn in_flight() -> ApiError {
    let message =
        "A response is in progress on this connection. Wait for its end, or open another connection.";
    ApiError::new(StatusCode::CONFLICT, ErrorType::InvalidRequestError, "response_in_progress", message)
}
