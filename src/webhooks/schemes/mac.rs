//! HMAC keys, prepared once.

use aws_lc_rs::hmac;
use secrecy::ExposeSecret;
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::wrong_secret;
use crate::config::{LabelledSecret, UNLABELLED};
use crate::webhooks::delivery::VerifyError;
use crate::webhooks::source::SourceError;

/// At least one key, each with its label.
pub struct Keys(Vec<(String, hmac::Key)>);

impl Keys {
    /// `decode` turns a secret's text into key bytes, or says what is wrong with it.
    pub fn new(
        name: &str,
        secrets: &[LabelledSecret],
        algorithm: hmac::Algorithm,
        decode: impl Fn(&str) -> Result<Vec<u8>, String>,
        errors: &mut Vec<SourceError>,
    ) -> Option<Self> {
        let mut keys = Vec::with_capacity(secrets.len());
        for secret in secrets {
            match decode(secret.value.expose_secret()) {
                Ok(bytes) => keys.push((secret.label.clone(), hmac::Key::new(algorithm, &bytes))),
                Err(problem) => errors.push(wrong_secret(name, secret, &problem)),
            }
        }
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// The label of the first key whose MAC over `parts` is among `candidates`.
    pub fn matching(&self, parts: &[&[u8]], candidates: &[impl AsRef<[u8]>]) -> Result<&str, VerifyError> {
        let mut found = u64::MAX;
        // Every key meets every candidate whatever matched before, so that the time tells nothing about which.
        for (index, (_, key)) in self.0.iter().enumerate() {
            let tag = tag(key, parts);
            for candidate in candidates {
                let hit = tag.as_ref().ct_eq(candidate.as_ref()) & found.ct_eq(&u64::MAX);
                found.conditional_assign(&(index as u64), hit);
            }
        }
        usize::try_from(found)
            .ok()
            .and_then(|index| self.0.get(index))
            .map(|(label, _)| label.as_str())
            .ok_or(VerifyError::bad("no secret of this source made it"))
    }

    /// The MAC of the first key.
    pub fn first_tag(&self, parts: &[&[u8]]) -> Vec<u8> {
        self.0.first().map(|(_, key)| tag(key, parts).as_ref().to_vec()).unwrap_or_default()
    }

    /// The label of the first key, unless it is the default's.
    pub fn first_label(&self) -> Option<&str> {
        self.0.first().map(|(label, _)| label.as_str()).filter(|label| *label != UNLABELLED)
    }
}

fn tag(key: &hmac::Key, parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    context.sign()
}
