use http::{HeaderMap, Method};

use super::support::{code, every_kind, fixture, post, source, text};
use crate::webhooks::{IncomingEvent, Malformed, Problem, ProblemKind, Source};

fn grid() -> Source {
    source("kind = \"event-grid\"", "grid-secret")
}

fn one(body: Vec<u8>, content_type: &str) -> IncomingEvent {
    post(body).header("content-type", content_type).event(&grid())
}

const STRUCTURED: &str = "application/cloudevents+json; charset=utf-8";
const BATCH: &str = "application/cloudevents-batch+json";

#[test]
fn the_event_schema_is_an_array_of_events() {
    let events = post(fixture("event-grid")).events(&grid());
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].event_type, "Microsoft.KeyVault.SecretNearExpiry");
    assert_eq!(events[0].subject.as_deref(), Some("colloquy-stripe-webhook"));
    assert!(events[0].key.ends_with("/vaults/sample-kv|0f4b1d9e-6d1f-4c52-9a53-5a7d5d8f0001"));
    assert!(text(&events[0].payload).contains("\"ObjectName \""));
}

#[test]
fn a_batch_may_hold_thousands() {
    let event =
        |n: usize| format!("{{\"id\":\"{n}\",\"topic\":\"t\",\"eventType\":\"e\",\"subject\":\"s\"}}");
    let batch = format!("[{}]", (0..5_000).map(event).collect::<Vec<_>>().join(",\n "));
    let events = post(batch).events(&grid());
    assert_eq!(events.len(), 5_000);
    assert_eq!(events[4_999].key, "t|4999");
    assert_eq!(&events[7].payload[..], event(7).as_bytes());
}

