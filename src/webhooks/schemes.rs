//! How a request proves where it comes from.
//!
//! Common rules: the bytes received are what is signed; every secret is tried, in constant time; a proof that
//! is repeated, oversized or not in its canonical form is wrong, not interpreted; the signature is checked
//! before the time, and the time against arrival in both directions.

use http::HeaderMap;
use jiff::Timestamp;
use secrecy::ExposeSecret;

use super::delivery::{Delivery, VerifyError};
use super::secrets::{Secrets, variable};
use super::source::{Signed, SourceError};
use crate::config::app::{AuthConfig, SourceConfig, SourceKind};
use crate::config::{LabelledSecret, UNLABELLED};

pub(super) mod credential;
pub(super) mod entra;
mod espocrm;
mod generic;
mod github;
mod mac;
mod standard_webhooks;
mod stripe;

/// What a verified delivery is known by.
#[derive(Clone, Copy)]
pub(super) struct Proof<'k> {
    /// Label of the secret that matched; none where there are no secrets.
    pub label: Option<&'k str>,
    /// The time that was signed, in Unix seconds.
    pub signed_at: Option<i64>,
}

impl<'k> Proof<'k> {
    fn timeless(label: &'k str) -> Self {
        Self { label: Some(label), signed_at: None }
    }

    fn timed(label: &'k str, signed_at: i64) -> Self {
        Self { label: Some(label), signed_at: Some(signed_at) }
    }
}

/// A prepared scheme: keys decoded, header names parsed.
pub(super) enum Scheme {
    Stripe(mac::Keys),
    StandardWebhooks(mac::Keys),
    Github(mac::Keys),
    Espocrm(mac::Keys),
    Hmac(Box<generic::GenericHmac>),
    Credential(credential::Credential),
    Entra(Box<entra::Rules>),
}

impl Scheme {
    /// None if there are `errors`.
    pub fn new(
        name: &str,
        config: &SourceConfig,
        auth: Option<AuthConfig>,
        secrets: Secrets,
        errors: &mut Vec<SourceError>,
    ) -> Option<Self> {
        if secrets.is_empty() && !matches!(auth, Some(AuthConfig::Entra { .. })) {
            let variable = variable(name, UNLABELLED);
            errors.push(SourceError::NoSecret { name: name.to_owned(), variable });
        }
        let list: Vec<LabelledSecret> = secrets.iter().cloned().collect();
        for secret in &list {
            if secret.value.expose_secret().trim().is_empty() {
                errors.push(wrong_secret(name, secret, "is empty"));
            }
        }
        let sha256 = aws_lc_rs::hmac::HMAC_SHA256;
        let utf8 = |secret: &str| Ok(secret.as_bytes().to_vec());
        match config.kind {
            SourceKind::Stripe => mac::Keys::new(name, &list, sha256, utf8, errors).map(Self::Stripe),
            SourceKind::StandardWebhooks => {
                mac::Keys::new(name, &list, sha256, standard_webhooks::key, errors)
                    .map(Self::StandardWebhooks)
            }
            SourceKind::Github => mac::Keys::new(name, &list, sha256, utf8, errors).map(Self::Github),
            SourceKind::Espocrm => mac::Keys::new(name, &list, sha256, utf8, errors).map(Self::Espocrm),
            SourceKind::Hmac => {
                let hmac = config.hmac.as_ref()?;
                generic::GenericHmac::new(name, hmac, &list, errors).map(Box::new).map(Self::Hmac)
            }
            SourceKind::EventGrid
            | SourceKind::AzureMonitor
            | SourceKind::AzureDevops
            | SourceKind::Sailpoint
            | SourceKind::Runpod
            | SourceKind::Bearer
            | SourceKind::Basic => match auth? {
                AuthConfig::Entra { tenant, audience, role, caller, jwks_url } => {
                    entra::Rules::new(name, config.kind, tenant, audience, role, caller, jwks_url, errors)
                        .map(Box::new)
                        .map(Self::Entra)
                }
                auth => credential::Credential::new(name, auth, &list, errors).map(Self::Credential),
            },
        }
    }

