//! Limits of the conversation server.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::console::ConsoleConfig;
use super::host::AppEnvironment;
use super::reader::{Reader, Setting};

const PORT: Setting =
    Setting::new("PORT", "port", "Port the conversation server listens on. App Service sets it.")
        .default("8080");
const BIND: Setting = Setting::new(
    "BIND_ADDRESS",
    "IP address",
    "Address the conversation server listens on. Unset: 127.0.0.1 with APP_ENV=dev, else 0.0.0.0.",
);
const CORS: Setting = Setting::new(
    "CORS_ORIGINS",
    "origins, separated by commas, or *",
    "Browser origins that may call the conversation server, over HTTP and WebSocket, such as https://chat.example.com. \
     * is refused with APP_ENV=production. Unset: none.",
);
const BODY: Setting = Setting::new(
    "REQUEST_BODY_MAX",
    "bytes",
    "Largest body of a request to the conversation server, and largest WebSocket message. Images come inside it.",
)
.default("33554432");
const BODY_TIMEOUT: Setting =
    Setting::new("REQUEST_BODY_TIMEOUT", "time", "How long a request's body may take to arrive.")
        .default("60s");
const UNREAD: Setting = Setting::new(
    "UNREAD_BODY_MAX",
    "bytes",
    "How much of a body that nobody wanted is read after its request was answered, so that the connection can be used \
     again. One with a longer rest is closed, and the answer says so.",
)
.default("65536");
const UNREAD_TIMEOUT: Setting = Setting::new(
    "UNREAD_BODY_TIMEOUT",
    "time",
    "How long such a rest may take to arrive; the answer waits for it.",
)
.default("100ms");
const HEAD_MAX: Setting =
    Setting::new("REQUEST_HEAD_MAX", "bytes", "Largest head (request line and headers) of a request.")
        .default("32768");
const HEAD_TIMEOUT: Setting = Setting::new(
    "REQUEST_HEAD_TIMEOUT",
    "time",
    "How long a request's head may take to arrive, idle time on a kept connection included.",
)
.default("75s");
const CONNECTIONS: Setting = Setting::new(
    "CONNECTION_LIMIT",
    "connections",
    "Most connections at once; more are answered 503. 0: what the limit of open files leaves after a reserve.",
)
.default("0");
const HEARTBEAT: Setting = Setting::new(
    "HEARTBEAT",
    "time, at most 30s",
    "Longest silence on a stream before a comment (SSE) or ping (WebSocket) is sent.",
)
.default("15s");
const KEEP_ALIVE: Setting = Setting::new(
    "JSON_KEEP_ALIVE",
    "time",
    "After how long an answer without stream is begun with spaces, one every HEARTBEAT: front ends cut silence at 230 s.",
)
.default("100s");
const DRAIN: Setting = Setting::new(
    "DRAIN",
    "time",
    "How long turns may go on after the process was told to stop; then they are handed over to another process.",
)
.default("25s");
const GRACE: Setting = Setting::new(
    "DISCONNECT_GRACE",
    "time",
    "How long a turn whose last viewer left goes on before it is cancelled, where on_disconnect is cancel.",
)
.default("30s");
const UNWATCHED: Setting = Setting::new(
    "UNWATCHED_TURNS_MAX",
    "turns",
    "Most turns of one process that go on with nobody watching. A background turn counts from its start; beyond the limit \
     it is refused with 429, and another turn with on_disconnect=continue is cancelled like the rest, after \
     DISCONNECT_GRACE.",
)
.default("200");
const UNWATCHED_OF_OWNER: Setting = Setting::new(
    "UNWATCHED_TURNS_PER_OWNER_MAX",
    "turns",
    "The same for each owner: whoever asks for the turns and pays. Background turns count in all processes together, also \
     while they wait for their provider; other turns count in the process that runs them. Turns of events do not count.",
)
.default("100");
const TURNS: Setting =
    Setting::new("TURNS_MAX", "turns", "Most turns in flight in one process; more are answered 503.")
        .default("5000");
const LEASE: Setting = Setting::new(
    "TURN_LEASE",
    "time",
    "How long a process holds a turn without renewing. A turn of a dead process is taken over after this.",
)
.default("30s");
const BACKGROUND: Setting = Setting::new(
    "BACKGROUND_MAX_WAIT",
    "time",
    "How long a background response with a callback waits for a provider that is out, tried again after RETRY_BASE and \
     ever longer up to OUTAGE_RETRY. Then it fails. 0: it fails at once, as all others do.",
)
.default("1h");
const APPEND: Setting = Setting::new(
    "LOG_PATIENCE",
    "time",
    "How long a stream waits for its log. After that it goes on live, and cannot be resumed until the log has caught up.",
)
.default("1s");
const WRITE: Setting = Setting::new(
    "WRITE_PATIENCE",
    "time",
    "How long a peer may take for what is written to it. Then its connection is closed; a viewer resumes on another.",
)
.default("60s");
const SEND_BUFFER: Setting = Setting::new(
    "SEND_BUFFER",
    "bytes",
    "What the system keeps of a connection's output until its peer takes it; Linux doubles it. Who reads nothing costs no \
     more.",
)
.default("65536");
const SOCKET_LIFE: Setting =
    Setting::new("WEBSOCKET_LIFETIME", "time", "How long a WebSocket may live.").default("60m");
const SOCKET_CONTEXT: Setting = Setting::new(
    "WEBSOCKET_CONTEXT_MAX",
    "bytes",
    "Most that one WebSocket remembers of turns with store: false, which nothing else does.",
)
.default("16777216");
const SHOWN: Setting = Setting::new(
    "TURN_KEPT",
    "time",
    "How long a finished turn's stream stays in memory for viewers that come back; later ones read it from the database.",
)
.default("30s");

