//! Stripe: one event a delivery, named by its `id`.

use super::{Adapter, Defaults, MIB};
use crate::webhooks::event::{Collector, Found, Identity, Malformed, Stored, fingerprint};
use crate::webhooks::json::Object;

pub struct Stripe;

impl Adapter for Stripe {
    fn defaults(&self) -> Defaults {
        Defaults::signed(MIB, &["application/json"])
    }

    fn split(&self, stored: &Stored<'_>, events: &mut Collector) -> Result<(), Malformed> {
        let body = Object::parse(stored.body, "the body")?;
        let id = body.required("id")?;
        let event_type = body.required("type")?;
        let created = body.text("created")?.unwrap_or_default();
        let subject = match body.object("data")? {
            Some(data) => data.object("object")?.map(|object| object.text("id")).transpose()?.flatten(),
            None => None,
        };
        // Events of API version 2 name their object without showing it.
        let subject = match (subject, body.object("related_object")?) {
            (None, Some(related)) => related.text("id")?,
            (subject, _) => subject,
        };
        // `pending_webhooks` and expanded objects differ between deliveries of one event: only what cannot
        // change is compared.
        let parts = [&*id, &*event_type, subject.as_deref().unwrap_or_default(), &*created];
        events.add(Found {
            identity: Identity::Named {
                key: id.clone().into_owned(),
                fingerprint: fingerprint(parts.map(str::as_bytes)),
            },
            event_type: &event_type,
            subject: subject.as_deref(),
            payload: stored.body.clone(),
            json: true,
        });
        Ok(())
    }
}
