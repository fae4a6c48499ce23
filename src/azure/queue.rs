//! Storage queues: message text in base64, messages that never expire, receipts that may be lost.
//!
//! Source: <https://learn.microsoft.com/rest/api/storageservices/queue-service-rest-api>.

use std::sync::Arc;
use std::time::Duration;

use azure_core::http::headers::HeaderName;
use azure_core::http::{RequestContent, StatusCode, XmlFormat};
use azure_core::time::OffsetDateTime;
use azure_storage_queue::QueueClient;
use azure_storage_queue::models::{
    PeekedMessage, QueueClientGetPropertiesResultHeaders as _, QueueClientPeekMessagesOptions,
    QueueClientReceiveMessagesOptions, QueueClientSendMessageOptions, QueueMessage, ReceivedMessage,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;

use super::call::bounded;
use super::error::{Call, StorageError, is_status, service_code};

/// The longest message a queue takes, in bytes as stored, that is after base64: 48 KiB of text.
pub const MAX_ENCODED_BYTES: usize = 65_536;

/// The longest a message can be hidden, by [`Queue::put`], [`Queue::receive`] and [`Queue::extend`]; longer
/// times are cut to it.
pub const MAX_DELAY: Duration = Duration::from_hours(7 * 24);

/// Never expires.
const TIME_TO_LIVE: i32 = -1;
const POP_RECEIPT: HeaderName = HeaderName::from_static("x-ms-popreceipt");

/// One queue. Created by the first put if it does not exist; until then it reads as empty.
#[derive(Clone)]
pub struct Queue {
    name: Arc<str>,
    timeout: Duration,
    client: Arc<azure_core::Result<QueueClient>>,
}

/// What allows a received message to be hidden longer or deleted, for as long as nobody else receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The message's id, the same at every receive.
    pub id: String,
    /// Changes with every receive and extension.
    pub pop_receipt: String,
}

/// A message, hidden from others until `next_visible_at`.
#[derive(Clone, Debug)]
pub struct Received {
    pub receipt: Receipt,
    /// How often it has been received, this time included: 1 at first.
    pub dequeue_count: u32,
    pub inserted_at: Timestamp,
    /// The year 9999 for messages put by [`Queue::put`].
    pub expires_at: Timestamp,
    pub next_visible_at: Timestamp,
    /// As stored.
    pub raw: String,
    /// As put: [`Self::raw`] decoded from base64.
    pub text: Result<String, NotText>,
}

/// A message seen without being received.
#[derive(Clone, Debug)]
pub struct Peeked {
    pub id: String,
    pub dequeue_count: u32,
    pub inserted_at: Timestamp,
    pub expires_at: Timestamp,
    pub raw: String,
    pub text: Result<String, NotText>,
}

/// The stored message is not UTF-8 text in base64, so some other program put it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message is not base64 of UTF-8 text")]
pub struct NotText;

/// What a delete found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    Deleted,
    /// Somebody else received the message meanwhile, or it no longer exists: ownership is lost.
    Gone,
}

/// Figures of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueProperties {
    /// Messages in the queue, hidden ones included. Never too low, but may lag.
    pub approximate_count: u64,
}

impl Queue {
    pub(super) fn new(name: &str, timeout: Duration, client: azure_core::Result<QueueClient>) -> Self {
        Self { name: Arc::from(name), timeout, client: Arc::new(client) }
    }

    /// The queue's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Creates the queue unless it exists.
    pub async fn create_if_missing(&self) -> Result<(), StorageError> {
        let client = self.client("queue.create")?;
        bounded("queue.create", self.name.to_string(), self.timeout, || create(client)).await
    }

    /// Puts `text`, as base64, hidden for `delay` (rounded up to seconds, at most [`MAX_DELAY`]). It never
    /// expires. Creates the queue if it does not exist.
    ///
    /// [`StorageError::TooLarge`] before anything is sent if it does not fit in [`MAX_ENCODED_BYTES`]. If the
    /// answer to a put is lost, the message may be there twice.
    pub async fn put(&self, text: &str, delay: Duration) -> Result<(), StorageError> {
        let bytes = Self::encoded_len(text.len());
        self.check_size(bytes)?;
        self.send(BASE64.encode(text), delay).await
    }

    /// What [`Queue::put`] says of a text that does not fit: for who needs room beside it.
    pub fn too_large(&self, text: &str) -> StorageError {
        self.oversize(Self::encoded_len(text.len()))
    }

    /// Puts a message as it will be stored, without base64: for messages moved from one queue to another.
    /// Such a text must be XML characters only, which [`Received::raw`] is.
    pub async fn put_raw(&self, raw: &str, delay: Duration) -> Result<(), StorageError> {
        self.check_size(raw.len())?;
        self.send(raw.to_owned(), delay).await
    }

