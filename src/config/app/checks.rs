//! What has to hold between the parts of `colloquy.toml`.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::walk::Walk;
use super::{ActionKind, AppConfig, AuthConfig, RouteConfig, SourceConfig, SourceKind, respond};

/// What the file names, whether or not the rest of it is right: a mistake inside a source must not make every route
/// to it a second one.
pub(super) struct Names {
    pub sources: BTreeSet<String>,
    pub targets: BTreeSet<String>,
    pub models: BTreeSet<String>,
}

pub(super) fn check(
    walk: &mut Walk<'_>,
    app: &AppConfig,
    names: &Names,
    routes_at: &[usize],
    job_kinds: &[&str],
) {
    for (name, config) in &app.sources {
        source(walk, &format!("sources.{name}"), config);
    }
    for (name, config) in &app.targets {
        plain_http(walk, &format!("targets.{name}"), config.allow_http, &config.allow_networks);
        if config.prefix && config.url.contains('?') {
            walk.mistake(&format!("targets.{name}.prefix"), "needs a url without a query");
        }
    }
    let mut seen = BTreeSet::new();
    for (config, at) in app.routes.iter().zip(routes_at) {
        let path = format!("routes[{at}]");
        route(walk, &path, config, names, job_kinds);
        let responds = config.action == ActionKind::Respond;
        respond::check(walk, &path, config, app, (&names.targets, &names.models), responds);
        if !seen.insert(config.name.as_str()) {
            walk.mistake(&format!("{path}.name"), format!("{:?} is taken by a route before it", config.name));
        }
    }
}

/// Kinds whose signature covers the body, so that a credential beside it would only seem to matter.
fn signs_bodies(kind: SourceKind) -> bool {
    match kind {
        SourceKind::Stripe
        | SourceKind::StandardWebhooks
        | SourceKind::Github
        | SourceKind::Espocrm
        | SourceKind::Hmac => true,
        SourceKind::EventGrid
        | SourceKind::AzureMonitor
        | SourceKind::AzureDevops
        | SourceKind::Sailpoint
        | SourceKind::Runpod
        | SourceKind::Bearer
        | SourceKind::Basic => false,
    }
}

fn source(walk: &mut Walk<'_>, path: &str, config: &SourceConfig) {
    let generic = matches!(config.kind, SourceKind::Hmac | SourceKind::Bearer | SourceKind::Basic);
    let misplaced = [
        ("hmac", config.hmac.is_some() && config.kind != SourceKind::Hmac, "kind = \"hmac\""),
        (
            "sailpoint",
            config.sailpoint.is_some() && config.kind != SourceKind::Sailpoint,
            "kind = \"sailpoint\"",
        ),
        (
            "subscriptions",
            !config.subscriptions.is_empty() && config.kind != SourceKind::EventGrid,
            "kind = \"event-grid\"",
        ),
        ("event", config.event.is_some() && !generic, "the kinds hmac, bearer and basic"),
        (
            "auth",
            config.auth.is_some() && signs_bodies(config.kind),
            "kinds whose sender does not sign the body",
        ),
    ];
    for (key, _, belongs) in misplaced.iter().filter(|(_, wrong, _)| *wrong) {
        walk.mistake(&format!("{path}.{key}"), format!("belongs only to {belongs}"));
    }
    if let Some(sailpoint) = &config.sailpoint {
        plain_http(walk, &format!("{path}.sailpoint"), sailpoint.allow_http, &sailpoint.allow_networks);
    }
    match (&config.hmac, config.kind) {
        (None, SourceKind::Hmac) => {
            walk.mistake(
                &format!("{path}.hmac"),
                "is missing; kind = \"hmac\" needs a table with at least header",
            );
        }
        (Some(hmac), SourceKind::Hmac) => {
            let place = format!("{path}.hmac.signed");
            if !hmac.signed.contains("{body}") {
                walk.mistake(&place, "does not contain {body}; the body would not be protected");
            }
            if hmac.signed.contains("{timestamp}") && hmac.timestamp_header.is_none() {
                walk.mistake(&place, "contains {timestamp}, which needs timestamp_header");
            }
            if hmac.timestamp_header.is_some() && !hmac.signed.contains("{timestamp}") {
                let place = format!("{path}.hmac.timestamp_header");
                walk.mistake(&place, "is not protected by the signature; put {timestamp} into signed");
            }
        }
        _ => {}
    }
    let wanted = match config.kind {
        SourceKind::Bearer => "bearer",
        SourceKind::Basic => "basic",
        _ => return,
    };
    let contradicts = match &config.auth {
        Some(AuthConfig::Basic {}) => config.kind == SourceKind::Bearer,
        Some(AuthConfig::Bearer {}) => config.kind == SourceKind::Basic,
        _ => false,
    };
    if contradicts {
        walk.mistake(&format!("{path}.auth"), format!("contradicts kind = \"{wanted}\""));
    }
}

fn plain_http(walk: &mut Walk<'_>, path: &str, allow_http: bool, allow_networks: &[IpNet]) {
    if allow_http && allow_networks.is_empty() {
        let problem = "needs allow_networks: plain http is taken only towards named private networks";
        walk.mistake(&format!("{path}.allow_http"), problem);
    }
}

fn route(walk: &mut Walk<'_>, path: &str, config: &RouteConfig, names: &Names, job_kinds: &[&str]) {
    if !names.sources.contains(&config.source) {
        walk.mistake(&format!("{path}.source"), format!("there is no [sources.{}]", config.source));
    }
    let (wants_target, wants_job) = match config.action {
        ActionKind::Record | ActionKind::Respond => (false, false),
        ActionKind::Forward => (true, false),
        ActionKind::Job => (false, true),
    };
    let place = format!("{path}.target");
    match &config.target {
        None if wants_target => walk.mistake(&place, "is missing; action = \"forward\" needs one"),
        Some(_) if !wants_target => walk.mistake(&place, "belongs only to action = \"forward\""),
        Some(target) if !names.targets.contains(target) => {
            walk.mistake(&place, format!("there is no [targets.{target}]"));
        }
        _ => {}
    }
    let place = format!("{path}.job");
    match &config.job {
        None if wants_job => walk.mistake(&place, "is missing; action = \"job\" needs one"),
        Some(_) if !wants_job => walk.mistake(&place, "belongs only to action = \"job\""),
        Some(job) if !job_kinds.contains(&job.as_str()) => {
            walk.mistake(
                &place,
                format!("{job:?} is no known kind of job; there are: {}", job_kinds.join(", ")),
            );
        }
        _ => {}
    }
}
