//! `/v1/responses` over a WebSocket: turns one after the other, each asked for by a `response.create`.

mod handshake;
mod messages;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use colloquy::access::Principal;
use colloquy::conversation::combinations::Transport;
use colloquy::conversation::engine::{Call, Local, Turn};
use colloquy::conversation::live::{Cut, Seen, Viewer};
use colloquy::openresponses::{ApiError, CreateResponse, Form};
use colloquy::request_id::RequestId;
use futures_util::{SinkExt, StreamExt};
use http::StatusCode;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use tracing::{Instrument, Span};

use crate::app::App;
pub use handshake::{accept, is_upgrade};
use messages::{Event, beside, close, event, outlived, send_error, too_old};

/// In a ping, what `: unlogged` says in a stream of server-sent events.
const UNLOGGED: Bytes = Bytes::from_static(b"unlogged");
/// Buffers stay small: an idle connection costs what it holds.
const BUFFER: usize = 2 * 1024;
/// What is ready is written together, so much of it at a time. The buffer is made with the first turn.
const WRITTEN_AT_ONCE: usize = 4 * 1024;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// One connection and what it remembers.
struct Session {
    app: Arc<App>,
    who: Arc<Principal>,
    /// The key or token it was opened with. What is revoked meanwhile asks for no further turn.
    presented: Option<SecretString>,
    form: Form,
    /// The turn before, if it was not stored.
    local: Option<Arc<Local>>,
    deadline: Instant,
    /// Of the handshake; every turn's lines have it.
    request_id: RequestId,
}

async fn serve(
    app: Arc<App>,
    who: Arc<Principal>,
    presented: Option<SecretString>,
    form: Form,
    upgraded: Upgraded,
    request_id: RequestId,
) {
    let limit = app.config.server.body_max;
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(WRITTEN_AT_ONCE)
        .max_write_buffer_size(limit.max(2 * WRITTEN_AT_ONCE))
        .max_message_size(Some(limit))
        .max_frame_size(Some(limit));
    let mut socket =
        WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let mut life = app.config.server.socket_lifetime;
    if let Some(ends) = who.expires_at {
        // What the key or token ends, ends the connection that was opened with it.
        let left = ends.duration_since(jiff::Timestamp::now());
        life = life.min(left.try_into().unwrap_or_default());
    }
    let deadline = Instant::now() + life;
    let mut session = Session { app, who, presented, form, local: None, deadline, request_id };
    let close = session.run(&mut socket).await;
    if let Some(frame) = close {
        // The peer may be gone already.
        drop(tokio::time::timeout(Duration::from_secs(5), socket.close(Some(frame))).await);
    }
}

impl Session {
    /// Serves until either side ends it. Gives the frame to close with.
    async fn run(&mut self, socket: &mut Socket) -> Option<CloseFrame> {
        loop {
            match self.wait(socket).await {
                Event::Text(text) => {
                    // Boxed, so that a connection is as large as a turn only while it has one.
                    if let Err(close) = Box::pin(self.turn(socket, text)).await {
                        return close;
                    }
                }
                Event::Alive => {}
                Event::Silence => socket.send(Message::Ping(Bytes::new())).await.ok()?,
                Event::TooOld => {
                    send_error(socket, &too_old()).await.ok()?;
                    return Some(outlived());
                }
                Event::Stopping => {
                    return Some(close(CloseCode::Restart, "the server restarts; connect again"));
                }
                Event::Gone => return None,
            }
        }
    }

    async fn wait(&self, socket: &mut Socket) -> Event {
        let heartbeat = self.app.config.server.heartbeat;
        let stopping = self.app.stopping.cancelled();
        tokio::select! {
            biased;
            () = stopping => Event::Stopping,
            () = sleep_until(self.deadline) => Event::TooOld,
            message = tokio::time::timeout(heartbeat, socket.next()) => match message {
                Err(_) => Event::Silence,
                Ok(message) => event(message),
            },
        }
    }

    /// One turn, from its request to its last event. `Err` ends the connection.
    async fn turn(&mut self, socket: &mut Socket, text: String) -> Result<(), Option<CloseFrame>> {
        let span = tracing::info_span!(
            "request",
            otel.name = "WEBSOCKET",
            otel.kind = "server",
            http.route = "responses.connect",
            request_id = %self.request_id,
        );
        let turn = match self.created(socket, &text, span).await? {
            Ok(turn) => turn,
            Err(error) => {
                if self.continued_by(&text) {
                    self.local = None;
                }
                send_error(socket, &error).await.map_err(|_| None)?;
                return match error.status {
                    StatusCode::UNAUTHORIZED => Err(Some(close(CloseCode::Policy, error.code))),
                    _ => Ok(()),
                };
            }
        };
        drop(text);
        let mut viewer = turn.viewer(self.form, None);
        let ended = self.follow(socket, &mut viewer, &turn).await;
        // What a failed turn referred to is not to be relied on any more.
        let next = ended? && turn.held.is_none() && turn.failure().is_none();
        self.local = next.then(|| Arc::new(self.remembered(&turn)));
        Ok(())
    }

