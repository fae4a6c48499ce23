//! A storage account.

use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::TokenCredential;
use azure_core::http::{ClientOptions, RetryOptions, Transport};
use azure_storage_blob::{BlobContainerClient, BlobContainerClientOptions};
use azure_storage_queue::{QueueClient, QueueClientOptions};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::ExposeSecret as _;
use url::Url;

use super::container::Container;
use super::error::{Call, StorageError};
use super::queue::Queue;
use super::sas::Signer;
use super::settings::{StorageAuth, StorageSettings};
use super::transport::SignedTransport;

/// One storage account: gives its queues and containers. Cheap to make and to clone; connects when first used.
#[derive(Clone, Debug)]
pub struct Storage {
    account: Arc<Account>,
    timeout: Duration,
}

#[derive(Debug)]
struct Account {
    queue_endpoint: Url,
    blob_endpoint: Url,
    options: ClientOptions,
    credential: Option<Arc<dyn TokenCredential>>,
}

impl Storage {
    /// Fails only on settings that no call could succeed with.
    pub fn new(settings: StorageSettings) -> Result<Self, StorageError> {
        let StorageSettings { queue_endpoint, blob_endpoint, auth, call_timeout } = settings;
        let malformed = |reason: &str| StorageError::Malformed {
            call: Call { operation: "storage.open", resource: "account".to_owned() },
            reason: reason.to_owned(),
        };
        let https = queue_endpoint.scheme() == "https" && blob_endpoint.scheme() == "https";
        let plain = queue_endpoint.scheme() == "http" && blob_endpoint.scheme() == "http";
        if !https && !plain {
            return Err(malformed("the queue and blob endpoints must both be https, or both http"));
        }
        let (signer, credential): (Option<Signer>, Option<Arc<dyn TokenCredential>>) = match auth {
            StorageAuth::Sas { account, key } => {
                let key = BASE64.decode(key.expose_secret()).map_err(|_| {
                    malformed("the account key is not base64; copy it again from the storage account")
                })?;
                (Some(Signer::new(account, key, https)), None)
            }
            StorageAuth::Entra(_) if plain => {
                return Err(malformed("Entra tokens need https endpoints"));
            }
            StorageAuth::Entra(tokens) => (None, Some(tokens.credential())),
        };
        let options = ClientOptions {
            retry: RetryOptions::none(),
            transport: Some(Transport::new(Arc::new(SignedTransport::new(https, signer)))),
            ..ClientOptions::default()
        };
        let account = Account { queue_endpoint, blob_endpoint, options, credential };
        Ok(Self { account: Arc::new(account), timeout: call_timeout })
    }

    /// The same account with another limit for each call; connections and credentials are shared.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { account: Arc::clone(&self.account), timeout }
    }

    /// A queue by name. Nothing is created until something is put. Keep the value: it holds a ready client.
    pub fn queue(&self, name: &str) -> Queue {
        let url = below(&self.account.queue_endpoint, name);
        let options = QueueClientOptions {
            client_options: self.account.options.clone(),
            ..QueueClientOptions::default()
        };
        Queue::new(name, self.timeout, QueueClient::new(url, self.account.credential.clone(), Some(options)))
    }

    /// A container by name. Nothing is created until something is put. Keep the value: it holds a ready client.
    pub fn container(&self, name: &str) -> Container {
        let url = below(&self.account.blob_endpoint, name);
        let options = BlobContainerClientOptions {
            client_options: self.account.options.clone(),
            ..BlobContainerClientOptions::default()
        };
        let client = BlobContainerClient::new(url, self.account.credential.clone(), Some(options));
        Container::new(name, self.timeout, client)
    }
}

/// `endpoint/name`, whatever the name holds.
fn below(endpoint: &Url, name: &str) -> Url {
    let mut url = endpoint.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().push(name);
    }
    url
}

#[cfg(test)]
mod tests;
