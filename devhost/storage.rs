//! What devhost needs of queues and blobs, as two small traits: listeners are tested against memory,
//! and run on `colloquy::azure`.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use thiserror::Error;

pub type Task<'a, T> = Pin<Box<dyn Future<Output = Result<T, StorageFailure>> + Send + 'a>>;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StorageFailure {
    /// The queue, message or blob is not there (any more).
    #[error("it does not exist")]
    Missing,
    #[error("{0}")]
    Other(String),
}

/// A received message.
#[derive(Debug, Clone)]
pub struct Message {
    pub id: String,
    /// Changes with every renewal.
    pub pop_receipt: String,
    pub dequeue_count: u32,
    pub inserted_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub next_visible_at: Timestamp,
    /// As stored: still encoded.
    pub raw: String,
}

/// One queue.
pub trait Messages: Send + Sync {
    fn name(&self) -> &str;
    fn receive(&self, max: u8, invisible: Duration) -> Task<'_, Vec<Message>>;
    /// Sets when the message is visible again; the new pop receipt.
    fn set_visibility<'a>(&'a self, message: &'a Message, after: Duration) -> Task<'a, String>;
    fn delete<'a>(&'a self, message: &'a Message) -> Task<'a, ()>;
    /// Puts text exactly as given, creating the queue if it is missing.
    fn put<'a>(&'a self, raw: &'a str) -> Task<'a, ()>;
}

/// One container, created when first written to.
pub trait Blobs: Send + Sync {
    fn read<'a>(&'a self, name: &'a str) -> Task<'a, Option<Bytes>>;
    fn write<'a>(&'a self, name: &'a str, content: Bytes) -> Task<'a, ()>;
    /// Leases a blob, creating it if missing; `None` while somebody else holds it.
    fn lease<'a>(&'a self, name: &'a str, length: Duration) -> Task<'a, Option<String>>;
    fn renew<'a>(&'a self, name: &'a str, lease: &'a str) -> Task<'a, ()>;
    fn release<'a>(&'a self, name: &'a str, lease: &'a str) -> Task<'a, ()>;
}

mod account;
pub use account::Accounts;
