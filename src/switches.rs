//! Switches: what an operator has stopped, or set going, without a deployment.
//!
//! They live in one small blob rather than in the database, because the receiving path must not need the database.
//! Every process reads it at most once in `SWITCH_CACHE` and keeps the last known state when it cannot; one that has
//! never read it takes nothing for running ([`Switchboard::known`]).

mod board;
mod features;
mod work;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::app::Stop;
use crate::openresponses::{ApiError, ErrorType, excerpt};

pub use board::{BLOB, BoardError, Switchboard};
pub use features::{Feature, FeatureState};
pub use work::{HeldWork, TurnsHeld};

/// The name of a switch over all callbacks.
pub const ALL: &str = "*";

/// What a switch is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SwitchKind {
    /// What a sender sends.
    Source,
    /// The work of a route.
    Route,
    /// What callers name as `model`.
    Model,
    /// A model at a provider; its aliases go on with their others.
    Deployment,
    /// Turns on somebody's account.
    Owner,
    /// Callbacks to a target, or to [`ALL`].
    Target,
    /// A part of the service, by a name of [`Feature`].
    Feature,
}

impl SwitchKind {
    pub const ALL: [Self; 7] =
        [Self::Source, Self::Route, Self::Model, Self::Deployment, Self::Owner, Self::Target, Self::Feature];

    /// As it stands in JSON and commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Route => "route",
            Self::Model => "model",
            Self::Deployment => "deployment",
            Self::Owner => "owner",
            Self::Target => "target",
            Self::Feature => "feature",
        }
    }
}

impl fmt::Display for SwitchKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SwitchKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let kinds = Self::ALL.map(Self::as_str).join(", ");
            format!("'{}' is nothing that has switches: {kinds}", excerpt(text))
        })
    }
}

/// Every switch that is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Switches {
    pub sources: BTreeMap<String, Switch>,
    pub routes: BTreeMap<String, Switch>,
    pub models: BTreeMap<String, Switch>,
    pub deployments: BTreeMap<String, Switch>,
    pub owners: BTreeMap<String, Switch>,
    pub targets: BTreeMap<String, Switch>,
    pub features: BTreeMap<String, Switch>,
    /// What a later version has written: kept when this one writes.
    #[serde(flatten)]
    later: BTreeMap<String, serde_json::Value>,
}

/// One switch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Switch {
    /// How it stops; `None`: it does not, and a feature is on in spite of its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// Who set it.
    pub by: String,
    pub at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Switch {
    /// Whether it has not ended by itself.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// That something is stopped, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    pub kind: SwitchKind,
    pub name: String,
    pub stop: Stop,
    /// When that ends by itself.
    pub until: Option<Timestamp>,
}

impl Switches {
    /// The switches over things of one kind, by name.
    pub fn of(&self, kind: SwitchKind) -> &BTreeMap<String, Switch> {
        match kind {
            SwitchKind::Source => &self.sources,
            SwitchKind::Route => &self.routes,
            SwitchKind::Model => &self.models,
            SwitchKind::Deployment => &self.deployments,
            SwitchKind::Owner => &self.owners,
            SwitchKind::Target => &self.targets,
            SwitchKind::Feature => &self.features,
        }
    }

    /// The same, to be changed.
    pub fn of_mut(&mut self, kind: SwitchKind) -> &mut BTreeMap<String, Switch> {
        match kind {
            SwitchKind::Source => &mut self.sources,
            SwitchKind::Route => &mut self.routes,
            SwitchKind::Model => &mut self.models,
            SwitchKind::Deployment => &mut self.deployments,
            SwitchKind::Owner => &mut self.owners,
            SwitchKind::Target => &mut self.targets,
            SwitchKind::Feature => &mut self.features,
        }
    }

    /// How a thing is stopped now by a switch of its own, if it is.
    pub fn stopped(&self, kind: SwitchKind, name: &str, now: Timestamp) -> Option<Stopped> {
        let switch = self.of(kind).get(name).filter(|switch| switch.is_in_force(now))?;
        Some(Stopped { kind, name: name.to_owned(), stop: switch.stop?, until: switch.until })
    }

