//! What may stand in `colloquy.toml`: keys, types, ranges. The structs one folder up receive what passes.

use http::HeaderName;
use ipnet::IpNet;

use super::{budgets, features, models, respond, retention};
use crate::config::values;

/// What a value must look like.
pub(super) enum Shape {
    /// Any text but the empty one.
    Text,
    /// Text of a certain form.
    Form(&'static Form),
    /// One of some words.
    Words(&'static [&'static str]),
    /// A whole number between two limits.
    Whole(u64, u64),
    Flag,
    List(&'static Shape),
    Table(&'static [Key]),
    /// Values of one shape under any names.
    Texts(&'static Shape),
    /// Tables by name; the form is the name's.
    Named(&'static Form, &'static [Key]),
    /// An amount of money, as decimal text or a number, with at most six places; passed on in micro-units.
    Money,
    /// One of several tables, each under the word that chooses it; the bare word will do where no key is required.
    Choice(&'static [(&'static str, &'static [Key])]),
    /// Anything, passed on as JSON.
    Any,
}

/// A form of text.
pub(super) struct Form {
    pub expected: &'static str,
    pub fits: fn(&str) -> bool,
    /// Something that fits, for checking a file without the environment its values come from.
    pub stand_in: &'static str,
}

/// A key of a table.
pub(super) struct Key {
    pub name: &'static str,
    pub shape: Shape,
    pub required: bool,
}

pub(super) const fn key(name: &'static str, shape: Shape) -> Key {
    Key { name, shape, required: false }
}

pub(super) const fn required(name: &'static str, shape: Shape) -> Key {
    Key { name, shape, required: true }
}

/// A name of a source, target or route.
pub(super) fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= 64 && text.split('-').all(|part| !part.is_empty() && part.chars().all(inner))
}

// Single hyphens between the parts keep names apart where they become variables: `a--b` would read as label B of A.
pub(super) const NAME: Form = Form {
    expected: "lower-case letters, digits and single hyphens, at most 64",
    fits: is_name,
    stand_in: "name",
};

const ANY_TEXT: Form = Form { expected: "text", fits: |_| true, stand_in: "" };
const HEADER: Form = Form {
    expected: "the name of an HTTP header",
    fits: |text| HeaderName::from_bytes(text.as_bytes()).is_ok(),
    stand_in: "x-header",
};
const POINTER: Form = Form {
    expected: "a JSON pointer such as /data/id (RFC 6901)",
    fits: |text| {
        let escaped = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        text.starts_with('/') && escaped
    },
    stand_in: "/id",
};
const NETWORK: Form = Form {
    expected: "a network such as 10.1.0.0/16",
    fits: |text| text.parse::<IpNet>().is_ok(),
    stand_in: "10.0.0.0/8",
};
pub(super) const ADDRESS: Form = Form {
    expected: "an http or https URL without user, password or fragment",
    fits: |text| {
        values::http_url(text).is_some_and(|url| {
            url.username().is_empty() && url.password().is_none() && url.fragment().is_none()
        })
    },
    stand_in: "https://consumer.invalid/",
};
const HTTPS: Form = Form {
    expected: "an https URL (or http on this machine)",
    fits: |text| {
        values::http_url(text).is_some_and(|url| {
            let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
            url.scheme() == "https" || local
        })
    },
    stand_in: "https://keys.invalid/",
};
const HOST: Form = Form {
    expected: "a host name without scheme or path, with a port only if it is not the usual one",
    fits: |text| {
        let (text, port) = text.split_once(':').unwrap_or((text, "443"));
        let part = |part: &str| {
            !part.is_empty()
                && part.len() <= 63
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let numbered = port.parse::<u16>().is_ok_and(|port| port > 0);
        text.len() <= 253 && text.contains('.') && text.split('.').all(part) && numbered
    },
    stand_in: "host.invalid",
};
const MEDIA_TYPE: Form = Form {
    expected: "a media type such as application/json, or */*",
    fits: |text| {
        let token = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-*".contains(&b))
        };
        text.split_once('/').is_some_and(|(kind, subtype)| token(kind) && token(subtype))
    },
    stand_in: "*/*",
};

pub(super) const SOURCE_KINDS: &[&str] = &[
    "stripe",
    "standard-webhooks",
    "github",
    "espocrm",
    "event-grid",
    "azure-monitor",
    "azure-devops",
    "sailpoint",
    "runpod",
    "hmac",
    "bearer",
    "basic",
];

/// The host passes on no more than this (100 MiB).
const HOST_BODY_LIMIT: u64 = 104_857_600;

pub(super) const SOURCE: &[Key] = &[
    required("kind", Shape::Words(SOURCE_KINDS)),
    key("auth", Shape::Choice(AUTH)),
    key("max_body_bytes", Shape::Whole(1, HOST_BODY_LIMIT)),
    key("max_events", Shape::Whole(1, 1_000_000)),
    key("content_types", Shape::List(&Shape::Form(&MEDIA_TYPE))),
    key("rate_per_minute", Shape::Whole(0, 10_000_000)),
    key("tolerance_seconds", Shape::Whole(1, 86_400)),
    key("key_lifetime_seconds", Shape::Whole(1, 315_360_000)),
    key("retention_days", Shape::Whole(1, 36_500)),
    key("stopped", Shape::Words(&["hold", "refuse"])),
    key("hmac", Shape::Table(HMAC)),
    key("event", Shape::Table(EVENT)),
    key("sailpoint", Shape::Table(SAILPOINT)),
    key("subscriptions", Shape::List(&Shape::Text)),
];

pub(super) const AUTH: &[(&str, &[Key])] = &[
    ("bearer", &[]),
    ("basic", &[]),
    ("header", &[required("name", Shape::Form(&HEADER))]),
    ("query", &[required("name", Shape::Text)]),
    (
        "entra",
        &[
            required("tenant", Shape::Text),
            required("audience", Shape::Text),
            key("role", Shape::Text),
            key("caller", Shape::Text),
            key("jwks_url", Shape::Form(&HTTPS)),
        ],
    ),
];

pub(super) const HMAC: &[Key] = &[
    required("header", Shape::Form(&HEADER)),
    key("algorithm", Shape::Words(&["sha256", "sha512", "sha1"])),
    key("encoding", Shape::Words(&["hex", "base64"])),
    key("prefix", Shape::Form(&ANY_TEXT)),
    key("key_encoding", Shape::Words(&["utf8", "base64", "hex"])),
    key("timestamp_header", Shape::Form(&HEADER)),
    key("signed", Shape::Text),
];

pub(super) const EVENT: &[Key] = &[
    key("key_header", Shape::Form(&HEADER)),
    key("key_pointer", Shape::Form(&POINTER)),
    key("type_header", Shape::Form(&HEADER)),
    key("type_pointer", Shape::Form(&POINTER)),
    key("split_pointer", Shape::Form(&POINTER)),
];

pub(super) const SAILPOINT: &[Key] = &[
    key("output", Shape::Any),
    key("async_output", Shape::Any),
    key("callback_hosts", Shape::List(&Shape::Form(&HOST))),
    key("allow_networks", Shape::List(&Shape::Form(&NETWORK))),
    key("allow_http", Shape::Flag),
];

pub(super) const ROUTE: &[Key] = &[
    key("name", Shape::Form(&NAME)),
    required("source", Shape::Text),
    key("type", Shape::Text),
    required("action", Shape::Words(&["record", "forward", "job", "respond"])),
    key("target", Shape::Text),
    key("job", Shape::Text),
    // From here on only with action = "respond".
    key("instructions", Shape::Text),
    key("input", Shape::Text),
    key("payload_in_instructions", Shape::Flag),
    key("model", Shape::Form(&models::ALIAS_NAME)),
    key("text", Shape::Table(&[key("format", Shape::Any)])),
    key("conversation", Shape::Text),
    key("owner", Shape::Form(&respond::OWNER)),
    key("callback", Shape::Text),
    key("max_output_tokens", Shape::Whole(16, 10_000_000)),
    key("tools", Shape::List(&Shape::Any)),
    key("runs_on", Shape::Words(&["job", "server"])),
    key("time_limit_seconds", Shape::Whole(5, 3_600)),
    key("metadata", Shape::Texts(&Shape::Form(&respond::PAIR))),
];

pub(super) const TARGET: &[Key] = &[
    required("url", Shape::Form(&ADDRESS)),
    key("allow_networks", Shape::List(&Shape::Form(&NETWORK))),
    key("allow_http", Shape::Flag),
    key("prefix", Shape::Flag),
    key("owners", Shape::List(&Shape::Text)),
    key("keys", Shape::List(&Shape::Text)),
];

pub(super) const FILE: &[Key] = &[
    key("sources", Shape::Named(&NAME, SOURCE)),
    key("routes", Shape::List(&Shape::Table(ROUTE))),
    key("targets", Shape::Named(&NAME, TARGET)),
    key("deployments", Shape::Named(&NAME, models::DEPLOYMENT)),
    key("models", Shape::Named(&models::ALIAS_NAME, models::ALIAS)),
    key("budgets", Shape::Table(budgets::BUDGETS)),
    key("retention", Shape::Table(retention::RETENTION)),
    key("features", Shape::Named(&features::NAME, features::FEATURE)),
];
