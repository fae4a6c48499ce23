//! Tokens from Microsoft Entra ID: `Authorization: Bearer <jwt>`, signed by the tenant with RS256.
//!
//! Issuers of version 1 (`sts.windows.net`) and 2 (`login.microsoftonline.com`) are taken, the caller's id as
//! `appid` and `azp` accordingly. Entra issues a token to any application of the tenant that asks, so a role
//! or a caller is demanded wherever the sender is known to have one.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde::Deserialize;

use super::{MAX_PROOF_BYTES, single};
use crate::access::KeySet;
use crate::config::app::SourceKind;
use crate::webhooks::delivery::{Delivery, VerifyError};
use crate::webhooks::source::SourceError;

/// What a token must say.
pub struct Rules {
    issuers: [String; 2],
    tenant: String,
    audience: String,
    role: Option<String>,
    caller: Option<String>,
    jwks_url: String,
    validation: Validation,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    exp: i64,
    nbf: Option<i64>,
    tid: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    azp: Option<String>,
    appid: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Rules {
    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of AuthConfig::Entra and where to report mistakes"
    )]
    pub fn new(
        name: &str,
        kind: SourceKind,
        tenant: String,
        audience: String,
        role: Option<String>,
        caller: Option<String>,
        jwks_url: Option<String>,
        errors: &mut Vec<SourceError>,
    ) -> Option<Self> {
        let before = errors.len();
        let mut wrong = |setting: &'static str, problem: &str| {
            errors.push(SourceError::Setting { name: name.to_owned(), setting, problem: problem.to_owned() });
        };
        if uuid::Uuid::try_parse(&tenant).is_err() {
            wrong("auth.entra.tenant", "must be the directory's id (a GUID), which is what tokens carry");
        }
        if audience.trim().is_empty() {
            wrong("auth.entra.audience", "must not be empty");
        }
        // Documented for action groups ("secure webhook") and for Event Grid's secure delivery.
        let (role, caller) = match kind {
            SourceKind::AzureMonitor => (
                role.or_else(|| Some("ActionGroupsSecureWebhook".to_owned())),
                caller.or_else(|| Some("461e8683-5575-4561-ac7f-899cc907d62a".to_owned())),
            ),
            SourceKind::EventGrid => {
                (role.or_else(|| Some("AzureEventGridSecureWebhookSubscriber".to_owned())), caller)
            }
            _ => (role, caller),
        };
        if role.is_none() && caller.is_none() {
            wrong(
                "auth.entra",
                "needs `role` or `caller`; without either, any application of the tenant is let in",
            );
        }
        if errors.len() > before {
            return None;
        }
        let tenant = tenant.to_ascii_lowercase();
        let mut validation = Validation::new(Algorithm::RS256);
        // The library would compare with the clock; age is judged against arrival, below, as is the rest.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        Some(Self {
            issuers: [
                format!("https://sts.windows.net/{tenant}/"),
                format!("https://login.microsoftonline.com/{tenant}/v2.0"),
            ],
            jwks_url: jwks_url
                .unwrap_or_else(|| format!("https://login.microsoftonline.com/{tenant}/discovery/v2.0/keys")),
            tenant,
            audience,
            role,
            caller,
            validation,
        })
    }

    pub fn jwks_url(&self) -> &str {
        &self.jwks_url
    }

    /// The token that the header holds, and the name of the key it is to be checked with.
    pub fn read(headers: &HeaderMap) -> Result<(&str, String), VerifyError> {
        let header = single(headers, AUTHORIZATION.as_str())?
            .ok_or_else(|| VerifyError::missing("header Authorization: Bearer …"))?;
        let token = match header.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => return Err(VerifyError::bad("the Authorization header has another scheme")),
        };
        if token.len() > MAX_PROOF_BYTES {
            return Err(VerifyError::bad("the token is too long"));
        }
        let unreadable = VerifyError::bad("the token is not a JWT signed with RS256");
        let parsed = decode_header(token).map_err(|_| unreadable.clone())?;
        match (parsed.alg, parsed.kid) {
            (Algorithm::RS256, Some(kid)) => Ok((token, kid)),
            _ => Err(unreadable),
        }
    }

    pub fn verify(
        &self,
        delivery: &Delivery,
        tolerance: i64,
        keys: Option<&KeySet>,
    ) -> Result<(), VerifyError> {
        let (token, kid) = Self::read(&delivery.headers)?;
        let key = keys.and_then(|set| set.key(&kid, Algorithm::RS256)).ok_or(VerifyError::NeedKeys)?;
        let claims = decode::<Claims>(token, key, &self.validation)
            .map_err(|_| VerifyError::bad("the token's signature or its claims are wrong"))?
            .claims;
        self.judge(&claims)?;
        let arrival = delivery.received_at.as_second();
        let late = arrival.saturating_sub(claims.exp);
        let early = claims.nbf.map_or(0, |nbf| nbf.saturating_sub(arrival));
        let stale = |off_by_seconds| Err(VerifyError::Stale { off_by_seconds, tolerance_seconds: tolerance });
        match () {
            () if late > tolerance => stale(late),
            () if early > tolerance => stale(-early),
            () => Ok(()),
        }
    }

    fn judge(&self, claims: &Claims) -> Result<(), VerifyError> {
        let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
        let audience = match &claims.aud {
            Audience::One(aud) => *aud == self.audience,
            Audience::Many(all) => all.contains(&self.audience),
        };
        if !self.issuers.contains(&claims.iss)
            || claims.tid.as_ref().is_some_and(|tid| !same(tid, &self.tenant))
        {
            return Err(VerifyError::bad("the token is from another tenant"));
        }
        if !audience {
            return Err(VerifyError::bad("the token is for another audience"));
        }
        if self.role.as_ref().is_some_and(|role| !claims.roles.contains(role)) {
            return Err(VerifyError::bad("the token lacks the role"));
        }
        let caller = claims.azp.as_ref().or(claims.appid.as_ref());
        if self.caller.as_ref().is_some_and(|expected| !caller.is_some_and(|caller| same(caller, expected))) {
            return Err(VerifyError::bad("the token is from another caller"));
        }
        Ok(())
    }
}
