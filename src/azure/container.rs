//! Blob containers: whole small blobs by name, and leases on blobs.
//!
//! Source: <https://learn.microsoft.com/rest/api/storageservices/blob-service-rest-api>.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use azure_core::http::{Etag, StatusCode};
use azure_storage_blob::models::{
    BlobClientAcquireLeaseResultHeaders as _, BlobClientDownloadOptions, BlobClientUploadOptions,
    BlobContainerClientListBlobsOptions,
};
use azure_storage_blob::{BlobClient, BlobContainerClient};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use jiff::Timestamp;

use super::call::bounded;
use super::error::{Call, StorageError, is_status, service_code};
use super::queue::timestamp;

/// A blob goes and comes in one request: the SDK would otherwise divide it among threads of its own.
const ONE_REQUEST: usize = 1 << 30;

/// One container. Created by the first put if it does not exist; until then it reads as empty.
#[derive(Clone)]
pub struct Container {
    name: Arc<str>,
    timeout: Duration,
    client: Arc<azure_core::Result<BlobContainerClient>>,
}

/// What a conditional put found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    Created,
    /// A blob of that name was there and is unchanged.
    Exists,
}

/// Which content a blob had when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobVersion(Etag);

/// Whoever holds it holds the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseId(pub String);

/// A blob as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobItem {
    pub name: String,
    pub last_modified: Timestamp,
    /// In bytes.
    pub size: u64,
}

/// A part of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobPage {
    /// In order of name, up to 5,000.
    pub items: Vec<BlobItem>,
    /// What to ask the next page with; `None` at the end.
    pub next: Option<String>,
}

impl Container {
    pub(super) fn new(
        name: &str,
        timeout: Duration,
        client: azure_core::Result<BlobContainerClient>,
    ) -> Self {
        Self { name: Arc::from(name), timeout, client: Arc::new(client) }
    }

    /// The container's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Creates the container, closed to anonymous readers, unless it exists.
    pub async fn create_if_missing(&self) -> Result<(), StorageError> {
        let client = self.client("blob.create-container")?;
        bounded("blob.create-container", self.name.to_string(), self.timeout, || create(client)).await
    }

    /// Writes a blob, in place of any of that name. Creates the container if it does not exist.
    pub async fn put(&self, name: &str, content: Bytes, content_type: &str) -> Result<(), StorageError> {
        let client = self.client("blob.put")?;
        let blob = &client.blob_client(name);
        let content = &content;
        bounded("blob.put", self.resource(name), self.timeout, || async move {
            match upload(blob, content, upload_options(content_type)).await {
                Err(error) if container_missing(&error) => {
                    create(client).await?;
                    upload(blob, content, upload_options(content_type)).await
                }
                put => put,
            }
        })
        .await
    }

