//! The traits on `colloquy::azure`, and which account a `connection` names.

use std::time::Duration;

use bytes::Bytes;
use colloquy::azure::{
    Container, Credential, Deletion, LeaseId, ManagedIdentity, Queue, Receipt, Storage, StorageError,
    StorageSettings, TokenSource,
};
use jiff::Timestamp;
use thiserror::Error;

use super::{Blobs, Message, Messages, StorageFailure, Task};
use crate::settings::Settings;

/// The connection of the host itself: locks, timers, and triggers that name none.
pub const HOST_CONNECTION: &str = "AzureWebJobsStorage";

#[derive(Debug, Error)]
#[error(
    "connection '{connection}': {reason}. Set {connection} in local.settings.json (Values) or in the environment; UseDevelopmentStorage=true is Azurite"
)]
pub struct ConnectionError {
    connection: String,
    reason: String,
}

/// Opens storage accounts by connection name. Opening connects to nothing.
pub struct Accounts<'a> {
    settings: &'a Settings,
}

impl<'a> Accounts<'a> {
    pub fn new(settings: &'a Settings) -> Self {
        Accounts { settings }
    }

    /// The account of `connection`; empty means the host's own.
    pub fn open(&self, connection: &str) -> Result<Storage, ConnectionError> {
        let connection = if connection.is_empty() { HOST_CONNECTION } else { connection };
        let failed = |reason: String| ConnectionError { connection: connection.to_owned(), reason };
        let settings = match self.settings.get(connection).filter(|text| !text.is_empty()) {
            Some(text) => {
                StorageSettings::from_connection_string(text).map_err(|cause| failed(cause.to_string()))?
            }
            None => self.by_identity(connection).map_err(failed)?,
        };
        Storage::new(settings).map_err(|cause| failed(cause.to_string()))
    }

    fn by_identity(&self, connection: &str) -> Result<StorageSettings, String> {
        let part =
            |name: &str| self.settings.get(&format!("{connection}__{name}")).filter(|text| !text.is_empty());
        let settings = match (part("queueServiceUri"), part("blobServiceUri"), part("accountName")) {
            (Some(queue), Some(blob), _) => {
                StorageSettings::from_service_uris(queue, blob, self.tokens(part("clientId"))?)
            }
            (None, None, Some(account)) => {
                StorageSettings::from_account_name(account, self.tokens(part("clientId"))?)
            }
            (None, None, None) => return Err("it is not set".to_owned()),
            _ => {
                return Err(format!(
                    "{connection}__queueServiceUri and {connection}__blobServiceUri are needed together"
                ));
            }
        };
        settings.map_err(|cause| cause.to_string())
    }

    /// The app's identity where there is an endpoint for it, else whoever is signed in.
    fn tokens(&self, client_id: Option<&str>) -> Result<TokenSource, String> {
        let credential = match (self.settings.get("IDENTITY_ENDPOINT"), self.settings.get("IDENTITY_HEADER"))
        {
            (Some(endpoint), Some(header)) => Credential::ManagedIdentity(ManagedIdentity {
                endpoint: endpoint
                    .parse()
                    .map_err(|cause| format!("IDENTITY_ENDPOINT is no address: {cause}"))?,
                header: header.to_owned().into(),
                client_id: client_id.map(str::to_owned),
            }),
            _ => Credential::Developer,
        };
        Ok(TokenSource::new(credential))
    }
}

impl From<StorageError> for StorageFailure {
    fn from(cause: StorageError) -> Self {
        match cause {
            StorageError::NotFound { .. } => StorageFailure::Missing,
            other => StorageFailure::Other(format!("{other} [{}]", other.code())),
        }
    }
}

fn receipt(message: &Message) -> Receipt {
    Receipt { id: message.id.clone(), pop_receipt: message.pop_receipt.clone() }
}

impl Messages for Queue {
    fn name(&self) -> &str {
        Queue::name(self)
    }

    fn receive(&self, max: u8, invisible: Duration) -> Task<'_, Vec<Message>> {
        Box::pin(async move {
            let received = Queue::receive(self, max, invisible).await?;
            Ok(received
                .into_iter()
                .map(|received| Message {
                    id: received.receipt.id,
                    pop_receipt: received.receipt.pop_receipt,
                    dequeue_count: received.dequeue_count,
                    inserted_at: received.inserted_at,
                    expires_at: Some(received.expires_at).filter(|at| *at != Timestamp::MAX),
                    next_visible_at: received.next_visible_at,
                    raw: received.raw,
                })
                .collect())
        })
    }

    fn set_visibility<'a>(&'a self, message: &'a Message, after: Duration) -> Task<'a, String> {
        Box::pin(async move {
            let extended = self.extend(&receipt(message), after).await?;
            extended.map(|receipt| receipt.pop_receipt).ok_or(StorageFailure::Missing)
        })
    }

    fn delete<'a>(&'a self, message: &'a Message) -> Task<'a, ()> {
        Box::pin(async move {
            match Queue::delete(self, &receipt(message)).await? {
                Deletion::Deleted => Ok(()),
                Deletion::Gone => Err(StorageFailure::Missing),
            }
        })
    }

    fn put<'a>(&'a self, raw: &'a str) -> Task<'a, ()> {
        Box::pin(async move { Ok(self.put_raw(raw, Duration::ZERO).await?) })
    }
}

impl Blobs for Container {
    fn read<'a>(&'a self, name: &'a str) -> Task<'a, Option<Bytes>> {
        Box::pin(async move { Ok(self.get(name).await?) })
    }

    fn write<'a>(&'a self, name: &'a str, content: Bytes) -> Task<'a, ()> {
        Box::pin(async move { Ok(Container::put(self, name, content, "application/json").await?) })
    }

    fn lease<'a>(&'a self, name: &'a str, length: Duration) -> Task<'a, Option<String>> {
        Box::pin(async move { Ok(self.acquire_lease(name, length).await?.map(|lease| lease.0)) })
    }

    fn renew<'a>(&'a self, name: &'a str, lease: &'a str) -> Task<'a, ()> {
        Box::pin(async move {
            let held = self.renew_lease(name, &LeaseId(lease.to_owned())).await?;
            if held { Ok(()) } else { Err(StorageFailure::Missing) }
        })
    }

    fn release<'a>(&'a self, name: &'a str, lease: &'a str) -> Task<'a, ()> {
        Box::pin(async move { Ok(self.release_lease(name, &LeaseId(lease.to_owned())).await.map(drop)?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(connection: &str, pairs: &[(&str, &str)]) -> Result<(), String> {
        let settings = Settings::from_pairs(pairs);
        Accounts::new(&settings).open(connection).map(drop).map_err(|cause| cause.to_string())
    }

    #[test]
    fn a_connection_is_a_string_or_a_prefix() {
        assert_eq!(open("", &[("AzureWebJobsStorage", "UseDevelopmentStorage=true")]), Ok(()));
        assert_eq!(open("Store", &[("Store__accountName", "account")]), Ok(()));
        let uris = [
            ("S__queueServiceUri", "https://a.queue.core.windows.net"),
            ("S__blobServiceUri", "https://a.blob.core.windows.net"),
        ];
        assert_eq!(open("S", &uris), Ok(()));
        assert!(open("S", &uris[..1]).unwrap_err().contains("needed together"));
        assert!(
            open("", &[])
                .unwrap_err()
                .starts_with("connection 'AzureWebJobsStorage': it is not set. Set AzureWebJobsStorage")
        );
    }
}
