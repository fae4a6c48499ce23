//! Azure Event Grid: its own schema and CloudEvents 1.0 (structured, batched, binary), the handshakes of
//! both, and events that name themselves by topic (or source) and id.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::{Adapter, Defaults, MIB, Sent};
use crate::config::app::AuthConfig;
use crate::webhooks::delivery::Delivery;
use crate::webhooks::event::{Collector, Found, Identity, Malformed, Reply, Stored, fingerprint};
use crate::webhooks::json::{Object, elements, is_json, slice};

pub struct EventGrid {
    /// Names whose validation is answered; empty for any.
    pub subscriptions: Vec<String>,
}

const VALIDATION_TYPE: &str = "Microsoft.EventGrid.SubscriptionValidationEvent";

impl Adapter for EventGrid {
    fn defaults(&self) -> Defaults {
        Defaults::credential(
            2 * MIB,
            &["application/json", "application/cloudevents+json", "application/cloudevents-batch+json"],
            // Set as a secret delivery property of the subscription: URLs end in logs, headers do not.
            AuthConfig::Header { name: "x-webhook-secret".to_owned() },
        )
    }

    fn kept_headers(&self) -> Vec<String> {
        vec!["aeg-*".to_owned(), "ce-*".to_owned()]
    }

    /// 400 and 413 would be given up at once, 503 is tried again after 30 s.
    fn busy_status(&self) -> StatusCode {
        StatusCode::SERVICE_UNAVAILABLE
    }

    /// The CloudEvents handshake. It carries no credential and consents to nothing but being asked: every
    /// delivery still has to prove itself. The `WebHook-Request-Callback` address is never called.
    fn options(&self, headers: &HeaderMap, rate_per_minute: u32) -> Option<Reply> {
        let origin = headers.get("webhook-request-origin")?.to_str().ok()?;
        let usable =
            !origin.is_empty() && origin.len() <= 255 && origin.bytes().all(|b| b.is_ascii_graphic());
        let rate = if rate_per_minute == 0 { "*".to_owned() } else { rate_per_minute.to_string() };
        let mut reply = Reply::json(StatusCode::OK, "{}");
        reply.headers = vec![("allow", "POST, OPTIONS".to_owned())];
        if usable {
            reply.headers.push(("webhook-allowed-origin", origin.to_owned()));
            reply.headers.push(("webhook-allowed-rate", rate));
        }
        Some(reply)
    }

    fn validation(&self, delivery: &Delivery) -> Result<Option<Reply>, Malformed> {
        let header = |name: &str| delivery.headers.get(name).and_then(|value| value.to_str().ok());
        if !header("aeg-event-type").is_some_and(|kind| kind.eq_ignore_ascii_case("SubscriptionValidation")) {
            return Ok(None);
        }
        // Azure upper-cases the name in this header.
        let name = header("aeg-subscription-name").unwrap_or_default();
        if !self.subscriptions.is_empty() && !self.subscriptions.iter().any(|s| s.eq_ignore_ascii_case(name))
        {
            return Err(Malformed::UnknownSubscription);
        }
        let events = elements(&delivery.body, "the body")?;
        let [event] = events[..] else {
            return Err(Malformed::shape("a validation holds exactly one event"));
        };
        let event = Object::parse(event.get().as_bytes(), "the validation event")?;
        if event.required("eventType")? != VALIDATION_TYPE {
            return Err(Malformed::shape("a validation holds a SubscriptionValidationEvent"));
        }
        let data = event.object("data")?.ok_or_else(|| Malformed::shape("`data` is missing"))?;
        let code = data.required("validationCode")?;
        Ok(Some(Reply::json(StatusCode::OK, json!({ "validationResponse": code }).to_string())))
    }

    fn split(&self, stored: &Stored<'_>, events: &mut Collector) -> Result<(), Malformed> {
        let content_type =
            stored.header("content-type").unwrap_or_default().trim_start().to_ascii_lowercase();
        let structured = content_type.starts_with("application/cloudevents");
        if !structured && stored.header("ce-specversion").is_some() {
            return binary(stored, events);
        }
        if stored.body.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{') {
            return add(stored, stored.body.clone(), events);
        }
        for event in elements(stored.body, "the body")? {
            add(stored, slice(stored.body, event), events)?;
        }
        Ok(())
    }

    fn sender_headers(&self, sent: &Sent<'_>, headers: &mut Vec<(String, String)>) {
        let event = Object::parse(sent.body, "the body").ok();
        let cloud_event = event.is_some_and(|event| matches!(event.get("specversion"), Ok(Some(_))));
        if cloud_event {
            headers
                .push(("content-type".to_owned(), "application/cloudevents+json; charset=utf-8".to_owned()));
        }
        let validation = elements(sent.body, "the body").is_ok_and(|events| {
            let kind = |event: &[u8]| {
                Object::parse(event, "").ok()?.text("eventType").ok()?.map(|t| t == VALIDATION_TYPE)
            };
            events.first().is_some_and(|event| kind(event.get().as_bytes()) == Some(true))
        });
        let kind = if validation { "SubscriptionValidation" } else { "Notification" };
        headers.push(("aeg-event-type".to_owned(), kind.to_owned()));
    }
}

/// One event of either schema, as JSON.
fn add(stored: &Stored<'_>, payload: Bytes, events: &mut Collector) -> Result<(), Malformed> {
    let event = Object::parse(&payload, "an event")?;
    let cloud_event = event.get("specversion")?.is_some();
    let (origin, kind) = if cloud_event { ("source", "type") } else { ("topic", "eventType") };
    let origin = event.text(origin)?.unwrap_or_default();
    let event_type = event.text(kind)?;
    let subject = event.text("subject")?;
    // Delivered by subscriptions with a schema of their owner's making, events may lack any of these.
    let identity = match event.text("id")?.filter(|id| !id.is_empty()) {
        Some(id) => {
            Identity::Named { key: format!("{origin}|{id}"), fingerprint: fingerprint([&payload[..]]) }
        }
        None => Identity::Content { scope: stored.event_path },
    };
    events.add(Found {
        identity,
        event_type: event_type.as_deref().or(stored.event_path).unwrap_or("unknown"),
        subject: subject.as_deref(),
        payload: payload.clone(),
        json: true,
    });
    Ok(())
}

/// A CloudEvent whose attributes are headers and whose data is the body.
fn binary(stored: &Stored<'_>, events: &mut Collector) -> Result<(), Malformed> {
    let attribute = |name: &str| {
        stored
            .header(&format!("ce-{name}"))
            .map(|value| percent_decode_str(value).decode_utf8_lossy().into_owned())
    };
    let required = |name: &str| {
        attribute(name)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| Malformed::shape(format!("the header `ce-{name}` is missing")))
    };
    let (id, source, event_type) = (required("id")?, required("source")?, required("type")?);
    let subject = attribute("subject");
    events.add(Found {
        identity: Identity::Named {
            key: format!("{source}|{id}"),
            fingerprint: fingerprint([event_type.as_bytes(), &stored.body[..]]),
        },
        event_type: &event_type,
        subject: subject.as_deref(),
        payload: stored.body.clone(),
        json: is_json(stored.body),
    });
    Ok(())
}
