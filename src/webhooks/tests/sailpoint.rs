use secrecy::ExposeSecret;

use super::support::{fixture, post, source, text};
use crate::webhooks::{Malformed, Outcome, Problem, ProblemKind, ResponseMode, Source};

const HOSTS: &str = "callback_hosts = [\"sample.api.identitynow.com\"]";

fn sailpoint(options: &str) -> Source {
    source(&format!("kind = \"sailpoint\"\nsailpoint = {{ {options} }}"), "token")
}

/// The asynchronous fixture with another mode.
fn mode(mode: &str) -> String {
    text(&fixture("sailpoint-async")).replace("\"async\"", mode)
}

#[test]
fn fire_and_forget_is_acknowledged_and_nothing_is_owed() {
    let open = sailpoint("");
    let kept = post(fixture("sailpoint")).kept(&open);
    assert_eq!((kept.reply.status.as_u16(), text(&kept.reply.body)), (200, "{}"));
    assert!(kept.secrets.is_empty());
    let event = post(fixture("sailpoint")).event(&open);
    assert_eq!(event.key, "c9f1a6f2-1a55-4f0f-8f5e-0f8d6a1b2c3d");
    assert_eq!(event.event_type, "idn:post-provisioning");
    assert_eq!(open.invocation(&event.payload).unwrap(), None);
    for spelling in ["fireAndForget", "FIRE_AND_FORGET", "fire-and-forget"] {
        let body =
            text(&fixture("sailpoint")).replace("FIRE_AND_FORGET", spelling).replace("null", "\"odd\"");
        assert_eq!(post(body).kept(&open).reply.status.as_u16(), 200);
    }
}

