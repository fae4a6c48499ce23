use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::support::{code, fixture, post, source, text, try_source};
use crate::webhooks::Source;

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn crm() -> Source {
    source("kind = \"espocrm\"", KEY)
}

/// `Signature` and `X-Signature` of a body.
fn signatures(body: &str) -> (String, String) {
    let signed = crm().sign(body.as_bytes(), jiff::Timestamp::UNIX_EPOCH, None).unwrap();
    let value = |wanted: &str| signed.headers.iter().find(|(name, _)| name == wanted).unwrap().1.clone();
    (value("signature"), value("x-signature"))
}

#[test]
fn both_forms_are_taken_alone_and_together() {
    let body = r#"[{"id":"a1"}]"#;
    let (new, legacy) = signatures(body);
    let verdict = |headers: &[(&str, &str)]| {
        let request = headers.iter().fold(post(body), |post, (name, value)| post.header(name, value));
        code(request.verify(&crm()))
    };
    assert_eq!(verdict(&[("Signature", &new)]), "ok");
    assert_eq!(verdict(&[("X-Signature", &legacy)]), "ok");
    assert_eq!(verdict(&[("Signature", &new), ("X-Signature", &legacy)]), "ok");
    // The forms do not stand in for each other, and a wrong new one is not saved by the old.
    assert_eq!(verdict(&[("Signature", &legacy)]), "bad_signature");
    assert_eq!(verdict(&[("X-Signature", &new)]), "bad_signature");
    let (wrong, _) = signatures("[]");
    assert_eq!(verdict(&[("Signature", &wrong), ("X-Signature", &legacy)]), "bad_signature");
    assert_eq!(verdict(&[("Signature", &new), ("signature", &new)]), "bad_signature");
    assert_eq!(verdict(&[]), "not_signed");
}

#[test]
fn what_is_not_an_id_a_colon_and_a_mac_is_refused() {
    let body = "[]";
    let (new, _) = signatures(body);
    let inner = String::from_utf8(STANDARD.decode(&new).unwrap()).unwrap();
    let (id, mac) = inner.split_once(':').unwrap();
    let forms = [
        inner.clone(),
        STANDARD.encode(mac),
        STANDARD.encode(format!(":{mac}")),
        STANDARD.encode(format!("{id}:{}", mac.to_uppercase())),
        STANDARD.encode(format!("{id}:{}", &mac[..62])),
        STANDARD.encode(format!("{id}::{mac}")),
        STANDARD.encode(format!("{id}\n:{mac}")),
        new.trim_end_matches('=').to_owned() + "A",
        String::new(),
    ];
    for form in forms {
        assert_eq!(code(post(body).header("signature", &form).verify(&crm())), "bad_signature", "{form}");
    }
}

#[test]
fn every_webhook_has_a_secret_and_each_is_reported_by_its_label() {
    let crm =
        try_source("kind = \"espocrm\"", &[("66f0c1d2a1b2c3d4e", KEY), ("66f0c1d2a1b2c3d4f", "another")])
            .unwrap();
    let verified = post("[]").signed_by(&crm).verify(&crm).unwrap();
    assert_eq!(verified.secret_label(), Some("66f0c1d2a1b2c3d4e"));
    let other = try_source("kind = \"espocrm\"", &[("66f0c1d2a1b2c3d4f", "another")]).unwrap();
    let verified = post("[]").signed_by(&other).verify(&crm).unwrap();
    assert_eq!(verified.secret_label(), Some("66f0c1d2a1b2c3d4f"));
    assert_eq!(verified.signed_at(), None);
}

#[test]
fn every_record_is_an_event_in_its_own_bytes() {
    let events = post(fixture("espocrm")).path("feedback.create").events(&crm());
    assert_eq!(events.len(), 2);
    assert_eq!(events[1].position, 1);
    assert_eq!(events[0].event_type, "feedback.create");
    assert_eq!(events[0].subject.as_deref(), Some("66f0c1d2a1b2c3d4e"));
    assert!(text(&events[0].payload).contains(r"Acme \/ Co"));
    assert!(text(&events[1].payload).contains(r"M\u00fcller"));
    assert!(events.iter().all(|event| event.key.starts_with("feedback.create:content:")));
}

#[test]
fn more_than_fifty_records_are_taken_up_to_the_limit() {
    let records = |n: usize| {
        format!("[{}]", (0..n).map(|n| format!("{{\"id\":\"{n}\"}}")).collect::<Vec<_>>().join(","))
    };
    assert_eq!(post(records(50)).events(&crm()).len(), 50);
    assert_eq!(post(records(51)).events(&crm()).len(), 51);
    assert_eq!(post(records(5_000)).events(&crm()).len(), 5_000);
    let error = post(records(5_001)).receive(&crm()).unwrap_err();
    assert!(error.to_string().contains("sources.sender.max_events"), "{error}");
    let small = source("kind = \"espocrm\"\nmax_events = 2", KEY);
    assert!(post(records(3)).receive(&small).is_err());
}

#[test]
fn equal_records_of_one_delivery_are_events_of_their_own_and_a_retry_finds_the_same_keys() {
    let body = r#"[{"id":"a","v":1},{"id":"a","v":2},{"id":"a","v":1}]"#;
    let keys = || post(body).path("a.update").events(&crm()).into_iter().map(|e| e.key).collect::<Vec<_>>();
    let mut unique = keys();
    assert_eq!(unique, keys());
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), 3);
    // The same record under another event is another event.
    assert_ne!(keys()[0], post(body).path("a.create").events(&crm())[0].key);
}

#[test]
fn the_key_outlives_every_retry() {
    let retries = std::time::Duration::from_secs(4 * 600);
    let lifetime = post("[{}]").event(&crm()).key_lifetime;
    assert!(lifetime >= retries + std::time::Duration::from_secs(600), "{lifetime:?}");
    let set = source("kind = \"espocrm\"\nkey_lifetime_seconds = 7200", KEY);
    assert_eq!(post("[{}]").event(&set).key_lifetime.as_secs(), 7200);
}

#[test]
fn anything_but_records_is_malformed() {
    for body in ["{}", "[]", "[1]", "[{}", "[{},]", "null", "[[]]", "x"] {
        assert!(post(body).receive(&crm()).is_err(), "{body}");
    }
}

#[test]
fn trouble_is_never_answered_with_what_makes_it_give_up() {
    assert_eq!(crm().busy_status().as_u16(), 503);
    assert_eq!(post("[{}]").kept(&crm()).reply.status.as_u16(), 200);
}
