//! Where the storage account is and how to be let in.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::tokens::TokenSource;

/// Azurite's well-known account. Public by design: it protects nothing.
/// Source: <https://learn.microsoft.com/azure/storage/common/storage-connect-azurite>.
const DEVELOPMENT_ACCOUNT: &str = "devstoreaccount1";
const DEVELOPMENT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const DEVELOPMENT_BLOB: &str = "http://127.0.0.1:10000/devstoreaccount1";
const DEVELOPMENT_QUEUE: &str = "http://127.0.0.1:10001/devstoreaccount1";

/// One storage account: its addresses, the way in, how long a call may take.
#[derive(Clone, Debug)]
pub struct StorageSettings {
    /// Without query and without trailing slash, e.g. `https://name.queue.core.windows.net` or
    /// `http://127.0.0.1:10001/devstoreaccount1`.
    pub queue_endpoint: Url,
    /// As [`Self::queue_endpoint`], for blobs.
    pub blob_endpoint: Url,
    pub auth: StorageAuth,
    /// The longest a single call may take, its retries included.
    pub call_timeout: Duration,
}

/// How the storage account lets us in.
#[derive(Clone, Debug)]
pub enum StorageAuth {
    /// An account key, from which an account SAS is computed here. Azurite, and connection strings.
    Sas { account: String, key: SecretString },
    /// An Entra token: managed identity or developer. Needs `https` endpoints.
    Entra(TokenSource),
}

/// What is wrong with a connection string or service URI. Names the part; never repeats a value that could be
/// the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error("the connection string is empty")]
    Empty,
    #[error("part {position} of the connection string is not Name=Value; parts are separated by ';'")]
    NotAPair { position: usize },
    #[error("{part} occurs twice in the connection string")]
    Twice { part: &'static str },
    #[error("{part} is missing")]
    Missing { part: &'static str },
    #[error("{part} {problem}")]
    Invalid { part: &'static str, problem: &'static str },
    #[error(
        "the connection string holds a shared access signature; give an AccountKey, or use a managed identity"
    )]
    SharedAccessSignature,
}

impl StorageSettings {
    /// Default of [`Self::call_timeout`].
    pub const DEFAULT_CALL_TIMEOUT: Duration = Duration::from_secs(10);

    /// Reads an Azure storage connection string: `UseDevelopmentStorage=true`, or `AccountName`, `AccountKey`
    /// and either `BlobEndpoint` and `QueueEndpoint` or `EndpointSuffix` (default `core.windows.net`).
    /// Parts of other services and `DevelopmentStorageProxyUri` are ignored.
    ///
    /// Format: <https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string>.
    pub fn from_connection_string(text: &str) -> Result<Self, SettingsError> {
        let parts = Parts::read(text)?;
        if parts.use_development_storage {
            return Ok(Self {
                queue_endpoint: endpoint("QueueEndpoint", DEVELOPMENT_QUEUE)?,
                blob_endpoint: endpoint("BlobEndpoint", DEVELOPMENT_BLOB)?,
                auth: StorageAuth::Sas {
                    account: DEVELOPMENT_ACCOUNT.to_owned(),
                    key: SecretString::from(DEVELOPMENT_KEY),
                },
                call_timeout: Self::DEFAULT_CALL_TIMEOUT,
            });
        }
        if parts.shared_access_signature {
            return Err(SettingsError::SharedAccessSignature);
        }
        let account = parts.account_name.ok_or(SettingsError::Missing { part: "AccountName" })?;
        check_account(&account)?;
        let key = parts.account_key.ok_or(SettingsError::Missing { part: "AccountKey" })?;
        let decoded = BASE64.decode(key.expose_secret());
        if !decoded.is_ok_and(|bytes| !bytes.is_empty()) {
            return Err(SettingsError::Invalid { part: "AccountKey", problem: "is not base64" });
        }
        let protocol = parts.protocol.unwrap_or_else(|| "https".to_owned());
        if protocol != "https" && protocol != "http" {
            return Err(SettingsError::Invalid {
                part: "DefaultEndpointsProtocol",
                problem: "is neither https nor http",
            });
        }
        let suffix = parts.suffix.unwrap_or_else(|| "core.windows.net".to_owned());
        let of_service = |given: Option<String>, part, service: &str| match given {
            Some(given) => endpoint(part, &given),
            None => endpoint("EndpointSuffix", &format!("{protocol}://{account}.{service}.{suffix}")),
        };
        Ok(Self {
            queue_endpoint: of_service(parts.queue_endpoint, "QueueEndpoint", "queue")?,
            blob_endpoint: of_service(parts.blob_endpoint, "BlobEndpoint", "blob")?,
            auth: StorageAuth::Sas { account, key },
            call_timeout: Self::DEFAULT_CALL_TIMEOUT,
        })
    }

