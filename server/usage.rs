//! `GET /v1/usage`: what was used and what it cost, by UTC day, and how the day's budget stands.

use std::sync::Arc;

use colloquy::config::Scope;
use colloquy::database::spending::{self, UsageDay};
use colloquy::openresponses::{ApiError, excerpt};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};
use warp::reply::Response;

use crate::app::App;
use crate::http::Request;
use crate::responses::unknown_parameter;

/// Days that are given if none are asked for.
const USUAL_DAYS: i32 = 30;

/// Days `from` and `to` (`2026-01-31`, both included; default the last 30). Operators may ask for `owner=*`.
pub async fn get(app: &Arc<App>, request: Request) -> Result<Response, ApiError> {
    let who = app.authenticate(&request.headers).await?;
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let (mut from, mut to) = (today.saturating_sub(USUAL_DAYS.days()), today);
    let mut everybody = false;
    for (name, value) in request.params() {
        match &*name {
            "from" => from = day("from", &value)?,
            "to" => to = day("to", &value)?,
            "owner" if value == "*" => everybody = true,
            "owner" => {
                let message = "Supported values are: '*', for operators. Leave it out for your own usage.";
                return Err(ApiError::invalid_value("owner", message));
            }
            other => return Err(unknown_parameter(other)),
        }
    }
    if everybody {
        app.require(&who, Scope::Operator)?;
    }
    let owner = (!everybody).then_some(who.owner.as_str());
    let client = app.client().await?;
    let days = spending::by_day(&client, owner, from, to).await.map_err(App::away)?;
    let budgets = spending::budgets(&client, today, owner).await.map_err(App::away)?;
    let budgets: Vec<Value> = budgets
        .iter()
        .map(|status| {
            json!({
                "scope": status.budget.scope.as_str(),
                "subject": &*status.budget.subject,
                "day": status.budget.day,
                "limit_micros": status.limit,
                "spent_micros": status.spent,
                "held_micros": status.held,
                "free_micros": status.free,
            })
        })
        .collect();
    let data: Vec<Value> = days.iter().map(shown).collect();
    Ok(crate::http::json(
        &json!({ "object": "list", "from": from, "to": to, "data": data, "budgets": budgets }),
    ))
}

fn shown(day: &UsageDay) -> Value {
    json!({
        "object": "usage.day",
        "owner": day.owner,
        "day": day.day,
        "model": day.model,
        "deployment": day.deployment,
        "provider": day.provider,
        "api_key": day.api_key,
        "attempts": day.attempts,
        "turns": day.turns,
        "input_tokens": day.input_tokens,
        "cached_tokens": day.cached_tokens,
        "cache_written_tokens": day.cache_written_tokens,
        "output_tokens": day.output_tokens,
        "reasoning_tokens": day.reasoning_tokens,
        "cost_micros": day.cost_micros,
        "estimated_cost_micros": day.estimated_cost_micros,
    })
}

fn day(name: &str, text: &str) -> Result<Date, ApiError> {
    let message = format!("Invalid '{name}': expected a day such as 2026-01-31, not '{}'.", excerpt(text));
    text.parse().map_err(|_| ApiError::invalid_value(name, message))
}
