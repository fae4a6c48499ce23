//! `/admin/budgets` and `/admin/usage`: how the day's money stands, and what was used by whom.

use std::sync::Arc;

use colloquy::config::app::{BudgetConfig, BudgetsConfig};
use colloquy::database::spending;
use colloquy::openresponses::ApiError;
use http::Method;
use jiff::Timestamp;
use jiff::tz::TimeZone;
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
    let mut day = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let (mut scope, mut subject) = (None, None);
    for (name, value) in request.params() {
        match &*name {
            "day" => day = usage::day("day", &value)?,
            "scope" if ["total", "owner", "key"].contains(&&*value) => scope = Some(value.into_owned()),
            "scope" => {
                let message = "Supported values are: 'total', 'owner' and 'key'.";
                return Err(ApiError::invalid_value("scope", message));
            }
            "subject" => subject = Some(value.into_owned()),
            other => return Err(unknown_parameter(other)),
        }
    }
    let client = app.client().await?;
    let mut drawn = spending::budgets(&client, day, None, None).await.map_err(App::away)?;
    drawn.retain(|status| {
        scope.as_deref().is_none_or(|scope| scope == status.budget.scope.as_str())
            && subject.as_deref().is_none_or(|subject| subject == &*status.budget.subject)
    });
    let data: Vec<Value> = drawn.iter().map(budget).collect();
    Ok(crate::http::json(&json!({
        "object": "list", "day": day, "data": data, "has_more": false,
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
            name => wanted.day(name, &value)?,
        }
    }
    usage::answer(app, &wanted).await
}
