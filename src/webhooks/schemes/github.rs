//! GitHub: `X-Hub-Signature-256: sha256=<hex>` over the body alone. No time, so no replay window; the older
//! SHA-1 header is not looked at.

use http::HeaderMap;

use super::{lower_hex, mac, single};
use crate::webhooks::delivery::{Delivery, VerifyError};
use crate::webhooks::event::hex;
use crate::webhooks::source::Signed;

const HEADER: &str = "x-hub-signature-256";

/// The MAC that the header holds.
pub fn read(headers: &HeaderMap) -> Result<[u8; 32], VerifyError> {
    let value = single(headers, HEADER)?.ok_or_else(|| VerifyError::missing("header X-Hub-Signature-256"))?;
    value
        .strip_prefix("sha256=")
        .and_then(|text| lower_hex(text.as_bytes()))
        .ok_or(VerifyError::bad("it is not `sha256=` and 64 lower-case hexadecimal digits"))
}

pub fn verify<'k>(keys: &'k mac::Keys, delivery: &Delivery) -> Result<&'k str, VerifyError> {
    keys.matching(&[&delivery.body], &[read(&delivery.headers)?])
}

pub fn sign(keys: &mac::Keys, body: &[u8]) -> Signed {
    Signed::header(HEADER, format!("sha256={}", hex(&keys.first_tag(&[body]))))
}
