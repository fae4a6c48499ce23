//! The list of cases that the reference implementation tests, and ours.

use super::support::{NOW, code, fixture, post, source, text, try_source};
use crate::webhooks::Source;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const BODY: &str = r#"{"test": 2432232314}"#;

fn receiver() -> Source {
    source("kind = \"standard-webhooks\"", SECRET)
}

/// Id, time and signature of `body` at `at`.
fn signed(body: &[u8], at: i64) -> [String; 3] {
    let signed = receiver().sign(body, jiff::Timestamp::from_second(at).unwrap(), None).unwrap();
    ["webhook-id", "webhook-timestamp", "webhook-signature"]
        .map(|wanted| signed.headers.iter().find(|(name, _)| name == wanted).unwrap().1.clone())
}

fn verdict(family: &str, id: &str, time: &str, signature: &str) -> &'static str {
    let request = post(BODY)
        .header(&format!("{family}-id"), id)
        .header(&format!("{family}-timestamp"), time)
        .header(&format!("{family}-signature"), signature);
    code(request.verify(&receiver()))
}

#[test]
fn what_is_signed_is_verified_in_both_families() {
    let [id, time, signature] = signed(BODY.as_bytes(), NOW);
    assert_eq!(verdict("webhook", &id, &time, &signature), "ok");
    assert_eq!(verdict("svix", &id, &time, &signature), "ok");
    assert_eq!(verdict("Webhook", &id, &time, &signature), "ok");
}

#[test]
fn wrong_signatures_are_refused() {
    let [id, time, signature] = signed(BODY.as_bytes(), NOW);
    let [_, _, other] = signed(b"{}", NOW);
    let mac = signature.strip_prefix("v1,").unwrap();
    let cases = [
        other.clone(),
        "v1,".to_owned(),
        "v1,dawfeoifkpqwoekfpqoekf".to_owned(),
        format!("v1,{}", &mac[..8]),
        format!("v1,{}", mac.trim_end_matches('=')),
        format!("v1,{mac}="),
        format!("v1a,{mac}"),
        format!("v0,{mac}"),
        format!("V1,{mac}"),
        format!("v2,{mac}"),
        mac.to_owned(),
        format!("v1 {mac}"),
        format!("v1,{}", mac.to_lowercase()),
        String::new(),
        "v1,AAAA v1a,BBBB".to_owned(),
        format!("{other} {}", other.repeat(3)),
        format!("{other} ").repeat(40),
    ];
    for wrong in cases {
        assert_eq!(verdict("webhook", &id, &time, &wrong), "bad_signature", "{wrong}");
    }
}

#[test]
fn one_good_signature_among_several_will_do() {
    let [id, time, signature] = signed(BODY.as_bytes(), NOW);
    let [_, _, other] = signed(b"{}", NOW);
    let list = format!("{other} v2,{other} {other} {signature}");
    assert_eq!(verdict("webhook", &id, &time, &list), "ok");
    assert_eq!(verdict("webhook", &id, &time, &format!("v1a,AAAA {signature}")), "ok");
    assert_eq!(verdict("webhook", &id, &time, &format!("{signature} {signature}")), "ok");
}

#[test]
fn the_window_is_inclusive_and_counts_both_ways() {
    for (off, expected) in [(300, "ok"), (-300, "ok"), (301, "stale"), (-301, "stale")] {
        let [id, time, signature] = signed(BODY.as_bytes(), NOW - off);
        assert_eq!(verdict("webhook", &id, &time, &signature), expected, "{off}");
    }
}

#[test]
fn the_time_and_the_id_are_signed() {
    let [id, time, signature] = signed(BODY.as_bytes(), NOW);
    let later = (NOW + 1).to_string();
    let negative = format!("-{NOW}");
    for time in [later.as_str(), negative.as_str(), "", "hello", "1763700000.0", " 1763700000"] {
        assert_eq!(verdict("webhook", &id, time, &signature), "bad_signature", "{time}");
    }
    assert_eq!(verdict("webhook", "msg_other", &time, &signature), "bad_signature");
    assert_eq!(verdict("webhook", "", &time, &signature), "bad_signature");
    // With a dot, bytes could move from the id into the time.
    assert_eq!(verdict("webhook", &format!("{id}.{time}"), &time, &signature), "bad_signature");
}

