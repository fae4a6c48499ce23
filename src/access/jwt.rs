//! Access tokens of configured issuers (`AUTH_JWT_ISSUERS`): JWTs signed with RS256 or ES256, RFC 9068 as far as
//! issuers keep to it.

use std::collections::HashMap;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde::Deserialize;

use super::jwks::{JwksCache, KeySet};
use super::{AccessError, Principal};
use crate::config::{JwtIssuerConfig, OneOrMany, Scope};

/// How far the clocks of an issuer and ours may lie apart.
const LEEWAY_SECONDS: i64 = 60;
/// Far beyond any token with a few groups in it.
const MAX_BYTES: usize = 16 * 1024;

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("it is not a JWT signed with RS256 or ES256")]
    Malformed,
    #[error("its issuer is none of AUTH_JWT_ISSUERS")]
    Issuer,
    #[error("its issuer has no such signing key")]
    Key,
    #[error("its signature is wrong")]
    Signature,
    #[error("it is for another audience")]
    Audience,
    #[error("it was issued to a party that is not authorised")]
    Party,
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet")]
    Early,
    #[error("it does not say whose it is")]
    Subject,
}

impl TokenError {
    /// The stable code by which logs and alerts know this failure.
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "access.token_malformed",
            Self::Issuer => "access.token_issuer",
            Self::Key => "access.token_key",
            Self::Signature => "access.token_signature",
            Self::Audience => "access.token_audience",
            Self::Party => "access.token_party",
            Self::Expired => "access.token_expired",
            Self::Early => "access.token_early",
            Self::Subject => "access.token_subject",
        }
    }
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Option<OneOrMany>,
    exp: i64,
    nbf: Option<i64>,
    sub: Option<String>,
    tid: Option<String>,
    oid: Option<String>,
    azp: Option<String>,
    appid: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
}

/// The issuers whose tokens are taken.
pub(super) struct Issuers {
    by_name: HashMap<String, JwtIssuerConfig>,
}

impl Issuers {
    pub fn new(issuers: &[JwtIssuerConfig]) -> Self {
        Self { by_name: issuers.iter().map(|issuer| (issuer.issuer.clone(), issuer.clone())).collect() }
    }

    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Whose token it is.
    pub async fn verify(
        &self,
        token: &str,
        keys: &JwksCache,
        now: Timestamp,
    ) -> Result<Principal, AccessError> {
        let presented = self.read(token).map_err(AccessError::Token)?;
        let Presented { kid, algorithm, issuer } = &presented;
        let url = issuer.jwks_url.as_deref();
        let mut set =
            keys.of_issuer(&issuer.issuer, url, false).await.map_err(|_| AccessError::Unavailable)?;
        if set.key(kid, *algorithm).is_none() {
            set = keys.of_issuer(&issuer.issuer, url, true).await.map_err(|_| AccessError::Unavailable)?;
        }
        judge(token, &presented, &set, now).map_err(AccessError::Token)
    }

    /// What a token says of itself before anything of it is believed.
    fn read(&self, token: &str) -> Result<Presented<'_>, TokenError> {
        if token.len() > MAX_BYTES {
            return Err(TokenError::Malformed);
        }
        let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
        let (algorithm @ (Algorithm::RS256 | Algorithm::ES256), Some(kid)) = (header.alg, header.kid) else {
            return Err(TokenError::Malformed);
        };
        // Whom to ask for keys stands in what is not verified yet; it can only choose among the configured.
        let issuer = unverified_issuer(token).ok_or(TokenError::Malformed)?;
        let issuer = self.by_name.get(&issuer).ok_or(TokenError::Issuer)?;
        Ok(Presented { kid, algorithm, issuer })
    }
}

/// What chooses the key that a token is judged by.
struct Presented<'a> {
    kid: String,
    algorithm: Algorithm,
    issuer: &'a JwtIssuerConfig,
}

fn unverified_issuer(token: &str) -> Option<String> {
    use base64::Engine;
    #[derive(Deserialize)]
    struct Issuer {
        iss: String,
    }
    let payload = token.split('.').nth(1)?;
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice::<Issuer>(&json).ok().map(|claims| claims.iss)
}

fn judge(
    token: &str,
    presented: &Presented<'_>,
    set: &KeySet,
    now: Timestamp,
) -> Result<Principal, TokenError> {
    let Presented { kid, algorithm, issuer } = presented;
    let key = set.key(kid, *algorithm).ok_or(TokenError::Key)?;
    let mut validation = Validation::new(*algorithm);
    // Judged below, by a clock that tests can set.
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    let claims = decode::<Claims>(token, key, &validation).map_err(|_| TokenError::Signature)?.claims;
    if claims.iss != issuer.issuer {
        return Err(TokenError::Issuer);
    }
    let audience_fits = match &claims.aud {
        Some(OneOrMany::One(one)) => issuer.audience.contains(one),
        Some(OneOrMany::Many(all)) => all.iter().any(|one| issuer.audience.contains(one)),
        None => false,
    };
    if !audience_fits {
        return Err(TokenError::Audience);
    }
    let party = claims.azp.as_ref().or(claims.appid.as_ref());
    if !issuer.authorized_parties.is_empty()
        && !party.is_some_and(|party| issuer.authorized_parties.contains(party))
    {
        return Err(TokenError::Party);
    }
    let at = now.as_second();
    if at >= claims.exp.saturating_add(LEEWAY_SECONDS) {
        return Err(TokenError::Expired);
    }
    if claims.nbf.is_some_and(|from| at < from.saturating_sub(LEEWAY_SECONDS)) {
        return Err(TokenError::Early);
    }
    let present = |claim: Option<String>| claim.filter(|text| !text.is_empty());
    // In Entra `sub` differs from application to application; `tid` and `oid` name the person.
    let subject = match (present(claims.tid), present(claims.oid)) {
        (Some(tid), Some(oid)) => format!("{tid}|{oid}"),
        _ => present(claims.sub).ok_or(TokenError::Subject)?,
    };
    let operator = issuer.operator_role.as_ref().is_some_and(|role| claims.roles.contains(role));
    Ok(Principal {
        owner: format!("{}|{subject}", issuer.issuer),
        key: issuer.issuer.clone(),
        scopes: if operator { vec![Scope::Operator] } else { Vec::new() },
        limits: issuer.limits.clone(),
        is_token: true,
        expires_at: Timestamp::from_second(claims.exp.saturating_add(LEEWAY_SECONDS)).ok(),
    })
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
