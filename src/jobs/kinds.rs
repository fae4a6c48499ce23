//! The kinds of job.

use crate::config::app::SourceKind;

/// What a job does. The name stands in `colloquy.toml` and in the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobKind {
    /// Counts its event, per source, type and UTC day of arrival.
    CountEvent,
    /// Completes an ASYNC SailPoint invocation with the configured output, then forgets its secret.
    CompleteInvocation,
    /// Has a model answer its event, as its route says. Begun by routes with `action = "respond"`.
    Respond,
    /// Opens or goes on with the rotation of a secret that a key vault tells of.
    NoteRotation,
    /// Encrypts kept secrets anew with the current key, a batch a step. A backfill: begun by a command, not a route.
    ResealSecrets,
}

impl JobKind {
    pub const ALL: [Self; 5] =
        [Self::CountEvent, Self::CompleteInvocation, Self::Respond, Self::NoteRotation, Self::ResealSecrets];

    /// As it stands in `colloquy.toml`, SQL and commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CountEvent => "count-event",
            Self::CompleteInvocation => "complete-invocation",
            Self::Respond => "respond",
            Self::NoteRotation => "note-rotation",
            Self::ResealSecrets => "reseal-secrets",
        }
    }

    /// The kinds a route of `colloquy.toml` may name as its `job`.
    pub fn names() -> [&'static str; 3] {
        [Self::CountEvent, Self::CompleteInvocation, Self::NoteRotation].map(Self::as_str)
    }

    /// Whether a route may give it events of a source of this kind.
    pub fn takes(self, source: SourceKind) -> bool {
        match self {
            Self::CompleteInvocation => source == SourceKind::Sailpoint,
            Self::NoteRotation => source == SourceKind::EventGrid,
            _ => true,
        }
    }

    /// The kind of a name; `None` for a row written by a newer version or a kind that is gone.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}
