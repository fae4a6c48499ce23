//! Senders that sign nothing and show a credential: bearer token, basic, a header, a query parameter.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::{MAX_PROOF_BYTES, single, wrong_secret};
use crate::config::LabelledSecret;
use crate::config::app::AuthConfig;
use crate::webhooks::delivery::VerifyError;
use crate::webhooks::source::{Signed, SourceError};

enum Place {
    Bearer,
    Basic,
    Header(HeaderName),
    Query(String),
}

/// Where the credential stands, and which are right.
pub struct Credential {
    place: Place,
    /// Labels and hashes: hashing first makes every comparison the same length.
    accepted: Vec<(String, [u8; 32])>,
    first: SecretString,
}

impl Credential {
    pub fn new(
        name: &str,
        auth: AuthConfig,
        secrets: &[LabelledSecret],
        errors: &mut Vec<SourceError>,
    ) -> Option<Self> {
        let place = match auth {
            AuthConfig::Bearer {} => Place::Bearer,
            AuthConfig::Basic {} => Place::Basic,
            AuthConfig::Header { name: header } => match header.parse() {
                Ok(header) => Place::Header(header),
                Err(_) => {
                    errors.push(SourceError::Setting {
                        name: name.to_owned(),
                        setting: "auth",
                        problem: "`name` is not a header's name".to_owned(),
                    });
                    return None;
                }
            },
            AuthConfig::Query { name } => Place::Query(name),
            // Tokens have rules of their own; see `entra`.
            AuthConfig::Entra { .. } => return None,
        };
        for secret in secrets {
            let text = secret.value.expose_secret();
            if matches!(place, Place::Basic) && !text.contains(':') {
                errors.push(wrong_secret(name, secret, "must be `user:password`"));
            }
            if text.trim() != text {
                errors.push(wrong_secret(name, secret, "begins or ends with white space"));
            }
        }
        let first = secrets.first()?.value.clone();
        let accepted =
            secrets.iter().map(|s| (s.label.clone(), hash(s.value.expose_secret().as_bytes()))).collect();
        Some(Self { place, accepted, first })
    }

    /// See [`Scheme::name`](super::Scheme::name).
    pub fn name(&self) -> &'static str {
        match self.place {
            Place::Bearer => "bearer",
            Place::Basic => "basic",
            Place::Header(_) => "header",
            Place::Query(_) => "query",
        }
    }

    /// The header that carries it, in lower case; none where it stands in the query.
    pub fn header(&self) -> Option<&str> {
        match &self.place {
            Place::Bearer | Place::Basic => Some("authorization"),
            Place::Header(name) => Some(name.as_str()),
            Place::Query(_) => None,
        }
    }

    pub fn verify(&self, headers: &HeaderMap, query: Option<&str>) -> Result<&str, VerifyError> {
        let presented = self.presented(headers, query)?;
        let presented = hash(&presented);
        let mut found = u64::MAX;
        for (index, (_, accepted)) in self.accepted.iter().enumerate() {
            let hit = accepted.ct_eq(&presented) & found.ct_eq(&u64::MAX);
            found.conditional_assign(&(index as u64), hit);
        }
        usize::try_from(found)
            .ok()
            .and_then(|index| self.accepted.get(index))
            .map(|(label, _)| label.as_str())
            .ok_or(VerifyError::bad("the credential is not one of this source's"))
    }

    fn presented(&self, headers: &HeaderMap, query: Option<&str>) -> Result<Vec<u8>, VerifyError> {
        let authorization = |scheme: &str| {
            let value = single(headers, "authorization")?
                .ok_or_else(|| VerifyError::missing(format!("header Authorization: {scheme} …")))?;
            match value.split_once(' ') {
                Some((given, rest)) if given.eq_ignore_ascii_case(scheme) => Ok(rest.trim_start()),
                _ => Err(VerifyError::bad("the Authorization header has another scheme")),
            }
        };
        match &self.place {
            Place::Bearer => authorization("Bearer").map(|token| token.as_bytes().to_vec()),
            Place::Basic => STANDARD
                .decode(authorization("Basic")?)
                .map_err(|_| VerifyError::bad("the Authorization header is not base64")),
            Place::Header(name) => single(headers, name.as_str())?
                .map(|value| value.as_bytes().to_vec())
                .ok_or_else(|| VerifyError::missing(format!("header {name}"))),
            Place::Query(name) => {
                let query = query.unwrap_or_default();
                if query.len() > MAX_PROOF_BYTES {
                    return Err(VerifyError::bad("the query string is too long"));
                }
                let mut values = url::form_urlencoded::parse(query.as_bytes()).filter(|(n, _)| n == name);
                match (values.next(), values.next()) {
                    (Some((_, value)), None) => Ok(value.into_owned().into_bytes()),
                    (None, _) => Err(VerifyError::missing(format!("query parameter {name}"))),
                    _ => Err(VerifyError::bad("the credential occurs more than once in the query")),
                }
            }
        }
    }

    /// The credential as its sender shows it.
    pub fn present(&self) -> Signed {
        let secret = self.first.expose_secret();
        match &self.place {
            Place::Bearer => Signed::header("authorization", format!("Bearer {secret}")),
            Place::Basic => Signed::header("authorization", format!("Basic {}", STANDARD.encode(secret))),
            Place::Header(name) => Signed::header(name.as_str(), secret),
            Place::Query(name) => Signed {
                headers: Vec::new(),
                query: Some(
                    url::form_urlencoded::Serializer::new(String::new()).append_pair(name, secret).finish(),
                ),
            },
        }
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
