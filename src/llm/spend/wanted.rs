//! What a turn wants of the budgets that apply to it, and why it gets nothing.

use super::{Micros, Scope};

/// The budgets that apply to somebody, a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub owner: Option<Micros>,
    pub key: Option<Micros>,
    pub total: Option<Micros>,
}

impl Limits {
    /// No budget applies.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// The smallest of them.
    pub fn smallest(self) -> Option<Micros> {
        self.each().map(|(_, limit)| limit).min()
    }

    /// Those that apply, with what they are for.
    pub fn each(self) -> impl Iterator<Item = (Scope, Micros)> {
        let all = [(Scope::Owner, self.owner), (Scope::Key, self.key), (Scope::Total, self.total)];
        all.into_iter().filter_map(|(scope, limit)| Some((scope, limit?)))
    }
}

/// What is to be set aside for a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Without it the turn does not begin.
    pub least: Micros,
    /// As long as there is plenty.
    pub most: Micros,
}

impl Wanted {
    /// This, and nothing less.
    pub fn exactly(amount: Micros) -> Self {
        Self { least: amount, most: amount }
    }
}

/// Why nothing was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// What is in hand does not cover it: draw.
    Short,
    /// A draw a moment ago left too little.
    Spent(Scope),
}
