//! GitHub: one event a delivery, named by `X-GitHub-Delivery`, which a redelivery repeats.
//!
//! The name is in a header that the signature does not cover, as are the event's kind and the path.

use bytes::Bytes;
use http::StatusCode;

use super::{Adapter, Defaults, MIB, Sent};
use crate::webhooks::event::{Collector, Found, Identity, Malformed, Reply, Stored, fingerprint};
use crate::webhooks::json::{Object, is_json};

pub struct Github;

impl Adapter for Github {
    fn defaults(&self) -> Defaults {
        Defaults::signed(25 * MIB, &["application/json", "application/x-www-form-urlencoded"])
    }

    fn kept_headers(&self) -> Vec<String> {
        vec!["x-github-*".to_owned()]
    }

    fn split(&self, stored: &Stored<'_>, events: &mut Collector) -> Result<(), Malformed> {
        let payload = payload(stored)?;
        let parsed = Object::parse(&payload, "the payload").ok();
        let name = stored.header("x-github-event").or(stored.event_path).unwrap_or("unknown");
        let action = parsed.as_ref().map(|body| body.text("action")).transpose()?.flatten();
        let event_type = match &action {
            Some(action) => format!("{name}.{action}"),
            None => name.to_owned(),
        };
        let subject = match parsed.as_ref().map(|body| body.object("repository")).transpose()?.flatten() {
            Some(repository) => repository.text("full_name")?,
            None => None,
        };
        let identity = match stored.header("x-github-delivery") {
            Some(id) => Identity::Named {
                key: id.to_owned(),
                fingerprint: fingerprint([name.as_bytes(), &payload[..]]),
            },
            None => Identity::Content { scope: Some(name) },
        };
        let json = is_json(&payload);
        events.add(Found {
            identity,
            event_type: &event_type,
            subject: subject.as_deref(),
            payload: payload.clone(),
            json,
        });
        Ok(())
    }

    fn acknowledge(&self, _body: &Bytes) -> Result<Reply, Malformed> {
        Ok(Reply::json(StatusCode::ACCEPTED, "{}"))
    }

    fn sender_headers(&self, sent: &Sent<'_>, headers: &mut Vec<(String, String)>) {
        // Its action is in the body: `pull_request.opened` is sent as `pull_request`.
        let name = sent.event.and_then(|event| event.split('.').next()).unwrap_or("ping");
        headers.push(("x-github-event".to_owned(), name.to_owned()));
        headers.push(("x-github-delivery".to_owned(), sent.id.to_owned()));
    }
}

/// The JSON itself, also when it was sent as the form field `payload`.
fn payload(stored: &Stored<'_>) -> Result<Bytes, Malformed> {
    let content_type = stored.header("content-type").unwrap_or_default().trim_start().to_ascii_lowercase();
    if !content_type.starts_with("application/x-www-form-urlencoded") {
        return Ok(stored.body.clone());
    }
    let mut fields = url::form_urlencoded::parse(stored.body).filter(|(name, _)| name == "payload");
    match (fields.next(), fields.next()) {
        (Some((_, value)), None) => Ok(value.into_owned().into()),
        _ => Err(Malformed::shape("the form holds no field `payload`, or several")),
    }
}
