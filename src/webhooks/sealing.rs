//! Secrets that must be kept for a while, encrypted with AES-256-GCM.
//!
//! A sealed value is `v1.<key label>.<base64url of nonce, ciphertext, tag>`. The first key seals, any key
//! opens, so that keys rotate: put the new one first, reseal or wait, take the old one away. `context` (the
//! delivery's id) is authenticated along: a value moved to another row does not open.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};

use super::secrets::Secrets;
use crate::config::{LabelledSecret, UNLABELLED};

/// Why sealing or opening failed; never says anything about the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error(
        "no encryption key: set ENCRYPTION_KEY to the base64 of 32 random bytes (`openssl rand -base64 32`)"
    )]
    NoKey,
    #[error("{variable} must be the base64 of exactly 32 bytes (`openssl rand -base64 32` makes one)")]
    BadKey { variable: String },
    #[error("{variable}: a label is made of letters, digits, `_` and `-`")]
    BadLabel { variable: String },
    #[error("the encryption failed")]
    Seal,
    #[error("not a sealed value of a version this program knows")]
    Unknown,
    #[error(
        "no encryption key opens this value: the key labelled `{label}` is gone, or the value was changed or moved"
    )]
    Open { label: String },
}

/// The encryption keys.
pub struct Sealer {
    keys: Vec<(String, RandomizedNonceKey)>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(label, _)| label)).finish()
    }
}

impl Sealer {
    /// Keys as base64 of 32 bytes (`ENCRYPTION_KEY`, `ENCRYPTION_KEY__<LABEL>`), the sealing one first.
    /// All mistakes are reported together.
    pub fn new(keys: &Secrets) -> Result<Self, Vec<SealError>> {
        let mut errors = Vec::new();
        let mut usable = Vec::new();
        for LabelledSecret { label, value } in keys.iter() {
            let variable = match label.as_str() {
                UNLABELLED => "ENCRYPTION_KEY".to_owned(),
                label => format!("ENCRYPTION_KEY__{label}"),
            };
            if label.is_empty() || !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
            {
                errors.push(SealError::BadLabel { variable });
                continue;
            }
            let bytes = STANDARD.decode(value.expose_secret().trim()).unwrap_or_default();
            match RandomizedNonceKey::new(&AES_256_GCM, &bytes) {
                Ok(key) => usable.push((label.clone(), key)),
                Err(_) => errors.push(SealError::BadKey { variable }),
            }
        }
        if errors.is_empty() && usable.is_empty() {
            errors.push(SealError::NoKey);
        }
        if errors.is_empty() { Ok(Self { keys: usable }) } else { Err(errors) }
    }

    /// The sealed form of `value`, bound to `context`.
    pub fn seal(&self, context: &str, value: &SecretString) -> Result<String, SealError> {
        let (label, key) = self.keys.first().ok_or(SealError::NoKey)?;
        let mut bytes = value.expose_secret().as_bytes().to_vec();
        let nonce =
            key.seal_in_place_append_tag(Aad::from(context), &mut bytes).map_err(|_| SealError::Seal)?;
        let mut sealed = nonce.as_ref().to_vec();
        sealed.append(&mut bytes);
        Ok(format!("v1.{label}.{}", URL_SAFE_NO_PAD.encode(sealed)))
    }

    /// Whether a value is sealed with the key that seals now. Its label alone does not tell: a new key may stand under
    /// an old label.
    pub fn is_current(&self, context: &str, sealed: &str) -> bool {
        open_with(self.keys.iter().take(1), context, sealed).is_ok()
    }

    /// The value sealed under the same `context`.
    pub fn open(&self, context: &str, sealed: &str) -> Result<SecretString, SealError> {
        open_with(self.keys.iter(), context, sealed)
    }
}

/// Opens with any of these keys.
fn open_with<'k>(
    keys: impl Iterator<Item = &'k (String, RandomizedNonceKey)>,
    context: &str,
    sealed: &str,
) -> Result<SecretString, SealError> {
    let (label, text) =
        sealed.strip_prefix("v1.").and_then(|rest| rest.split_once('.')).ok_or(SealError::Unknown)?;
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| SealError::Unknown)?;
    let (nonce, ciphertext) = bytes.split_at_checked(NONCE_LEN).ok_or(SealError::Unknown)?;
    // A key may have been relabelled since: the label only says which to try first.
    let (named, others): (Vec<_>, Vec<_>) = keys.partition(|(l, _)| l == label);
    for (_, key) in named.into_iter().chain(others) {
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Unknown)?;
        let mut buffer = ciphertext.to_vec();
        if let Ok(plain) = key.open_in_place(nonce, Aad::from(context), &mut buffer) {
            let text = String::from_utf8(plain.to_vec()).map_err(|_| SealError::Unknown)?;
            return Ok(text.into());
        }
    }
    Err(SealError::Open { label: label.to_owned() })
}
