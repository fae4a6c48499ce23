//! Setting and clearing switches.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use super::{OperationError, Operations};
use crate::config::app::Stop;
use crate::database::dead_letters::{self, Actor};
use crate::switches::{ALL, BoardError, Feature, Switch, SwitchKind, Switchboard, Switches};

/// A switch that is to be set.
#[derive(Clone, Debug)]
pub struct NewSwitch {
    pub kind: SwitchKind,
    pub name: String,
    /// How it stops; `None`: a feature is set going.
    pub stop: Option<Stop>,
    pub until: Option<Timestamp>,
}

/// A switch with what it is over.
#[derive(Clone, Debug, Serialize)]
pub struct SwitchLine {
    pub kind: SwitchKind,
    pub name: String,
    #[serde(flatten)]
    pub switch: Switch,
    /// It has not ended by itself.
    pub in_force: bool,
}

/// What came of a change. A switch works without the database; its audit row may have to be missed.
#[derive(Clone, Debug)]
pub struct Changed<T> {
    pub to: T,
    pub audited: Result<(), String>,
}

impl NewSwitch {
    /// The word in the audit trail.
    const fn verb(stop: Option<Stop>) -> &'static str {
        match stop {
            Some(Stop::Hold) => "hold",
            Some(Stop::Refuse) => "refuse",
            None => "on",
        }
    }

    /// What it is about to do, for whoever sets it.
    pub fn plan(&self) -> String {
        let name = &self.name;
        let what = match (self.kind, self.stop) {
            (SwitchKind::Source, Some(Stop::Hold)) => {
                format!("What `{name}` sends is kept and processed later")
            }
            (SwitchKind::Source, Some(Stop::Refuse)) => format!("What `{name}` sends is refused (503)"),
            (SwitchKind::Route, Some(Stop::Hold)) => format!("The work of the route `{name}` waits"),
            (SwitchKind::Route, Some(Stop::Refuse)) => {
                format!("The work of the route `{name}` becomes dead letters")
            }
            (SwitchKind::Target, Some(Stop::Hold)) if name == ALL => "All callbacks wait".to_owned(),
            (SwitchKind::Target, Some(Stop::Hold)) => format!("Callbacks to `{name}` wait"),
            (SwitchKind::Target, Some(Stop::Refuse)) if name == ALL => {
                "All callbacks become dead letters".to_owned()
            }
            (SwitchKind::Target, Some(Stop::Refuse)) => format!("Callbacks to `{name}` become dead letters"),
            (kind, Some(Stop::Hold)) => {
                format!("The {kind} `{name}` is held: callers are told to come later, events wait")
            }
            (kind, Some(Stop::Refuse)) => {
                format!("The {kind} `{name}` is refused: callers get 403, events become dead letters")
            }
            (kind, None) => format!("The {kind} `{name}` is on, whatever colloquy.toml says"),
        };
        match self.until {
            Some(until) => format!("{what}, until {until}."),
            None => format!("{what}, until the switch is cleared."),
        }
    }
}

impl Operations {
    /// The switches as this process knows them.
    pub fn switches(&self) -> &Switchboard {
        &self.switches
    }

    /// Every switch, those that ended by themselves too.
    pub fn switch_lines(switches: &Switches, now: Timestamp) -> Vec<SwitchLine> {
        let of = |kind: SwitchKind| {
            switches.of(kind).iter().map(move |(name, switch)| SwitchLine {
                kind,
                name: name.clone(),
                switch: switch.clone(),
                in_force: switch.is_in_force(now),
            })
        };
        SwitchKind::ALL.into_iter().flat_map(of).collect()
    }

