//! EspoCRM: an array of bare records, as many events. The event's name is in the path alone; nothing names
//! the event itself, so its content does, counted within the delivery and for a short time.

use http::StatusCode;

use super::{Adapter, Defaults, MIB};
use crate::webhooks::event::{Collector, Found, Identity, Malformed, Stored};
use crate::webhooks::json::{Object, elements, slice};

pub struct Espocrm;

impl Adapter for Espocrm {
    fn defaults(&self) -> Defaults {
        Defaults::signed(4 * MIB, &["application/json"])
    }

    fn split(&self, stored: &Stored<'_>, events: &mut Collector) -> Result<(), Malformed> {
        for (position, record) in elements(stored.body, "the body")?.into_iter().enumerate() {
            let object = Object::parse(record.get().as_bytes(), &format!("record {position}"))?;
            let subject = object.text("id")?;
            events.add(Found {
                identity: Identity::Content { scope: stored.event_path },
                event_type: stored.event_path.unwrap_or("unknown"),
                subject: subject.as_deref(),
                payload: slice(stored.body, record),
                json: true,
            });
        }
        Ok(())
    }

    /// 429 and 502 make EspoCRM give up at once; 503 is tried again.
    fn busy_status(&self) -> StatusCode {
        StatusCode::SERVICE_UNAVAILABLE
    }
}