    /// How many bytes a text of `len` bytes takes in a queue. Fits if at most [`MAX_ENCODED_BYTES`].
    pub const fn encoded_len(len: usize) -> usize {
        len.div_ceil(3).saturating_mul(4)
    }

    /// Takes up to `max` messages (1 to 32, cut to that) and hides them for `visibility` (1 s to
    /// [`MAX_DELAY`], cut to that, rounded up to seconds). A missing queue is empty.
    pub async fn receive(&self, max: u8, visibility: Duration) -> Result<Vec<Received>, StorageError> {
        let client = self.client("queue.receive")?;
        let number_of_messages = Some(i32::from(max.clamp(1, 32)));
        let visibility_timeout = Some(seconds(visibility).max(1));
        let received = bounded("queue.receive", self.name.to_string(), self.timeout, || async move {
            let options = QueueClientReceiveMessagesOptions {
                number_of_messages,
                visibility_timeout,
                ..QueueClientReceiveMessagesOptions::default()
            };
            match client.receive_messages(Some(options)).await {
                Ok(response) => Ok(response.into_model()?.items.unwrap_or_default()),
                Err(error) if queue_missing(&error) => Ok(Vec::new()),
                Err(error) => Err(error),
            }
        })
        .await?;
        received.into_iter().map(|message| self.received(message)).collect()
    }

