//! Azure Monitor, common alert schema: one alert a delivery. Fired and Resolved share an `alertId`, so the
//! condition and its time belong to the key.

use http::StatusCode;

use super::{Adapter, Defaults, KIB};
use crate::config::app::AuthConfig;
use crate::webhooks::event::{Collector, Found, Identity, Malformed, Stored, fingerprint};
use crate::webhooks::json::{Object, elements, scalar};

pub struct AzureMonitor;

impl Adapter for AzureMonitor {
    fn defaults(&self) -> Defaults {
        // A plain webhook action has nowhere to put a secret but its URL.
        Defaults::credential(512 * KIB, &["application/json"], AuthConfig::Query { name: "token".to_owned() })
    }

    fn split(&self, stored: &Stored<'_>, events: &mut Collector) -> Result<(), Malformed> {
        let body = Object::parse(stored.body, "the body")?;
        let essentials = match body.object("data")? {
            Some(data) => data.object("essentials")?,
            None => None,
        };
        let Some(essentials) = essentials else {
            // The older schemas, one per kind of alert, have no identity in common.
            events.add(Found {
                identity: Identity::Content { scope: stored.event_path },
                event_type: stored.event_path.unwrap_or("alert"),
                subject: None,
                payload: stored.body.clone(),
                json: true,
            });
            return Ok(());
        };
        let id = essentials.required("alertId")?;
        let condition = essentials.required("monitorCondition")?;
        let fired = essentials.text("firedDateTime")?.unwrap_or_default();
        let resolved = essentials.text("resolvedDateTime")?;
        let time = if condition.eq_ignore_ascii_case("resolved") { resolved.unwrap_or(fired) } else { fired };
        let targets = essentials.get("alertTargetIDs")?;
        let subject = targets
            .and_then(|list| elements(list.get().as_bytes(), "alertTargetIDs").ok())
            .and_then(|list| list.first().copied())
            .and_then(scalar);
        events.add(Found {
            identity: Identity::Named {
                key: format!("{id}|{condition}|{time}"),
                fingerprint: fingerprint([&stored.body[..]]),
            },
            event_type: &format!("alert.{}", condition.to_ascii_lowercase()),
            subject: subject.as_deref(),
            payload: stored.body.clone(),
            json: true,
        });
        Ok(())
    }

    /// Tried again on 429 and 503 alike; after three failures the action group is silent for 15 minutes.
    fn busy_status(&self) -> StatusCode {
        StatusCode::SERVICE_UNAVAILABLE
    }
}
