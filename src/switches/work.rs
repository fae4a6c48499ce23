//! What switches mean to rows of work and to turns that wait.

use jiff::Timestamp;

use super::{ALL, Feature, Stopped, SwitchKind, Switches};
use crate::config::AppEnvironment;
use crate::config::app::{ActionKind, AppConfig, RouteConfig, Stop};

/// Work that waits for an operator: its rows are not due, whatever their time says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldWork {
    /// Routes whose jobs wait.
    pub job_routes: Vec<String>,
    /// Routes whose callbacks wait: an answer that was given is told although its model was stopped since.
    pub callback_routes: Vec<String>,
    /// Targets whose callbacks wait.
    pub targets: Vec<String>,
    /// All callbacks wait.
    pub all_targets: bool,
}

/// Turns that nobody runs yet and that wait for an operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TurnsHeld {
    /// Of these aliases.
    pub models: Vec<String>,
    /// On these accounts.
    pub owners: Vec<String>,
}

impl Switches {
    /// What waits now.
    pub fn held_work(&self, app: &AppConfig, environment: AppEnvironment, now: Timestamp) -> HeldWork {
        let held = |kind: SwitchKind| -> Vec<String> {
            let names = self.of(kind).keys();
            names
                .filter(|name| {
                    self.stopped(kind, name, now).is_some_and(|stopped| stopped.stop == Stop::Hold)
                })
                .cloned()
                .collect()
        };
        // Also routes that are gone from the file: their rows may still be there.
        let callback_routes = held(SwitchKind::Route);
        let mut job_routes = callback_routes.clone();
        for route in &app.routes {
            let by_what_it_needs = self.needs(route, app, environment, now);
            if by_what_it_needs.is_some_and(|stopped| stopped.stop == Stop::Hold)
                && !job_routes.contains(&route.name)
            {
                job_routes.push(route.name.clone());
            }
        }
        let targets = held(SwitchKind::Target);
        let all_targets = targets.iter().any(|target| target == ALL);
        HeldWork { job_routes, callback_routes, targets, all_targets }
    }

    /// What keeps a route's jobs from being done at all, if anything does.
    pub fn refused_job(
        &self,
        name: &str,
        app: &AppConfig,
        environment: AppEnvironment,
        now: Timestamp,
    ) -> Option<Stopped> {
        let own = self.stopped(SwitchKind::Route, name, now);
        let route = app.routes.iter().find(|route| route.name == name);
        let needed = route.and_then(|route| self.needs(route, app, environment, now));
        own.into_iter().chain(needed).find(|stopped| stopped.stop == Stop::Refuse)
    }

    /// Whether callbacks of a route to a target are refused.
    pub fn refused_callback(&self, route: &str, target: &str, now: Timestamp) -> Option<Stopped> {
        [(SwitchKind::Route, route), (SwitchKind::Target, target), (SwitchKind::Target, ALL)]
            .into_iter()
            .filter_map(|(kind, name)| self.stopped(kind, name, now))
            .find(|stopped| stopped.stop == Stop::Refuse)
    }

    /// What a route with a model needs and does not have. A feature that is off in an environment holds its work: a
    /// deployment may bring it back.
    fn needs(
        &self,
        route: &RouteConfig,
        app: &AppConfig,
        environment: AppEnvironment,
        now: Timestamp,
    ) -> Option<Stopped> {
        if route.action != ActionKind::Respond {
            return None;
        }
        if let Some(mut stopped) = self.feature(Feature::Respond, &app.features, environment, now) {
            if !self.features.get(Feature::Respond.as_str()).is_some_and(|switch| switch.is_in_force(now)) {
                stopped.stop = Stop::Hold;
            }
            return Some(stopped);
        }
        let respond = &route.respond;
        let owner = respond.owner.clone().unwrap_or_else(|| format!("source:{}", route.source));
        let needed = [self.alias(&respond.model, app, now), self.stopped(SwitchKind::Owner, &owner, now)];
        // What is refused will not come back by waiting for the other.
        let (refused, held): (Vec<_>, Vec<_>) =
            needed.into_iter().flatten().partition(|stopped| stopped.stop == Stop::Refuse);
        refused.into_iter().chain(held).next()
    }

    fn alias(&self, alias: &str, app: &AppConfig, now: Timestamp) -> Option<Stopped> {
        let deployments = app.models.get(alias).map(|model| model.deployments.as_slice()).unwrap_or_default();
        self.model(alias, deployments.iter().map(String::as_str), now)
    }

    /// Turns in the queue that wait now.
    pub fn held_turns<'m, D: IntoIterator<Item = &'m str>>(
        &self,
        models: impl IntoIterator<Item = (&'m str, D)>,
        now: Timestamp,
    ) -> TurnsHeld {
        let is_held = |stopped: Option<Stopped>| stopped.is_some_and(|stopped| stopped.stop == Stop::Hold);
        let models = models
            .into_iter()
            .filter_map(|(alias, deployments)| {
                is_held(self.model(alias, deployments, now)).then(|| alias.to_owned())
            })
            .collect();
        let owners = self.owners.keys();
        let owners =
            owners.filter(|owner| is_held(self.stopped(SwitchKind::Owner, owner, now))).cloned().collect();
        TurnsHeld { models, owners }
    }
}
