//! `/admin`: what operators see and change; the same is there as commands. One file per group of routes.

mod grants;
mod keys;

use std::sync::Arc;

use colloquy::access::Principal;
use colloquy::config::Scope;
use colloquy::database::audit::Actor;
use colloquy::openresponses::{ApiError, parse};
use serde::de::DeserializeOwned;
use warp::reply::Response;

use crate::app::App;
use crate::http::Request;
use crate::routes::unknown;

/// The part of the map under `/admin`. `rest` is what follows it. Who is no operator learns nothing of it but that.
pub async fn dispatch(
    app: &Arc<App>,
    request: Request,
    rest: &[&str],
) -> (&'static str, Result<Response, ApiError>) {
    let operator = match Operator::of(app, &request).await {
        Ok(operator) => operator,
        Err(error) => return ("admin", Err(error)),
    };
    match rest {
        ["grants", rest @ ..] => grants::dispatch(app, &operator, request, rest).await,
        ["keys", rest @ ..] => keys::dispatch(app, &operator, request, rest).await,
        _ => ("unknown", Err(unknown(&request.method, &format!("/admin/{}", rest.join("/"))))),
    }
}

/// A caller with the scope `operator`. Whoever holds one was let in.
pub struct Operator {
    name: String,
}

impl Operator {
    async fn of(app: &Arc<App>, request: &Request) -> Result<Self, ApiError> {
        let who: Arc<Principal> = app.authenticate(&request.headers).await?;
        app.require(&who, Scope::Operator)?;
        Ok(Self { name: who.actor() })
    }

    /// As the audit row of a change names who made it, and why.
    pub fn because<'a>(&'a self, reason: Option<&'a str>) -> Actor<'a> {
        Actor { name: &self.name, reason }
    }
}

/// The JSON body of a request that may come without one.
async fn body_or_default<T: DeserializeOwned + Default>(request: &mut Request) -> Result<T, ApiError> {
    let body = request.json_bytes().await?;
    if body.is_empty() { Ok(T::default()) } else { parse(&body) }
}
