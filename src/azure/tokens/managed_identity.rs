//! The managed identity endpoint of App Service and Functions.
//!
//! Source: <https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference>.

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::Url;

use super::{Token, TokenError};
use crate::azure::transport::{LazyClient, describe};

const API_VERSION: &str = "2019-08-01";
const IDENTITY_HEADER: &str = "X-IDENTITY-HEADER";

/// The app's identity, as App Service and Functions describe it in the environment.
#[derive(Clone, Debug)]
pub struct ManagedIdentity {
    /// `IDENTITY_ENDPOINT`, a local address.
    pub endpoint: Url,
    /// `IDENTITY_HEADER`, which shows that the request comes from inside the app.
    pub header: SecretString,
    /// The user-assigned identity to ask for, `AZURE_CLIENT_ID`; without it, the system-assigned one.
    pub client_id: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    access_token: SecretString,
    expires_on: Seconds,
}

/// Seconds since 1970: text on App Service, a number elsewhere.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(i64),
    Text(String),
}

impl ManagedIdentity {
    pub(super) async fn token(&self, client: &LazyClient, scope: &str) -> Result<Token, TokenError> {
        let unreachable = |reason: String| TokenError::Unreachable { reason };
        let client = client.get().map_err(|reason| unreachable(reason.to_owned()))?;
        let response = client
            .get(self.request_url(scope))
            .header(IDENTITY_HEADER, self.header.expose_secret())
            .send()
            .await
            .map_err(|error| unreachable(describe(&error.without_url())))?;
        let status = response.status();
        if !status.is_success() {
            return Err(TokenError::Refused {
                status: status.as_u16(),
                advice: self.advice(status.as_u16()),
            });
        }
        let body = response.bytes().await.map_err(|error| unreachable(describe(&error.without_url())))?;
        // Without serde's own message, which quotes what it read.
        let answer: Answer = serde_json::from_slice(&body).map_err(|_| TokenError::Malformed {
            problem: "it is not JSON with access_token and expires_on",
        })?;
        let seconds = match answer.expires_on {
            Seconds::Number(seconds) => Some(seconds),
            Seconds::Text(text) => text.parse().ok(),
        };
        let expires_at = seconds
            .and_then(|seconds| Timestamp::from_second(seconds).ok())
            .ok_or(TokenError::Malformed { problem: "expires_on is not a number of seconds" })?;
        Ok(Token { secret: answer.access_token, expires_at })
    }

    fn request_url(&self, scope: &str) -> Url {
        // The endpoint speaks of resources, which are scopes without their last part.
        let resource = scope.strip_suffix("/.default").unwrap_or(scope);
        let mut url = self.endpoint.clone();
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("resource", resource).append_pair("api-version", API_VERSION);
            if let Some(client_id) = &self.client_id {
                query.append_pair("client_id", client_id);
            }
        }
        url
    }

    fn advice(&self, status: u16) -> &'static str {
        match (status, &self.client_id) {
            (400, Some(_)) => "check that the identity AZURE_CLIENT_ID names is assigned to this app",
            (400, None) => {
                "the app has no system-assigned identity; set AZURE_CLIENT_ID to the assigned one's client id"
            }
            (401 | 403, _) => {
                "IDENTITY_HEADER was not accepted; restart the app so that it gets the present one"
            }
            (429, _) => "too many requests; it will be asked again",
            (500..=599, _) => "the identity service is failing; it will be asked again",
            _ => "check the app's identity",
        }
    }
}