pub(super) const SETTINGS: &[Setting] = &[
    PORT,
    BIND,
    CORS,
    BODY,
    BODY_TIMEOUT,
    UNREAD,
    UNREAD_TIMEOUT,
    HEAD_MAX,
    HEAD_TIMEOUT,
    CONNECTIONS,
    HEARTBEAT,
    KEEP_ALIVE,
    DRAIN,
    GRACE,
    UNWATCHED,
    UNWATCHED_OF_OWNER,
    TURNS,
    LEASE,
    BACKGROUND,
    APPEND,
    WRITE,
    SEND_BUFFER,
    SOCKET_LIFE,
    SOCKET_CONTEXT,
    SHOWN,
];

/// Which browser origins may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    Any,
    These(Vec<String>),
}

/// Limits and addresses of the conversation server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    pub port: u16,
    pub bind: IpAddr,
    pub cors: Origins,
    pub console: ConsoleConfig,
    pub body_max: usize,
    pub body_timeout: Duration,
    pub unread_max: usize,
    pub unread_timeout: Duration,
    pub head_max: usize,
    pub head_timeout: Duration,
    /// `None`: derived from the limit of open files.
    pub connections: Option<usize>,
    /// At most 30 s.
    pub heartbeat: Duration,
    pub json_keep_alive: Duration,
    pub drain: Duration,
    pub disconnect_grace: Duration,
    pub unwatched_max: usize,
    pub unwatched_of_owner_max: usize,
    pub turns_max: usize,
    pub lease: Duration,
    /// How long a background turn with a callback waits for its provider.
    pub background_wait: Duration,
    pub log_patience: Duration,
    pub write_patience: Duration,
    pub send_buffer: u32,
    pub socket_lifetime: Duration,
    pub socket_context_max: usize,
    pub kept: Duration,
}

impl ServerConfig {
    pub(super) fn read(reader: &Reader<'_>, environment: AppEnvironment) -> Self {
        let bind = reader.optional(&BIND, "an IP address", |text| text.parse().ok());
        let heartbeat = reader.positive_duration(&HEARTBEAT);
        if heartbeat > Duration::from_secs(30) {
            reader.mistake(HEARTBEAT.name, "is longer than 30s; proxies cut silent connections");
        }
        let whole =
            |setting, least, most| usize::try_from(reader.number(setting, least, most)).unwrap_or(usize::MAX);
        Self {
            port: u16::try_from(reader.number(&PORT, 0, 65_535)).unwrap_or_default(),
            bind: bind.unwrap_or(if environment.is_dev() {
                Ipv4Addr::LOCALHOST.into()
            } else {
                Ipv4Addr::UNSPECIFIED.into()
            }),
            cors: cors(reader, environment),
            console: ConsoleConfig::read(reader, environment),
            body_max: whole(&BODY, 1_024, 1 << 30),
            body_timeout: reader.positive_duration(&BODY_TIMEOUT),
            unread_max: whole(&UNREAD, 0, 1 << 30),
            unread_timeout: reader.duration(&UNREAD_TIMEOUT),
            head_max: whole(&HEAD_MAX, 8_192, 1 << 20),
            head_timeout: reader.positive_duration(&HEAD_TIMEOUT),
            connections: Some(whole(&CONNECTIONS, 0, 10_000_000)).filter(|limit| *limit > 0),
            heartbeat,
            json_keep_alive: reader.positive_duration(&KEEP_ALIVE),
            drain: reader.duration(&DRAIN),
            disconnect_grace: reader.duration(&GRACE),
            unwatched_max: whole(&UNWATCHED, 0, 1_000_000),
            unwatched_of_owner_max: whole(&UNWATCHED_OF_OWNER, 0, 1_000_000),
            turns_max: whole(&TURNS, 1, 1_000_000),
            lease: reader.positive_duration(&LEASE),
            background_wait: reader.duration(&BACKGROUND),
            log_patience: reader.positive_duration(&APPEND),
            write_patience: reader.positive_duration(&WRITE),
            send_buffer: u32::try_from(reader.number(&SEND_BUFFER, 4_096, 1 << 26)).unwrap_or_default(),
            socket_lifetime: reader.positive_duration(&SOCKET_LIFE),
            socket_context_max: whole(&SOCKET_CONTEXT, 0, 1 << 30),
            kept: reader.duration(&SHOWN),
        }
    }
}

fn cors(reader: &Reader<'_>, environment: AppEnvironment) -> Origins {
    let list = reader.text(&CORS).unwrap_or_default();
    let mut origins = Vec::new();
    for origin in
        list.split(',').map(|origin| origin.trim().trim_end_matches('/')).filter(|origin| !origin.is_empty())
    {
        if origin == "*" {
            if environment == AppEnvironment::Production {
                reader.mistake(CORS.name, "* is refused with APP_ENV=production; name the origins");
            }
            return Origins::Any;
        }
        let fits = url::Url::parse(origin).is_ok_and(|url| url.origin().ascii_serialization() == origin);
        if !fits {
            reader.mistake(CORS.name, "expected origins such as https://chat.example.com, without a path");
        }
        origins.push(origin.to_owned());
    }
    Origins::These(origins)
}

impl Default for ServerConfig {
    /// What an empty environment gives.
    fn default() -> Self {
        Self::read(&Reader::new(&std::collections::BTreeMap::new()), AppEnvironment::Dev)
    }
}
