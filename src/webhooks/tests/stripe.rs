use super::support::{NOW, code, fixture, post, source, text, try_source};
use crate::webhooks::{Source, VerifyError};

const SECRET: &str = "whsec_test_secret";

fn stripe() -> Source {
    source("kind = \"stripe\"", SECRET)
}

fn signature(body: &[u8], at: i64, secret: &str) -> String {
    let signed = source("kind = \"stripe\"", secret)
        .sign(body, jiff::Timestamp::from_second(at).unwrap(), None)
        .unwrap();
    signed.headers.into_iter().find(|(name, _)| name == "stripe-signature").unwrap().1
}

#[test]
fn the_window_is_inclusive_and_counts_both_ways() {
    let body = fixture("stripe");
    for (off, expected) in [(0, "ok"), (300, "ok"), (-300, "ok"), (301, "stale"), (-301, "stale")] {
        let request =
            post(body.clone()).header("stripe-signature", &signature(&body, NOW, SECRET)).at(NOW + off);
        assert_eq!(code(request.verify(&stripe())), expected, "{off}");
    }
}

#[test]
fn the_window_is_a_setting() {
    let body = fixture("stripe");
    let patient = source("kind = \"stripe\"\ntolerance_seconds = 600", SECRET);
    let signed = signature(&body, NOW, SECRET);
    let at = |off| post(body.clone()).header("stripe-signature", &signed).at(NOW + off);
    assert_eq!(code(at(600).verify(&patient)), "ok");
    assert_eq!(
        at(601).verify(&patient).unwrap_err(),
        VerifyError::Stale { off_by_seconds: 601, tolerance_seconds: 600 }
    );
}

#[test]
fn a_wrong_signature_is_wrong_before_it_is_stale() {
    let request = post("{}").header("stripe-signature", &signature(b"[]", NOW, SECRET)).at(NOW + 5000);
    assert_eq!(code(request.verify(&stripe())), "bad_signature");
}

#[test]
fn the_signed_time_and_the_matching_secret_are_reported() {
    let both = try_source("kind = \"stripe\"", &[("default", "whsec_new"), ("OLD", "whsec_old")]).unwrap();
    let body = fixture("stripe");
    for (secret, label) in [("whsec_new", "default"), ("whsec_old", "OLD")] {
        let request = post(body.clone()).header("stripe-signature", &signature(&body, NOW - 9, secret));
        let verified = request.verify(&both).unwrap();
        assert_eq!(verified.secret_label(), Some(label));
        assert_eq!(verified.signed_at().unwrap().as_second(), NOW - 9);
    }
}

#[test]
fn any_of_many_secrets_is_taken() {
    let secrets: Vec<(String, String)> = (0..50).map(|n| (format!("K{n}"), format!("whsec_{n}"))).collect();
    let secrets: Vec<(&str, &str)> = secrets.iter().map(|(l, s)| (l.as_str(), s.as_str())).collect();
    let many = try_source("kind = \"stripe\"", &secrets).unwrap();
    for at in [0, 23, 49] {
        let request = post("{}").header("stripe-signature", &signature(b"{}", NOW, secrets[at].1));
        assert_eq!(request.verify(&many).unwrap().secret_label(), Some(secrets[at].0));
    }
    let request = post("{}").header("stripe-signature", &signature(b"{}", NOW, "whsec_50"));
    assert_eq!(code(request.verify(&many)), "bad_signature");
}

#[test]
fn headers_that_could_be_read_in_two_ways_are_refused() {
    let good = signature(b"{}", NOW, SECRET);
    let mac = good.split_once(",v1=").unwrap().1.to_owned();
    let flood = format!("t={NOW}{}", format!(",v1={mac}").repeat(33));
    let spaced = good.replace(',', ", ");
    let cases = [
        ("bad_signature", good.replace("v1=", "v0=")),
        ("bad_signature", good.replace("v1=", "V1=")),
        ("bad_signature", good.replace(&mac, &mac.to_uppercase())),
        ("bad_signature", good.replace(&mac, &mac[..8])),
        ("bad_signature", good.replace(&mac, "")),
        ("bad_signature", format!("{good},t={NOW}")),
        ("bad_signature", format!("v1={mac}")),
        ("bad_signature", format!("t=,v1={mac}")),
        ("bad_signature", format!("t=-{NOW},v1={mac}")),
        ("bad_signature", format!("t=+{NOW},v1={mac}")),
        ("bad_signature", format!("t={NOW}.0,v1={mac}")),
        ("bad_signature", format!("t=0{NOW},v1={mac}")),
        ("bad_signature", format!("t={},v1={mac}", "9".repeat(30))),
        ("bad_signature", flood),
        ("bad_signature", spaced),
        ("bad_signature", String::new()),
        ("bad_signature", ",=,=,".to_owned()),
        ("bad_signature", "x".repeat(9000)),
        ("ok", format!("{good},v0=ffff,unknown=1,v1=zz")),
        ("ok", good.clone()),
    ];
    for (expected, value) in cases {
        let request = post("{}").header("stripe-signature", &value);
        assert_eq!(code(request.verify(&stripe())), expected, "{value:.120}");
    }
    assert_eq!(code(post("{}").verify(&stripe())), "not_signed");
    let twice = post("{}").header("stripe-signature", &good).header("Stripe-Signature", &good);
    assert_eq!(code(twice.verify(&stripe())), "bad_signature");
}

