//! Routes: which work follows from an event.

use std::collections::BTreeMap;

use crate::config::app::{ActionKind, RouteConfig};
use crate::ids::{CallbackId, EventId, JobId};
use crate::jobs::kinds::JobKind;

/// The routes of `colloquy.toml`, by source.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    by_source: BTreeMap<String, Vec<RouteConfig>>,
}

/// Work to be written down with the event that causes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub jobs: Vec<PlannedJob>,
    pub callbacks: Vec<PlannedCallback>,
}

/// A row of `jobs` to be.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedJob {
    pub id: JobId,
    pub event: EventId,
    pub route: String,
    pub kind: String,
}

/// A row of `callbacks` to be.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedCallback {
    pub id: CallbackId,
    pub event: EventId,
    pub route: String,
    pub target: String,
}

impl Routes {
    pub fn new(routes: &[RouteConfig]) -> Self {
        let mut by_source: BTreeMap<String, Vec<RouteConfig>> = BTreeMap::new();
        for route in routes {
            by_source.entry(route.source.clone()).or_default().push(route.clone());
        }
        Self { by_source }
    }

    /// What an event of a source and type causes.
    ///
    /// `config::app` has refused a `forward` without target and a `job` without kind, so a route that lacks its
    /// object does nothing here.
    pub fn plan(&self, source: &str, event_type: &str, event: EventId, plan: &mut Plan) {
        let routes = self.by_source.get(source).map(Vec::as_slice).unwrap_or_default();
        for route in routes.iter().filter(|route| matches(&route.event_type, event_type)) {
            match (route.action, &route.job, &route.target) {
                (ActionKind::Job, Some(kind), _) => plan.jobs.push(PlannedJob {
                    id: JobId::new(),
                    event,
                    route: route.name.clone(),
                    kind: kind.clone(),
                }),
                (ActionKind::Forward, _, Some(target)) => plan.callbacks.push(PlannedCallback {
                    id: CallbackId::new(),
                    event,
                    route: route.name.clone(),
                    target: target.clone(),
                }),
                (ActionKind::Respond, ..) => plan.jobs.push(PlannedJob {
                    id: JobId::new(),
                    event,
                    route: route.name.clone(),
                    kind: JobKind::Respond.as_str().to_owned(),
                }),
                _ => {}
            }
        }
    }
}

/// Whether a type matches a pattern in which `*` stands for any run of characters, none included.
pub fn matches(pattern: &str, event_type: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| event_type.strip_prefix(first)) else {
        return false;
    };
    let mut open = false;
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        open = true;
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    open || rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::app::RespondConfig;

    #[test]
    fn patterns() {
        for (pattern, event_type, expected) in [
            ("*", "", true),
            ("*", "invoice.paid", true),
            ("invoice.paid", "invoice.paid", true),
            ("invoice.paid", "invoice.paid.late", false),
            ("invoice.*", "invoice.paid", true),
            ("invoice.*", "customer.created", false),
            ("*.created", "customer.created", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxc", false),
            ("ab*ba", "aba", false),
            ("a**b", "ab", true),
        ] {
            assert_eq!(matches(pattern, event_type), expected, "{pattern} on {event_type}");
        }
    }

    #[test]
    fn every_matching_route_applies_and_record_alone_causes_nothing() {
        let route =
            |name: &str, pattern: &str, action, job: Option<&str>, target: Option<&str>| RouteConfig {
                name: name.into(),
                source: "stripe".into(),
                event_type: pattern.into(),
                action,
                job: job.map(Into::into),
                target: target.map(Into::into),
                respond: RespondConfig::default(),
                position: 0,
            };
        let routes = Routes::new(&[
            route("count", "*", ActionKind::Job, Some("count-event"), None),
            route("tell", "invoice.*", ActionKind::Forward, None, Some("billing")),
            route("keep", "*", ActionKind::Record, None, None),
            route("answer", "*.disputed", ActionKind::Respond, None, None),
        ]);
        let mut plan = Plan::default();
        routes.plan("stripe", "invoice.paid", EventId::new(), &mut plan);
        assert_eq!((plan.jobs.len(), plan.callbacks.len()), (1, 1));
        routes.plan("stripe", "customer.created", EventId::new(), &mut plan);
        assert_eq!((plan.jobs.len(), plan.callbacks.len()), (2, 1));
        routes.plan("github", "push", EventId::new(), &mut plan);
        assert_eq!((plan.jobs.len(), plan.callbacks.len()), (2, 1));
        routes.plan("stripe", "charge.disputed", EventId::new(), &mut plan);
        let kinds: Vec<&str> = plan.jobs.iter().map(|job| job.kind.as_str()).collect();
        assert_eq!(kinds, ["count-event", "count-event", "count-event", "respond"]);
    }
}