    /// Writes a blob unless one of that name exists. If the answer to an earlier try was lost, the blob found
    /// may be this call's own. Creates the container if it does not exist.
    pub async fn put_new(
        &self,
        name: &str,
        content: Bytes,
        content_type: &str,
    ) -> Result<Creation, StorageError> {
        let client = self.client("blob.put-new")?;
        let blob = &client.blob_client(name);
        let content = &content;
        bounded("blob.put-new", self.resource(name), self.timeout, || async move {
            let put = match upload(blob, content, upload_options(content_type).if_not_exists()).await {
                Err(error) if container_missing(&error) => {
                    create(client).await?;
                    upload(blob, content, upload_options(content_type).if_not_exists()).await
                }
                put => put,
            };
            match put {
                Ok(()) => Ok(Creation::Created),
                Err(error) if exists(&error) => Ok(Creation::Exists),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Writes a blob in place of the version that was read. `false`: it has another content by now, or is gone, and
    /// nothing was written. If the answer to an earlier try was lost, that content may be this call's own.
    pub async fn put_over(
        &self,
        name: &str,
        version: &BlobVersion,
        content: Bytes,
        content_type: &str,
    ) -> Result<bool, StorageError> {
        let client = self.client("blob.put-over")?;
        let blob = &client.blob_client(name);
        let content = &content;
        bounded("blob.put-over", self.resource(name), self.timeout, || async move {
            let options =
                BlobClientUploadOptions { if_match: Some(version.0.clone()), ..upload_options(content_type) };
            match upload(blob, content, options).await {
                Ok(()) => Ok(true),
                Err(error) if changed(&error) => Ok(false),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// A blob's content, `None` if there is no such blob.
    pub async fn get(&self, name: &str) -> Result<Option<Bytes>, StorageError> {
        Ok(self.read("blob.get", name).await?.map(|(content, _)| content))
    }

    /// A blob's content and its version, for [`Self::put_over`]; `None` if there is no such blob.
    pub async fn get_versioned(&self, name: &str) -> Result<Option<(Bytes, BlobVersion)>, StorageError> {
        let operation = "blob.get-versioned";
        let Some((content, version)) = self.read(operation, name).await? else { return Ok(None) };
        match version {
            Some(version) => Ok(Some((content, BlobVersion(version)))),
            None => Err(StorageError::Malformed {
                call: Call { operation, resource: self.resource(name) },
                reason: "the answer has no ETag".to_owned(),
            }),
        }
    }

    async fn read(
        &self,
        operation: &'static str,
        name: &str,
    ) -> Result<Option<(Bytes, Option<Etag>)>, StorageError> {
        let client = self.client(operation)?;
        let blob = &client.blob_client(name);
        bounded(operation, self.resource(name), self.timeout, || async move {
            let options = BlobClientDownloadOptions {
                parallel: NonZero::new(1),
                partition_size: NonZero::new(ONE_REQUEST),
                ..BlobClientDownloadOptions::default()
            };
            match blob.download(Some(options)).await {
                Ok(response) => Ok(Some((response.body.collect().await?, response.properties.etag))),
                Err(error) if is_status(&error, StatusCode::NotFound) => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Deletes a blob; also succeeds if there is none. A leased blob is refused.
    pub async fn delete(&self, name: &str) -> Result<(), StorageError> {
        let client = self.client("blob.delete")?;
        let blob = &client.blob_client(name);
        bounded("blob.delete", self.resource(name), self.timeout, || async move {
            match blob.delete(None).await {
                Ok(_) => Ok(()),
                Err(error) if is_status(&error, StatusCode::NotFound) => Ok(()),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// All blobs whose name begins with `prefix`, in order of name. For prefixes known to hold few; a sweep
    /// over many goes by [`Self::list_page`].
    pub async fn list(&self, prefix: &str) -> Result<Vec<BlobItem>, StorageError> {
        let mut items = Vec::new();
        let mut from = None;
        loop {
            let page = self.list_page(prefix, from.as_deref()).await?;
            items.extend(page.items);
            match page.next {
                Some(next) => from = Some(next),
                None => return Ok(items),
            }
        }
    }

    /// One page of the blobs whose name begins with `prefix`: the first, or the one that `from`, an earlier
    /// page's [`BlobPage::next`], stands for. A missing container is empty.
    pub async fn list_page(&self, prefix: &str, from: Option<&str>) -> Result<BlobPage, StorageError> {
        let client = self.client("blob.list")?;
        bounded("blob.list", self.name.to_string(), self.timeout, || async move {
            let options = BlobContainerClientListBlobsOptions {
                prefix: Some(prefix.to_owned()).filter(|prefix| !prefix.is_empty()),
                marker: from.map(str::to_owned),
                ..BlobContainerClientListBlobsOptions::default()
            };
            let page = match client.list_blobs(Some(options))?.into_pages().try_next().await {
                Ok(Some(page)) => page.into_model()?,
                Ok(None) => return Ok(BlobPage { items: Vec::new(), next: None }),
                Err(error) if container_missing(&error) => {
                    return Ok(BlobPage { items: Vec::new(), next: None });
                }
                Err(error) => return Err(error),
            };
            let items = page.blob_items.into_iter().filter_map(|item| {
                let properties = item.properties.unwrap_or_default();
                Some(BlobItem {
                    name: item.name?,
                    last_modified: timestamp(properties.last_modified),
                    size: properties.content_length.unwrap_or(0),
                })
            });
            Ok(BlobPage { items: items.collect(), next: page.next_marker.filter(|next| !next.is_empty()) })
        })
        .await
    }

    /// Takes the lease on a blob for `duration` (15 to 60 s, cut to that), or `None` while another holds it.
    /// The blob is created, empty, if it does not exist.
    pub async fn acquire_lease(
        &self,
        name: &str,
        duration: Duration,
    ) -> Result<Option<LeaseId>, StorageError> {
        let client = self.client("blob.acquire-lease")?;
        let blob = &client.blob_client(name);
        let seconds = i32::try_from(duration.as_secs().clamp(15, 60)).unwrap_or(60);
        // Proposed by us, so that a try whose answer was lost does not lock its own successor out.
        let proposed = &uuid::Uuid::now_v7().to_string();
        let outcome = bounded("blob.acquire-lease", self.resource(name), self.timeout, || async move {
            match acquire(blob, seconds, proposed).await {
                Err(error) if is_status(&error, StatusCode::NotFound) => {
                    create(client).await?;
                    let options = upload_options("application/octet-stream").if_not_exists();
                    match upload(blob, &Bytes::new(), options).await {
                        Ok(()) => {}
                        Err(error) if exists(&error) => {}
                        Err(error) => return Err(error),
                    }
                    acquire(blob, seconds, proposed).await
                }
                acquired => acquired,
            }
        });
        match outcome.await? {
            Lease::Held(Some(id)) => Ok(Some(LeaseId(id))),
            Lease::Lost => Ok(None),
            Lease::Held(None) => Err(StorageError::Malformed {
                call: Call { operation: "blob.acquire-lease", resource: self.resource(name) },
                reason: "the answer has no lease id".to_owned(),
            }),
        }
    }

    /// Starts a held lease's time anew. `false`: it is lost, and another may hold it.
    pub async fn renew_lease(&self, name: &str, lease: &LeaseId) -> Result<bool, StorageError> {
        let client = self.client("blob.renew-lease")?;
        let blob = &client.blob_client(name);
        bounded("blob.renew-lease", self.resource(name), self.timeout, || async move {
            match blob.renew_lease(lease.0.clone(), None).await {
                Ok(_) => Ok(true),
                Err(error) if lease_lost(&error) => Ok(false),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Gives a lease back. `false`: it was lost before.
    pub async fn release_lease(&self, name: &str, lease: &LeaseId) -> Result<bool, StorageError> {
        let client = self.client("blob.release-lease")?;
        let blob = &client.blob_client(name);
        bounded("blob.release-lease", self.resource(name), self.timeout, || async move {
            match blob.release_lease(lease.0.clone(), None).await {
                Ok(_) => Ok(true),
                Err(error) if lease_lost(&error) => Ok(false),
                Err(error) => Err(error),
            }
        })
        .await
    }

    fn client(&self, operation: &'static str) -> Result<&BlobContainerClient, StorageError> {
        self.client.as_ref().as_ref().map_err(|_| StorageError::Malformed {
            call: Call { operation, resource: self.name.to_string() },
            reason: "the container's address cannot be used".to_owned(),
        })
    }

    fn resource(&self, blob: &str) -> String {
        format!("{}/{blob}", self.name)
    }
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Container").field("name", &self.name).finish_non_exhaustive()
    }
}

enum Lease {
    Held(Option<String>),
    Lost,
}

async fn acquire(blob: &BlobClient, seconds: i32, proposed: &str) -> azure_core::Result<Lease> {
    let options = azure_storage_blob::models::BlobClientAcquireLeaseOptions {
        proposed_lease_id: Some(proposed.to_owned()),
        ..azure_storage_blob::models::BlobClientAcquireLeaseOptions::default()
    };
    match blob.acquire_lease(seconds, Some(options)).await {
        Ok(response) => Ok(Lease::Held(response.lease_id()?)),
        Err(error) if lease_refused(&error) => Ok(Lease::Lost),
        Err(error) => Err(error),
    }
}

async fn create(client: &BlobContainerClient) -> azure_core::Result<()> {
    match client.create(None).await {
        Ok(_) => Ok(()),
        Err(error) if service_code(&error) == Some("ContainerAlreadyExists") => Ok(()),
        Err(error) => Err(error),
    }
}

fn upload_options(content_type: &str) -> BlobClientUploadOptions<'static> {
    BlobClientUploadOptions {
        blob_content_type: Some(content_type.to_owned()),
        partition_size: NonZero::new(ONE_REQUEST as u64),
        ..BlobClientUploadOptions::default()
    }
}

async fn upload(
    blob: &BlobClient,
    content: &Bytes,
    options: BlobClientUploadOptions<'static>,
) -> azure_core::Result<()> {
    blob.upload(content.clone().into(), Some(options)).await.map(drop)
}

fn container_missing(error: &azure_core::Error) -> bool {
    is_status(error, StatusCode::NotFound) && service_code(error) == Some("ContainerNotFound")
}

/// `If-None-Match: *` fails with 409 `BlobAlreadyExists`, or 412 while the blob is leased.
fn exists(error: &azure_core::Error) -> bool {
    matches!(service_code(error), Some("BlobAlreadyExists" | "ConditionNotMet" | "LeaseIdMissing"))
}

/// `If-Match` fails with 412 `ConditionNotMet`, or 404 when the blob is gone.
fn changed(error: &azure_core::Error) -> bool {
    service_code(error) == Some("ConditionNotMet") || is_status(error, StatusCode::NotFound)
}

/// Another holds the lease, or did since.
fn lease_refused(error: &azure_core::Error) -> bool {
    service_code(error).is_some_and(|code| code.starts_with("Lease"))
}

fn lease_lost(error: &azure_core::Error) -> bool {
    lease_refused(error) || is_status(error, StatusCode::NotFound)
}

#[cfg(test)]
mod tests;
