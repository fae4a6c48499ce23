//! `GET /v1/usage`: what was used and what it cost, by UTC day, and how the day's budget stands.

use std::sync::Arc;

use colloquy::config::Scope;
use colloquy::database::responses::{Order, PageOf};
use colloquy::database::spending::{
    self, BudgetFilter, BudgetStatus, FIRST_DAY, MOST_BUDGETS, MOST_DAYS, UsageCursor, UsageDay, UsageFilter,
};
use colloquy::llm::spend::today;
use colloquy::openresponses::{ApiError, excerpt};
use jiff::ToSpan;
use jiff::civil::Date;
use serde_json::{Value, json};
use warp::reply::Response;

use crate::app::App;
use crate::http::Request;
use crate::responses::{order, unknown_parameter};

/// Days that are given if none are asked for.
const USUAL_DAYS: i32 = 30;

/// Whose usage of which days, both included.
pub struct Wanted {
    from: Date,
    to: Date,
    /// `None`: everybody's.
    pub owner: Option<String>,
    /// The key that asks, whose budget is shown beside its owner's.
    own_key: Option<String>,
    pub api_key: Option<String>,
    pub model: Option<String>,
    after: Option<UsageCursor>,
    limit: u32,
    order: Order,
}

impl Default for Wanted {
    /// Everybody's of the last days.
    fn default() -> Self {
        let today = today();
        let from = today.saturating_sub(USUAL_DAYS.days());
        Self {
            from,
            to: today,
            owner: None,
            own_key: None,
            api_key: None,
            model: None,
            after: None,
            limit: MOST_DAYS,
            order: Order::Descending,
        }
    }
}

impl Wanted {
    /// Takes what both routes know out of a query: days, and which part of the list.
    pub fn take(&mut self, name: &str, value: &str) -> Result<(), ApiError> {
        match name {
            "from" => self.from = day("from", value)?,
            "to" => self.to = day("to", value)?,
            "after" => {
                let message = format!("No row '{}': expected a 'last_id' of this list.", excerpt(value));
                self.after = Some(value.parse().map_err(|()| ApiError::invalid_value("after", message))?);
            }
            "limit" => {
                let message =
                    format!("Invalid 'limit': expected 1 to {MOST_DAYS}, not '{}'.", excerpt(value));
                let limit = value.parse().ok().filter(|limit| (1..=MOST_DAYS).contains(limit));
                self.limit = limit.ok_or_else(|| ApiError::invalid_value("limit", message))?;
            }
            "order" => self.order = order(value)?,
            other => return Err(unknown_parameter(other)),
        }
        Ok(())
    }
}

/// Days `from` and `to` (`2026-01-31`, both included; default the last 30). Operators may ask for `owner=*`.
pub async fn get(app: &Arc<App>, request: Request) -> Result<Response, ApiError> {
    let who = app.authenticate(&request.headers).await?;
    let own_key = (!who.is_token).then(|| who.key.clone());
    let mut wanted = Wanted { owner: Some(who.owner.clone()), own_key, ..Wanted::default() };
    for (name, value) in request.params() {
        match &*name {
            "owner" if value == "*" => wanted.owner = None,
            "owner" => {
                let message = "Supported values are: '*', for operators. Leave it out for your own usage.";
                return Err(ApiError::invalid_value("owner", message));
            }
            name => wanted.take(name, &value)?,
        }
    }
    if wanted.owner.is_none() {
        app.require(&who, Scope::Operator)?;
    }
    answer(app, &wanted).await
}

/// What was used, and how today's budgets stand.
pub async fn answer(app: &Arc<App>, wanted: &Wanted) -> Result<Response, ApiError> {
    let Wanted { from, to, owner, own_key, api_key, model, after, limit, order } = wanted;
    let client = app.client().await?;
    let owner = owner.as_deref();
    let (api_key, model) = (api_key.as_deref(), model.as_deref());
    let filter = UsageFilter { owner, api_key, model, from: *from, to: *to };
    let page = PageOf { after: after.as_ref(), limit: *limit, order: *order };
    let days = spending::by_day(&client, &filter, page).await.map_err(App::away)?;
    let budgets = match owner {
        Some(owner) => {
            spending::budgets(&client, today(), owner, own_key.as_deref()).await.map_err(App::away)?
        }
        None => {
            let all = BudgetFilter::default();
            spending::standing(&client, today(), all, None, MOST_BUDGETS).await.map_err(App::away)?.entries
        }
    };
    let budgets: Vec<Value> = budgets.iter().map(budget).collect();
    let data: Vec<Value> = days.entries.iter().map(shown).collect();
    let id = |day: &UsageDay| day.cursor().to_string();
    Ok(crate::http::json(&json!({
        "object": "list", "from": from, "to": to,
        "first_id": days.entries.first().map(id), "last_id": days.entries.last().map(id),
        "data": data, "has_more": days.has_more, "budgets": budgets,
    })))
}

/// A budget as it is shown.
pub fn budget(status: &BudgetStatus) -> Value {
    json!({
        "scope": status.budget.scope.as_str(),
        "subject": &*status.budget.subject,
        "day": status.budget.day,
        "limit_micros": status.limit,
        "spent_micros": status.spent,
        "held_micros": status.held,
        "free_micros": status.free,
    })
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

/// A day out of a query.
pub fn day(name: &str, text: &str) -> Result<Date, ApiError> {
    let message = format!("Invalid '{name}': expected a day such as 2026-01-31, not '{}'.", excerpt(text));
    let day: Result<Date, _> = text.parse();
    day.map(|day| day.max(FIRST_DAY)).map_err(|_| ApiError::invalid_value(name, message))
}
