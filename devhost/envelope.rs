//! The envelope request: `POST /<function>` with `{"Data":{…},"Metadata":{…}}`, functions-host.md §3.

mod http_request;
mod queue_message;
mod timer_info;

use jiff::{Timestamp, tz::TimeZone};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

pub use http_request::{HttpEnvelope, http_request};
pub use queue_message::{QueueEnvelope, bare_text, fresh_message, queue_message};
pub use timer_info::{ScheduleStatus, timer_info};

/// JSON members in the order they were added; the order is part of what the contract shows.
#[derive(Debug, Clone, Default)]
struct Members(Vec<(String, Node)>);

/// A member's value: any JSON, or an object whose order matters.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(untagged)]
enum Node {
    Value(Value),
    Members(Members),
    List(Vec<Node>),
}

impl From<Value> for Node {
    fn from(value: Value) -> Self {
        Node::Value(value)
    }
}

impl From<Vec<Node>> for Node {
    fn from(nodes: Vec<Node>) -> Self {
        Node::List(nodes)
    }
}

impl From<Members> for Node {
    fn from(members: Members) -> Self {
        Node::Members(members)
    }
}

impl Members {
    fn with(mut self, name: &str, value: impl Into<Node>) -> Self {
        self.0.push((name.to_owned(), value.into()));
        self
    }

    /// Adds, or overwrites a member whose name differs at most in case (binding data ignores case).
    fn merge(&mut self, name: &str, value: impl Into<Node>) {
        match self.0.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            Some((_, known)) => *known = value.into(),
            None => self.0.push((name.to_owned(), value.into())),
        }
    }
}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// What is unique to one invocation in the `sys` block.
pub struct Sys<'a> {
    pub function: &'a str,
    pub now: Timestamp,
    pub rand_guid: String,
}

impl<'a> Sys<'a> {
    pub fn new(function: &'a str) -> Self {
        Sys { function, now: Timestamp::now(), rand_guid: uuid::Uuid::from_bytes(rand::random()).to_string() }
    }

    /// Serialised as a whole, so its time keeps all seven digits.
    fn members(&self) -> Members {
        let ticks = self.now.subsec_nanosecond().unsigned_abs() / 100;
        let now = format!("{}.{ticks:07}Z", self.now.strftime("%Y-%m-%dT%H:%M:%S"));
        Members::default()
            .with("MethodName", Value::from(self.function))
            .with("UtcNow", Value::from(now))
            .with("RandGuid", Value::from(self.rand_guid.as_str()))
    }
}

/// Everything that is no object, byte array or date: a JSON string holding the value's JSON text.
fn quoted(value: &Value) -> Value {
    Value::String(value.to_string())
}

/// A date inside an object: .NET's seven digits at most, in local time of `zone`.
pub fn local_date(at: Timestamp, zone: &TimeZone) -> String {
    let ticks = at.as_nanosecond().div_euclid(100) * 100;
    let at = Timestamp::from_nanosecond(ticks).unwrap_or(at);
    at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%.f%:z").to_string()
}

/// A date as metadata carries it: seconds only, with the offset written out.
fn date(at: Timestamp) -> Value {
    Value::String(at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string())
}

/// Merges what the host leaks of a JSON object's members into metadata: `Utility.ApplyBindingData`.
/// Arrays and nulls are left out, scalars become strings, objects stay objects.
fn merge_binding_data(metadata: &mut Members, text: &str) {
    let Ok(Value::Object(members)) = serde_json::from_str(text.trim()) else { return };
    for (name, value) in members {
        let leaked = match value {
            Value::Array(_) | Value::Null => continue,
            Value::Object(_) => value,
            Value::String(_) => quoted(&value),
            // .NET's text of a boolean is capitalised.
            Value::Bool(flag) => quoted(&Value::from(if flag { "True" } else { "False" })),
            Value::Number(number) => quoted(&Value::from(number.to_string())),
        };
        if !name.to_ascii_lowercase().ends_with("trigger") {
            metadata.merge(&name, leaked);
        }
    }
}

fn body(data: &Members, metadata: &Members) -> serde_json::Result<Vec<u8>> {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Envelope<'a> {
        data: &'a Members,
        metadata: &'a Members,
    }
    serde_json::to_vec(&Envelope { data, metadata })
}
