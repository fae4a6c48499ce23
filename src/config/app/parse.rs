//! From the text of `colloquy.toml` to an [`AppConfig`], with every mistake of the file in one run.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use toml::de::DeTable;

use super::checks::{self, Names};
use super::models;
use super::places::position;
use super::shape::FILE;
use super::walk::Walk;
use super::{ActionKind, AppConfig, RouteConfig};
use crate::config::{Environment, Mistake};

pub(super) fn parse(
    text: &str,
    environment: Option<&dyn Environment>,
    job_kinds: &[&str],
) -> Result<AppConfig, Vec<Mistake>> {
    let (document, broken) = DeTable::parse_recoverable(text);
    if !broken.is_empty() {
        let mut syntax: Vec<Mistake> = broken
            .into_iter()
            .map(|error| Mistake {
                place: "colloquy.toml".to_owned(),
                position: error.span().map(|span| position(text, span.start)),
                problem: error.message().to_owned(),
            })
            .collect();
        syntax.sort_by_key(|mistake| mistake.position);
        return Err(syntax);
    }
    let mut walk = Walk::new(text, environment);
    let file = walk.table("", document.span(), document.get_ref(), FILE);

    let names = Names {
        sources: keys(file.get("sources")),
        targets: keys(file.get("targets")),
        models: keys(file.get("models")),
    };
    let mut app = AppConfig::default();
    app.sources.extend(sections(&mut walk, "sources", file.get("sources")));
    app.targets.extend(sections(&mut walk, "targets", file.get("targets")));
    app.deployments.extend(sections(&mut walk, "deployments", file.get("deployments")));
    app.models.extend(sections(&mut walk, "models", file.get("models")));
    if let Some(budgets) = file.get("budgets") {
        app.budgets = section(&mut walk, "budgets", budgets).unwrap_or_default();
    }
    if let Some(retention) = file.get("retention") {
        app.retention = section(&mut walk, "retention", retention).unwrap_or_default();
    }
    if let Some(features) = file.get("features") {
        app.features = section(&mut walk, "features", features).unwrap_or_default();
    }
    let deployments = keys(file.get("deployments"));
    let mut routes_at = Vec::new();
    for (at, value) in file.get("routes").and_then(Value::as_array).into_iter().flatten().enumerate() {
        if let Some(mut route) = section::<RouteConfig>(&mut walk, &format!("routes[{at}]"), value) {
            if route.name.is_empty() {
                route.name = format!("{}-{}-{at}", route.source, word(route.action));
            }
            route.position = at;
            app.routes.push(route);
            routes_at.push(at);
        }
    }
    checks::check(&mut walk, &app, &names, &routes_at, job_kinds);
    models::check(&mut walk, &app, &deployments, &names.models);
    let mut mistakes = walk.mistakes;
    if mistakes.is_empty() {
        app.unset_for_models = walk.unset_for_models;
        return Ok(app);
    }
    mistakes.sort_by_key(|mistake| mistake.position);
    Err(mistakes)
}

fn keys(table: Option<&Value>) -> std::collections::BTreeSet<String> {
    table.and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

fn sections<T: DeserializeOwned>(walk: &mut Walk<'_>, path: &str, table: Option<&Value>) -> Vec<(String, T)> {
    let tables: Option<&Map<String, Value>> = table.and_then(Value::as_object);
    let each = tables.into_iter().flatten();
    each.filter_map(|(name, value)| Some((name.clone(), section(walk, &format!("{path}.{name}"), value)?)))
        .collect()
}

/// A section whose keys passed one by one. What is still refused here was noted key by key, if it was noted at all.
fn section<T: DeserializeOwned>(walk: &mut Walk<'_>, path: &str, value: &Value) -> Option<T> {
    match serde_path_to_error::deserialize(value) {
        Ok(section) => Some(section),
        Err(error) => {
            let below =
                |place: &str| place.strip_prefix(path).is_some_and(|rest| rest.starts_with(['.', '[']));
            if !walk.mistakes.iter().any(|mistake| below(&mistake.place)) {
                walk.mistake(&format!("{path}.{}", error.path()), "is not as expected");
            }
            None
        }
    }
}

fn word(action: ActionKind) -> &'static str {
    match action {
        ActionKind::Record => "record",
        ActionKind::Forward => "forward",
        ActionKind::Job => "job",
        ActionKind::Respond => "respond",
    }
}

#[cfg(test)]
mod tests;
