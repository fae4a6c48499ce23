//! Bearer tokens, basic, a header, a query parameter; and where generic senders keep their events' identity.

use super::support::{code, fixture, post, source, text, try_source};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

#[test]
fn bearer_tokens_are_compared_whole() {
    let bearer = source("kind = \"bearer\"", "token");
    let verdict = |value: &str| code(post("{}").header("authorization", value).verify(&bearer));
    assert_eq!(verdict("Bearer token"), "ok");
    assert_eq!(verdict("bearer  token"), "ok");
    for wrong in [
        "Bearer",
        "Bearer ",
        "token",
        "Bearer tokens",
        "Bearer toke",
        "Bearer Token",
        "Basic token",
        "Bearer token x",
    ] {
        assert_eq!(verdict(wrong), "bad_signature", "{wrong}");
    }
    assert_eq!(code(post("{}").verify(&bearer)), "not_signed");
    let twice = post("{}").header("authorization", "Bearer token").header("authorization", "Bearer token");
    assert_eq!(code(twice.verify(&bearer)), "bad_signature");
    let binary = post("{}").header("authorization", "Bearer t\u{f6}ken");
    assert_eq!(code(binary.verify(&bearer)), "bad_signature");
    assert_eq!(bearer.scheme_name(), "bearer");
}

#[test]
fn basic_is_user_colon_password() {
    let basic = source("kind = \"basic\"", "user:pa:ss");
    let verdict = |text: &str| {
        code(post("{}").header("authorization", &format!("Basic {}", STANDARD.encode(text))).verify(&basic))
    };
    assert_eq!(verdict("user:pa:ss"), "ok");
    assert_eq!(verdict("user:pa"), "bad_signature");
    assert_eq!(verdict("User:pa:ss"), "bad_signature");
    assert_eq!(code(post("{}").header("authorization", "Basic user:pa:ss").verify(&basic)), "bad_signature");
    let errors = try_source("kind = \"basic\"", &[("NEW", "no-colon")]).unwrap_err();
    assert_eq!(errors[0].to_string(), "WEBHOOK_SECRET_SENDER__NEW must be `user:password`");
}

#[test]
fn old_and_new_credentials_are_taken_together() {
    let both = try_source("kind = \"bearer\"", &[("default", "new"), ("OLD", "old")]).unwrap();
    let label = |token: &str| {
        let request = post("{}").header("authorization", &format!("Bearer {token}"));
        request.verify(&both).unwrap().secret_label().map(str::to_owned)
    };
    assert_eq!(label("new").as_deref(), Some("default"));
    assert_eq!(label("old").as_deref(), Some("OLD"));
}

#[test]
fn a_kind_without_signature_may_be_given_another_credential() {
    let header = source("kind = \"runpod\"\nauth.header.name = \"X-Token\"", "secret");
    assert_eq!(code(post("{}").header("x-token", "secret").verify(&header)), "ok");
    assert_eq!(code(post("{}").query("token=secret").verify(&header)), "not_signed");
    assert_eq!(header.scheme_name(), "header");
    let query = source("kind = \"sailpoint\"\nauth.query.name = \"k\"", "a b&c=d");
    assert_eq!(code(post("{}").query("k=a+b%26c%3Dd").verify(&query)), "ok");
}

#[test]
fn a_sender_without_secret_is_refused_at_start() {
    let errors = try_source("kind = \"bearer\"", &[]).unwrap_err();
    assert!(errors[0].to_string().contains("WEBHOOK_SECRET_SENDER"), "{errors:?}");
    assert!(try_source("kind = \"bearer\"", &[("default", " ")]).is_err());
    assert!(try_source("kind = \"bearer\"", &[("default", "x\n")]).is_err());
}

const LOCATED: &str = "event = { key_pointer = \"/id\", type_pointer = \"/type\" }";

