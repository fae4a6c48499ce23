//! What Azure Key Vault tells by Event Grid of secrets: that one will expire, that one has, that one has a new version.

use jiff::Timestamp;
use serde_json::Value;

/// What happened to a version of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    NearExpiry,
    Expired,
    NewVersion,
}

/// An event of a vault, of one version of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultEvent {
    pub happened: Happened,
    pub vault: String,
    pub secret: String,
    pub version: String,
    pub expires_at: Option<Timestamp>,
}

impl VaultEvent {
    /// Reads an event in Event Grid's schema or as a CloudEvent. `Ok(None)`: it is of nothing that concerns secrets.
    ///
    /// # Errors
    /// What is missing in it.
    pub fn read(event_type: &str, payload: &[u8]) -> Result<Option<Self>, &'static str> {
        let happened = match event_type {
            "Microsoft.KeyVault.SecretNearExpiry" => Happened::NearExpiry,
            "Microsoft.KeyVault.SecretExpired" => Happened::Expired,
            "Microsoft.KeyVault.SecretNewVersionCreated" => Happened::NewVersion,
            _ => return Ok(None),
        };
        let event: Value = serde_json::from_slice(payload).map_err(|_| "it is no JSON")?;
        let data = &event["data"];
        // Azure's own samples have a blank behind this name.
        let name = [&data["ObjectName"], &data["ObjectName "], &event["subject"]];
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        Ok(Some(Self {
            happened,
            vault: text(&data["VaultName"]).ok_or("`data.VaultName` is missing")?,
            secret: name.into_iter().find_map(text).ok_or("`data.ObjectName` is missing")?,
            version: text(&data["Version"]).ok_or("`data.Version` is missing")?,
            expires_at: seconds(&data["EXP"]),
        }))
    }
}

/// Seconds since 1970, as a number or as text.
fn seconds(value: &Value) -> Option<Timestamp> {
    let seconds = value.as_i64().or_else(|| value.as_str()?.parse().ok())?;
    Timestamp::from_second(seconds).ok()
}

/// Which source's deliveries a secret proves and under which label, by its name `{app}-{source}-webhook`, or
/// `{app}-{source}-webhook-{label}` for a labelled one. `None`: it is another secret.
pub fn proves<'s>(
    secret: &str,
    sources: impl Iterator<Item = &'s str>,
    unlabelled: &str,
) -> Option<(&'s str, String)> {
    let (_, rest) = secret.split_once('-')?;
    let named = |source: &'s str| {
        let purpose = rest.strip_prefix(source)?.strip_prefix('-')?.strip_prefix("webhook")?;
        match purpose.strip_prefix('-') {
            Some(label) if !label.is_empty() => Some((source, label.to_owned())),
            None if purpose.is_empty() => Some((source, unlabelled.to_owned())),
            _ => None,
        }
    };
    // `azure` and `azure-webhook` may both be sources.
    sources.filter_map(named).max_by_key(|(source, _)| source.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_vault_sends_is_read() {
        let sample = include_bytes!("../../tests/fixtures/events/event-grid.json");
        let events: Vec<Value> = serde_json::from_slice(sample).expect("JSON");
        let payload = events[0].to_string();
        let kind = events[0]["eventType"].as_str().expect("a type");
        let told = VaultEvent::read(kind, payload.as_bytes()).expect("read").expect("of a secret");
        assert_eq!(told.happened, Happened::NearExpiry);
        assert_eq!((&*told.vault, &*told.secret), ("sample-kv", "colloquy-stripe-webhook"));
        assert_eq!(told.version, "ee059b2bb5bc48398a53b168c6cdcb10");
        assert_eq!(told.expires_at, Timestamp::from_second(1_766_000_000).ok());
        assert_eq!(VaultEvent::read("Microsoft.KeyVault.KeyNearExpiry", b"{}"), Ok(None));
        assert!(VaultEvent::read("Microsoft.KeyVault.SecretExpired", br#"{"data": {}}"#).is_err());
    }

    #[test]
    fn names_say_which_source_and_label_they_prove() {
        let of = |name| proves(name, ["crm", "event-grid", "event"].into_iter(), "default");
        assert_eq!(of("colloquy-crm-webhook"), Some(("crm", "default".to_owned())));
        assert_eq!(of("colloquy-event-grid-webhook-v2"), Some(("event-grid", "v2".to_owned())));
        for other in [
            "colloquy-crm-callback",
            "colloquy-openai-webhook",
            "crm",
            "colloquy-crm-webhooks",
            "colloquy-crm-webhook-",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
