//! Any other sender: `colloquy.toml` says where an event's key and type stand.

use super::{Adapter, Defaults, MIB, Sent};
use crate::config::app::{AuthConfig, EventLocation, SourceKind};
use crate::webhooks::event::{Collector, Found, Identity, Malformed, Stored, fingerprint};
use crate::webhooks::json::{at_pointer, elements, is_json, scalar, slice};
use crate::webhooks::source::SourceError;
use bytes::Bytes;

pub struct Generic {
    kind: SourceKind,
    event: EventLocation,
}

impl Generic {
    pub fn new(name: &str, kind: SourceKind, event: EventLocation, errors: &mut Vec<SourceError>) -> Self {
        let mut wrong = |setting: &'static str, problem: &str| {
            errors.push(SourceError::Setting { name: name.to_owned(), setting, problem: problem.to_owned() });
        };
        let pointers = [
            ("event.key_pointer", &event.key_pointer),
            ("event.type_pointer", &event.type_pointer),
            ("event.split_pointer", &event.split_pointer),
        ];
        for (setting, pointer) in pointers {
            // The empty pointer is the whole document: a list of events may be all there is.
            let whole = setting == "event.split_pointer";
            if pointer.as_ref().is_some_and(|p| !(p.starts_with('/') || whole && p.is_empty())) {
                wrong(setting, "must be a JSON pointer, like `/data/id`");
            }
        }
        for (setting, header) in
            [("event.key_header", &event.key_header), ("event.type_header", &event.type_header)]
        {
            if header.as_ref().is_some_and(|h| h.parse::<http::HeaderName>().is_err()) {
                wrong(setting, "not a header's name");
            }
        }
        if event.key_header.is_some() && event.key_pointer.is_some() {
            wrong("event.key_header", "give `key_header` or `key_pointer`, not both");
        }
        if event.key_header.is_some() && event.split_pointer.is_some() {
            wrong("event.key_header", "one header cannot name several events; use `key_pointer`");
        }
        Self { kind, event }
    }

    fn add(&self, stored: &Stored<'_>, payload: Bytes, events: &mut Collector) -> Result<(), Malformed> {
        let text = |pointer: &str| Ok::<_, Malformed>(at_pointer(&payload, pointer)?.and_then(scalar));
        let header = |name: &String| stored.header(&name.to_ascii_lowercase());
        let key = match (&self.event.key_header, &self.event.key_pointer) {
            (Some(name), _) => {
                let missing = || Malformed::shape(format!("the header `{name}` is missing"));
                Some(header(name).filter(|key| !key.is_empty()).ok_or_else(missing)?.to_owned())
            }
            (None, Some(pointer)) => {
                let missing = || Malformed::shape(format!("there is no key at `{pointer}`"));
                Some(text(pointer)?.filter(|key| !key.is_empty()).ok_or_else(missing)?.into_owned())
            }
            (None, None) => None,
        };
        let named_type = match (&self.event.type_header, &self.event.type_pointer) {
            (Some(name), None) => header(name).map(str::to_owned),
            (Some(name), Some(pointer)) => match header(name) {
                Some(value) => Some(value.to_owned()),
                None => text(pointer)?.map(|value| value.into_owned()),
            },
            (None, Some(pointer)) => text(pointer)?.map(|value| value.into_owned()),
            (None, None) => None,
        };
        let identity = match key {
            Some(key) => Identity::Named { key, fingerprint: fingerprint([&payload[..]]) },
            None => Identity::Content { scope: stored.event_path },
        };
        let json = is_json(&payload);
        events.add(Found {
            identity,
            event_type: named_type.as_deref().or(stored.event_path).unwrap_or("unknown"),
            subject: None,
            payload: payload.clone(),
            json,
        });
        Ok(())
    }
}

impl Adapter for Generic {
    fn defaults(&self) -> Defaults {
        const TYPES: &[&str] = &["application/json", "application/*+json"];
        match self.kind {
            SourceKind::Bearer => Defaults::credential(MIB, TYPES, AuthConfig::Bearer {}),
            SourceKind::Basic => Defaults::credential(MIB, TYPES, AuthConfig::Basic {}),
            _ => Defaults::signed(MIB, TYPES),
        }
    }

    fn kept_headers(&self) -> Vec<String> {
        [&self.event.key_header, &self.event.type_header]
            .into_iter()
            .flatten()
            .map(|h| h.to_ascii_lowercase())
            .collect()
    }

    fn split(&self, stored: &Stored<'_>, events: &mut Collector) -> Result<(), Malformed> {
        let Some(pointer) = &self.event.split_pointer else {
            return self.add(stored, stored.body.clone(), events);
        };
        let list = at_pointer(stored.body, pointer)?
            .ok_or_else(|| Malformed::shape(format!("there is no list of events at `{pointer}`")))?;
        for element in elements(list.get().as_bytes(), &format!("`{pointer}`"))? {
            self.add(stored, slice(stored.body, element), events)?;
        }
        Ok(())
    }

    fn sender_headers(&self, sent: &Sent<'_>, headers: &mut Vec<(String, String)>) {
        let said = [(&self.event.key_header, Some(sent.id)), (&self.event.type_header, sent.event)];
        for (name, value) in said {
            let (Some(name), Some(value)) = (name.as_ref().map(|name| name.to_ascii_lowercase()), value)
            else {
                continue;
            };
            if headers.iter().all(|(known, _)| *known != name) {
                headers.push((name, value.to_owned()));
            }
        }
    }
}
