//! EspoCRM: base64 of `webhookId:` and the MAC of the body; the MAC as hexadecimal in `Signature` (9.0 and
//! later), as 32 raw bytes in `X-Signature` (all versions before 11).
//!
//! If `Signature` is there it alone counts: falling back from a wrong one would make it worthless. A secret
//! whose label is not the default's belongs to the webhook of that id and to no other.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{lower_hex, mac, single};
use crate::webhooks::delivery::{Delivery, VerifyError};
use crate::webhooks::event::hex;
use crate::webhooks::secrets::DEFAULT_LABEL;
use crate::webhooks::source::Signed;

const HEADER: &str = "signature";
const LEGACY_HEADER: &str = "x-signature";

pub fn verify<'k>(keys: &'k mac::Keys, delivery: &Delivery) -> Result<&'k str, VerifyError> {
    let unreadable = VerifyError::bad("it is not base64 of a webhook's id, a colon and a MAC");
    let read = |text: &str| {
        let bytes = STANDARD.decode(text).ok()?;
        let colon = bytes.iter().position(|&b| b == b':')?;
        let id = String::from_utf8(bytes[..colon].to_vec()).ok()?;
        Some((id, bytes[colon + 1..].to_vec()))
    };
    let (id, mac): (String, [u8; 32]) = match single(&delivery.headers, HEADER)? {
        Some(value) => read(value).and_then(|(id, mac)| Some((id, lower_hex(&mac)?))),
        None => {
            let value = single(&delivery.headers, LEGACY_HEADER)?
                .ok_or_else(|| VerifyError::missing("header Signature (or X-Signature)"))?;
            read(value).and_then(|(id, mac)| Some((id, mac.try_into().ok()?)))
        }
    }
    .ok_or(unreadable)?;
    // Case is ignored: some shells and platforms upper-case the variable that names the label.
    let admits = |label: &str| label == DEFAULT_LABEL || label.eq_ignore_ascii_case(&id);
    keys.matching_labels(&[&delivery.body], &[mac], admits)
}

pub fn sign(keys: &mac::Keys, body: &[u8]) -> Signed {
    let id = keys.first_label().unwrap_or("000000000000000000");
    let tag = keys.first_tag(&[body]);
    let legacy = [id.as_bytes(), b":", &tag].concat();
    let mut signed = Signed::header(HEADER, STANDARD.encode(format!("{id}:{}", hex(&tag))));
    signed.headers.push((LEGACY_HEADER.to_owned(), STANDARD.encode(legacy)));
    signed
}
