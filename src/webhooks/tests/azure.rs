//! Azure Monitor and Azure DevOps.

use super::support::{code, fixture, post, source, text};
use crate::webhooks::Source;

fn monitor() -> Source {
    source("kind = \"azure-monitor\"", "monitor-token")
}

fn devops() -> Source {
    source("kind = \"azure-devops\"", "hooks:secret")
}

#[test]
fn fired_and_resolved_are_two_events_of_one_alert() {
    let fired = post(fixture("azure-monitor")).event(&monitor());
    let resolved = post(fixture("azure-monitor-resolved")).event(&monitor());
    assert_eq!((fired.event_type.as_str(), resolved.event_type.as_str()), ("alert.fired", "alert.resolved"));
    assert!(fired.key.ends_with("|Fired|2026-11-21T09:00:00.0000000Z"), "{}", fired.key);
    assert!(resolved.key.ends_with("|Resolved|2026-11-21T09:20:00.0000000Z"), "{}", resolved.key);
    assert!(fired.subject.unwrap().ends_with("/storageaccounts/sample"));
    assert_eq!(post(fixture("azure-monitor")).event(&monitor()).key, fired.key);
}

#[test]
fn an_alert_that_fires_again_is_another_event() {
    let body = fixture("azure-monitor");
    let again = text(&body).replace("09:00:00.0000000Z", "10:00:00.0000000Z");
    assert_ne!(post(again).event(&monitor()).key, post(body).event(&monitor()).key);
}

#[test]
fn older_alert_schemas_are_kept_by_content() {
    let event =
        post(r#"{"schemaId":"AzureMonitorMetricAlert","data":{"status":"Activated"}}"#).event(&monitor());
    assert!(event.key.contains(":content:"));
    assert_eq!(event.event_type, "alert");
}

#[test]
fn an_alert_of_the_largest_size_is_taken() {
    let padding = "x".repeat(256 * 1024);
    let body = text(&fixture("azure-monitor"))
        .replace("\"customProperties\":null", &format!("\"customProperties\":{{\"a\":\"{padding}\"}}"));
    assert!(monitor().open(&http::Method::POST, &post("").0.headers, Some(body.len() as u64)).is_ok());
    assert_eq!(post(body).event(&monitor()).event_type, "alert.fired");
}

#[test]
fn a_token_in_the_url_is_the_proof() {
    let body = fixture("azure-monitor");
    assert_eq!(code(post(body.clone()).query("a=b&token=monitor-token").verify(&monitor())), "ok");
    assert_eq!(code(post(body.clone()).query("token=monitor-toke").verify(&monitor())), "bad_signature");
    assert_eq!(code(post(body.clone()).query("Token=monitor-token").verify(&monitor())), "not_signed");
    assert_eq!(
        code(post(body.clone()).query("token=monitor-token&token=x").verify(&monitor())),
        "bad_signature"
    );
    assert_eq!(code(post(body).verify(&monitor())), "not_signed");
    assert_eq!(monitor().scheme_name(), "query");
}

#[test]
fn a_service_hook_is_named_by_subscription_and_id() {
    let event = post(fixture("azure-devops")).event(&devops());
    assert_eq!(event.key, "00000000-0000-0000-0000-000000000000|4a5d99d6-1c75-4e53-91b9-ee80057d4ce3");
    assert_eq!(event.event_type, "build.complete");
    // Texts are rendered anew when a hook is sent again; the resource is what happened.
    let body = fixture("azure-devops");
    let rendered = text(&body).replace("Build 20261121.3 succeeded", "Build succeeded");
    assert_eq!(post(rendered).event(&devops()).fingerprint, event.fingerprint);
    let changed = text(&body).replace("\"result\":\"succeeded\"", "\"result\":\"failed\"");
    assert_ne!(post(changed).event(&devops()).fingerprint, event.fingerprint);
}

#[test]
fn details_may_be_left_out() {
    let body = r#"{"id":"1","eventType":"git.push","publisherId":"tfs","resource":null}"#;
    assert_eq!(post(body).event(&devops()).key, "|1");
    assert!(post(r#"{"id":"1"}"#).receive(&devops()).is_err());
    assert!(post("[]").receive(&devops()).is_err());
}

#[test]
fn busy_is_503_for_both() {
    assert_eq!(monitor().busy_status().as_u16(), 503);
    assert_eq!(devops().busy_status().as_u16(), 503);
}
