//! Who a request comes from, once it is known.

use std::collections::BTreeMap;

use crate::config::Scope;

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// On whose behalf it acts. Every query that reads user data names it.
    pub owner: String,
    /// The name of the key, or of the issuer of the token.
    pub key: String,
    pub scopes: Vec<Scope>,
    /// Limits by name.
    pub limits: BTreeMap<String, u64>,
}
