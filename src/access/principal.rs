//! Who a request comes from, once it is known.

use jiff::Timestamp;

use super::Caller;
use crate::config::{KeyLimits, Scope};
use crate::llm::spend::Who;

/// An authenticated caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Principal {
    /// On whose behalf it acts. Every query that reads user data names it.
    pub owner: String,
    /// The key: its name in the setting, or its id (`key_…`) in the database. Of a token, its issuer.
    pub key: String,
    pub scopes: Vec<Scope>,
    pub limits: KeyLimits,
    /// It came with a token, not with a key.
    pub is_token: bool,
    /// When the key or the token ends. A WebSocket ends with it.
    pub expires_at: Option<Timestamp>,
}

impl Principal {
    /// Whether it may do that.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// As the audit trail names it.
    pub fn actor(&self) -> String {
        format!("{} ({})", self.owner, self.key)
    }

    /// On whose account it spends.
    pub fn who(&self) -> Who {
        Who {
            owner: self.owner.as_str().into(),
            key: (!self.is_token).then(|| self.key.as_str().into()),
            key_budget: self
                .limits
                .budget_micros_per_day
                .map(|micros| i64::try_from(micros).unwrap_or(i64::MAX)),
        }
    }

    /// Whom rate limits are counted for: the key, or the owner with a token.
    pub(super) fn account(&self) -> &str {
        if self.is_token { &self.owner } else { &self.key }
    }
}

impl From<Caller> for Principal {
    fn from(caller: Caller) -> Self {
        Self {
            owner: caller.owner,
            key: caller.key,
            scopes: caller.scopes,
            limits: caller.limits,
            is_token: false,
            expires_at: caller.expires_at,
        }
    }
}
