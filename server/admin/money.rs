//! `/admin/budgets` and `/admin/usage`: how the day's money stands, and what was used by whom.

use std::sync::Arc;

use colloquy::config::app::{BudgetConfig, BudgetsConfig};
use colloquy::database::spending::{self, BudgetFilter, BudgetStatus, MOST_BUDGETS};
use colloquy::llm::spend::{Scope, today};
use colloquy::openresponses::{ApiError, excerpt};
use http::Method;
use serde_json::{Map, Value, json};
use warp::reply::Response;

use crate::app::App;
use crate::http::Request;
use crate::responses::unknown_parameter;
use crate::routes::not_allowed;
use crate::usage::{self, Wanted, budget};

/// The part of the map under `/admin/budgets`.
pub async fn budgets(
    app: &Arc<App>,
    request: Request,
    rest: &[&str],
) -> (&'static str, Result<Response, ApiError>) {
    match (request.method.clone(), rest) {
        (Method::GET, []) => ("admin.budgets.list", all_budgets(app, request).await),
        (_, []) => ("admin.budgets", Err(not_allowed("GET"))),
        _ => ("unknown", Err(ApiError::not_found("Path", "/admin/budgets"))),
    }
}

/// The part of the map under `/admin/usage`.
pub async fn all_usage(
    app: &Arc<App>,
    request: Request,
    rest: &[&str],
) -> (&'static str, Result<Response, ApiError>) {
    match (request.method.clone(), rest) {
        (Method::GET, []) => ("admin.usage", by_day(app, request).await),
        (_, []) => ("admin.usage", Err(not_allowed("GET"))),
        _ => ("unknown", Err(ApiError::not_found("Path", "/admin/usage"))),
    }
}

/// Budgets that were drawn from on a day, and the limits of `colloquy.toml`, which only a deployment changes.
async fn all_budgets(app: &Arc<App>, request: Request) -> Result<Response, ApiError> {
    let mut day = today();
    let (mut scope, mut subject, mut after, mut limit) = (None, None, None, MOST_BUDGETS);
    for (name, value) in request.params() {
        match &*name {
            "day" => day = usage::day("day", &value)?,
            "scope" => {
                let message = "Supported values are: 'total', 'owner' and 'key'.";
                let known = Scope::parse(&value).ok_or_else(|| ApiError::invalid_value("scope", message));
                scope = Some(known?);
            }
            "subject" => subject = Some(value.into_owned()),
            "after" => {
                let message = format!("No budget '{}': expected 'scope/subject'.", excerpt(&value));
                let named = value
                    .split_once('/')
                    .and_then(|(scope, subject)| Some((Scope::parse(scope)?, subject.to_owned())));
                after = Some(named.ok_or_else(|| ApiError::invalid_value("after", message))?);
            }
            "limit" => {
                let most = MOST_BUDGETS;
                let message = format!("Invalid 'limit': expected 1 to {most}, not '{}'.", excerpt(&value));
                let wanted = value.parse().ok().filter(|limit| (1..=most).contains(limit));
                limit = wanted.ok_or_else(|| ApiError::invalid_value("limit", message))?;
            }
            other => return Err(unknown_parameter(other)),
        }
    }
    let client = app.client().await?;
    let filter = BudgetFilter { scope, subject: subject.as_deref() };
    let after = after.as_ref().map(|(scope, subject)| (*scope, subject.as_str()));
    let drawn = spending::standing(&client, day, filter, after, limit).await.map_err(App::away)?;
    let data: Vec<Value> = drawn.entries.iter().map(budget).collect();
    let id = |status: &BudgetStatus| format!("{}/{}", status.budget.scope, status.budget.subject);
    Ok(crate::http::json(&json!({
        "object": "list", "day": day,
        "first_id": drawn.entries.first().map(id), "last_id": drawn.entries.last().map(id),
        "data": data, "has_more": drawn.has_more,
        "configured": configured(&app.config.app.budgets),
    })))
}

fn configured(budgets: &BudgetsConfig) -> Value {
    let named = |all: &std::collections::BTreeMap<String, BudgetConfig>| -> Map<String, Value> {
        all.iter().map(|(name, budget)| (name.clone(), budget.per_day.into())).collect()
    };
    json!({
        "total_micros": budgets.total,
        "each_owner_micros": budgets.each_owner,
        "each_key_micros": budgets.each_key,
        "owners_micros": named(&budgets.owners),
        "keys_micros": named(&budgets.keys),
    })
}

/// As `GET /v1/usage`, of everybody or of one owner, key, model.
async fn by_day(app: &Arc<App>, request: Request) -> Result<Response, ApiError> {
    let mut wanted = Wanted::default();
    for (name, value) in request.params() {
        match &*name {
            "owner" => wanted.owner = Some(value.into_owned()),
            "api_key" => wanted.api_key = Some(value.into_owned()),
            "model" => wanted.model = Some(value.into_owned()),
            name => wanted.take(name, &value)?,
        }
    }
    usage::answer(app, &wanted).await
}
