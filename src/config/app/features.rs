//! `[features]`: parts of the service that are on or off by environment.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::shape::{Form, Key, Shape, key};
use crate::config::AppEnvironment;
use crate::switches::Feature;

/// Named features. What is left out is on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct FeaturesConfig(BTreeMap<String, FeatureConfig>);

/// One feature, by environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FeatureConfig {
    dev: bool,
    staging: bool,
    production: bool,
}

impl Default for FeatureConfig {
    fn default() -> Self {
        Self { dev: true, staging: true, production: true }
    }
}

impl FeaturesConfig {
    /// Whether a feature is on unless a switch says otherwise.
    pub fn is_on(&self, name: &str, environment: AppEnvironment) -> bool {
        let feature = self.0.get(name).copied().unwrap_or_default();
        match environment {
            AppEnvironment::Dev => feature.dev,
            AppEnvironment::Staging => feature.staging,
            AppEnvironment::Production => feature.production,
        }
    }
}

pub(super) const NAME: Form = Form {
    expected: "a feature: background, chat, compaction, embeddings, respond or websocket",
    fits: |text| text.parse::<Feature>().is_ok(),
    stand_in: "chat",
};

pub(super) const FEATURE: &[Key] =
    &[key("dev", Shape::Flag), key("staging", Shape::Flag), key("production", Shape::Flag)];
