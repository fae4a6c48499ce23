//! Public identifiers: a UUIDv7 behind a prefix that names what it identifies (`evt_`, `job_`, `cb_` …).
//!
//! In SQL an id is a plain `uuid`; the prefix exists only at the edges (JSON, logs, commands).
//! A UUIDv7 begins with its creation time in milliseconds, so tables partitioned by month take the
//! month from the id itself.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The text was not `<prefix>_<uuid>`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected an id like {prefix}_0190b5c0-0000-7000-8000-000000000000")]
pub struct IdError {
    prefix: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl $name {
            /// What stands before the underscore in the public form.
            pub const PREFIX: &'static str = $prefix;

            /// A new id, carrying the present time.
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}_{}", $prefix, self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            /// Takes the public form, and the bare UUID as printed by SQL tools.
            fn from_str(text: &str) -> Result<Self, IdError> {
                let bare = text
                    .strip_prefix($prefix)
                    .and_then(|rest| rest.strip_prefix('_'))
                    .unwrap_or(text);
                Uuid::try_parse(bare).map(Self).map_err(|_| IdError { prefix: $prefix })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// One HTTP request from a sender that passed verification.
    DeliveryId, "dlv"
);
id!(
    /// One event; a delivery holds one or more.
    EventId, "evt"
);
id!(
    /// One piece of background work.
    JobId, "job"
);
id!(
    /// One signed message to a consumer. Also the `webhook-id` the consumer sees.
    CallbackId, "cb"
);
id!(
    /// One piece of work that was given up, with its reason.
    DeadLetterId, "dl"
);
id!(
    /// One turn: a request to a model and what came of it.
    ResponseId, "resp"
);
id!(
    /// One conversation: a thread of items with a name.
    ConversationId, "conv"
);

id!(
    /// One API key made at run time.
    KeyId, "key"
);
id!(
    /// One secret that has to be replaced.
    RotationId, "rot"
);

impl EventId {
    /// The id of the event at `position` of a delivery: the same however often the delivery is processed,
    /// so that a second run recognises its own rows. Shares the delivery's timestamp, hence its partition.
    pub fn of(delivery: DeliveryId, position: u32) -> Self {
        let mut hash = Sha256::new();
        hash.update(delivery.0.as_bytes());
        hash.update(position.to_be_bytes());
        let digest = hash.finalize();
        let mut bytes = *delivery.0.as_bytes();
        bytes[6..].copy_from_slice(&digest[..10]);
        bytes[6] = (bytes[6] & 0x0f) | 0x70;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(Uuid::from_bytes(bytes))
    }

    /// Before every id of the time that lies so long before this one's; for looking back in a list ordered by id.
    pub fn earlier(self, by: jiff::SignedDuration) -> Self {
        let bytes = self.0.as_bytes();
        let time = bytes[..6].iter().fold(0_u64, |time, byte| (time << 8) | u64::from(*byte));
        let back = u64::try_from(by.as_millis()).unwrap_or(0);
        let mut earlier = [0; 16];
        earlier[..6].copy_from_slice(&time.saturating_sub(back).to_be_bytes()[2..]);
        Self(Uuid::from_bytes(earlier))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_form_round_trips_and_bare_uuid_is_taken() {
        let id = EventId::new();
        assert_eq!(id.to_string().parse::<EventId>(), Ok(id));
        assert_eq!(id.0.to_string().parse::<EventId>(), Ok(id));
        assert!("job_0190b5c0".parse::<EventId>().is_err());
    }

    #[test]
    fn an_earlier_id_lies_before_all_of_its_time() {
        let id = EventId::new();
        let minute = jiff::SignedDuration::from_mins(1);
        assert!(id.earlier(jiff::SignedDuration::ZERO) < id);
        assert!(id.earlier(minute) < id.earlier(jiff::SignedDuration::ZERO));
        assert_eq!(EventId(Uuid::nil()).earlier(minute), EventId(Uuid::nil()));
    }

    #[test]
    fn event_ids_are_stable_distinct_and_keep_the_timestamp() {
        let delivery = DeliveryId::new();
        let first = EventId::of(delivery, 0);
        assert_eq!(first, EventId::of(delivery, 0));
        assert_ne!(first, EventId::of(delivery, 1));
        assert_eq!(first.0.get_version_num(), 7);
        assert_eq!(first.0.as_bytes()[..6], delivery.0.as_bytes()[..6]);
    }
}
