//! The states of an event.

use std::fmt;
use std::str::FromStr;

/// Where an event stands. What became of the work it caused is said by the work's own rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventState {
    /// Kept while its source is stopped.
    Held,
    /// Its key is claimed and its work is written down.
    Processed,
    /// Came with a key that is taken, and with other content: kept, flagged, without effect.
    Conflict,
}

impl EventState {
    pub const ALL: [Self; 3] = [Self::Held, Self::Processed, Self::Conflict];

    /// As it stands in SQL, JSON and commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Processed => "processed",
            Self::Conflict => "conflict",
        }
    }

    /// Whether an event may go from this state to another.
    pub const fn may_become(self, next: Self) -> bool {
        matches!((self, next), (Self::Held, Self::Processed))
    }
}

impl fmt::Display for EventState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EventState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| format!("`{text}` is no state of an event: held, processed or conflict"))
    }
}