    /// Begins a turn, which may take as long as a summary takes, and keeps the connection alive meanwhile.
    async fn created(
        &mut self,
        socket: &mut Socket,
        text: &str,
        span: Span,
    ) -> Result<Result<Arc<Turn>, ApiError>, Option<CloseFrame>> {
        let (heartbeat, deadline) = (self.app.config.server.heartbeat, self.deadline);
        let ending = self.app.tasks.stopping();
        let mut creating = std::pin::pin!(self.create(text).instrument(span));
        loop {
            tokio::select! {
                biased;
                created = creating.as_mut() => return Ok(created),
                // Turns had their time to end; what this one has cost so far can still be written down.
                () = ending.cancelled() => {
                    return Err(Some(close(CloseCode::Restart, "the server restarts; connect again")));
                }
                () = sleep_until(deadline) => {
                    send_error(socket, &too_old()).await.map_err(|_| None)?;
                    return Err(Some(outlived()));
                }
                message = tokio::time::timeout(heartbeat, socket.next()) => beside(socket, message).await?,
            }
        }
    }

    async fn create(&mut self, text: &str) -> Result<Arc<Turn>, ApiError> {
        self.who = self.app.verify(self.presented.as_ref().map(ExposeSecret::expose_secret)).await?;
        let request = CreateResponse::parse(text.as_bytes())?;
        let admitted = self.app.admit(&self.who, text.len())?;
        let call = Call {
            transport: Transport::WebSocket,
            idempotency_key: None,
            is_retry: false,
            digest: Sha256::digest(text.as_bytes()).into(),
            local: self.local.clone(),
            job: None,
        };
        let turn = self.app.engine.create(&self.who, request, call, admitted).await?;
        self.app.engine.viewed(&turn).await?;
        Ok(turn)
    }

    /// Waits until the turn's provider began to answer, but no longer than the connection may be silent, and hears its peer
    /// meanwhile.
    async fn opened(
        &self,
        socket: &mut Socket,
        turn: &Turn,
    ) -> Result<Result<(), ApiError>, Option<CloseFrame>> {
        let heartbeat = self.app.config.server.heartbeat;
        let mut opened = std::pin::pin!(turn.opened(heartbeat));
        loop {
            tokio::select! {
                biased;
                opened = opened.as_mut() => return Ok(opened),
                () = sleep_until(self.deadline) => {
                    send_error(socket, &too_old()).await.map_err(|_| None)?;
                    return Err(Some(outlived()));
                }
                message = tokio::time::timeout(heartbeat, socket.next()) => beside(socket, message).await?,
            }
        }
    }

    /// Sends the turn's events. `true`: it came to its end. Messages that come meanwhile are refused: one turn at a time.
    async fn follow(
        &self,
        socket: &mut Socket,
        viewer: &mut Viewer,
        turn: &Turn,
    ) -> Result<bool, Option<CloseFrame>> {
        let heartbeat = self.app.config.server.heartbeat;
        if let Err(error) = self.opened(socket, turn).await? {
            send_error(socket, &error).await.map_err(|_| None)?;
            return Ok(false);
        }
        loop {
            let mut out = Vec::new();
            let seen = viewer.poll(&mut out);
            let (given, lines) = (Instant::now(), Bytes::from(out));
            if viewer.goes_on_unlogged() {
                socket.feed(Message::Ping(UNLOGGED)).await.map_err(|_| None)?;
            }
            for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                // JSON of ours: it is UTF-8.
                let Ok(text) = Utf8Bytes::try_from(lines.slice_ref(line)) else { continue };
                socket.feed(Message::Text(text)).await.map_err(|_| None)?;
            }
            socket.flush().await.map_err(|_| None)?;
            if given.elapsed() > self.app.config.server.write_patience {
                return Err(Some(close(CloseCode::Again, "read too slowly; resume the response")));
            }
            match seen {
                Seen::End(_) => return Ok(true),
                Seen::Cut(Cut::Draining) => {
                    return Err(Some(close(CloseCode::Restart, "the server restarts; resume the response")));
                }
                Seen::Cut(Cut::LostLease) => {
                    return Err(Some(close(CloseCode::Again, "another process has the response; resume it")));
                }
                Seen::Cut(Cut::Deleted) => {
                    let error = ApiError::not_found("Response", &turn.id.to_string());
                    send_error(socket, &error).await.map_err(|_| None)?;
                    return Ok(false);
                }
                Seen::More => {}
            }
            tokio::select! {
                biased;
                // The turn goes on like any whose viewer has left.
                () = sleep_until(self.deadline) => {
                    send_error(socket, &too_old()).await.map_err(|_| None)?;
                    return Err(Some(outlived()));
                }
                () = viewer.changed() => {}
                message = tokio::time::timeout(heartbeat, socket.next()) => beside(socket, message).await?,
            }
        }
    }

    /// Whether a message that failed names what is remembered: then it is not to be relied on any more, whatever the
    /// reason was (Open Responses, "WebSocket Continuation").
    fn continued_by(&self, text: &str) -> bool {
        #[derive(Deserialize)]
        struct Continuation<'a> {
            #[serde(borrow)]
            previous_response_id: Option<Cow<'a, str>>,
        }
        let Some(local) = &self.local else { return false };
        serde_json::from_str::<Continuation>(text)
            .is_ok_and(|message| message.previous_response_id.is_some_and(|id| id == local.id.to_string()))
    }

    /// What a turn that is not stored leaves to the next one of this connection.
    fn remembered(&self, turn: &Turn) -> Local {
        Local { id: turn.id, items: turn.remembered() }
    }
}
