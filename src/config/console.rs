//! The console: whether it is served, and how people sign in to it.

use serde::Serialize;
use url::Url;

use super::host::AppEnvironment;
use super::reader::{Reader, Setting};
use super::values;

const CONSOLE: Setting = Setting::new(
    "CONSOLE",
    "true or false",
    "Whether the conversation server serves the console at /, if it was built with it. Unset: true, but false with \
     APP_ENV=production.",
);
const ISSUER: Setting = Setting::new(
    "CONSOLE_OIDC_ISSUER",
    "https URL",
    "Whom the console sends people to who sign in without an API key: an OpenID Connect issuer as its discovery document \
     names it, such as https://login.microsoftonline.com/<tenant>/v2.0. What it issues must be taken by AUTH_JWT_ISSUERS. \
     Unset: API keys alone.",
);
const CLIENT: Setting = Setting::new(
    "CONSOLE_OIDC_CLIENT_ID",
    "text",
    "The console's id at that issuer: a public client (single-page application), whose redirect URI is the console's \
     address with / behind it.",
)
.required_when("CONSOLE_OIDC_ISSUER is set");
const SCOPE: Setting = Setting::new(
    "CONSOLE_OIDC_SCOPE",
    "scopes, separated by spaces",
    "What the console asks for; openid among them. Without offline_access people sign in again when a token ends.",
)
.default("openid profile offline_access");
const TOKEN: Setting = Setting::new(
    "CONSOLE_OIDC_TOKEN",
    "access or id",
    "Which of the issuer's tokens the console sends to the conversation server. id is for issuers whose access tokens \
     are no JWTs or name no audience, as Clerk's.",
)
.default("access");

pub(super) const SETTINGS: &[Setting] = &[CONSOLE, ISSUER, CLIENT, SCOPE, TOKEN];

/// The console as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleConfig {
    /// Whether it is served, if it was built in.
    pub served: bool,
    /// `None`: people sign in with API keys alone.
    pub sign_in: Option<SignIn>,
}

/// How people sign in by OpenID Connect. Nothing of it is secret: every visitor's browser is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SignIn {
    pub issuer: String,
    pub client_id: String,
    pub scope: String,
    pub token: SentToken,
    /// Of the issuer: where the page may call besides its own server.
    #[serde(skip)]
    pub origin: String,
}

/// Which of the issuer's tokens goes to the conversation server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SentToken {
    #[default]
    Access,
    Id,
}

impl ConsoleConfig {
    pub(super) fn read(reader: &Reader<'_>, environment: AppEnvironment) -> Self {
        Self {
            served: reader
                .optional(&CONSOLE, "true or false", values::flag)
                .unwrap_or(environment != AppEnvironment::Production),
            sign_in: sign_in(reader, environment),
        }
    }
}

fn sign_in(reader: &Reader<'_>, environment: AppEnvironment) -> Option<SignIn> {
    let secure = |url: &Url| url.scheme() == "https" || environment.is_dev();
    let issuer = reader.optional(&ISSUER, "an https URL without query or fragment", |text| {
        let url = values::http_url(text).filter(secure)?;
        (url.query().is_none() && url.fragment().is_none()).then(|| (text.to_owned(), url))
    });
    let client_id = reader.text(&CLIENT);
    let scope = reader.text(&SCOPE).unwrap_or_default();
    let token = reader.word(&TOKEN, &[("access", SentToken::Access), ("id", SentToken::Id)]);
    let (issuer, url) = match (issuer, &client_id) {
        (Some(issuer), Some(_)) => issuer,
        (Some(_), None) => {
            reader.mistake(CLIENT.name, "is not set, but CONSOLE_OIDC_ISSUER is");
            return None;
        }
        (None, _) => return None,
    };
    if !scope.split_whitespace().any(|one| one == "openid") {
        reader.mistake(SCOPE.name, "openid is not among the scopes");
    }
    Some(SignIn {
        issuer,
        client_id: client_id.unwrap_or_default(),
        scope,
        token: token.unwrap_or_default(),
        origin: url.origin().ascii_serialization(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(environment: AppEnvironment, set: &[(&str, &str)]) -> (ConsoleConfig, usize) {
        let set: BTreeMap<String, String> =
            set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let reader = Reader::new(&set);
        let config = ConsoleConfig::read(&reader, environment);
        (config, reader.mistakes().len())
    }

    #[test]
    fn production_has_a_console_only_if_it_says_so() {
        let served = |environment, set: &[(&str, &str)]| read(environment, set).0.served;
        assert!(served(AppEnvironment::Dev, &[]) && served(AppEnvironment::Staging, &[]));
        assert!(!served(AppEnvironment::Production, &[]));
        assert!(served(AppEnvironment::Production, &[("CONSOLE", "true")]));
        assert!(!served(AppEnvironment::Dev, &[("CONSOLE", "false")]));
    }

    #[test]
    fn sign_in_needs_an_issuer_and_a_client() {
        let issuer = ("CONSOLE_OIDC_ISSUER", "https://login.example.com/t/v2.0");
        let client = ("CONSOLE_OIDC_CLIENT_ID", "spa");
        let (config, mistakes) = read(AppEnvironment::Production, &[issuer, client]);
        let sign_in = config.sign_in.unwrap();
        assert_eq!(
            (sign_in.origin.as_str(), sign_in.token, mistakes),
            ("https://login.example.com", SentToken::Access, 0)
        );
        assert_eq!(sign_in.scope, "openid profile offline_access");

        assert_eq!(read(AppEnvironment::Dev, &[]).0.sign_in, None);
        assert_eq!(read(AppEnvironment::Dev, &[issuer]), (ConsoleConfig { served: true, sign_in: None }, 1));
        for (name, value) in [
            ("CONSOLE_OIDC_ISSUER", "http://login.example.com"),
            ("CONSOLE_OIDC_ISSUER", "https://login.example.com/?tenant=1"),
            ("CONSOLE_OIDC_SCOPE", "profile"),
            ("CONSOLE_OIDC_TOKEN", "refresh"),
        ] {
            let (_, mistakes) = read(AppEnvironment::Production, &[issuer, client, (name, value)]);
            assert_eq!(mistakes, 1, "{name}={value}");
        }
    }
}
