//! `/admin/audit`: who changed what.

use std::sync::Arc;

use colloquy::database::inspect::{self, AuditFilter};
use colloquy::openresponses::ApiError;
use http::Method;
use uuid::Uuid;
use warp::reply::Response;

use super::{instant, page_of};
use crate::app::App;
use crate::http::{Request, list};
use crate::responses::{Page, unknown_parameter};
use crate::routes::not_allowed;

/// The part of the map under `/admin/audit`.
pub async fn dispatch(
    app: &Arc<App>,
    request: Request,
    rest: &[&str],
) -> (&'static str, Result<Response, ApiError>) {
    match (request.method.clone(), rest) {
        (Method::GET, []) => ("admin.audit.list", index(app, request).await),
        (_, []) => ("admin.audit", Err(not_allowed("GET"))),
        _ => ("unknown", Err(ApiError::not_found("Path", "/admin/audit"))),
    }
}

async fn index(app: &Arc<App>, request: Request) -> Result<Response, ApiError> {
    let mut filter = AuditFilter::default();
    let page = Page::with(&request, |name, value| {
        match name {
            "actor" => filter.actor = Some(value.to_owned()),
            "action" => filter.action = Some(value.to_owned()),
            "subject" => filter.subject = Some(value.to_owned()),
            "since" => filter.since = instant("since", value)?,
            other => return Err(unknown_parameter(other)),
        }
        Ok(())
    })?;
    let page = page_of::<Uuid>("audit row", &page)?;
    let found = inspect::audit(&app.client().await?, &filter, page).await.map_err(App::away)?;
    Ok(list(&found.entries, |row| row.id, found.has_more))
}
