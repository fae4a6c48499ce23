use super::support::{code, fixture, post, source, text};
use crate::webhooks::Source;

fn runpod() -> Source {
    source("kind = \"runpod\"", "runpod-token")
}

#[test]
fn job_and_status_name_the_event() {
    let event = post(fixture("runpod")).event(&runpod());
    assert_eq!(event.key, "c80ffee4-f315-4e25-a146-0f3d98cf024b|COMPLETED");
    assert_eq!(event.event_type, "job.completed");
    assert_eq!(event.subject.as_deref(), Some("c80ffee4-f315-4e25-a146-0f3d98cf024b"));
    let body = fixture("runpod");
    let failed = post(text(&body).replace("COMPLETED", "FAILED")).event(&runpod());
    assert_ne!(failed.key, event.key);
    let slower = post(text(&body).replace("31618", "41618")).event(&runpod());
    assert_eq!(slower.fingerprint, event.fingerprint);
    let other = post(text(&body).replace("\"images\":1", "\"images\":2")).event(&runpod());
    assert_ne!(other.fingerprint, event.fingerprint);
}

#[test]
fn the_address_and_its_token_are_taken_out_and_not_kept() {
    let body = text(&fixture("runpod")).replace(
        "\"status\"",
        "\"webhook\":\"https://app.example/api/webhooks/runpod?token=runpod-token\",\"status\"",
    );
    let kept = post(body).kept(&runpod());
    assert!(!text(&kept.body).contains("runpod-token"));
    assert!(text(&kept.body).contains("\"webhook\":\"[redacted]\",\"status\""));
    assert!(kept.secrets.is_empty());
    assert!(!format!("{:?}", kept.headers).contains("runpod-token"));
}

#[test]
fn the_token_stands_in_the_url() {
    assert_eq!(code(post("{}").query("token=runpod-token").verify(&runpod())), "ok");
    assert_eq!(code(post("{}").query("token=runpod-token%20").verify(&runpod())), "bad_signature");
    assert_eq!(
        code(post("{}").query(&format!("token={}", "x".repeat(9000))).verify(&runpod())),
        "bad_signature"
    );
    assert_eq!(code(post("{}").verify(&runpod())), "not_signed");
}

#[test]
fn an_id_and_a_status_are_needed() {
    for body in [r#"{"id":"1"}"#, r#"{"status":"COMPLETED"}"#, r#"{"id":null,"status":"x"}"#, "[]"] {
        assert!(post(body).receive(&runpod()).is_err(), "{body}");
    }
    // RunPod takes 200 and nothing else for an answer.
    assert_eq!(post(fixture("runpod")).kept(&runpod()).reply.status.as_u16(), 200);
}
