use super::support::{code, fixture, post, source, text};
use crate::webhooks::Source;

fn github() -> Source {
    source("kind = \"github\"", "It's a Secret to Everybody")
}

const PUBLISHED: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

#[test]
fn only_the_canonical_form_is_taken() {
    let digits = &PUBLISHED[7..];
    let wrong = [
        digits.to_owned(),
        format!("sha1={digits}"),
        format!("SHA256={digits}"),
        format!("sha256={}", digits.to_uppercase()),
        format!("sha256={}", &digits[1..]),
        format!("sha256={digits}0"),
        format!("sha256= {digits}"),
        format!("sha256={digits},sha256={digits}"),
        "sha256=".to_owned(),
    ];
    for value in wrong {
        let request = post("Hello, World!").header("x-hub-signature-256", &value);
        assert_eq!(code(request.verify(&github())), "bad_signature", "{value}");
    }
    let request = post("Hello, World!").header("X-HUB-signature-256", PUBLISHED);
    assert_eq!(code(request.clone().verify(&github())), "ok");
    let twice = request.header("x-hub-signature-256", PUBLISHED);
    assert_eq!(code(twice.verify(&github())), "bad_signature");
}

#[test]
fn the_delivery_header_names_the_event_and_the_event_header_its_type() {
    let delivery = |body: Vec<u8>, event: &str| {
        let request = post(body).signed_by(&github());
        let mut headers = request.0.headers.clone();
        headers.insert("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958".parse().unwrap());
        headers.insert("x-github-event", event.parse().unwrap());
        let verified =
            super::support::Post(crate::webhooks::Delivery { headers, ..request.0 }).verify(&github());
        let crate::webhooks::Outcome::Keep(kept) = github().receive(&verified.unwrap()).unwrap() else {
            panic!("a delivery is no handshake")
        };
        let stored = crate::webhooks::Stored { headers: &kept.headers, body: &kept.body, event_path: None };
        github().split(stored).unwrap().remove(0)
    };
    let push = delivery(fixture("github"), "push");
    assert_eq!(push.key, "72d3162e-cc78-11e3-81ab-4c9367dc0958");
    assert_eq!(push.event_type, "push");
    assert_eq!(push.subject.as_deref(), Some("example/widgets"));
    let opened = delivery(br#"{"action":"opened","repository":{"full_name":"a/b"}}"#.to_vec(), "issues");
    assert_eq!(opened.event_type, "issues.opened");
    assert_eq!(opened.key, push.key);
    assert_ne!(opened.fingerprint, push.fingerprint);
}

#[test]
fn a_form_holds_the_same_event() {
    let json = fixture("github");
    let form = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("payload", text(&json))
        .append_pair("other", "1")
        .finish();
    let event = post(form)
        .header("content-type", "application/x-www-form-urlencoded; charset=utf-8")
        .event(&github());
    assert_eq!(&event.payload[..], json);
    assert!(event.json);
    for broken in ["other=1", "payload=%7B%7D&payload=%7B%7D"] {
        let request = post(broken).header("content-type", "application/x-www-form-urlencoded");
        assert!(request.receive(&github()).is_err(), "{broken}");
    }
}

#[test]
fn without_a_delivery_header_the_content_names_it_for_a_while() {
    let request = post("{\"a\":1}").signed_by(&github());
    let mut headers = request.0.headers.clone();
    headers.remove("x-github-delivery");
    let verified = super::support::Post(crate::webhooks::Delivery { headers, ..request.0 }).verify(&github());
    let crate::webhooks::Outcome::Keep(kept) = github().receive(&verified.unwrap()).unwrap() else {
        panic!("a delivery is no handshake")
    };
    let stored = crate::webhooks::Stored { headers: &kept.headers, body: &kept.body, event_path: None };
    let event = github().split(stored).unwrap().remove(0);
    assert!(event.key.starts_with("ping:content:"), "{}", event.key);
    assert_eq!(event.key_lifetime.as_secs(), 3600);
}

#[test]
fn an_ambiguous_delivery_header_is_malformed() {
    let request = post("{}").signed_by(&github()).header("x-github-delivery", "another");
    let verified = request.verify(&github()).unwrap();
    assert!(github().receive(&verified).unwrap_err().to_string().contains("x-github-delivery"));
}

#[test]
fn the_answer_is_as_documented() {
    let kept = post(fixture("github")).kept(&github());
    assert_eq!(kept.reply.status.as_u16(), 202);
    assert_eq!(github().busy_status().as_u16(), 429);
    assert_eq!(github().limits().max_body_bytes, 25 * 1024 * 1024);
}
