//! Keys made at run time: made, and put in the place of others. The key itself is told once, to whoever asked for it.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{generate_key, hash_key};
use crate::config::app::TargetConfig;
use crate::config::{KeyLimits, Scope};
use crate::database::api_keys::{self, NewKey, Rotation, StoredKey};
use crate::database::audit::Actor;
use crate::database::{DatabaseError, Statements};
use crate::ids::KeyId;
use crate::openresponses::{ApiError, ErrorType};

/// Characters of a key's name, and of an owner.
const TEXT_MAX: usize = 256;

/// What is wanted of a key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRequest {
    /// What people call it. Several may have one name: a key and its successor do.
    pub name: String,
    /// On whose behalf it acts.
    pub owner: String,
    #[serde(default)]
    pub scopes: Vec<Scope>,
    #[serde(default)]
    pub limits: KeyLimits,
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// Why, for the audit trail.
    #[serde(default)]
    pub reason: Option<String>,
}

impl KeyRequest {
    /// 400 on the field that cannot be. `targets`: those of `colloquy.toml`.
    pub fn check(&self, now: Timestamp, targets: &BTreeMap<String, TargetConfig>) -> Result<(), ApiError> {
        check_text("name", &self.name)?;
        check_text("owner", &self.owner)?;
        check_future("expires_at", self.expires_at, now)?;
        match self.limits.unknown_callbacks(targets).next() {
            Some((field, problem)) => {
                let field = format!("limits.{field}");
                Err(ApiError::invalid_value(&field, format!("Invalid '{field}': the key {problem}.")))
            }
            None => Ok(()),
        }
    }
}

/// 400 unless it names somebody or something: not empty, not long, without control characters.
pub fn check_text(field: &str, text: &str) -> Result<(), ApiError> {
    if text.trim().is_empty() || text.chars().any(char::is_control) || text.chars().count() > TEXT_MAX {
        let message = format!(
            "Invalid '{field}': expected 1 to {TEXT_MAX} characters, none of them control characters."
        );
        return Err(ApiError::invalid_value(field, message));
    }
    Ok(())
}

/// 400 if the instant has passed.
pub fn check_future(field: &str, at: Option<Timestamp>, now: Timestamp) -> Result<(), ApiError> {
    match at {
        Some(at) if at <= now => {
            Err(ApiError::invalid_value(field, format!("Invalid '{field}': {at} has passed already.")))
        }
        _ => Ok(()),
    }
}

/// 409 if the key names receivers of callbacks that `targets`, those of `colloquy.toml`, no longer have: its successor would
/// be given what a new key is refused.
pub fn check_successor(old: &StoredKey, targets: &BTreeMap<String, TargetConfig>) -> Result<(), ApiError> {
    let Some((field, problem)) = old.limits.unknown_callbacks(targets).next() else { return Ok(()) };
    let message = format!(
        "'limits.{field}' of the key {problem}. Add the target to colloquy.toml, or make another key and expire this one."
    );
    let error =
        ApiError::new(StatusCode::CONFLICT, ErrorType::ConflictError, "key_callback_unknown", message);
    Err(error.should_retry(false))
}

/// A key that was just made.
#[derive(Debug)]
pub struct Issued {
    /// To be told once. Only its hash is kept.
    pub key: SecretString,
    pub stored: StoredKey,
    /// The key whose place it took, as that is now.
    pub replaces: Option<StoredKey>,
}

/// Makes a key.
pub async fn issue(
    client: &impl Statements,
    request: &KeyRequest,
    actor: Actor<'_>,
) -> Result<Issued, DatabaseError> {
    let key = generate_key();
    let new = NewKey {
        id: KeyId::new(),
        name: &request.name,
        sha256: &hash_key(key.expose_secret()),
        owner: &request.owner,
        scopes: &request.scopes,
        limits: &request.limits,
        expires_at: request.expires_at,
    };
    let stored = api_keys::create(client, &new, actor).await?;
    Ok(Issued { key, stored, replaces: None })
}

/// Makes a key that takes the place of `old`, which ends after `overlap`. `None`: that one cannot be rotated.
pub async fn rotate(
    client: &impl Statements,
    old: KeyId,
    overlap: Duration,
    expires_at: Option<Timestamp>,
    actor: Actor<'_>,
) -> Result<Option<Issued>, DatabaseError> {
    let key = generate_key();
    let rotation = Rotation {
        old,
        overlap: SignedDuration::try_from(overlap).unwrap_or(SignedDuration::MAX),
        id: KeyId::new(),
        sha256: &hash_key(key.expose_secret()),
        expires_at,
    };
    let rotated = api_keys::rotate(client, &rotation, actor).await?;
    Ok(rotated.map(|rotated| Issued { key, stored: rotated.new, replaces: Some(rotated.old) }))
}
