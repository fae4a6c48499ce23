//! Why something that an operator asked for was not done.

use crate::access::owners::ErasureError;
use crate::azure::StorageError;
use crate::database::DatabaseError;
use crate::ids::{DeadLetterId, EventId};
use crate::switches::{BoardError, SwitchKind};

/// Why it was not done. Nothing was changed, but by a deletion of an owner's data that was cut: it goes on when it is begun
/// again.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("storage could not be reached: {0}")]
    Storage(#[from] StorageError),
    #[error("no storage is set here (AzureWebJobsStorage), so messages and bodies cannot be reached")]
    NoStorage,
    #[error("there is no {what} {id}")]
    NotFound { what: &'static str, id: String },
    #[error("{id} is {state} already")]
    Settled { id: DeadLetterId, state: String },
    #[error("what {0} stands for is not dead any more, or is gone; look at it again, or discard it")]
    NotDead(DeadLetterId),
    #[error("{id}: the message cannot be read: {problem}; {remedy}")]
    Unreadable { id: DeadLetterId, problem: String, remedy: &'static str },
    #[error("{event} is held: it is processed once its source `{source_name}` is no longer stopped")]
    Held { event: EventId, source_name: String },
    #[error("{0} has the key of another event, with other content; there is nothing to run")]
    Conflict(EventId),
    #[error("somebody else replayed {0} at the same time; look at it again")]
    ReplayedMeanwhile(EventId),
    #[error(transparent)]
    Switches(#[from] BoardError),
    #[error("there is no {kind} `{name}`; there is {known}")]
    Unknown { kind: SwitchKind, name: String, known: String },
    #[error("an owner's name has 1 to 512 bytes, none of them control characters")]
    OwnerName,
    #[error("only a feature can be set on by a switch; clear the switch instead")]
    OnlyFeatures,
    #[error("its payload is gone")]
    PayloadGone,
    #[error("the owner's data is not deleted, or not all of it: {0}")]
    Erasure(#[from] ErasureError),
}

impl OperationError {
    /// Stable, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Database(error) => error.code(),
            Self::Storage(_) | Self::NoStorage => "storage_unavailable",
            Self::NotFound { .. } => "not_found",
            Self::Settled { .. } => "dead_letter_settled",
            Self::NotDead(_) => "work_not_dead",
            Self::Unreadable { .. } => "message_unreadable",
            Self::Held { .. } => "event_held",
            Self::Conflict(_) => "event_conflict",
            Self::ReplayedMeanwhile(_) => "event_replayed",
            Self::PayloadGone => "payload_gone",
            Self::Switches(_) => "switches_unavailable",
            Self::Unknown { .. } => "switch_unknown",
            Self::OnlyFeatures => "switch_invalid",
            Self::OwnerName | Self::Erasure(ErasureError::Nobody) => "owner_invalid",
            Self::Erasure(ErasureError::Live(_)) => "owner_busy",
            Self::Erasure(ErasureError::Database(error)) => error.code(),
            Self::Erasure(_) => "storage_unavailable",
        }
    }
}