#[test]
fn cloud_events_come_structured_in_batches_and_in_headers() {
    let body = fixture("cloud-event");
    let structured = one(body.clone(), STRUCTURED);
    assert!(structured.key.ends_with("/vaults/sample-kv|9aeb0fdf-c01e-0131-0922-9eb54906e209"));
    assert_eq!(structured.event_type, "Microsoft.KeyVault.SecretNearExpiry");
    assert_eq!(structured.subject.as_deref(), Some("colloquy-stripe-webhook"));
    // Event Grid itself may call the same thing plain JSON.
    assert_eq!(one(body.clone(), "application/json").key, structured.key);
    let event = text(&body).trim();
    let second = event.replace("9aeb0fdf", "00000000");
    let batch = format!("[{event},{second}]");
    let events = post(batch).header("content-type", BATCH).events(&grid());
    assert_eq!(events.len(), 2);
    assert_eq!(events[0].key, structured.key);
    assert_ne!(events[1].key, structured.key);
    let binary = post(r#"{"VaultName":"sample-kv"}"#)
        .header("ce-specversion", "1.0")
        .header("ce-id", "9aeb0fdf-c01e-0131-0922-9eb54906e209")
        .header("ce-source", structured.key.split_once('|').unwrap().0)
        .header("ce-type", "Microsoft.KeyVault.SecretNearExpiry")
        .header("ce-subject", "M%C3%BCller")
        .event(&grid());
    assert_eq!(binary.key, structured.key);
    assert_eq!(binary.event_type, structured.event_type);
    assert_eq!(binary.subject.as_deref(), Some("Müller"));
    assert_eq!(text(&binary.payload), r#"{"VaultName":"sample-kv"}"#);
}

#[test]
fn a_binary_cloud_event_needs_its_attributes_once() {
    let attributes = [("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];
    let with = |left_out: &str| {
        let all = attributes.iter().filter(|(name, _)| *name != left_out);
        all.fold(post("{}").header("ce-specversion", "1.0"), |post, (name, value)| post.header(name, value))
    };
    for (name, _) in attributes {
        assert!(with(name).receive(&grid()).unwrap_err().to_string().contains(name));
    }
    assert!(with("").header("ce-id", "2").receive(&grid()).unwrap_err().to_string().contains("ce-id"));
    assert_eq!(with("").event(&grid()).key, "/s|1");
}

#[test]
fn ids_may_repeat_in_a_batch_and_differ_in_content() {
    let batch = r#"[{"id":"1","topic":"t","eventType":"e","data":1},{"id":"1","topic":"t","eventType":"e","data":2}]"#;
    let events = post(batch).events(&grid());
    assert_eq!(events[0].key, events[1].key);
    assert_ne!(events[0].fingerprint, events[1].fingerprint);
}

#[test]
fn a_subscription_is_validated_in_the_answer() {
    let request = || post(fixture("event-grid-validation")).header("aeg-subscription-name", "PROBE");
    let reply = request().answered(&grid());
    // 202 would be taken for a failure.
    assert_eq!(reply.status.as_u16(), 200);
    assert_eq!(text(&reply.body), r#"{"validationResponse":"512d38b6-c7b8-40c8-89fe-f46f9e9622b6"}"#);
    let probe = source("kind = \"event-grid\"\nsubscriptions = [\"probe\"]", "s");
    assert_eq!(request().answered(&probe).status.as_u16(), 200);
    let other = source("kind = \"event-grid\"\nsubscriptions = [\"other\"]", "s");
    let refused = request().receive(&other).unwrap_err();
    assert_eq!(refused, Malformed::UnknownSubscription);
    assert_eq!(Problem::from(&refused).kind, ProblemKind::UnknownSubscription);
    // A handshake has to prove itself like everything else.
    let unsigned = post(fixture("event-grid-validation")).header("aeg-event-type", "SubscriptionValidation");
    assert_eq!(code(unsigned.verify(&grid())), "not_signed");
}

#[test]
fn a_malformed_validation_is_refused() {
    let header = |body: &'static str| {
        let request = post(body)
            .header("aeg-event-type", "SubscriptionValidation")
            .header("x-webhook-secret", "grid-secret");
        grid().receive(&request.verify(&grid()).unwrap())
    };
    let validation = r#"[{"eventType":"Microsoft.EventGrid.SubscriptionValidationEvent","data":{}}]"#;
    for body in ["[]", "{}", "[{},{}]", r#"[{"eventType":"other"}]"#, validation] {
        assert!(header(body).is_err(), "{body}");
    }
}

#[test]
fn the_cloud_events_handshake_is_answered_in_headers() {
    let asking = |origin: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("webhook-request-origin", origin.parse().unwrap());
        headers.insert("webhook-request-rate", "120".parse().unwrap());
        headers.insert("webhook-request-callback", "http://169.254.169.254/".parse().unwrap());
        headers
    };
    let answer = |source: &Source, headers: &HeaderMap| source.open(&Method::OPTIONS, headers, None);
    let reply = answer(&grid(), &asking("eventgrid.azure.net")).unwrap().unwrap();
    assert_eq!(reply.status.as_u16(), 200);
    let value = |name: &str| reply.headers.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
    assert_eq!(value("webhook-allowed-origin"), Some("eventgrid.azure.net"));
    assert_eq!(value("webhook-allowed-rate"), Some("*"));
    assert!(value("allow").unwrap().contains("POST"));
    let limited = source("kind = \"event-grid\"\nrate_per_minute = 60", "s");
    let reply = answer(&limited, &asking("eventgrid.azure.net")).unwrap().unwrap();
    assert!(reply.headers.contains(&("webhook-allowed-rate", "60".to_owned())));
    // An origin that could not be repeated in a header gets no consent.
    let reply = answer(&grid(), &asking(&"x".repeat(300))).unwrap().unwrap();
    assert!(!reply.headers.iter().any(|(name, _)| *name == "webhook-allowed-origin"));
    let problem = answer(&grid(), &HeaderMap::new()).unwrap_err();
    assert_eq!((problem.kind, problem.allow), (ProblemKind::MethodNotAllowed, Some("POST, OPTIONS")));
    for other in every_kind() {
        let handshake = answer(&other, &asking("eventgrid.azure.net"));
        assert_eq!(handshake.is_ok(), other.methods().contains("OPTIONS"), "{other:?}");
    }
}

#[test]
fn credentials_are_never_kept_and_busy_is_503() {
    let named = source("kind = \"event-grid\"\nauth.header.name = \"aeg-my-secret\"", "grid-secret");
    let kept = post(fixture("event-grid")).header("x-other-secret", "also secret").kept(&named);
    let all = format!("{:?}", kept.headers);
    assert!(!all.contains("grid-secret") && !all.contains("also secret"), "{all}");
    assert!(all.contains("aeg-my-secret") && all.contains("Notification"), "{all}");
    assert_eq!(kept.reply.status.as_u16(), 200);
    assert_eq!(grid().busy_status().as_u16(), 503);
}

#[test]
fn events_without_an_id_are_named_by_their_content() {
    let event = post(r#"[{"my":"schema"}]"#).path("custom").event(&grid());
    assert!(event.key.starts_with("custom:content:"));
    assert_eq!(event.event_type, "custom");
}
