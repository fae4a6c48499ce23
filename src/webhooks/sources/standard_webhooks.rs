//! Standard Webhooks, Svix, Clerk: one event a delivery, named by the signed id header.

use super::{Adapter, Defaults, MIB, Sent};
use crate::webhooks::event::{Collector, Found, Identity, Malformed, Stored, fingerprint};
use crate::webhooks::json::{Object, is_json};

pub struct StandardWebhooks;

impl Adapter for StandardWebhooks {
    fn defaults(&self) -> Defaults {
        Defaults::signed(MIB, &["application/json", "application/*+json"])
    }

    fn kept_headers(&self) -> Vec<String> {
        ["webhook-id", "webhook-timestamp", "svix-id", "svix-timestamp"].map(str::to_owned).into()
    }

    /// The body need not be JSON: the identity is in the header, and the signature covers any bytes.
    fn split(&self, stored: &Stored<'_>, events: &mut Collector) -> Result<(), Malformed> {
        let id = stored.header("webhook-id").or_else(|| stored.header("svix-id"));
        let id = id.ok_or_else(|| Malformed::shape("the header `webhook-id` is missing"))?;
        let event_type = match Object::parse(stored.body, "the body") {
            Ok(body) => body.text("type")?,
            Err(_) => None,
        };
        events.add(Found {
            identity: Identity::Named { key: id.to_owned(), fingerprint: fingerprint([&stored.body[..]]) },
            event_type: event_type.as_deref().or(stored.event_path).unwrap_or("unknown"),
            subject: None,
            payload: stored.body.clone(),
            json: is_json(stored.body),
        });
        Ok(())
    }

    /// Part of the proof, which has set them where there is one.
    fn sender_headers(&self, sent: &Sent<'_>, headers: &mut Vec<(String, String)>) {
        if headers.iter().all(|(name, _)| name != "webhook-id") {
            headers.push(("webhook-id".to_owned(), sent.id.to_owned()));
            headers.push(("webhook-timestamp".to_owned(), sent.now.as_second().to_string()));
        }
    }
}
