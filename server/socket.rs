//! `/v1/responses` over a WebSocket: turns one after the other, each asked for by a `response.create`.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use colloquy::access::{self, Principal};
use colloquy::conversation::combinations::Transport;
use colloquy::conversation::engine::{Call, Local, Turn};
use colloquy::conversation::live::{Cut, Seen, Viewer};
use colloquy::openresponses::{ApiError, CreateResponse, Encoded, ErrorType, Form};
use colloquy::request_id::{self, RequestId};
use colloquy::switches::Feature;
use futures_util::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use tracing::{Instrument, Span};
use warp::reply::Response;

use crate::app::App;
use crate::browser;
use crate::http::refusal;
use crate::responses::form;

/// A browser cannot send headers: its key comes as a subprotocol behind this.
pub const KEY_PROTOCOL: &str = "openai-insecure-api-key.";
/// In a ping, what `: unlogged` says in a stream of server-sent events.
const UNLOGGED: Bytes = Bytes::from_static(b"unlogged");
/// Buffers stay small: an idle connection costs what it holds.
const BUFFER: usize = 2 * 1024;
/// What is ready is written together, so much of it at a time. The buffer is made with the first turn.
const WRITTEN_AT_ONCE: usize = 4 * 1024;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Whether a request asks for a WebSocket on the path that has one.
pub fn is_upgrade(request: &hyper::Request<Incoming>) -> bool {
    let websocket = request
        .headers()
        .get(UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    websocket && request.method() == http::Method::GET && request.uri().path() == "/v1/responses"
}

/// Answers the handshake, and serves the connection behind it.
pub async fn accept(app: Arc<App>, request: hyper::Request<Incoming>) -> Response {
    match handshake(app, request).await {
        Ok(response) => response,
        Err(error) => refusal(&error),
    }
}

async fn handshake(app: Arc<App>, mut request: hyper::Request<Incoming>) -> Result<Response, ApiError> {
    let headers = request.headers();
    if let Some(origin) = headers.get(ORIGIN)
        && !browser::allows(&app.config.server.cors, origin)
    {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            ErrorType::PermissionError,
            "origin_not_allowed",
            "Pages of this origin may not connect. Its operator adds it to CORS_ORIGINS.",
        ));
    }
    let bad = |message: &str| {
        ApiError::new(StatusCode::BAD_REQUEST, ErrorType::InvalidRequestError, "bad_handshake", message)
    };
    if headers.get("sec-websocket-version").is_none_or(|version| version != "13") {
        return Err(bad("Sec-WebSocket-Version must be 13.")
            .header(http::header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or_else(|| bad("Sec-WebSocket-Key is missing."))?;
    let accept =
        HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|_| bad("Sec-WebSocket-Key."))?;
    let (token, protocol) = protocols(headers);
    let request_id = request_id::of(headers);
    let presented = access::presented(headers).or(token).map(SecretString::from);
    let who = app.verify(presented.as_ref().map(ExposeSecret::expose_secret)).await?;
    app.engine.permit_feature(Feature::Websocket).await?;
    let form = form(headers, Encoded::Json);

    let mut response = Response::new("".into());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol {
        answer.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let tasks = app.tasks.clone();
    tasks.spawn("websocket", async move {
        match upgrade.await {
            Ok(upgraded) => serve(app, who, presented, form, upgraded, request_id).await,
            Err(error) => tracing::debug!(code = "connection.broken", %error, "an upgrade did not happen"),
        }
    });
    Ok(response)
}

/// The key among the offered subprotocols, and the one to choose: browsers fail a connection that chooses none.
fn protocols(headers: &HeaderMap) -> (Option<&str>, Option<HeaderValue>) {
    let offered = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(',').map(str::trim));
    let (mut token, mut chosen) = (None, None);
    for protocol in offered {
        match protocol.strip_prefix(KEY_PROTOCOL) {
            Some(key) => token = Some(key),
            None if chosen.is_none() => chosen = HeaderValue::from_str(protocol).ok(),
            None => {}
        }
    }
    (token, chosen)
}

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

/// How one wait on a connection ended.
enum Event {
    Text(String),
    /// Anything that shows life, or nothing worth an answer.
    Alive,
    Silence,
    TooOld,
    Stopping,
    Gone,
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

    /// Sends the turn's events. `true`: it came to its end. Messages that come meanwhile are refused: one turn at a time.
    async fn follow(
        &self,
        socket: &mut Socket,
        viewer: &mut Viewer,
        turn: &Turn,
    ) -> Result<bool, Option<CloseFrame>> {
        if let Err(error) = turn.opened(self.app.config.server.heartbeat).await {
            send_error(socket, &error).await.map_err(|_| None)?;
            return Ok(false);
        }
        let heartbeat = self.app.config.server.heartbeat;
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

type Received = Option<Result<Message, tokio_tungstenite::tungstenite::Error>>;

/// What came, or came not, while a turn is under way.
async fn beside(socket: &mut Socket, message: Result<Received, Elapsed>) -> Result<(), Option<CloseFrame>> {
    match message.map(event) {
        Err(_) => socket.send(Message::Ping(Bytes::new())).await.map_err(|_| None),
        Ok(Event::Gone) => Err(None),
        Ok(Event::Text(_)) => send_error(socket, &in_flight()).await.map_err(|_| None),
        Ok(_) => Ok(()),
    }
}

fn event(message: Received) -> Event {
    match message {
        Some(Ok(Message::Text(text))) => Event::Text(text.to_string()),
        Some(Ok(Message::Close(_)) | Err(_)) | None => Event::Gone,
        // Pongs; and binary messages, which the protocol has none of.
        Some(Ok(_)) => Event::Alive,
    }
}

async fn send_error(
    socket: &mut Socket,
    error: &ApiError,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    let message = json!({ "type": "error", "status": error.status.as_u16(), "error": error.payload() });
    socket.send(Message::text(message.to_string())).await
}

fn close(code: CloseCode, reason: &'static str) -> CloseFrame {
    CloseFrame { code, reason: reason.into() }
}

fn outlived() -> CloseFrame {
    close(CloseCode::Policy, "websocket_connection_limit_reached")
}

fn too_old() -> ApiError {
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
