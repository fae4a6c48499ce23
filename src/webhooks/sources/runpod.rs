//! RunPod: one job status a delivery. A job reports more than once, so the status belongs to the key.

use bytes::Bytes;

use super::{Adapter, Defaults, MIB, SecretPlace};
use crate::config::app::AuthConfig;
use crate::webhooks::event::{Collector, Found, Identity, Malformed, Stored, fingerprint};
use crate::webhooks::json::Object;

pub struct Runpod;

impl Adapter for Runpod {
    fn defaults(&self) -> Defaults {
        // RunPod sends no headers of ours: the address it was given carries the token.
        Defaults::credential(20 * MIB, &["application/json"], AuthConfig::Query { name: "token".to_owned() })
    }

    /// The status document repeats the address, and with it the token.
    fn secret_places(&self, _body: &Bytes) -> Result<Vec<SecretPlace>, Malformed> {
        Ok(vec![SecretPlace { pointer: "/webhook", needed: false }])
    }

    fn split(&self, stored: &Stored<'_>, events: &mut Collector) -> Result<(), Malformed> {
        let body = Object::parse(stored.body, "the body")?;
        let id = body.required("id")?;
        let status = body.required("status")?;
        let raw = |name: &str| Ok::<_, Malformed>(body.get(name)?.map_or("", |value| value.get()).as_bytes());
        // Timings may be measured again for a second try; the result is not.
        let fingerprint = fingerprint([id.as_bytes(), status.as_bytes(), raw("output")?, raw("error")?]);
        events.add(Found {
            identity: Identity::Named { key: format!("{id}|{status}"), fingerprint },
            event_type: &format!("job.{}", status.to_ascii_lowercase()),
            subject: Some(&id),
            payload: stored.body.clone(),
            json: true,
        });
        Ok(())
    }
}