#[test]
fn sync_is_answered_with_the_configured_decision() {
    let decided = sailpoint("output = { approved = true, comment = \"ok\" }");
    for word in ["\"SYNC\"", "\"sync\"", "\"DYNAMIC\""] {
        let kept = post(mode(word)).kept(&decided);
        assert_eq!(kept.reply.status.as_u16(), 200);
        assert_eq!(text(&kept.reply.body), r#"{"approved":true,"comment":"ok"}"#);
        // Nothing is left to complete, so the secret is of no use to anybody.
        assert!(kept.secrets.is_empty());
        assert!(!text(&kept.body).contains("sample-secret"));
    }
    let undecided = post(mode("\"SYNC\"")).kept(&sailpoint(""));
    assert_eq!((undecided.reply.status.as_u16(), text(&undecided.reply.body)), (200, "{}"));
}

#[test]
fn async_is_acknowledged_and_completed_later() {
    let later = sailpoint(&format!("{HOSTS}, async_output = [1]"));
    let kept = post(fixture("sailpoint-async")).kept(&later);
    assert_eq!((kept.reply.status.as_u16(), text(&kept.reply.body)), (200, "{}"));
    assert_eq!(kept.secrets.len(), 1);
    assert_eq!(kept.secrets[0].value.expose_secret(), "1f3c8b1e-0a5e-4d0e-9d6b-sample-secret");
    assert_eq!(kept.secrets[0].pointer, "/_metadata/secret");
    assert_eq!(
        text(&kept.body),
        text(&fixture("sailpoint-async")).replace("1f3c8b1e-0a5e-4d0e-9d6b-sample-secret", "[redacted]")
    );
    assert!(!format!("{kept:?}").contains("sample-secret"));
    let event = post(fixture("sailpoint-async")).event(&later);
    let invocation = later.invocation(&event.payload).unwrap().unwrap();
    assert_eq!(invocation.mode, ResponseMode::Async);
    assert_eq!(invocation.trigger_id, "idn:access-request-dynamic-approver");
    assert_eq!(invocation.callback_url.host_str(), Some("sample.api.identitynow.com"));
    assert_eq!(invocation.output, Some(serde_json::json!([1])));
    assert!(event.key.ends_with("/complete"));
}

#[test]
fn what_nothing_could_complete_is_refused_while_its_sender_listens() {
    let later = sailpoint(&format!("{HOSTS}, async_output = [1]"));
    let nameless = |body: String| body.replace("\"secret\"", "\"sekret\"");
    for body in [text(&fixture("sailpoint-async")).to_owned(), mode("\"DYNAMIC\"")] {
        let refused = post(nameless(body)).receive(&later).unwrap_err();
        assert!(refused.to_string().contains("`secret`"), "{refused}");
        assert_eq!(Problem::from(&refused).kind, ProblemKind::Malformed);
    }
    // Nothing is left open here, so no secret is missed.
    assert!(post(nameless(mode("\"SYNC\""))).receive(&later).is_ok());
}

#[test]
fn dynamic_without_a_decision_goes_async() {
    let later = sailpoint(HOSTS);
    let kept = post(mode("\"DYNAMIC\"")).kept(&later);
    assert_eq!(kept.reply.status.as_u16(), 202);
    assert_eq!(kept.secrets.len(), 1);
    let invocation = later.invocation(&kept.body).unwrap().unwrap();
    assert_eq!((invocation.mode, invocation.output), (ResponseMode::Dynamic, None));
}

#[test]
fn only_configured_hosts_are_ever_called() {
    let later = sailpoint(HOSTS);
    let hosts = [
        "https://evil.example/",
        "http://sample.api.identitynow.com/",
        "https://sample.api.identitynow.com:8443/",
        "https://u:p@sample.api.identitynow.com/",
        "https://sample.api.identitynow.com.evil.example/",
        "https://169.254.169.254/",
        "https://sample.api.identitynow.com@evil.example/",
    ];
    for url in hosts {
        let body = text(&fixture("sailpoint-async")).replace("https://sample.api.identitynow.com/", url);
        let refused = post(body.clone()).receive(&later).unwrap_err();
        assert_eq!(refused, Malformed::CallbackHost, "{url}");
        assert_eq!(Problem::from(&refused).kind, ProblemKind::CallbackRefused);
        // And again when the time has come, from what was stored.
        assert_eq!(later.invocation(&body.into()).unwrap_err(), Malformed::CallbackHost);
    }
    let body = text(&fixture("sailpoint-async")).replace("identitynow.com", "IdentityNow.COM");
    assert!(post(body).receive(&later).is_ok());
    assert!(post(fixture("sailpoint-async")).receive(&sailpoint("")).is_err());
}

#[test]
fn secrets_are_found_however_they_are_written() {
    let later = sailpoint(HOSTS);
    let url = r#""callbackURL":"https://sample.api.identitynow.com/x","responseMode":"ASYNC""#;
    let escaped = format!(r#"{{"_met\u0061data":{{"s\u0065cret":"t\u006fp",{url}}}}}"#);
    let kept = post(escaped).kept(&later);
    assert_eq!(kept.secrets[0].value.expose_secret(), "top");
    assert!(!text(&kept.body).contains("006fp"));
    let number = post(format!(r#"{{"_metadata":{{"secret":12345,{url}}}}}"#)).kept(&later);
    assert!(!text(&number.body).contains("12345"));
    for twice in [
        format!(r#"{{"_metadata":{{"secret":"a","secret":"b",{url}}}}}"#),
        format!(r#"{{"_metadata":{{"secret":"a",{url}}},"_metadata":{{"secret":"b"}}}}"#),
    ] {
        assert!(post(twice).receive(&later).is_err());
    }
}

#[test]
fn an_unknown_mode_is_refused() {
    assert!(post(mode("\"LATER\"")).receive(&sailpoint(HOSTS)).is_err());
}

#[test]
fn a_body_without_metadata_is_an_event_by_content() {
    let event = post("{\"a\":1}").path("identity.created").event(&sailpoint(""));
    assert_eq!(event.event_type, "identity.created");
    assert!(event.key.contains(":content:"));
    assert!(matches!(post("{}").receive(&sailpoint("")), Ok(Outcome::Keep(_))));
    assert_eq!(sailpoint("").busy_status().as_u16(), 503);
}