    /// How a source is stopped now, if it is: by a switch, else by its configuration.
    pub fn source(&self, name: &str, configured: Option<Stop>, now: Timestamp) -> Option<Stop> {
        self.stopped(SwitchKind::Source, name, now).map(|stopped| stopped.stop).or(configured)
    }

    /// How an alias is stopped now: by its own switch, or because all its deployments are. Held as long as any of them
    /// is, until the first of them comes back.
    pub fn model<'d>(
        &self,
        alias: &str,
        deployments: impl IntoIterator<Item = &'d str>,
        now: Timestamp,
    ) -> Option<Stopped> {
        if let Some(stopped) = self.stopped(SwitchKind::Model, alias, now) {
            return Some(stopped);
        }
        let mut all: Option<Stopped> = None;
        for name in deployments {
            let stopped = self.stopped(SwitchKind::Deployment, name, now)?;
            let all = all.get_or_insert_with(|| Stopped {
                kind: SwitchKind::Model,
                name: alias.to_owned(),
                ..stopped.clone()
            });
            if stopped.stop == Stop::Hold {
                all.stop = Stop::Hold;
            }
            all.until = all.until.into_iter().chain(stopped.until).min();
        }
        all
    }
}

impl Stopped {
    /// Stable: for callers, and of a dead letter.
    pub fn code(&self) -> &'static str {
        match (self.kind, self.stop) {
            (SwitchKind::Source | SwitchKind::Route | SwitchKind::Target, Stop::Hold) => "work_held",
            (SwitchKind::Source | SwitchKind::Route, Stop::Refuse) => "route_refused",
            (SwitchKind::Model | SwitchKind::Deployment, Stop::Hold) => "model_held",
            (SwitchKind::Model | SwitchKind::Deployment, Stop::Refuse) => "model_refused",
            (SwitchKind::Owner, Stop::Hold) => "owner_held",
            (SwitchKind::Owner, Stop::Refuse) => "owner_refused",
            (SwitchKind::Target, Stop::Refuse) => "target_refused",
            (SwitchKind::Feature, Stop::Hold) => "feature_held",
            (SwitchKind::Feature, Stop::Refuse) => "feature_refused",
        }
    }

    /// What a caller is told at once. Why it was stopped is the operators' own.
    pub fn to_api(&self, now: Timestamp) -> ApiError {
        /// Where no end is known.
        const LATER: Duration = Duration::from_secs(60);
        let what = match self.kind {
            SwitchKind::Owner => "This account".to_owned(),
            SwitchKind::Model | SwitchKind::Deployment => format!("The model '{}'", excerpt(&self.name)),
            kind => format!("The {kind} '{}'", excerpt(&self.name)),
        };
        if self.stop == Stop::Refuse {
            let message = format!("{what} has been switched off by an operator.");
            return ApiError::new(StatusCode::FORBIDDEN, ErrorType::PermissionError, self.code(), message)
                .should_retry(false);
        }
        let until = self.until.map_or_else(String::new, |until| format!(" until {until}"));
        let message = format!("{what} is stopped by an operator{until}. Please try again later.");
        let wait = self.until.and_then(|until| until.duration_since(now).try_into().ok()).unwrap_or(LATER);
        let (status, kind) = (StatusCode::SERVICE_UNAVAILABLE, ErrorType::ServiceUnavailable);
        // Whoever waits in a loop for minutes is told nothing by it.
        ApiError::new(status, kind, self.code(), message).retry_after(wait).should_retry(false)
    }
}

/// What a caller is told by a process that has not read the switches yet: anything may be stopped.
pub fn unknown() -> ApiError {
    ApiError::unavailable(
        "switches_unknown",
        "This instance has not read yet what is stopped. Please try again.",
    )
}

#[cfg(test)]
mod tests;