#[test]
fn bytes_are_signed_not_text() {
    let body: &[u8] = b"{\"id\":\"evt_1\",\"type\":\"t\",\"x\":\"\xff\xfe\"}";
    let request = post(body).header("stripe-signature", &signature(body, NOW, SECRET));
    let verified = request.verify(&stripe()).unwrap();
    // Authentic, and still no JSON.
    assert!(stripe().receive(&verified).is_err());
    let escaped = br#"{"id":"evt_\u0031","type":"a\/b"}"#;
    let event = post(&escaped[..]).event(&stripe());
    assert_eq!((event.key.as_str(), event.event_type.as_str()), ("evt_1", "a/b"));
    assert_eq!(&event.payload[..], escaped);
}

#[test]
fn an_event_is_named_by_its_id() {
    let event = post(fixture("stripe")).event(&stripe());
    assert_eq!(event.key, "evt_1Qx0aBLkdIwHu7ix0Sample1");
    assert_eq!(event.event_type, "invoice.paid");
    assert_eq!(event.subject.as_deref(), Some("in_1Qx0aBLkdIwHu7ixSample1"));
    assert_eq!(event.key_lifetime.as_secs(), 400 * 24 * 3600);
    assert_eq!(&event.payload[..], fixture("stripe"));
    assert!(event.json);
}

#[test]
fn what_may_differ_between_deliveries_of_an_event_is_not_compared() {
    let body = fixture("stripe");
    let again = text(&body).replace("\"pending_webhooks\":1", "\"pending_webhooks\":0");
    let other = text(&body).replace("in_1Qx0aBLkdIwHu7ixSample1", "in_other");
    let first = post(body).event(&stripe());
    assert_eq!(post(again).event(&stripe()).fingerprint, first.fingerprint);
    let other = post(other).event(&stripe());
    assert_eq!(other.key, first.key);
    assert_ne!(other.fingerprint, first.fingerprint);
}

#[test]
fn an_event_of_the_second_api_version_names_its_object() {
    let body = r#"{"id":"evt_2","object":"v2.core.event","type":"v1.billing.meter.error_report_triggered",
        "created":"2026-11-21T09:00:00Z","related_object":{"id":"mtr_1","type":"billing.meter"}}"#;
    let event = post(body).event(&stripe());
    assert_eq!(event.subject.as_deref(), Some("mtr_1"));
}

#[test]
fn the_answer_and_the_signature_are_as_documented() {
    let kept = post(fixture("stripe")).kept(&stripe());
    assert_eq!((kept.reply.status.as_u16(), text(&kept.reply.body)), (200, "{}"));
    assert_eq!(stripe().busy_status().as_u16(), 429);
    let stored = kept.headers.iter().find(|(name, _)| name == "stripe-signature").unwrap();
    assert_eq!(stored.1, "[redacted]");
    assert!(kept.secrets.is_empty());
}

/// What is there and no text is not called missing: its sender would look for it in vain.
#[test]
fn a_refusal_says_whether_a_member_is_missing_or_no_text() {
    for (body, said) in [
        (r#"{"type":"t"}"#, "`id` is missing"),
        (r#"{"id":null,"type":"t"}"#, "`id` is missing"),
        (r#"{"id":"\ud800","type":"t"}"#, "`id` is not text"),
        (r#"{"id":{},"type":"t"}"#, "`id` is not text"),
    ] {
        let refused = post(body).receive(&stripe()).unwrap_err();
        assert!(refused.to_string().contains(said), "{refused} for {body}");
    }
}