#[test]
fn configuration_says_where_key_and_type_stand() {
    let generic = source(&format!("kind = \"bearer\"\n{LOCATED}"), "t");
    let event = post(fixture("generic")).event(&generic);
    assert_eq!((event.key.as_str(), event.event_type.as_str()), ("order-10042", "order.shipped"));
    assert_eq!(&event.payload[..], fixture("generic"));
    assert!(post(r#"{"type":"x"}"#).receive(&generic).unwrap_err().to_string().contains("/id"));
    assert!(post(r#"{"id":""}"#).receive(&generic).is_err());
    assert!(post(r#"{"id":{}}"#).receive(&generic).is_err());
    assert_eq!(
        post(r#"{"id":10000000000000000000000000001}"#).event(&generic).key,
        "10000000000000000000000000001"
    );
}

#[test]
fn headers_may_carry_key_and_type() {
    let table = "kind = \"bearer\"\nevent = { key_header = \"X-Event-Id\", type_header = \"X-Event-Type\" }";
    let generic = source(table, "t");
    let request = || post("{}").header("x-event-id", "e-1").header("x-event-type", "made");
    let event = request().event(&generic);
    assert_eq!((event.key.as_str(), event.event_type.as_str()), ("e-1", "made"));
    assert!(request().header("x-event-id", "e-2").receive(&generic).is_err());
    let nameless = post("{}").header("x-event-id", "");
    assert!(nameless.receive(&generic).unwrap_err().to_string().contains("X-Event-Id"));
    let sent = post("{}").path("made").event(&generic);
    assert!(
        sent.key.starts_with("msg_") && sent.event_type == "made",
        "as `webhooks send` sends it: {sent:?}"
    );
    let nonsense = "kind = \"bearer\"\nevent = { key_header = \"Authorization\" }";
    assert!(
        try_source(nonsense, &[("default", "t")]).unwrap_err()[0].to_string().contains("event.key_header")
    );
}

#[test]
fn one_delivery_may_hold_a_list() {
    let table = "kind = \"basic\"\nevent = { key_pointer = \"/id\", split_pointer = \"/data/events\" }";
    let generic = source(table, "u:p");
    let events = post(r#"{"data":{"events":[{"id":1.0},{"id":"b", "x" : 1e400}]}}"#).events(&generic);
    assert_eq!(events.iter().map(|e| e.key.as_str()).collect::<Vec<_>>(), ["1.0", "b"]);
    assert_eq!(text(&events[1].payload), r#"{"id":"b", "x" : 1e400}"#);
    for body in ["{}", r#"{"data":{"events":{}}}"#, r#"{"data":{"events":[]}}"#, "not json"] {
        assert!(post(body).receive(&generic).is_err(), "{body}");
    }
}

#[test]
fn without_a_key_content_counts_for_a_while() {
    let generic = source("kind = \"bearer\"\ncontent_types = [\"*/*\"]", "t");
    let first = post(&b"\xff"[..]).path("ping").event(&generic);
    assert_eq!(first.key, post(&b"\xff"[..]).path("ping").event(&generic).key);
    assert_ne!(first.key, post(&b"\xfe"[..]).path("ping").event(&generic).key);
    assert_eq!((first.event_type.as_str(), first.json), ("ping", false));
    assert_eq!(first.key_lifetime.as_secs(), 3600);
}

#[test]
fn keys_and_types_fit_their_columns() {
    let generic = source(&format!("kind = \"bearer\"\n{LOCATED}"), "t");
    let long = "k".repeat(301);
    for key in [long.as_str(), r"a\u0000b", r"a\nb"] {
        let event = post(format!(r#"{{"id":"{key}","type":"t\u0000{}"}}"#, "t".repeat(300))).event(&generic);
        assert!(event.key.starts_with("sha256:") && event.key.len() == 71, "{}", event.key);
        assert!(event.event_type.chars().count() == 200 && !event.event_type.contains('\0'));
    }
    assert_eq!(post(format!(r#"{{"id":"{}"}}"#, "k".repeat(300))).event(&generic).key.len(), 300);
}
