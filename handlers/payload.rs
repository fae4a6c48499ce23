//! An event's payload, wherever it is, and the secrets that came with it.

use bytes::Bytes;
use colloquy::database::work::ClaimedEvent;
use colloquy::ids::DeliveryId;
use colloquy::jobs::state::Failure;
use secrecy::SecretString;

use crate::services::Services;

/// Why there is no payload.
pub enum PayloadTrouble {
    /// Storage cannot be reached now.
    Outage(Failure),
    /// It is not there any more.
    Gone(Failure),
}

/// The payload of a claimed row's event.
pub async fn of(services: &Services, event: &ClaimedEvent) -> Result<Bytes, PayloadTrouble> {
    if let Some(payload) = &event.payload {
        return Ok(Bytes::copy_from_slice(payload));
    }
    let gone =
        || PayloadTrouble::Gone(Failure::new("payload_gone", "the blob that held its payload is gone"));
    let name = event.body_blob.as_deref().ok_or_else(gone)?;
    match services.container().get(name).await {
        Ok(body) => body.ok_or_else(gone),
        Err(error) if error.is_outage() => {
            Err(PayloadTrouble::Outage(Failure::new(error.code(), error.to_string())))
        }
        Err(error) => Err(PayloadTrouble::Gone(Failure::new(error.code(), error.to_string()))),
    }
}

/// The secret that came with an event's delivery.
pub fn unseal(services: &Services, event: &ClaimedEvent) -> Result<SecretString, Failure> {
    let gone = || Failure::new("secret_gone", "its secret was already used or is not there");
    let sealed = event.sealed.clone().ok_or_else(gone)?;
    let sealed: Vec<String> = serde_json::from_value(sealed).map_err(|_| {
        Failure::new("secret_unreadable", "its encrypted secret is not what this version writes")
    })?;
    let first = sealed.first().ok_or_else(gone)?;
    let sealer = services.sealer.as_ref().ok_or_else(|| {
        Failure::new(
            "encryption_key_missing",
            "set ENCRYPTION_KEY to the key it was encrypted with, and replay",
        )
    })?;
    sealer
        .open(&DeliveryId(event.delivery_id).to_string(), first)
        .map_err(|error| Failure::new("secret_unreadable", error.to_string()))
}
