//! Standard Webhooks 1.0 (Svix, Clerk): id, timestamp and a list of `v1,<base64>` over `id.timestamp.body`.
//!
//! The key is base64 after `whsec_`. All three headers are taken from one family, `webhook-` or `svix-`.
//! `v1a` (ed25519) is not taken, and neither is any other version.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use http::HeaderMap;
use jiff::Timestamp;

use super::{MAX_SIGNATURES, Proof, fresh, mac, single, unix_seconds};
use crate::webhooks::delivery::{Delivery, VerifyError};
use crate::webhooks::source::Signed;

/// Secrets are pasted with and without padding.
const SECRET: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Key bytes of a secret's text.
pub fn key(secret: &str) -> Result<Vec<u8>, String> {
    if secret.starts_with("whsk_") || secret.starts_with("whpk_") {
        return Err("is an ed25519 key; only symmetric secrets (whsec_…) are taken".to_owned());
    }
    let bytes = SECRET
        .decode(secret.strip_prefix("whsec_").unwrap_or(secret))
        .map_err(|_| "is not base64 after `whsec_`".to_owned())?;
    if bytes.is_empty() { Err("holds no key after `whsec_`".to_owned()) } else { Ok(bytes) }
}

#[derive(PartialEq, Eq, Clone, Copy)]
struct Family<'a> {
    id: &'a str,
    time: &'a str,
    signatures: &'a str,
}

/// None if no header of the family is there, an error if some are and some are not.
fn family<'a>(headers: &'a HeaderMap, prefix: &str) -> Result<Option<Family<'a>>, VerifyError> {
    let header = |name: &str| single(headers, &format!("{prefix}-{name}"));
    match (header("id")?, header("timestamp")?, header("signature")?) {
        (Some(id), Some(time), Some(signatures)) => Ok(Some(Family { id, time, signatures })),
        (None, None, None) => Ok(None),
        _ => Err(VerifyError::missing(format!(
            "one of the headers {prefix}-id, {prefix}-timestamp, {prefix}-signature"
        ))),
    }
}

/// What the headers say.
pub struct Claim<'a> {
    id: &'a str,
    time: &'a str,
    seconds: i64,
    candidates: Vec<[u8; 32]>,
}

pub fn read(headers: &HeaderMap) -> Result<Claim<'_>, VerifyError> {
    let Family { id, time, signatures } = match (family(headers, "webhook")?, family(headers, "svix")?) {
        (Some(family), None) | (None, Some(family)) => family,
        // A sender may give both; then they must be one and the same statement.
        (Some(webhook), Some(svix)) if webhook == svix => webhook,
        (Some(_), Some(_)) => {
            return Err(VerifyError::bad("the webhook- and the svix- headers say different things"));
        }
        (None, None) => return Err(VerifyError::missing("header webhook-signature (or svix-signature)")),
    };
    // A dot in the id would let bytes move between the parts of what is signed.
    if id.is_empty() || id.contains('.') {
        return Err(VerifyError::bad("the id is empty or contains a dot"));
    }
    let seconds = unix_seconds(time)?;
    let mut candidates: Vec<[u8; 32]> = Vec::with_capacity(2);
    for signature in signatures.split(' ') {
        let Some(("v1", text)) = signature.split_once(',') else { continue };
        candidates.extend(decode(text));
    }
    if candidates.is_empty() {
        return Err(VerifyError::bad("it holds no v1 signature"));
    }
    if candidates.len() > MAX_SIGNATURES {
        return Err(VerifyError::bad("it holds too many signatures"));
    }
    Ok(Claim { id, time, seconds, candidates })
}

pub fn verify<'k>(
    keys: &'k mac::Keys,
    delivery: &Delivery,
    tolerance: i64,
) -> Result<Proof<'k>, VerifyError> {
    let Claim { id, time, seconds, candidates } = read(&delivery.headers)?;
    let signed: [&[u8]; 5] = [id.as_bytes(), b".", time.as_bytes(), b".", &delivery.body];
    let label = keys.matching(&signed, &candidates)?;
    fresh(seconds, delivery.received_at, tolerance)?;
    Ok(Proof::timed(label, seconds))
}

/// Canonical base64 of exactly 32 bytes.
fn decode(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 33];
    let length = STANDARD.decode_slice(text, &mut bytes).ok()?;
    bytes.get(..length)?.try_into().ok()
}

pub fn sign(keys: &mac::Keys, id: &str, body: &[u8], now: Timestamp) -> Signed {
    let time = now.as_second().to_string();
    let tag = keys.first_tag(&[id.as_bytes(), b".", time.as_bytes(), b".", body]);
    let mut signed = Signed::header("webhook-id", id);
    signed.headers.push(("webhook-timestamp".to_owned(), time));
    signed.headers.push(("webhook-signature".to_owned(), format!("v1,{}", STANDARD.encode(tag))));
    signed
}
