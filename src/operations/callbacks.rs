//! The targets of callbacks: which are disabled, and enabling one.

use jiff::Timestamp;
use serde::Serialize;

use super::{OperationError, Operations};
use crate::database::audit::Actor;
use crate::database::callbacks;

/// A target of `colloquy.toml`, or a disabled one that stood there.
#[derive(Debug, Serialize)]
pub struct Target {
    pub target: String,
    pub state: TargetState,
    /// Since when it is disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Whether callbacks go to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetState {
    Enabled,
    Disabled,
}

impl Operations {
    /// All targets, by name.
    pub async fn targets(&self) -> Result<Vec<Target>, OperationError> {
        let disabled = callbacks::disabled_targets(&self.client().await?).await?;
        let mut targets: Vec<Target> = disabled
            .into_iter()
            .map(|(target, at, reason)| Target {
                target,
                state: TargetState::Disabled,
                at: Some(at),
                reason: Some(reason),
            })
            .collect();
        for name in self.app.targets.keys() {
            if !targets.iter().any(|target| target.target == *name) {
                let target = name.clone();
                targets.push(Target { target, state: TargetState::Enabled, at: None, reason: None });
            }
        }
        targets.sort_unstable_by(|one, other| one.target.cmp(&other.target));
        Ok(targets)
    }

    /// Enables a target that answered 410: what waited goes out with the next sweep. Says whether it was disabled.
    pub async fn enable_target(&self, name: &str, actor: Actor<'_>) -> Result<bool, OperationError> {
        if !self.app.targets.contains_key(name) {
            return Err(OperationError::NotFound { what: "target of colloquy.toml", id: name.to_owned() });
        }
        Ok(callbacks::enable_target(&self.client().await?, name, actor).await?)
    }
}
