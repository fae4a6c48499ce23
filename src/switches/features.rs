//! Named features: on or off by environment in `colloquy.toml`, and by switch.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::Serialize;

use super::{Stopped, SwitchKind, Switches};
use crate::config::AppEnvironment;
use crate::config::app::{FeaturesConfig, Stop};

/// A part of the service that can be switched off by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Turns in the background.
    Background,
    /// Chat completions.
    Chat,
    /// Summaries of long pasts.
    Compaction,
    Embeddings,
    /// Models that answer events.
    Respond,
    /// Turns over WebSocket.
    Websocket,
}

impl Feature {
    pub const ALL: [Self; 6] =
        [Self::Background, Self::Chat, Self::Compaction, Self::Embeddings, Self::Respond, Self::Websocket];

    /// As it stands in `colloquy.toml`, JSON and commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Background => "background",
            Self::Chat => "chat",
            Self::Compaction => "compaction",
            Self::Embeddings => "embeddings",
            Self::Respond => "respond",
            Self::Websocket => "websocket",
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Feature {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::as_str).join(", ");
        let found = Self::ALL.into_iter().find(|feature| feature.as_str() == text);
        found.ok_or_else(|| format!("there is no feature of that name; there is {}", names()))
    }
}

/// How a feature stands.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FeatureState {
    pub feature: &'static str,
    pub on: bool,
    /// What `colloquy.toml` says for this environment.
    pub configured: bool,
}

impl Switches {
    /// How a feature is stopped now: by a switch, else because it is off in this environment, which is refused.
    pub fn feature(
        &self,
        feature: Feature,
        config: &FeaturesConfig,
        environment: AppEnvironment,
        now: Timestamp,
    ) -> Option<Stopped> {
        let name = feature.as_str();
        if let Some(switch) = self.features.get(name).filter(|switch| switch.is_in_force(now)) {
            let stop = switch.stop?;
            return Some(Stopped {
                kind: SwitchKind::Feature,
                name: name.to_owned(),
                stop,
                until: switch.until,
            });
        }
        (!config.is_on(name, environment)).then(|| Stopped {
            kind: SwitchKind::Feature,
            name: name.to_owned(),
            stop: Stop::Refuse,
            until: None,
        })
    }

    /// All features.
    pub fn features(
        &self,
        config: &FeaturesConfig,
        environment: AppEnvironment,
        now: Timestamp,
    ) -> Vec<FeatureState> {
        let state = |feature: Feature| FeatureState {
            feature: feature.as_str(),
            on: self.feature(feature, config, environment, now).is_none(),
            configured: config.is_on(feature.as_str(), environment),
        };
        Feature::ALL.into_iter().map(state).collect()
    }
}
