//! Azure DevOps service hooks: one event a delivery, with its own `id`; several subscriptions may send the
//! same event to one address.

use http::StatusCode;

use super::{Adapter, Defaults, MIB};
use crate::config::app::AuthConfig;
use crate::webhooks::event::{Collector, Found, Identity, Malformed, Stored, fingerprint};
use crate::webhooks::json::Object;

pub struct AzureDevops;

impl Adapter for AzureDevops {
    fn defaults(&self) -> Defaults {
        Defaults::credential(2 * MIB, &["application/json"], AuthConfig::Basic {})
    }

    fn split(&self, stored: &Stored<'_>, events: &mut Collector) -> Result<(), Malformed> {
        let body = Object::parse(stored.body, "the body")?;
        let event_type = body.required("eventType")?;
        let id = body.text("id")?;
        let subscription = body.text("subscriptionId")?.unwrap_or_default();
        let resource = body.get("resource")?;
        let subject = body.object("resource")?.map(|resource| resource.text("url")).transpose()?.flatten();
        let identity = match id.filter(|id| !id.is_empty()) {
            Some(id) => Identity::Named {
                key: format!("{subscription}|{id}"),
                // Messages are rendered anew for a resend; the resource is what happened.
                fingerprint: fingerprint([
                    event_type.as_bytes(),
                    resource.map_or("", |r| r.get()).as_bytes(),
                ]),
            },
            None => Identity::Content { scope: Some(&event_type) },
        };
        events.add(Found {
            identity,
            event_type: &event_type,
            subject: subject.as_deref(),
            payload: stored.body.clone(),
            json: true,
        });
        Ok(())
    }

    /// A hook that fails is put on probation and then disabled; 503 counts as transient.
    fn busy_status(&self) -> StatusCode {
        StatusCode::SERVICE_UNAVAILABLE
    }
}
