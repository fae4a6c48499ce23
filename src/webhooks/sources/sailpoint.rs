//! SailPoint Identity Security Cloud, event triggers: one invocation a delivery, answered by its mode.
//!
//! - FIRE_AND_FORGET: `200 {}`; never sent again.
//! - SYNC: `200` with the configured decision; without one the invocation ends undecided.
//! - ASYNC: `200 {}`; a job completes it at `callbackURL` with the secret that came along.
//! - DYNAMIC: as SYNC if a decision is configured, else `202` and completed like ASYNC.

use bytes::Bytes;
use http::StatusCode;
use ipnet::IpNet;
use url::Url;

use super::{Adapter, Defaults, MIB, SecretPlace};
use crate::config::app::{AuthConfig, SailpointConfig};
use crate::webhooks::event::{Collector, Found, Identity, Malformed, Reply, Stored, fingerprint};
use crate::webhooks::json::Object;

pub struct Sailpoint {
    config: SailpointConfig,
    /// The configured decision, as it is sent.
    output: Option<Bytes>,
}

/// `_metadata.responseMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseMode {
    Sync,
    Async,
    Dynamic,
}

/// An invocation that waits to be completed: POST `{"secret": …, "output": …}` to `callback_url`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    pub mode: ResponseMode,
    pub trigger_id: String,
    /// On one of the configured hosts; `https` unless `allow_http` says otherwise.
    pub callback_url: Url,
    /// Private networks that its host may lie in.
    pub allow_networks: Vec<IpNet>,
    pub allow_http: bool,
    /// The configured output (`async_output`, else `output`); without one there is nothing to complete with.
    pub output: Option<serde_json::Value>,
}

/// What `_metadata` says.
struct Metadata<'a> {
    object: Object<'a>,
    mode: Option<ResponseMode>,
}

impl Sailpoint {
    pub fn new(config: SailpointConfig) -> Self {
        let output = config.output.as_ref().map(|value| Bytes::from(value.to_string()));
        Self { config, output }
    }

    fn metadata<'a>(&self, body: &'a [u8]) -> Result<Option<Metadata<'a>>, Malformed> {
        let Some(object) = Object::parse(body, "the body")?.object("_metadata")? else { return Ok(None) };
        // Nobody waits for the answer, whatever else is said.
        if object.text("triggerType")?.is_some_and(|kind| is_fire_and_forget(&kind)) {
            return Ok(Some(Metadata { object, mode: None }));
        }
        let mode = match object.text("responseMode")?.as_deref().map(str::to_ascii_uppercase).as_deref() {
            Some("SYNC") => Some(ResponseMode::Sync),
            Some("ASYNC") => Some(ResponseMode::Async),
            Some("DYNAMIC") => Some(ResponseMode::Dynamic),
            None | Some("") => None,
            Some(_) => {
                return Err(Malformed::shape("`_metadata.responseMode` is not SYNC, ASYNC or DYNAMIC"));
            }
        };
        Ok(Some(Metadata { object, mode }))
    }

    /// Whether the answer itself decides, so that nothing is to be completed later.
    fn decided(&self, mode: Option<ResponseMode>) -> bool {
        match mode {
            None | Some(ResponseMode::Sync) => true,
            Some(ResponseMode::Async) => false,
            Some(ResponseMode::Dynamic) => self.output.is_some(),
        }
    }

    fn callback(&self, metadata: &Metadata<'_>) -> Result<Url, Malformed> {
        let url = Url::parse(&metadata.object.required("callbackURL")?)
            .map_err(|_| Malformed::shape("`callbackURL` is not a URL"))?;
        let host = url.host_str().unwrap_or_default();
        let named = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let expected = self.config.callback_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(&named));
        let scheme = url.scheme() == "https" || url.scheme() == "http" && self.config.allow_http;
        let plain = scheme && url.username().is_empty() && url.password().is_none();
        if expected && plain { Ok(url) } else { Err(Malformed::CallbackHost) }
    }
}

/// `FIRE_AND_FORGET` in the API, `fireAndForget` in deliveries.
fn is_fire_and_forget(trigger_type: &str) -> bool {
    trigger_type.replace(['_', '-'], "").eq_ignore_ascii_case("fireandforget")
}

impl Adapter for Sailpoint {
    fn defaults(&self) -> Defaults {
        Defaults::credential(MIB, &["application/json"], AuthConfig::Bearer {})
    }

    /// Of use only to complete an invocation that the answer leaves open.
    fn secret_places(&self, body: &Bytes) -> Result<Vec<SecretPlace>, Malformed> {
        let metadata = self.metadata(body)?;
        let open = metadata.filter(|metadata| !self.decided(metadata.mode));
        if let Some(metadata) = &open {
            // Without it nothing can complete what the answer leaves open.
            metadata.object.required("secret")?;
        }
        let needed = open.is_some();
        Ok(vec![SecretPlace { pointer: "/_metadata/secret", needed }])
    }

    /// SailPoint sends nothing again, whatever the answer.
    fn busy_status(&self) -> StatusCode {
        StatusCode::SERVICE_UNAVAILABLE
    }

    fn split(&self, stored: &Stored<'_>, events: &mut Collector) -> Result<(), Malformed> {
        let metadata = self.metadata(stored.body)?;
        let member = |name: &str| match &metadata {
            Some(metadata) => metadata.object.text(name),
            None => Ok(None),
        };
        let trigger = member("triggerId")?;
        // The address to complete an invocation at is its own; nothing documented names a fire-and-forget one.
        let name = match member("invocationId")? {
            Some(id) => Some(id),
            None => member("callbackURL")?,
        };
        let identity = match name.filter(|name| !name.is_empty()) {
            Some(name) => {
                Identity::Named { key: name.into_owned(), fingerprint: fingerprint([&stored.body[..]]) }
            }
            None => Identity::Content { scope: stored.event_path },
        };
        events.add(Found {
            identity,
            event_type: trigger.as_deref().or(stored.event_path).unwrap_or("unknown"),
            subject: None,
            payload: stored.body.clone(),
            json: true,
        });
        Ok(())
    }

    fn acknowledge(&self, body: &Bytes) -> Result<Reply, Malformed> {
        let Some(metadata) = self.metadata(body)? else { return Ok(Reply::json(StatusCode::OK, "{}")) };
        if !self.decided(metadata.mode) {
            // Accepted work that could never be completed would be a lie; say so while someone listens.
            self.callback(&metadata)?;
        }
        Ok(match (metadata.mode, &self.output) {
            (Some(ResponseMode::Sync | ResponseMode::Dynamic), Some(output)) => {
                Reply::json(StatusCode::OK, output.clone())
            }
            (Some(ResponseMode::Dynamic), None) => Reply::json(StatusCode::ACCEPTED, "{}"),
            _ => Reply::json(StatusCode::OK, "{}"),
        })
    }

    fn invocation(&self, payload: &Bytes) -> Result<Option<Invocation>, Malformed> {
        let Some(metadata) = self.metadata(payload)? else { return Ok(None) };
        let Some(mode) = metadata.mode.filter(|mode| !self.decided(Some(*mode))) else { return Ok(None) };
        Ok(Some(Invocation {
            mode,
            trigger_id: metadata.object.text("triggerId")?.unwrap_or_default().into_owned(),
            callback_url: self.callback(&metadata)?,
            allow_networks: self.config.allow_networks.clone(),
            allow_http: self.config.allow_http,
            output: self.config.async_output.clone().or_else(|| self.config.output.clone()),
        }))
    }
}
