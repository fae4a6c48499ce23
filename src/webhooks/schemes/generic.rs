//! Any HMAC sender, described in `colloquy.toml`.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};
use jiff::Timestamp;

use super::{Proof, fresh, mac, single, unix_seconds};
use crate::config::LabelledSecret;
use crate::config::app::{HmacAlgorithm, HmacConfig, KeyEncoding, TextEncoding};
use crate::webhooks::delivery::{Delivery, VerifyError};
use crate::webhooks::event::hex;
use crate::webhooks::source::{Signed, SourceError};

enum Part {
    Literal(String),
    Timestamp,
    Body,
}

/// What the headers say.
pub struct Claim<'a> {
    candidate: Vec<u8>,
    /// As it is written, which is what is signed, and in seconds.
    time: Option<(&'a str, i64)>,
}

/// A scheme read from [`HmacConfig`].
pub struct GenericHmac {
    keys: mac::Keys,
    header: HeaderName,
    prefix: String,
    encoding: TextEncoding,
    tag_bytes: usize,
    timestamp_header: Option<HeaderName>,
    signed: Vec<Part>,
}

impl GenericHmac {
    pub fn new(
        name: &str,
        config: &HmacConfig,
        secrets: &[LabelledSecret],
        errors: &mut Vec<SourceError>,
    ) -> Option<Self> {
        let before = errors.len();
        let wrong = |setting: &'static str, problem: &str| SourceError::Setting {
            name: name.to_owned(),
            setting,
            problem: problem.to_owned(),
        };
        let header = config.header.parse::<HeaderName>().ok();
        if header.is_none() {
            errors.push(wrong("hmac.header", "not a header's name"));
        }
        let timestamp_header = match config.timestamp_header.as_deref().map(str::parse::<HeaderName>) {
            Some(Err(_)) => {
                errors.push(wrong("hmac.timestamp_header", "not a header's name"));
                None
            }
            Some(Ok(header)) => Some(header),
            None => None,
        };
        let signed = parts(&config.signed);
        let count = |wanted: fn(&Part) -> bool| signed.iter().filter(|part| wanted(part)).count();
        if count(|part| matches!(part, Part::Body)) != 1 {
            errors.push(wrong("hmac.signed", "must contain `{body}` once"));
        }
        // An unsigned time proves nothing, and a signed one must come from somewhere.
        if (count(|part| matches!(part, Part::Timestamp)) > 0) != config.timestamp_header.is_some() {
            errors.push(wrong("hmac.signed", "`{timestamp}` and `timestamp_header` go together"));
        }
        let (algorithm, tag_bytes) = match config.algorithm {
            HmacAlgorithm::Sha256 => (hmac::HMAC_SHA256, 32),
            HmacAlgorithm::Sha512 => (hmac::HMAC_SHA512, 64),
            HmacAlgorithm::Sha1 => (hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, 20),
        };
        let decode = |secret: &str| match config.key_encoding {
            KeyEncoding::Utf8 => Ok(secret.as_bytes().to_vec()),
            KeyEncoding::Base64 => STANDARD.decode(secret).map_err(|_| "is not base64".to_owned()),
            KeyEncoding::Hex => any_hex(secret.as_bytes()).ok_or_else(|| "is not hexadecimal".to_owned()),
        };
        let keys = mac::Keys::new(name, secrets, algorithm, decode, errors);
        if errors.len() > before {
            return None;
        }
        Some(Self {
            keys: keys?,
            header: header?,
            prefix: config.prefix.clone(),
            encoding: config.encoding,
            tag_bytes,
            timestamp_header,
            signed,
        })
    }

    pub fn read<'a>(&self, headers: &'a HeaderMap) -> Result<Claim<'a>, VerifyError> {
        let required = |name: &HeaderName| {
            single(headers, name.as_str())?.ok_or_else(|| VerifyError::missing(format!("header {name}")))
        };
        let value = required(&self.header)?;
        let text =
            value.strip_prefix(&self.prefix).ok_or(VerifyError::bad("it lacks the configured prefix"))?;
        let candidate = match self.encoding {
            TextEncoding::Hex => any_hex(text.as_bytes()),
            TextEncoding::Base64 => STANDARD.decode(text).ok(),
        }
        .filter(|bytes| bytes.len() == self.tag_bytes)
        .ok_or(VerifyError::bad("it is not of the configured encoding and length"))?;
        let time = self.timestamp_header.as_ref().map(required).transpose()?;
        let time = time.map(|text| unix_seconds(text).map(|seconds| (text, seconds))).transpose()?;
        Ok(Claim { candidate, time })
    }

    pub fn verify(&self, delivery: &Delivery, tolerance: i64) -> Result<Proof<'_>, VerifyError> {
        let Claim { candidate, time } = self.read(&delivery.headers)?;
        let text = time.map_or("", |(text, _)| text);
        let label = self.keys.matching(&self.message(text, &delivery.body), &[candidate])?;
        if let Some((_, seconds)) = time {
            fresh(seconds, delivery.received_at, tolerance)?;
        }
        Ok(Proof { label: Some(label), signed_at: time.map(|(_, seconds)| seconds) })
    }

    fn message<'a>(&'a self, time: &'a str, body: &'a [u8]) -> Vec<&'a [u8]> {
        let bytes = |part: &'a Part| match part {
            Part::Literal(text) => text.as_bytes(),
            Part::Timestamp => time.as_bytes(),
            Part::Body => body,
        };
        self.signed.iter().map(bytes).collect()
    }

    pub fn sign(&self, body: &[u8], now: Timestamp) -> Signed {
        let time = now.as_second().to_string();
        let tag = self.keys.first_tag(&self.message(&time, body));
        let text = match self.encoding {
            TextEncoding::Hex => hex(&tag),
            TextEncoding::Base64 => STANDARD.encode(tag),
        };
        let mut signed = Signed::header(self.header.as_str(), format!("{}{text}", self.prefix));
        if let Some(header) = &self.timestamp_header {
            signed.headers.push((header.as_str().to_owned(), time));
        }
        signed
    }
}

fn parts(template: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = template;
    while !rest.is_empty() {
        let (part, length) = if rest.starts_with("{timestamp}") {
            (Part::Timestamp, "{timestamp}".len())
        } else if rest.starts_with("{body}") {
            (Part::Body, "{body}".len())
        } else {
            let next = |name| rest.find(name).unwrap_or(rest.len());
            let length = next("{timestamp}").min(next("{body}"));
            (Part::Literal(rest[..length].to_owned()), length)
        };
        parts.push(part);
        rest = &rest[length..];
    }
    parts
}

/// Hexadecimal in either case: what a generic sender writes is not known.
fn any_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}
