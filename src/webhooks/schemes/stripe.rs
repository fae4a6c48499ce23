//! Stripe: `Stripe-Signature: t=<seconds>,v1=<hex>[,v1=<hex>…]` over `t.body`.
//!
//! The key is the secret's whole text, `whsec_` included. Other versions (`v0` on test events) are skipped.
//! Stripe's own libraries check age towards the past alone; here both directions count.

use http::HeaderMap;
use jiff::Timestamp;

use super::{MAX_SIGNATURES, Proof, fresh, lower_hex, mac, single, unix_seconds};
use crate::webhooks::delivery::{Delivery, VerifyError};
use crate::webhooks::event::hex;
use crate::webhooks::source::Signed;

const HEADER: &str = "stripe-signature";

/// What the header says.
pub struct Claim<'a> {
    time: &'a str,
    seconds: i64,
    candidates: Vec<[u8; 32]>,
}

pub fn read(headers: &HeaderMap) -> Result<Claim<'_>, VerifyError> {
    let value = single(headers, HEADER)?.ok_or_else(|| VerifyError::missing("header Stripe-Signature"))?;
    let mut time = None;
    let mut candidates: Vec<[u8; 32]> = Vec::with_capacity(2);
    for pair in value.split(',') {
        match pair.split_once('=') {
            Some(("t", _)) if time.is_some() => {
                return Err(VerifyError::bad("the time of signing occurs more than once"));
            }
            Some(("t", text)) => time = Some(text),
            Some(("v1", text)) => candidates.extend(lower_hex(text.as_bytes())),
            _ => {}
        }
    }
    let time = time.ok_or(VerifyError::bad("the time of signing is missing"))?;
    let seconds = unix_seconds(time)?;
    if candidates.is_empty() {
        return Err(VerifyError::bad("it holds no v1 signature"));
    }
    if candidates.len() > MAX_SIGNATURES {
        return Err(VerifyError::bad("it holds too many signatures"));
    }
    Ok(Claim { time, seconds, candidates })
}

pub fn verify<'k>(
    keys: &'k mac::Keys,
    delivery: &Delivery,
    tolerance: i64,
) -> Result<Proof<'k>, VerifyError> {
    let Claim { time, seconds, candidates } = read(&delivery.headers)?;
    let label = keys.matching(&[time.as_bytes(), b".", &delivery.body], &candidates)?;
    fresh(seconds, delivery.received_at, tolerance)?;
    Ok(Proof::timed(label, seconds))
}

pub fn sign(keys: &mac::Keys, body: &[u8], now: Timestamp) -> Signed {
    let time = now.as_second().to_string();
    let tag = keys.first_tag(&[time.as_bytes(), b".", body]);
    Signed::header(HEADER, format!("t={time},v1={}", hex(&tag)))
}
