//! The kinds of job.

/// What a job does. The name stands in `colloquy.toml` and in the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobKind {
    /// Counts its event, per source, type and UTC day of arrival.
    CountEvent,
    /// Completes an ASYNC SailPoint invocation with the configured output, then forgets its secret.
    CompleteInvocation,
}

impl JobKind {
    pub const ALL: [Self; 2] = [Self::CountEvent, Self::CompleteInvocation];

    /// As it stands in `colloquy.toml`, SQL and commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CountEvent => "count-event",
            Self::CompleteInvocation => "complete-invocation",
        }
    }

    /// Every name, for checking `colloquy.toml`.
    pub fn names() -> [&'static str; 2] {
        Self::ALL.map(Self::as_str)
    }

    /// The kind of a name; `None` for a row written by a newer version or a kind that is gone.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}