    /// From `AzureWebJobsStorage__queueServiceUri` and `…__blobServiceUri`, entered with Entra tokens. Both
    /// must be `https`: a token must not travel in the clear.
    pub fn from_service_uris(queue: &str, blob: &str, tokens: TokenSource) -> Result<Self, SettingsError> {
        let queue_endpoint = secure_endpoint("queueServiceUri", queue)?;
        let blob_endpoint = secure_endpoint("blobServiceUri", blob)?;
        let call_timeout = Self::DEFAULT_CALL_TIMEOUT;
        Ok(Self { queue_endpoint, blob_endpoint, auth: StorageAuth::Entra(tokens), call_timeout })
    }

    /// From `AzureWebJobsStorage__accountName`: the public cloud's addresses, entered with Entra tokens.
    pub fn from_account_name(account: &str, tokens: TokenSource) -> Result<Self, SettingsError> {
        check_account(account)?;
        Self::from_service_uris(
            &format!("https://{account}.queue.core.windows.net"),
            &format!("https://{account}.blob.core.windows.net"),
            tokens,
        )
    }
}

/// The parts of a connection string that matter here.
#[derive(Default)]
struct Parts {
    use_development_storage: bool,
    shared_access_signature: bool,
    protocol: Option<String>,
    account_name: Option<String>,
    account_key: Option<SecretString>,
    suffix: Option<String>,
    blob_endpoint: Option<String>,
    queue_endpoint: Option<String>,
}

impl Parts {
    fn read(text: &str) -> Result<Self, SettingsError> {
        let mut parts = Self::default();
        let mut any = false;
        for (index, part) in text.split(';').enumerate() {
            if part.trim().is_empty() {
                continue;
            }
            any = true;
            // Split at the first '=' only: keys end in '='.
            let (name, value) =
                part.split_once('=').ok_or(SettingsError::NotAPair { position: index + 1 })?;
            parts.take(name.trim(), value.trim())?;
        }
        if any { Ok(parts) } else { Err(SettingsError::Empty) }
    }

    fn take(&mut self, name: &str, value: &str) -> Result<(), SettingsError> {
        match name.to_ascii_lowercase().as_str() {
            "usedevelopmentstorage" => {
                if !value.eq_ignore_ascii_case("true") {
                    return Err(SettingsError::Invalid {
                        part: "UseDevelopmentStorage",
                        problem: "is not true",
                    });
                }
                self.use_development_storage = true;
                Ok(())
            }
            "sharedaccesssignature" => {
                self.shared_access_signature = true;
                Ok(())
            }
            "defaultendpointsprotocol" => {
                set(&mut self.protocol, "DefaultEndpointsProtocol", value.to_ascii_lowercase())
            }
            "accountname" => set(&mut self.account_name, "AccountName", value.to_owned()),
            "accountkey" => set(&mut self.account_key, "AccountKey", SecretString::from(value)),
            "endpointsuffix" => set(&mut self.suffix, "EndpointSuffix", value.to_owned()),
            "blobendpoint" => set(&mut self.blob_endpoint, "BlobEndpoint", value.to_owned()),
            "queueendpoint" => set(&mut self.queue_endpoint, "QueueEndpoint", value.to_owned()),
            // TableEndpoint, FileEndpoint, the secondary endpoints, DevelopmentStorageProxyUri.
            _ => Ok(()),
        }
    }
}

fn set<T>(slot: &mut Option<T>, part: &'static str, value: T) -> Result<(), SettingsError> {
    if slot.is_some() {
        return Err(SettingsError::Twice { part });
    }
    *slot = Some(value);
    Ok(())
}

fn check_account(account: &str) -> Result<(), SettingsError> {
    let fits = (3..=24).contains(&account.len())
        && account.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if fits {
        return Ok(());
    }
    Err(SettingsError::Invalid {
        part: "AccountName",
        problem: "is not 3 to 24 lower-case letters and digits",
    })
}

fn secure_endpoint(part: &'static str, text: &str) -> Result<Url, SettingsError> {
    let url = endpoint(part, text)?;
    if url.scheme() != "https" {
        return Err(SettingsError::Invalid { part, problem: "is not https, which Entra tokens need" });
    }
    Ok(url)
}

/// A service address without trailing slash: with one, the SDK asks for `//queue` below a path.
fn endpoint(part: &'static str, text: &str) -> Result<Url, SettingsError> {
    let invalid = |problem| SettingsError::Invalid { part, problem };
    let mut url = Url::parse(text).map_err(|_| invalid("is not a URL"))?;
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none_or(str::is_empty) {
        return Err(invalid("is not an http or https URL"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("has a query; signatures in addresses are not supported"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("has a user name or password"));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

#[cfg(test)]
mod tests;