#[test]
fn all_three_headers_come_from_one_family() {
    let [id, time, signature] = signed(BODY.as_bytes(), NOW);
    let all = [("id", &id), ("timestamp", &time), ("signature", &signature)];
    for missing in 0..3 {
        for family in ["webhook", "svix"] {
            let rest = all.iter().enumerate().filter(|(at, _)| *at != missing);
            let request = rest.fold(post(BODY), |p, (_, (n, v))| p.header(&format!("{family}-{n}"), v));
            assert_eq!(code(request.clone().verify(&receiver())), "not_signed");
            // Completed from the other family it is still no signature.
            let other = if family == "svix" { "webhook" } else { "svix" };
            let mixed = request.header(&format!("{other}-{}", all[missing].0), all[missing].1);
            assert_eq!(code(mixed.verify(&receiver())), "not_signed");
        }
    }
    assert_eq!(code(post(BODY).verify(&receiver())), "not_signed");
}

#[test]
fn two_families_must_agree_and_headers_be_single() {
    let [id, time, signature] = signed(BODY.as_bytes(), NOW);
    let family = |post: super::support::Post, prefix: &str, id: &str| {
        post.header(&format!("{prefix}-id"), id)
            .header(&format!("{prefix}-timestamp"), &time)
            .header(&format!("{prefix}-signature"), &signature)
    };
    let both = family(family(post(BODY), "webhook", &id), "svix", &id);
    assert_eq!(code(both.verify(&receiver())), "ok");
    let split = family(family(post(BODY), "webhook", &id), "svix", "msg_other");
    assert_eq!(code(split.verify(&receiver())), "bad_signature");
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        let value = match name {
            "webhook-id" => &id,
            "webhook-timestamp" => &time,
            _ => &signature,
        };
        let twice = family(post(BODY), "webhook", &id).header(name, value);
        assert_eq!(code(twice.verify(&receiver())), "bad_signature", "{name}");
    }
}

#[test]
fn any_secret_is_taken_and_named() {
    let old = "whsec_MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAw";
    let both = try_source("kind = \"standard-webhooks\"", &[("default", old), ("NEW", SECRET)]).unwrap();
    let verified = post(BODY).signed_by(&receiver()).verify(&both).unwrap();
    assert_eq!(verified.secret_label(), Some("NEW"));
    assert_eq!(verified.signed_at().unwrap().as_second(), NOW);
}

#[test]
fn secrets_are_keys_in_base64() {
    let bare = source("kind = \"standard-webhooks\"", SECRET.strip_prefix("whsec_").unwrap());
    assert!(post(BODY).signed_by(&receiver()).verify(&bare).is_ok());
    for wrong in ["whsec_", "whsec_not base64!", "whsk_C2FVsBQIhrscChlQIMV", "whpk_C2FVsBQIhrscChlQIMV", " "]
    {
        let errors = try_source("kind = \"standard-webhooks\"", &[("default", wrong)]).unwrap_err();
        let told = errors.iter().map(ToString::to_string).collect::<String>();
        assert!(told.contains("WEBHOOK_SECRET_SENDER") && !told.contains("not base64!"), "{told}");
    }
}

#[test]
fn the_signed_id_names_the_event() {
    let event = post(fixture("standard-webhooks")).event(&receiver());
    let again = post(fixture("standard-webhooks")).at(NOW + 90).event(&receiver());
    assert!(event.key.starts_with("msg_"));
    assert_eq!((event.key.as_str(), event.fingerprint), (again.key.as_str(), again.fingerprint));
    assert_eq!(event.event_type, "user.created");
    let other = post(BODY).event(&receiver());
    assert_ne!(other.key, event.key);
    assert_eq!(other.event_type, "unknown");
    assert_eq!(post(BODY).path("user.deleted").event(&receiver()).event_type, "user.deleted");
}

#[test]
fn a_body_need_not_be_json() {
    let event = post(&b"\xff\x00plain"[..]).event(&receiver());
    assert!(!event.json);
    assert_eq!(&event.payload[..], b"\xff\x00plain");
}

#[test]
fn the_id_is_kept_and_the_signature_is_not() {
    let kept = post(BODY).kept(&receiver());
    let value = |name: &str| kept.headers.iter().find(|(n, _)| n == name).unwrap().1.as_str();
    assert!(value("webhook-id").starts_with("msg_"));
    assert_eq!(value("webhook-signature"), "[redacted]");
    assert_eq!((kept.reply.status.as_u16(), text(&kept.reply.body)), (200, "{}"));
    assert_eq!(receiver().busy_status().as_u16(), 429);
}
