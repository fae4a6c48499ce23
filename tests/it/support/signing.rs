//! Signatures, written from the senders' documentation and on purpose not from our own verifiers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The value of `stripe-signature`: `t=<unix seconds>,v1=<hex>` over `<t>.<body>`, keyed with the whole secret's text.
/// <https://docs.stripe.com/webhooks#verify-manually>
pub fn sign_stripe(secret: &str, at: i64, body: &[u8]) -> String {
    let signature = hmac(secret.as_bytes(), &[at.to_string().as_bytes(), b".", body]);
    let hex: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={at},v1={hex}")
}

/// The value of `webhook-signature`: `v1,<base64>` over `<id>.<unix seconds>.<body>`, keyed with what follows `whsec_`.
/// <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>
pub fn sign_standard(secret: &str, id: &str, at: i64, body: &[u8]) -> String {
    let key = STANDARD.decode(secret.trim_start_matches("whsec_")).expect("a base64 secret");
    let signature = hmac(&key, &[id.as_bytes(), b".", at.to_string().as_bytes(), b".", body]);
    format!("v1,{}", STANDARD.encode(signature))
}

/// The value of `Signature` as EspoCRM 9 makes it: base64 of `<webhook id>:<hex>` over the body.
/// <https://docs.espocrm.com/development/api/webhooks/#security>
pub fn sign_espocrm(secret: &str, webhook_id: &str, body: &[u8]) -> String {
    let hex: String = hmac(secret.as_bytes(), &[body]).iter().map(|byte| format!("{byte:02x}")).collect();
    STANDARD.encode(format!("{webhook_id}:{hex}"))
}

/// Whether one of the signatures in a `webhook-signature` header is the one that `secret` makes.
pub fn verify_standard(secret: &str, id: &str, at: i64, body: &[u8], header: &str) -> Result<(), String> {
    let wanted = sign_standard(secret, id, at, body);
    if header.split(' ').any(|signature| signature == wanted) {
        Ok(())
    } else {
        Err(format!("no signature in `{header}` is ours over id {id}, time {at}, {} bytes", body.len()))
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}