    /// Stable name, for rows and people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Stripe(_) => "stripe",
            Self::StandardWebhooks(_) => "standard-webhooks",
            Self::Github(_) => "github",
            Self::Espocrm(_) => "espocrm",
            Self::Hmac(_) => "hmac",
            Self::Credential(credential) => credential.name(),
            Self::Entra(_) => "entra",
        }
    }

    /// What of the proof can be judged without the body: whether it is there and of its form; of a credential, whether
    /// it is right. [`Self::verify`] says the same.
    pub fn presented(&self, headers: &HeaderMap, query: Option<&str>) -> Result<(), VerifyError> {
        match self {
            Self::Stripe(_) => stripe::read(headers).map(drop),
            Self::StandardWebhooks(_) => standard_webhooks::read(headers).map(drop),
            Self::Github(_) => github::read(headers).map(drop),
            Self::Espocrm(_) => espocrm::read(headers).map(drop),
            Self::Hmac(hmac) => hmac.read(headers).map(drop),
            Self::Credential(credential) => credential.verify(headers, query).map(drop),
            Self::Entra(_) => entra::Rules::read(headers).map(drop),
        }
    }

    /// Which secret proves the delivery, and when it was signed.
    pub fn verify(
        &self,
        delivery: &Delivery,
        tolerance_seconds: i64,
        keys: Option<&crate::access::KeySet>,
    ) -> Result<Proof<'_>, VerifyError> {
        match self {
            Self::Stripe(macs) => stripe::verify(macs, delivery, tolerance_seconds),
            Self::StandardWebhooks(macs) => standard_webhooks::verify(macs, delivery, tolerance_seconds),
            Self::Github(macs) => github::verify(macs, delivery).map(Proof::timeless),
            Self::Espocrm(macs) => espocrm::verify(macs, delivery).map(Proof::timeless),
            Self::Hmac(hmac) => hmac.verify(delivery, tolerance_seconds),
            Self::Credential(credential) => {
                credential.verify(&delivery.headers, delivery.query.as_deref()).map(Proof::timeless)
            }
            // A token's times are its own and not the delivery's: it is cached and shown again.
            Self::Entra(rules) => rules
                .verify(delivery, tolerance_seconds, keys)
                .map(|()| Proof { label: None, signed_at: None }),
        }
    }

    /// The proof a sender would give, made with the first secret; none for Entra.
    pub fn sign(&self, id: &str, body: &[u8], now: Timestamp) -> Option<Signed> {
        Some(match self {
            Self::Stripe(macs) => stripe::sign(macs, body, now),
            Self::StandardWebhooks(macs) => standard_webhooks::sign(macs, id, body, now),
            Self::Github(macs) => github::sign(macs, body),
            Self::Espocrm(macs) => espocrm::sign(macs, body),
            Self::Hmac(hmac) => hmac.sign(body, now),
            Self::Credential(credential) => credential.present(),
            Self::Entra(_) => return None,
        })
    }

    /// The header that carries a secret as it is, in lower case.
    pub fn credential_header(&self) -> Option<&str> {
        match self {
            Self::Credential(credential) => credential.header(),
            Self::Entra(_) => Some("authorization"),
            Self::Stripe(_)
            | Self::StandardWebhooks(_)
            | Self::Github(_)
            | Self::Espocrm(_)
            | Self::Hmac(_) => None,
        }
    }

    pub fn jwks_url(&self) -> Option<&str> {
        match self {
            Self::Entra(rules) => Some(rules.jwks_url()),
            _ => None,
        }
    }
}

/// Longest proof that is looked at.
const MAX_PROOF_BYTES: usize = 8 * 1024;
/// Most signatures compared in one proof; no sender has more secrets in rotation.
const MAX_SIGNATURES: usize = 32;

fn wrong_secret(name: &str, secret: &LabelledSecret, problem: &str) -> SourceError {
    SourceError::Secret { variable: variable(name, &secret.label), problem: problem.to_owned() }
}

/// The one value of a header. Repeated, oversized or not visible ASCII is a wrong proof: joining or choosing
/// among several would let a middleman decide which one counts.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, VerifyError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(VerifyError::bad("a header of the signature occurs more than once"));
    }
    if value.len() > MAX_PROOF_BYTES {
        return Err(VerifyError::bad("a header of the signature is too long"));
    }
    value.to_str().map(Some).map_err(|_| VerifyError::bad("a header of the signature is not text"))
}

/// Unix seconds as senders write them: digits alone, no sign, no fraction.
fn unix_seconds(text: &str) -> Result<i64, VerifyError> {
    let digits = !text.is_empty() && text.len() <= 12 && text.bytes().all(|b| b.is_ascii_digit());
    let parsed = if digits { text.parse().ok() } else { None };
    parsed.ok_or(VerifyError::bad("the time of signing is not a number of seconds"))
}

/// Judges the time of signing; call only after the signature that covers it has matched.
fn fresh(signed_at: i64, received_at: Timestamp, tolerance_seconds: i64) -> Result<(), VerifyError> {
    let off_by_seconds = received_at.as_second() - signed_at;
    if off_by_seconds.abs() > tolerance_seconds {
        return Err(VerifyError::Stale { off_by_seconds, tolerance_seconds });
    }
    Ok(())
}

/// Lower-case hexadecimal of exactly `N` bytes.
fn lower_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}
