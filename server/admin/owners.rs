//! `/admin/owners`: what is somebody's, for when they ask: counted, read out, deleted.

use std::sync::Arc;

use colloquy::database::owners::EXPORTS;
use colloquy::openresponses::{ApiError, excerpt};
use colloquy::operations::Operations;
use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use warp::reply::Response;

use super::{Operator, body_or_default, failed};
use crate::app::App;
use crate::grants::decoded;
use crate::http::Request;
use crate::responses::{Page, unknown_parameter};
use crate::routes::not_allowed;

/// The part of the map under `/admin/owners`. An owner's name is URL-encoded: it may hold anything.
pub async fn dispatch(
    app: &Arc<App>,
    operator: &Operator,
    request: Request,
    rest: &[&str],
) -> (&'static str, Result<Response, ApiError>) {
    match (request.method.clone(), rest) {
        (Method::GET, [owner]) => ("admin.owners.get", get(app, &decoded(owner)).await),
        (Method::DELETE, [owner]) => {
            ("admin.owners.delete", delete(app, operator, request, &decoded(owner)).await)
        }
        (_, [_]) => ("admin.owners", Err(not_allowed("GET, DELETE"))),
        (Method::GET, [owner, "export"]) => {
            ("admin.owners.export", export(app, operator, request, &decoded(owner)).await)
        }
        (_, [_, "export"]) => ("admin.owners", Err(not_allowed("GET"))),
        _ => ("unknown", Err(ApiError::not_found("Path", "/admin/owners"))),
    }
}

async fn get(app: &Arc<App>, owner: &str) -> Result<Response, ApiError> {
    Ok(crate::http::json(&app.operations.owner(owner).await.map_err(failed)?))
}

/// Some lines of one file; audited with the first of each file.
async fn export(
    app: &Arc<App>,
    operator: &Operator,
    request: Request,
    owner: &str,
) -> Result<Response, ApiError> {
    let (mut file, mut reason) = (None, None);
    let page = Page::with(&request, |name, value| {
        match name {
            "file" => file = Some(value.to_owned()),
            "reason" => reason = Some(value.to_owned()),
            other => return Err(unknown_parameter(other)),
        }
        Ok(())
    })?;
    let file = file.ok_or_else(|| ApiError::missing("file"))?;
    let export = Operations::export(&file).ok_or_else(|| {
        let names: Vec<&str> = EXPORTS.iter().map(|export| export.name).collect();
        let message = format!("Invalid 'file': '{}'; there is {}.", excerpt(&file), names.join(", "));
        ApiError::invalid_value("file", message)
    })?;
    if let Some(after) = page.after.as_deref().filter(|after| !export.has_key(after)) {
        let message =
            format!("Invalid 'after': expected the 'last_id' of the page before, not '{}'.", excerpt(after));
        return Err(ApiError::invalid_value("after", message));
    }
    if page.after.is_none() {
        let actor = operator.because(reason.as_deref());
        app.operations.audit_export(owner, &export.name, actor).await.map_err(failed)?;
    }
    let limit = i64::from(page.limit);
    let found = app.operations.export_page(owner, export, page.after.as_deref(), limit).await;
    let found = found.map_err(failed)?;
    let lines: Vec<&RawValue> =
        found.lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    Ok(crate::http::json(&json!({
        "object": "list",
        "data": lines,
        "last_id": found.last,
        // Of a file whose lines end here the next page has none.
        "has_more": i64::try_from(found.lines.len()).unwrap_or(limit) >= limit,
    })))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Delete {
    cancel: bool,
    dry_run: bool,
    reason: Option<String>,
}

async fn delete(
    app: &Arc<App>,
    operator: &Operator,
    mut request: Request,
    owner: &str,
) -> Result<Response, ApiError> {
    let wanted: Delete = body_or_default(&mut request).await?;
    if wanted.dry_run {
        let shown = app.operations.owner(owner).await.map_err(failed)?;
        let mut shown = serde_json::to_value(&shown).map_err(|_| ApiError::internal())?;
        shown["dry_run"] = Value::Bool(true);
        return Ok(crate::http::json(&shown));
    }
    let actor = operator.because(wanted.reason.as_deref());
    let erased = app.operations.erase_owner(owner, wanted.cancel, actor).await.map_err(failed)?;
    let complete = erased.is_complete();
    Ok(crate::http::json(&json!({
        "owner": owner, "before": erased.before, "after": erased.after, "complete": complete,
    })))
}
