//! Account shared access signatures, computed from the account key: how Azurite and connection strings are
//! entered, since the SDK knows no account keys.
//!
//! Source: <https://learn.microsoft.com/rest/api/storageservices/create-account-sas>.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use secrecy::zeroize::Zeroizing;
use sha2::Sha256;

/// Service version whose rules the signature follows (the one that added the encryption-scope line is
/// 2020-12-06; Azurite 3.37.0 knows this one).
const VERSION: &str = "2023-11-03";
/// Blob and queue; service, container and object; every permission this module uses, in the prescribed order:
/// read, write, delete, list, add, create, update, process.
const SERVICES: &str = "bq";
const RESOURCE_TYPES: &str = "sco";
const PERMISSIONS: &str = "rwdlacup";

const LIFETIME: Duration = Duration::from_hours(1);
/// Renewed this long before it ends, so that a clock that runs ahead or a slow call does no harm.
const MARGIN: Duration = Duration::from_mins(15);

/// Signs and re-signs. One per storage account; the signature is shared by all calls until it is renewed.
pub(super) struct Signer {
    account: String,
    key: Zeroizing<Vec<u8>>,
    https_only: bool,
    current: RwLock<Option<Signature>>,
}

struct Signature {
    query: Arc<str>,
    renew_at: Timestamp,
}

impl Signer {
    /// `key` is the decoded account key.
    pub(super) fn new(account: String, key: Vec<u8>, https_only: bool) -> Self {
        Self { account, key: Zeroizing::new(key), https_only, current: RwLock::new(None) }
    }

    /// The query to append to a request's URL, without a leading `?` or `&`.
    pub(super) fn query(&self, now: Timestamp) -> Arc<str> {
        {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(signature) = current.as_ref().filter(|signature| now < signature.renew_at) {
                return Arc::clone(&signature.query);
            }
        }
        let expires = now.saturating_add(LIFETIME).unwrap_or(Timestamp::MAX);
        let renew_at = expires.saturating_sub(MARGIN).unwrap_or(now);
        let query: Arc<str> = self.sign(expires).into();
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Some(Signature { query: Arc::clone(&query), renew_at });
        query
    }

    fn sign(&self, expires: Timestamp) -> String {
        let expires = expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let protocol = if self.https_only { "https" } else { "https,http" };
        // Account, permissions, services, types, start (none), expiry, addresses (any), protocol, version,
        // encryption scope (none); each line ends with a newline.
        let text = format!(
            "{}\n{PERMISSIONS}\n{SERVICES}\n{RESOURCE_TYPES}\n\n{expires}\n\n{protocol}\n{VERSION}\n\n",
            self.account
        );
        let signature = match Hmac::<Sha256>::new_from_slice(&self.key) {
            Ok(mut mac) => {
                mac.update(text.as_bytes());
                BASE64.encode(mac.finalize().into_bytes())
            }
            // HMAC takes keys of every length; were that to change, the service would answer 403.
            Err(_) => String::new(),
        };
        url::form_urlencoded::Serializer::new(String::new())
            .append_pair("sv", VERSION)
            .append_pair("ss", SERVICES)
            .append_pair("srt", RESOURCE_TYPES)
            .append_pair("sp", PERMISSIONS)
            .append_pair("se", &expires)
            .append_pair("spr", protocol)
            .append_pair("sig", &signature)
            .finish()
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("account", &self.account).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