    /// Hides a received message for `visibility` from now on; zero makes it visible at once. `None`: ownership
    /// is lost. The old receipt is void afterwards.
    pub async fn extend(
        &self,
        receipt: &Receipt,
        visibility: Duration,
    ) -> Result<Option<Receipt>, StorageError> {
        let client = self.client("queue.extend")?;
        let visibility = seconds(visibility);
        let pop_receipt = bounded("queue.extend", self.name.to_string(), self.timeout, || async move {
            match client.update_message(&receipt.id, &receipt.pop_receipt, visibility, None).await {
                Ok(response) => Ok(Some(response.headers().get_optional_string(&POP_RECEIPT))),
                Err(error) if ownership_lost(&error) => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await?;
        match pop_receipt {
            None => Ok(None),
            Some(Some(pop_receipt)) => Ok(Some(Receipt { id: receipt.id.clone(), pop_receipt })),
            Some(None) => Err(self.unreadable("queue.extend", "the answer has no pop receipt")),
        }
    }

    /// Deletes a received message.
    pub async fn delete(&self, receipt: &Receipt) -> Result<Deletion, StorageError> {
        let client = self.client("queue.delete")?;
        bounded("queue.delete", self.name.to_string(), self.timeout, || async move {
            match client.delete_message(&receipt.id, &receipt.pop_receipt, None).await {
                Ok(_) => Ok(Deletion::Deleted),
                Err(error) if ownership_lost(&error) => Ok(Deletion::Gone),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// The next up to `max` visible messages (1 to 32, cut to that), left as they are.
    pub async fn peek(&self, max: u8) -> Result<Vec<Peeked>, StorageError> {
        let client = self.client("queue.peek")?;
        let number_of_messages = Some(i32::from(max.clamp(1, 32)));
        let peeked = bounded("queue.peek", self.name.to_string(), self.timeout, || async move {
            let options = QueueClientPeekMessagesOptions {
                number_of_messages,
                ..QueueClientPeekMessagesOptions::default()
            };
            match client.peek_messages(Some(options)).await {
                Ok(response) => Ok(response.into_model()?.items.unwrap_or_default()),
                Err(error) if queue_missing(&error) => Ok(Vec::new()),
                Err(error) => Err(error),
            }
        })
        .await?;
        peeked.into_iter().map(|message| self.peeked(message)).collect()
    }

    /// The queue's figures; a missing queue is empty.
    pub async fn properties(&self) -> Result<QueueProperties, StorageError> {
        let client = self.client("queue.properties")?;
        let count = bounded("queue.properties", self.name.to_string(), self.timeout, || async move {
            match client.get_properties(None).await {
                Ok(response) => Ok(response.approximate_messages_count()?.unwrap_or(0)),
                Err(error) if queue_missing(&error) => Ok(0),
                Err(error) => Err(error),
            }
        })
        .await?;
        Ok(QueueProperties { approximate_count: u64::try_from(count).unwrap_or(0) })
    }

    async fn send(&self, stored: String, delay: Duration) -> Result<(), StorageError> {
        let client = self.client("queue.put")?;
        let visibility_timeout = Some(seconds(delay)).filter(|seconds| *seconds > 0);
        // Written as XML once; tries share the bytes.
        let message = QueueMessage { message_text: Some(stored) };
        let content: RequestContent<QueueMessage, XmlFormat> = message
            .try_into()
            .map_err(|_| self.unreadable("queue.put", "the message cannot be written as XML"))?;
        let content = &content;
        bounded("queue.put", self.name.to_string(), self.timeout, || async move {
            let options = QueueClientSendMessageOptions {
                message_time_to_live: Some(TIME_TO_LIVE),
                visibility_timeout,
                ..QueueClientSendMessageOptions::default()
            };
            match client.send_message(content.clone(), Some(options.clone())).await {
                Err(error) if queue_missing(&error) => {
                    create(client).await?;
                    client.send_message(content.clone(), Some(options)).await.map(drop)
                }
                sent => sent.map(drop),
            }
        })
        .await
    }

    fn check_size(&self, bytes: usize) -> Result<(), StorageError> {
        if bytes <= MAX_ENCODED_BYTES {
            return Ok(());
        }
        Err(self.oversize(bytes))
    }

    fn oversize(&self, bytes: usize) -> StorageError {
        StorageError::TooLarge { call: self.call("queue.put"), bytes, limit: MAX_ENCODED_BYTES }
    }

    fn client(&self, operation: &'static str) -> Result<&QueueClient, StorageError> {
        let client = self.client.as_ref().as_ref();
        client.map_err(|_| self.unreadable(operation, "the queue's address cannot be used"))
    }

    fn call(&self, operation: &'static str) -> Call {
        Call { operation, resource: self.name.to_string() }
    }

    fn unreadable(&self, operation: &'static str, reason: &str) -> StorageError {
        StorageError::Malformed { call: self.call(operation), reason: reason.to_owned() }
    }

    fn received(&self, message: ReceivedMessage) -> Result<Received, StorageError> {
        let missing =
            || self.unreadable("queue.receive", "the answer has a message without id or pop receipt");
        let raw = message.message_text.unwrap_or_default();
        Ok(Received {
            receipt: Receipt {
                id: message.message_id.ok_or_else(missing)?,
                pop_receipt: message.pop_receipt.ok_or_else(missing)?,
            },
            dequeue_count: count(message.dequeue_count),
            inserted_at: timestamp(message.insertion_time),
            expires_at: timestamp(message.expiration_time),
            next_visible_at: timestamp(message.time_next_visible),
            text: decode(&raw),
            raw,
        })
    }

    fn peeked(&self, message: PeekedMessage) -> Result<Peeked, StorageError> {
        let missing = || self.unreadable("queue.peek", "the answer has a message without id");
        let raw = message.message_text.unwrap_or_default();
        Ok(Peeked {
            id: message.message_id.ok_or_else(missing)?,
            dequeue_count: count(message.dequeue_count),
            inserted_at: timestamp(message.insertion_time),
            expires_at: timestamp(message.expiration_time),
            text: decode(&raw),
            raw,
        })
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("name", &self.name).finish_non_exhaustive()
    }
}

async fn create(client: &QueueClient) -> azure_core::Result<()> {
    match client.create(None).await {
        Ok(_) => Ok(()),
        // Exists with metadata that somebody else gave it.
        Err(error) if service_code(&error) == Some("QueueAlreadyExists") => Ok(()),
        Err(error) => Err(error),
    }
}

fn queue_missing(error: &azure_core::Error) -> bool {
    is_status(error, StatusCode::NotFound) && service_code(error).is_none_or(|code| code == "QueueNotFound")
}

/// Azurite answers a superseded receipt with 400 `PopReceiptMismatch`, the live service also with 404
/// `MessageNotFound`; a queue deleted meanwhile takes its messages along.
fn ownership_lost(error: &azure_core::Error) -> bool {
    is_status(error, StatusCode::NotFound) || service_code(error) == Some("PopReceiptMismatch")
}

fn decode(raw: &str) -> Result<String, NotText> {
    let bytes = BASE64.decode(raw).map_err(|_| NotText)?;
    String::from_utf8(bytes).map_err(|_| NotText)
}

fn seconds(duration: Duration) -> i32 {
    let duration = duration.min(MAX_DELAY);
    let whole = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i32::try_from(whole).unwrap_or(i32::MAX)
}

fn count(value: Option<i64>) -> u32 {
    value.and_then(|value| u32::try_from(value).ok()).unwrap_or(0)
}

/// Absent or beyond what can be expressed reads as the farthest future: nothing may seem expired or old by it.
pub(super) fn timestamp(time: Option<OffsetDateTime>) -> Timestamp {
    time.and_then(|time| Timestamp::from_second(time.unix_timestamp()).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