    /// That there is such a thing, and that it can be switched so.
    pub fn check_switch(&self, wanted: &NewSwitch) -> Result<(), OperationError> {
        let NewSwitch { kind, name, stop, .. } = wanted;
        if stop.is_none() && *kind != SwitchKind::Feature {
            return Err(OperationError::OnlyFeatures);
        }
        let app = &self.app;
        let known: BTreeSet<&str> = match kind {
            SwitchKind::Owner
                if name.trim().is_empty() || name.len() > 512 || name.contains(char::is_control) =>
            {
                return Err(OperationError::OwnerName);
            }
            // Owners come and go.
            SwitchKind::Owner => return Ok(()),
            SwitchKind::Source => app.sources.keys().map(String::as_str).collect(),
            SwitchKind::Route => app.routes.iter().map(|route| route.name.as_str()).collect(),
            SwitchKind::Model => app.models.keys().map(String::as_str).collect(),
            SwitchKind::Deployment => app.deployments.keys().map(String::as_str).collect(),
            SwitchKind::Target => app.targets.keys().map(String::as_str).chain([ALL]).collect(),
            SwitchKind::Feature => Feature::ALL.into_iter().map(Feature::as_str).collect(),
        };
        if known.contains(name.as_str()) {
            return Ok(());
        }
        let known: Vec<&str> = known.into_iter().collect();
        Err(OperationError::Unknown { kind: *kind, name: name.clone(), known: known.join(", ") })
    }

    /// Sets a switch, in the place of one that is there. In force within `SWITCH_CACHE` everywhere.
    pub async fn set_switch(
        &self,
        wanted: &NewSwitch,
        actor: Actor<'_>,
    ) -> Result<Changed<SwitchLine>, OperationError> {
        self.check_switch(wanted)?;
        let now = Timestamp::now();
        let switch = Switch {
            stop: wanted.stop,
            by: actor.name.to_owned(),
            at: now,
            reason: actor.reason.map(str::to_owned),
            until: wanted.until,
        };
        let NewSwitch { kind, name, .. } = wanted;
        let audited = self.audit_switch(actor, *kind, name, NewSwitch::verb(wanted.stop)).await?;
        let set = self.switches.change(|all| all.of_mut(*kind).insert(name.clone(), switch.clone())).await;
        self.unless_changed(set, actor, *kind, name).await?;
        let in_force = switch.is_in_force(now);
        Ok(Changed { to: SwitchLine { kind: *kind, name: name.clone(), switch, in_force }, audited })
    }

    /// Clears a switch. `false`: there was none.
    pub async fn clear_switch(
        &self,
        kind: SwitchKind,
        name: &str,
        actor: Actor<'_>,
    ) -> Result<Changed<bool>, OperationError> {
        if !self.switches.read().await?.of(kind).contains_key(name) {
            return Ok(Changed { to: false, audited: Ok(()) });
        }
        let audited = self.audit_switch(actor, kind, name, "start").await?;
        let cleared = self.switches.change(|all| all.of_mut(kind).remove(name)).await;
        let cleared = self.unless_changed(cleared, actor, kind, name).await?.is_some();
        Ok(Changed { to: cleared, audited })
    }

    /// After a change that failed, or of which nobody knows because its answer was lost, another audit row says so.
    async fn unless_changed<T>(
        &self,
        changed: Result<T, BoardError>,
        actor: Actor<'_>,
        kind: SwitchKind,
        name: &str,
    ) -> Result<T, OperationError> {
        if changed.is_err() {
            drop(self.audit_switch(actor, kind, name, "unsure").await);
        }
        Ok(changed?)
    }

    /// Written before the switch is: a blob and a row change in no transaction, and a process that dies in between, or
    /// whose caller leaves, is not to have changed anything in silence.
    ///
    /// `Ok(Err(…))`: the database is away, and a switch must work without it. A row that the database refuses is a mistake
    /// of ours: nothing is switched that nobody could find out about.
    async fn audit_switch(
        &self,
        actor: Actor<'_>,
        kind: SwitchKind,
        name: &str,
        verb: &str,
    ) -> Result<Result<(), String>, OperationError> {
        let action = format!("{kind}.{verb}");
        let written = async { dead_letters::audit(&self.client().await?, actor, &action, name).await };
        match written.await {
            Ok(()) => Ok(Ok(())),
            Err(error) if error.is_outage() => {
                tracing::error!(
                    code = "audit_missed", %error, action, subject = name,
                    "a switch is changed, but its audit row could not be written"
                );
                Ok(Err(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }
}
