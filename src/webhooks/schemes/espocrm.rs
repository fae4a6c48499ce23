//! EspoCRM: base64 of `webhookId:` and the MAC of the body; the MAC as hexadecimal in `Signature` (9.0 and
//! later), as 32 raw bytes in `X-Signature` (all versions before 11).
//!
//! If `Signature` is there it alone counts: falling back from a wrong one would make it worthless. Every webhook of
//! EspoCRM has a key of its own; each is a secret here, best labelled with the webhook's id. The id in the header is
//! not covered by the MAC, so it must be readable and decides nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;

use super::{lower_hex, mac, single};
use crate::webhooks::delivery::{Delivery, VerifyError};
use crate::webhooks::event::hex;
use crate::webhooks::source::Signed;

const HEADER: &str = "signature";
const LEGACY_HEADER: &str = "x-signature";

/// The MAC that the header holds.
pub fn read(headers: &HeaderMap) -> Result<[u8; 32], VerifyError> {
    let unreadable = VerifyError::bad("it is not base64 of a webhook's id, a colon and a MAC");
    let parts = |text: &str| {
        let bytes = STANDARD.decode(text).ok()?;
        let colon = bytes.iter().position(|&b| b == b':')?;
        let (id, mac) = (&bytes[..colon], &bytes[colon + 1..]);
        (!id.is_empty() && id.iter().all(u8::is_ascii_graphic)).then(|| mac.to_vec())
    };
    match single(headers, HEADER)? {
        Some(value) => parts(value).and_then(|mac| lower_hex(&mac)),
        None => {
            let value = single(headers, LEGACY_HEADER)?
                .ok_or_else(|| VerifyError::missing("header Signature (or X-Signature)"))?;
            parts(value).and_then(|mac| mac.try_into().ok())
        }
    }
    .ok_or(unreadable)
}

pub fn verify<'k>(keys: &'k mac::Keys, delivery: &Delivery) -> Result<&'k str, VerifyError> {
    keys.matching(&[&delivery.body], &[read(&delivery.headers)?])
}

pub fn sign(keys: &mac::Keys, body: &[u8]) -> Signed {
    let id = keys.first_label().unwrap_or("000000000000000000");
    let tag = keys.first_tag(&[body]);
    let legacy = [id.as_bytes(), b":", &tag].concat();
    let mut signed = Signed::header(HEADER, STANDARD.encode(format!("{id}:{}", hex(&tag))));
    signed.headers.push((LEGACY_HEADER.to_owned(), STANDARD.encode(legacy)));
    signed
}
