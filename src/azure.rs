//! Azure: credentials, storage queues, blobs.
//!
//! The only module that holds a credential or names an Azure SDK. The rest of the library sees [`Storage`],
//! [`Queue`] and [`Container`], and [`TokenSource`] where a service (PostgreSQL) takes an Entra token.
//!
//! * **Nothing connects at construction**, and no TLS state is built: the first call does both. A process
//!   that answers `GET /` within milliseconds of its start may construct all of this first.
//! * **Every call is bounded.** [`StorageSettings::call_timeout`] covers token, tries and answer together;
//!   [`Storage::with_timeout`] shortens it for a caller in a hurry. Retries are this module's own (the SDK's
//!   are switched off): see `call.rs`.
//! * **No secret reaches the SDK's URLs, spans or errors.** The shared access signature is added to the
//!   request in the transport, underneath the SDK, and errors are rebuilt without addresses.
//! * The environment is read by `config`, which passes values in. One exception: the developer credential
//!   runs the Azure CLI, and `azure_identity` looks at `PATH` and the CLI's own variables to do so.

mod call;
mod container;
mod error;
mod queue;
mod sas;
mod settings;
mod storage;
mod tokens;
mod transport;

pub use container::{BlobItem, BlobPage, BlobVersion, Container, Creation, LeaseId};
pub use error::{Call, StorageError};
pub use queue::{
    Deletion, MAX_DELAY, MAX_ENCODED_BYTES, NotText, Peeked, Queue, QueueProperties, Receipt, Received,
};
pub use settings::{SettingsError, StorageAuth, StorageSettings};
pub use storage::Storage;
pub use tokens::{Credential, ManagedIdentity, Token, TokenError, TokenSource};

#[cfg(test)]
pub(crate) mod testing;
